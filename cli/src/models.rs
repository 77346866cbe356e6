//! Opening model files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use palmtop::Limits;
use palmtop::format::PalmFile;
use palmtop::model::Model;
use palmtop::system::machine;
use palmtop_hub::Library;
use palmtop_kernels::{Isa, Kernels};

use crate::args::{Load, MachineArgs, ModelArgs};
use crate::demo;
use crate::errors::{UsageError, WithHint};
use crate::interrupt;
use crate::output::Console;

/// Which model a user means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The small one that is part of the program; `true` if it was asked for.
    Demo(bool),
    /// A file.
    File(PathBuf),
}

/// The name of the model that is part of the program.
const DEMO: &str = "demo";

/// Which model a user means: a file that is there, or else a name in the folder of `palmtop models`; without any, the
/// one of that folder that was used last, and the built-in one if there is none.
pub fn choose(named: Option<&Path>, console: Console) -> anyhow::Result<Chosen> {
    let Some(named) = named else {
        let last = Library::from_environment().ok().and_then(|library| library.last_used());
        let Some((name, path)) = last else { return Ok(Chosen::Demo(false)) };
        console.note(format_args!("note: {name} answers, which was used last; -m names another"));
        return Ok(Chosen::File(path));
    };
    if named.as_os_str() == DEMO && !named.is_file() {
        return Ok(Chosen::Demo(true));
    }
    file(named).map(Chosen::File)
}

/// The file that a name stands for: one that is there, or else a model in the folder of `palmtop models`. What looks
/// like a path is one.
pub fn file(named: &Path) -> anyhow::Result<PathBuf> {
    let text = named.to_str().filter(|text| !text.contains(['/', '\\']));
    // A folder is no model: it may be the checkpoint that has the model's name.
    let (Some(name), false) = (text, named.exists() && !named.is_dir()) else { return Ok(named.to_owned()) };
    match Library::from_environment().and_then(|library| library.find(name)) {
        Ok(path) => Ok(path),
        // A file was meant, and opening it says what is wrong.
        Err(_) if name.ends_with(".palm") || name.is_empty() || named.exists() => Ok(named.to_owned()),
        Err(error) => Err(error.into()),
    }
}

/// Opens the model that [`choose`] says, and remembers one of the folder as the last that was used.
pub fn open_or_demo(args: &ModelArgs, console: Console) -> anyhow::Result<Arc<Model>> {
    open_chosen(&choose(args.model.as_deref(), console)?, args.load, console)
}

/// Opens a model that was chosen.
pub fn open_chosen(chosen: &Chosen, how: Load, console: Console) -> anyhow::Result<Arc<Model>> {
    match chosen {
        Chosen::File(path) => {
            let model = load(path, how)?;
            if model.retrieval().is_some() {
                console.note(
                    "note: this is a model for retrieval, and what it answers in words is of no use: palmtop embed makes \
                     an index of pages, and palmtop find searches it",
                );
            }
            note_used(path);
            Ok(model)
        }
        Chosen::Demo(was_asked) => demo::model(if *was_asked { console.silent() } else { console }),
    }
}

/// Opens the model that a name stands for: a file, one of the folder of `palmtop models`, or the built-in one.
pub fn open_named(named: &Path, console: Console) -> anyhow::Result<Arc<Model>> {
    match choose(Some(named), console)? {
        Chosen::File(path) => open(&path),
        Chosen::Demo(_) => demo::model(console.silent()),
    }
}

fn note_used(path: &Path) {
    if let Ok(library) = Library::from_environment() {
        library.note_used(path);
    }
}

/// How many threads sessions with these limits have.
pub fn threads(limits: &Limits) -> usize {
    limits.threads.unwrap_or_else(machine::default_threads)
}

/// Opens a model file, and brings it into memory as the user wants it.
pub fn load(path: &Path, how: Load) -> anyhow::Result<Arc<Model>> {
    if how == Load::Read {
        return open_by(path, |path| interrupt::while_waiting(|| Model::read(path)));
    }
    let model = open(path)?;
    match how {
        Load::Map | Load::Read => {}
        Load::Preload => interrupt::while_waiting(|| model.preload()),
        Load::Lock => interrupt::while_waiting(|| model.lock())?,
    }
    Ok(model)
}

/// Opens a model file.
pub fn open(path: &Path) -> anyhow::Result<Arc<Model>> {
    open_by(path, Model::open)
}

fn open_by(
    path: &Path,
    open: impl FnOnce(&Path) -> palmtop::Result<Arc<Model>>,
) -> anyhow::Result<Arc<Model>> {
    check_is_file(path)?;
    open(path).map_err(|error| match error {
        // These name the file.
        palmtop::Error::File { .. } | palmtop::Error::Io { .. } => error.into(),
        _ => anyhow::Error::new(error).context(format!("cannot use model file {}", path.display())),
    })
}

/// Opens a model file without asking whether its tensors are those of its architecture.
pub fn open_file(path: &Path) -> anyhow::Result<PalmFile> {
    check_is_file(path)?;
    Ok(PalmFile::open(path)?)
}

/// Gives clearer words for what a user may name instead of a model file.
fn check_is_file(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if path.is_dir() {
        let error = Err(anyhow!("{shown} is a folder, not a model file"));
        return if path.join("config.json").exists() {
            error.hint(format!(
                "it looks like a checkpoint; convert it: palmtop convert {shown} -o model.palm"
            ))
        } else {
            error.hint("name the .palm file itself")
        };
    }
    if !path.exists() {
        return Err(anyhow!("there is no model file {shown}"))
            .hint("palmtop models lists those that are here, and those that palmtop pull gets");
    }
    Ok(())
}

impl MachineArgs {
    /// The kernels that sessions with these arguments will use. Commands ask for them first: that the CPU lacks an
    /// instruction set is better known before minutes are spent on making a model.
    pub fn kernels(&self) -> anyhow::Result<Kernels> {
        kernels(self.isa)
    }
}

/// The kernels that `--isa` asks for, or else those of the process's default.
pub fn kernels(isa: Option<Isa>) -> anyhow::Result<Kernels> {
    let origin = if isa.is_some() { "--isa: " } else { "" };
    Kernels::new(isa).map_err(|error| UsageError(format!("{origin}{error}")).into())
}
