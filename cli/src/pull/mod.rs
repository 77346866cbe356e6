//! `palmtop pull`: gets a model from the hub.

pub mod args;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use palmtop::format::PalmFile;
use palmtop::session::CancelToken;
use palmtop_convert::{ConvertError, Options};
use palmtop_hub::{
    AdapterSource, Follower, HubError, Library, Pulled, RepositoryName, Settings, Wanted, model_name, pull,
    short,
};
use palmtop_present::plain::{human_bytes, printable};
use serde::Serialize;

use crate::convert::{WITHOUT_A_FORM, formats, reading, shell_word};
use crate::errors::{UsageError, WithHint};
use crate::output::{Console, Stdout, shown};
use crate::progress::Bar;
use crate::{Outcome, files, interrupt};
use args::PullArgs;

pub fn run(args: &PullArgs, console: Console) -> anyhow::Result<Outcome> {
    let name = RepositoryName::from_argument(&args.name)?;
    let (formats, auto) = formats(&args.recipe, None)?;
    if auto.is_some() {
        return Err(ConvertError::NeedsWhole { what: "--recipe auto".to_owned() })
            .hint(by_hand(&name, " --recipe auto --calibrate examples.jsonl"));
    }
    let options = Options {
        recipe: formats.recipe,
        exceptions: formats.exceptions,
        threads: args.threads.map(|n| n as usize),
        ..reading(&args.reading)
    };
    let adapters =
        args.adapters.iter().map(|text| AdapterSource::from_argument(text)).collect::<Result<Vec<_>, _>>()?;
    let asks = &args.recipe;
    let parts = [asks.head, asks.embeddings, asks.vision, asks.text];
    let has_recipe = asks.recipe.is_some() || parts.iter().any(Option::is_some);
    let convert = !adapters.is_empty() || asks.weights.is_some() || has_recipe;
    let library = Library::from_environment();
    let usual_name = || {
        let weights = args.recipe.weights.map(|weights| weights.name());
        model_name(&name, weights, has_recipe, &args.adapters)
    };
    let target = match &args.output {
        Some(path) => path.clone(),
        None => {
            let library = library.as_ref().map_err(|e| anyhow!("{e}")).hint("name a file with -o")?;
            let named = args.name_as.clone().unwrap_or_else(usual_name);
            library.path_of(&named).map_err(|e| UsageError(e.to_string()))?
        }
    };
    if args.output.is_none() {
        library.as_ref().map_err(|e| anyhow!("{e}"))?.create()?;
        if target.is_file() && !args.again {
            return there_already(&name, &target, library.as_ref().ok(), args, console);
        }
    }
    files::folder_for(&target)?;
    let settings = Settings::from_environment()?;
    let wanted = Wanted { name: name.clone(), options, adapters, convert };

    let cancel = interrupt::listen()?;
    let bar = Bar::new(console, "pulling", Some(cancel.clone()));
    let follower = Follower { progress: &bar, note: &|text| bar.note(text), cancelled: cancelled(cancel) };
    let pulled = pull(&settings, &wanted, &target, &follower);
    bar.finish();
    let pulled = match pulled {
        Err(HubError::Cancelled) => {
            console.note("interrupted; what has come is kept, and the same command goes on with it");
            return Ok(Outcome::Interrupted);
        }
        Err(error) => return explained(error, &name, args),
        Ok(pulled) => pulled,
    };
    show_notice(&target, library.as_ref().ok(), console);
    if let Ok(library) = &library {
        library.note_pulled(&target, &name.id, &pulled.commit);
        library.note_used(&target);
    }
    report(&name, &target, &pulled, library.as_ref().ok(), args, console)
}

fn cancelled(token: CancelToken) -> palmtop_hub::Cancelled {
    Arc::new(move || token.is_cancelled())
}

fn there_already(
    name: &RepositoryName,
    target: &Path,
    library: Option<&Library>,
    args: &PullArgs,
    console: Console,
) -> anyhow::Result<Outcome> {
    console.note(format_args!(
        "{} is here already; --again pulls it again, --as NAME beside it",
        target.file_stem().unwrap_or_default().display()
    ));
    if let Some(library) = library {
        library.note_used(target);
    }
    let text = |key: &str| PalmFile::open(target).ok()?.metadata().text(key).ok();
    let commit = text("general.revision").unwrap_or_default();
    let bytes = target.metadata().map_or(0, |metadata| metadata.len());
    print(&Line::new(name, target, library, &commit, bytes), args)
}

/// Shows the notice that goes with a model once for each licence, and remembers that it was shown.
fn show_notice(model: &Path, library: Option<&Library>, console: Console) {
    let Ok(file) = PalmFile::open(model) else { return };
    let text = |key: &str| file.metadata().text(key).ok();
    let (Some(license), Some(notice)) = (text("general.license"), text("general.license_notice")) else {
        return;
    };
    if !console.quiet
        && library.is_none_or(|library| library.create().is_err() || library.is_new_license(&license))
    {
        console.note(format_args!("note: {}; so is this file", printable(&notice)));
    }
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct Line {
    name: Option<String>,
    path: PathBuf,
    bytes: u64,
    repository: String,
    commit: String,
}

impl Line {
    fn new(
        name: &RepositoryName,
        target: &Path,
        library: Option<&Library>,
        commit: &str,
        bytes: u64,
    ) -> Self {
        Self {
            name: library.and_then(|library| library.name_of(target)),
            path: target.to_owned(),
            bytes,
            repository: name.id.clone(),
            commit: commit.to_owned(),
        }
    }
}

fn report(
    name: &RepositoryName,
    target: &Path,
    pulled: &Pulled,
    library: Option<&Library>,
    args: &PullArgs,
    console: Console,
) -> anyhow::Result<Outcome> {
    if let Some(report) = &pulled.report {
        report.notes.iter().for_each(|note| console.note(format_args!("note: {note}")));
        if console.verbose {
            console.note(report);
        }
    }
    let line = Line::new(name, target, library, &pulled.commit, pulled.bytes);
    if !args.json {
        let with = match &line.name {
            Some(_) => "it answers now: palmtop caption PICTURE".to_owned(),
            None => format!("use it with -m {}", shell_word(&target.display().to_string())),
        };
        console.note(with);
    }
    print(&line, args)
}

fn print(line: &Line, args: &PullArgs) -> anyhow::Result<Outcome> {
    let mut out = Stdout::new();
    match args.json {
        true => out.print_json(line)?,
        false => {
            let of = format!("{}@{}", line.repository, short(&line.commit));
            let name = line.name.clone().unwrap_or_else(|| shown(&line.path));
            out.print(format_args!("{name}: {}, from {of}\n", human_bytes(line.bytes)))?;
        }
    }
    Ok(Outcome::Done)
}

/// How to do it with the whole checkpoint; each option begins with a blank.
fn by_hand(name: &RepositoryName, options: &str) -> String {
    let folder = shell_word(name.name());
    let revision = name.revision.as_ref().map_or(String::new(), |r| format!(" --revision {}", shell_word(r)));
    format!(
        "fetch all of it, and convert that: hf download {}{revision} --local-dir {folder} && palmtop convert {folder}{options} \
         -o model.palm",
        name.id
    )
}

fn explained(error: HubError, name: &RepositoryName, args: &PullArgs) -> anyhow::Result<Outcome> {
    let hint = match &error {
        HubError::Convert(ConvertError::NeedsWhole { .. }) => by_hand(name, ""),
        HubError::Convert(ConvertError::OnlyAdapter { base, .. }) => {
            let base = base.as_deref().filter(|base| RepositoryName::parse(base).is_ok()).unwrap_or("BASE");
            format!("pull its model with it: palmtop pull {base} --adapter {}", shell_word(&args.name))
        }
        HubError::Convert(ConvertError::WrongHash { .. }) => {
            "it was damaged on its way: pull again; everything else is kept".to_owned()
        }
        HubError::Convert(ConvertError::NoRoom { .. }) => {
            "make room, or name another place with -o or PALMTOP_MODELS; --weights int4 takes less".to_owned()
        }
        HubError::Convert(ConvertError::NotForRetrieval { .. }) => WITHOUT_A_FORM.to_owned(),
        HubError::Convert(ConvertError::Tensors(_)) => {
            "--ignore-extra leaves out what PaliGemma has no use for".to_owned()
        }
        _ => return Err(error.into()),
    };
    Err(error).hint(hint)
}
