//! Opening model files.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use palmtop::format::PalmFile;
use palmtop::model::Model;
use palmtop_kernels::{Isa, Kernels};

use crate::args::{Load, MachineArgs, ModelArgs};
use crate::demo;
use crate::errors::{UsageError, WithHint};
use crate::interrupt;
use crate::output::Console;

/// The model that the user names, or else the small one that is part of the program.
pub fn open_or_demo(args: &ModelArgs, console: Console) -> anyhow::Result<Arc<Model>> {
    match &args.model {
        Some(path) => load(path, args.load),
        None => demo::model(console),
    }
}

/// Opens a model file, and brings it into memory as the user wants it.
fn load(path: &Path, how: Load) -> anyhow::Result<Arc<Model>> {
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
            .hint("make one from a checkpoint: palmtop convert CHECKPOINT_DIR -o model.palm");
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
