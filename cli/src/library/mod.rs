//! `palmtop models`: what is here, and what can be pulled.

pub mod args;
mod needs;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use palmtop::Limits;
use palmtop::system::machine::MachineLimits;
use palmtop_hub::published::{self, Published};
use palmtop_hub::{Installed, Library, LibraryError, Unfinished, short};
use palmtop_kernels::layout::WeightFormat;
use palmtop_present::plain::{human_bytes, printable};
use serde::Serialize;

use crate::output::{Console, Stdout};
use crate::{Outcome, models};
use args::{ModelsArgs, ModelsCommand};
use needs::{Needs, needs};

pub fn run(args: &ModelsArgs, console: Console) -> anyhow::Result<Outcome> {
    let library = Library::from_environment()?;
    match &args.command {
        None => list(&library, args.json),
        Some(ModelsCommand::Show { name }) => show(&library, name),
        Some(ModelsCommand::Remove { names }) => {
            for name in names {
                for path in library.remove(name)? {
                    console.note(format_args!("removed {}", path.display()));
                }
            }
            Ok(Outcome::Done)
        }
    }
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct Listing {
    folder: String,
    installed: Vec<InstalledJson>,
    unfinished: Vec<UnfinishedJson>,
    published: Vec<PublishedJson>,
}

#[derive(Serialize)]
struct InstalledJson {
    name: String,
    path: String,
    bytes: u64,
    source: Option<String>,
    commit: Option<String>,
    license: Option<String>,
    recipe: Option<String>,
    pulled_from: Option<String>,
    /// Seconds of Unix time.
    used: Option<u64>,
    default: bool,
}

#[derive(Serialize)]
struct UnfinishedJson {
    name: String,
    repository: Option<String>,
    bytes: u64,
}

impl From<Unfinished> for UnfinishedJson {
    fn from(pull: Unfinished) -> Self {
        Self { name: pull.name, repository: pull.repository, bytes: pull.bytes }
    }
}

#[derive(Serialize)]
struct PublishedJson {
    name: &'static str,
    repository: String,
    purpose: &'static str,
    /// With int8 and with int4 weights.
    int8: Option<Needs>,
    int4: Option<Needs>,
}

/// The needs of all architectures, each computed once.
struct Reckoning {
    machine: MachineLimits,
    limits: Limits,
    known: BTreeMap<(&'static str, &'static str), Option<Needs>>,
}

impl Reckoning {
    fn new() -> anyhow::Result<Self> {
        let limits = Limits::default();
        let machine = MachineLimits::measure(&models::kernels(None)?, models::threads(&limits))?;
        Ok(Self { machine, limits, known: BTreeMap::new() })
    }

    fn of(&mut self, published: &Published, format: WeightFormat) -> Option<Needs> {
        let reckon = || needs(published.preset, format, &self.limits, (&self.machine).into());
        *self.known.entry((published.preset, format.name())).or_insert_with(reckon)
    }

    fn both(&mut self, published: &Published) -> PublishedJson {
        PublishedJson {
            name: published.name,
            repository: published.repository(),
            purpose: published.purpose,
            int8: self.of(published, WeightFormat::Int8),
            int4: self.of(published, WeightFormat::Int4),
        }
    }
}

fn list(library: &Library, json: bool) -> anyhow::Result<Outcome> {
    let mut reckoning = Reckoning::new()?;
    let installed = library.installed();
    let default = library.last_used().map(|(name, _)| name);
    let published: Vec<PublishedJson> =
        published::PUBLISHED.iter().map(|published| reckoning.both(published)).collect();
    let mut out = Stdout::new();
    if json {
        let installed = installed.iter().map(|model| InstalledJson::new(model, default.as_deref())).collect();
        let folder = library.folder().display().to_string();
        let unfinished = library.unfinished().into_iter().map(UnfinishedJson::from).collect();
        out.print_json(&Listing { folder, installed, unfinished, published })?;
        return Ok(Outcome::Done);
    }
    let mut text = format!("In {}:\n", printable(&library.folder().to_string_lossy()));
    if installed.is_empty() {
        text +=
            "  none yet; `palmtop pull NAME` gets one of those below, `palmtop pull ORG/NAME` any other\n";
    }
    let width = installed.iter().map(|model| model.name.len()).max().unwrap_or(0);
    for model in &installed {
        let mark = if default.as_ref() == Some(&model.name) { "*" } else { " " };
        text += &format!(
            "{mark} {:width$}  {:>7}  {:6}  used {:12}  {}\n",
            model.name,
            human_bytes(model.bytes),
            model.origin.as_ref().and_then(|o| o.license.as_deref()).unwrap_or("-"),
            ago(model.used),
            from(model)
        );
    }
    for pull in library.unfinished() {
        let of = pull.repository.map_or(String::new(), |repository| format!(" of {repository}"));
        text += &format!(
            "  {:width$}  {:>7}  unfinished pull{}; the same command goes on, palmtop models remove gives up\n",
            pull.name,
            human_bytes(pull.bytes),
            printable(&of)
        );
    }
    if default.is_some() {
        text += "* answers if no model is named with -m\n";
    }
    text +=
        "\nPublished by Google; what they take here, at best by this machine's limits (--weights int4):\n";
    text += &format!(
        "  {:27} {:>19}  {:>9}  {:>13}  {:>15}  for\n",
        "", "file", "memory", "first token", "tokens/s"
    );
    for line in &published {
        let pair = |of: &dyn Fn(&Needs) -> String| match (&line.int8, &line.int4) {
            (Some(int8), Some(int4)) => format!("{} ({})", of(int8), of(int4)),
            _ => "unknown".to_owned(),
        };
        let memory = line.int8.map_or("unknown".to_owned(), |needs| human_bytes(needs.session_bytes));
        text += &format!(
            "  {:27} {:>19}  {:>9}  {:>13}  {:>15}  {}\n",
            line.name,
            pair(&|needs| human_bytes(needs.file_bytes)),
            memory,
            line.int8.map_or("unknown".to_owned(), |needs| seconds(needs.first_token_s)),
            pair(&|needs| rate(needs.tokens_per_s)),
            line.purpose,
        );
    }
    text += "Memory is what an answer takes beside the file, which is mapped: the fastest is to have room for both.\n";
    out.print(text)?;
    Ok(Outcome::Done)
}

fn seconds(time: f64) -> String {
    if time < 9.95 { format!("{time:.1} s") } else { format!("{time:.0} s") }
}

fn rate(rate: f64) -> String {
    if rate < 9.95 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

impl InstalledJson {
    fn new(model: &Installed, default: Option<&str>) -> Self {
        let origin = model.origin.clone();
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            name: model.name.clone(),
            path: model.path.display().to_string(),
            bytes: model.bytes,
            source: origin.as_ref().map(|o| o.source.clone()),
            commit: origin.as_ref().and_then(|o| o.revision.clone()),
            license: origin.as_ref().and_then(|o| o.license.clone()),
            recipe: origin.and_then(|o| o.recipe),
            pulled_from: model.pulled.clone(),
            used: model.used.map(since),
            default: default == Some(&*model.name),
        }
    }
}

/// What a model was made of.
fn from(model: &Installed) -> String {
    let Some(origin) = &model.origin else { return "cannot be read; palmtop verify says why".to_owned() };
    let commit = origin.revision.as_deref().map_or(String::new(), |r| format!("@{}", short(r)));
    printable(&format!("{}{commit}", origin.source))
}

fn ago(time: Option<SystemTime>) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let Some(time) = time else { return "never".to_owned() };
    let seconds = SystemTime::now().duration_since(time).map_or(0, |time| time.as_secs());
    for (unit, name) in UNITS {
        match seconds / unit {
            0 => {}
            1 => return format!("1 {name} ago"),
            n => return format!("{n} {name}s ago"),
        }
    }
    "just now".to_owned()
}

fn show(library: &Library, name: &str) -> anyhow::Result<Outcome> {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| text += &format!("{what:<14}{}\n", printable(value));
    let installed = library.installed().into_iter().find(|model| model.name == name);
    let published = published::by_name(name);
    if installed.is_none() && published.is_none() {
        let mut nearest = palmtop_hub::nearest(name, library.names().iter().map(String::as_str));
        nearest.extend(published::nearest(name));
        nearest.dedup();
        let folder = library.folder().to_owned();
        return Err(LibraryError::Unknown { name: name.to_owned(), folder, nearest }.into());
    }
    line("name", name);
    if let Some(model) = &installed {
        line("file", &model.path.to_string_lossy());
        line("size", &human_bytes(model.bytes));
        line("made from", &from(model));
        line("pulled from", model.pulled.as_deref().unwrap_or("nowhere"));
        let origin = model.origin.clone().unwrap_or_default();
        line("licence", origin.license.as_deref().unwrap_or("unknown"));
        line("weights", origin.recipe.as_deref().unwrap_or("unknown"));
        line("used", &ago(model.used));
    } else {
        line("here", &format!("no; get it with: palmtop pull {name}"));
    }
    if let Some(published) = published {
        line("repository", &published.repository());
        line("for", published.purpose);
        let mut reckoning = Reckoning::new()?;
        for format in [WeightFormat::Int8, WeightFormat::Int4] {
            if let Some(needs) = reckoning.of(published, format) {
                line(
                    format.name(),
                    &format!(
                        "{} file, {} memory beside it; first token after {} or more, {} tokens/s or less",
                        human_bytes(needs.file_bytes),
                        human_bytes(needs.session_bytes),
                        seconds(needs.first_token_s),
                        rate(needs.tokens_per_s)
                    ),
                );
            }
        }
    }
    Stdout::new().print(text)?;
    Ok(Outcome::Done)
}
