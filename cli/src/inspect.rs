//! `palmtop inspect` and `palmtop verify`: show what is in a model file, and check that it is undamaged.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use anyhow::anyhow;
use palmtop::format::{FormatError, Storage, TensorInfo, VERSION, Value};
use palmtop_convert::Progress;
use palmtop_present::json;
use palmtop_present::plain::{human_bytes, printable};
use palmtop_retrieval::Index;

use crate::args::{InspectArgs, VerifyArgs};
use crate::errors::{UsageError, WithHint};
use crate::models::Chosen;
use crate::output::{Console, Stdout, shown};
use crate::progress::Bar;
use crate::{Outcome, demo, models, retrieval};

/// Prints head and tensor table.
pub fn inspect(args: &InspectArgs, console: Console) -> anyhow::Result<Outcome> {
    if Index::is_one(&args.model) {
        return retrieval::inspect::inspect(args);
    }
    let (opened, built_in);
    let file = match models::choose(Some(&args.model), console)? {
        Chosen::File(path) => {
            opened = models::open_file(&path)?;
            &opened
        }
        Chosen::Demo(_) => {
            built_in = demo::model(console.silent())?;
            built_in.file()
        }
    };
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&json::ModelFile::new(&args.model.to_string_lossy(), file))?;
        return Ok(Outcome::Done);
    }
    let mut text = format!(
        "{}: {}, format version {VERSION}, {} tensors\n\nmetadata\n",
        shown(&args.model),
        human_bytes(file.bytes()),
        file.tensors().len()
    );
    for (key, value) in file.metadata().iter() {
        writeln!(text, "  {:<26}{}", printable(key), value_in_words(value))?;
    }
    text += "\nsizes\n";
    for ((part, storage), (tensors, bytes)) in sizes(file.tensors()) {
        writeln!(text, "  {part:<12}{storage:<14}{tensors:>5} tensors {:>10}", human_bytes(bytes))?;
    }
    text += "\ntensors\n";
    if args.all {
        for t in file.tensors() {
            let (name, storage, shape) = (printable(&t.name), t.storage.name(), shape_in_words(&t.shape));
            let (offset, length, checksum) = (t.offset, t.length, t.checksum);
            writeln!(
                text,
                "  {name:<44} {storage:<12} {shape:<16} at {offset:>12} {length:>12} B  {checksum:016x}"
            )?;
        }
    } else {
        for f in folded(file.tensors()) {
            let times = if f.tensors > 1 { format!("{:>3} x", f.tensors) } else { String::new() };
            let (name, shape) = (printable(&f.name()), shape_in_words(f.shape));
            writeln!(
                text,
                "  {name:<44} {times:>5} {shape:<16} {:<12} {:>10}",
                f.storage.name(),
                human_bytes(f.bytes)
            )?;
        }
    }
    out.print(text)?;
    Ok(Outcome::Done)
}

/// Reads all of the file and compares its checksums.
pub fn verify(args: &VerifyArgs, console: Console) -> anyhow::Result<Outcome> {
    if Index::is_one(&args.model) {
        return retrieval::inspect::verify(args, console);
    }
    let path = match models::choose(Some(&args.model), console)? {
        Chosen::File(path) => path,
        Chosen::Demo(_) => {
            return Err(UsageError(
                "the built-in model is part of the program, and no file of its own".into(),
            )
            .into());
        }
    };
    let file = models::open_file(&path)?;
    let bar = Bar::new(console, "verifying", None);
    bar.start(file.tensors().iter().map(|t| t.length).sum());
    let damaged = file.verify(|bytes| bar.advance(bytes));
    bar.finish();
    if !damaged.is_empty() {
        let mut text = format!(
            "{} is damaged in {} of {} tensors",
            args.model.display(),
            damaged.len(),
            file.tensors().len()
        );
        for error in damaged.iter().take(DAMAGED_SHOWN_MAX) {
            match error {
                FormatError::DataChecksum { name, stated, found } => {
                    write!(text, "\n  {}: checksum {found:016x}, should be {stated:016x}", printable(name))?;
                }
                other => write!(text, "\n  {other}")?,
            }
        }
        if damaged.len() > DAMAGED_SHOWN_MAX {
            write!(text, "\n  and {} more", damaged.len() - DAMAGED_SHOWN_MAX)?;
        }
        return Err(anyhow!(text)).hint("copy the file again, or convert the checkpoint again");
    }
    let (tensors, bytes) = (file.tensors().len(), human_bytes(file.bytes()));
    drop(file);
    // The checksums say that the file is as it was written; this says that it was written right.
    models::open(&path)?;
    Stdout::new()
        .print(format_args!("{}: {bytes} in {tensors} tensors, all as written\n", shown(&args.model)))?;
    Ok(Outcome::Done)
}

const DAMAGED_SHOWN_MAX: usize = 10;

/// Tensors and bytes for each part and storage.
fn sizes(tensors: &[TensorInfo]) -> BTreeMap<(&str, &'static str), (usize, u64)> {
    let mut sizes = BTreeMap::new();
    for t in tensors {
        let (count, bytes): &mut (usize, u64) = sizes.entry((part(&t.name), t.storage.name())).or_default();
        *count += 1;
        *bytes += t.length;
    }
    sizes
}

fn part(name: &str) -> &str {
    match name.split('.').next() {
        Some("text") if name.starts_with("text.embed") => "embedding",
        Some("text") if name.starts_with("text.head") => "head",
        Some(part @ ("vision" | "projector" | "text" | "retrieval" | "tokenizer" | "mask_codec")) => part,
        _ => "other",
    }
}

/// Tensors that differ by the number of their layer only.
struct Folded<'a> {
    before: &'a str,
    behind: &'a str,
    first: Option<usize>,
    last: Option<usize>,
    shape: &'a [usize],
    storage: Storage,
    tensors: usize,
    bytes: u64,
}

impl Folded<'_> {
    fn name(&self) -> String {
        match (self.first, self.last) {
            (Some(first), Some(last)) if first != last => {
                format!("{}{{{first}..{last}}}{}", self.before, self.behind)
            }
            (Some(layer), _) => format!("{}{layer}{}", self.before, self.behind),
            _ => self.before.to_owned(),
        }
    }
}

fn folded(tensors: &[TensorInfo]) -> Vec<Folded<'_>> {
    let mut folds: Vec<Folded> = Vec::new();
    // Which fold goes on with a tensor that has these names, shape and storage, and this layer.
    let mut open = HashMap::new();
    for t in tensors {
        let (before, layer, behind) = split_at_layer(&t.name);
        let key = |layer: usize| (before, behind, &t.shape[..], t.storage.name(), layer);
        let at = layer.and_then(|layer| open.remove(&key(layer))).unwrap_or(folds.len());
        if at == folds.len() {
            folds.push(Folded {
                before,
                behind,
                first: layer,
                last: layer,
                shape: &t.shape,
                storage: t.storage,
                tensors: 0,
                bytes: 0,
            });
        }
        let fold = &mut folds[at];
        fold.last = layer;
        fold.tensors += 1;
        fold.bytes = fold.bytes.saturating_add(t.length);
        if let Some(layer) = layer {
            open.entry(key(layer + 1)).or_insert(at);
        }
    }
    folds
}

/// `text.layer.3.norm` as `text.layer.`, 3 and `.norm`.
fn split_at_layer(name: &str) -> (&str, Option<usize>, &str) {
    const MARK: &str = ".layer.";
    let Some(start) = name.find(MARK).map(|at| at + MARK.len()) else { return (name, None, "") };
    let digits = name[start..].bytes().take_while(u8::is_ascii_digit).count();
    match name[start..start + digits].parse::<usize>() {
        Ok(layer) if layer < usize::MAX => (&name[..start], Some(layer), &name[start + digits..]),
        _ => (name, None, ""),
    }
}

fn shape_in_words(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

fn value_in_words(value: &Value) -> String {
    fn list<T: ToString>(values: &[T]) -> String {
        const SHOWN_MAX: usize = 8;
        let shown: Vec<String> = values.iter().take(SHOWN_MAX).map(T::to_string).collect();
        let more =
            if values.len() > SHOWN_MAX { format!(", … ({} in all)", values.len()) } else { String::new() };
        format!("[{}{more}]", shown.join(", "))
    }
    match value {
        Value::U64(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        // Spaces at its ends and line ends would not be seen.
        Value::Text(v) if v.trim() != v || v.contains(char::is_control) => format!("{v:?}"),
        Value::Text(v) => v.clone(),
        Value::U64s(v) => list(v),
        Value::F64s(v) => list(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_show_what_would_not_be_seen() {
        let shown = |text: &str| value_in_words(&Value::Text(text.into()));
        assert_eq!(shown("Größe, „so“"), "Größe, „so“");
        assert_eq!(shown("Question: "), r#""Question: ""#);
        assert_eq!(shown("Describe the image.\n"), r#""Describe the image.\n""#);
        assert_eq!(shown("\u{1b}[2J"), r#""\u{1b}[2J""#);
    }

    #[test]
    fn layers_that_are_alike_fold() {
        let tensor = |name: &str, length: usize| TensorInfo::new(name, Storage::F32, &[length]).unwrap();
        let tensors = [
            tensor("vision.position", 3),
            tensor("text.layer.0.norm", 4),
            tensor("text.layer.1.norm", 4),
            tensor("text.layer.2.norm", 5),
            tensor("text.layer.4.norm", 4),
            tensor("text.layer.x.norm", 4),
            // The same layer once more goes on with nothing; what follows goes on with the first.
            tensor("text.layer.04.norm", 4),
            tensor("text.layer.5.norm", 4),
        ];
        let names: Vec<String> = folded(&tensors).iter().map(Folded::name).collect();
        let expected = [
            "vision.position",
            "text.layer.{0..1}.norm",
            "text.layer.2.norm",
            "text.layer.{4..5}.norm",
            "text.layer.x.norm",
            "text.layer.4.norm",
        ];
        assert_eq!(names, expected);
    }
}
