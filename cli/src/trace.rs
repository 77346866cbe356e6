//! `palmtop trace`: every intermediate value of a prompt about one picture or several, for comparison with another
//! implementation. `docs/trace.md` lists the names.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use palmtop::image::{DecodeOptions, RgbImage};
use palmtop::session::{Session, Traced, TracedValues};
use palmtop_present::plain::human_bytes;
use palmtop_present::sources::Source;
use serde_json::{Map, json};

use crate::args::TraceArgs;
use crate::files::{Replacement, refuse_to_replace};
use crate::output::{Console, shown};
use crate::{Outcome, interrupt, models};

/// A value as it will stand in the file.
struct Entry {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub fn run(args: &TraceArgs, console: Console) -> anyhow::Result<Outcome> {
    // If the file cannot be written, that is better known beforehand.
    drop(Replacement::new(&args.output)?);
    args.model.machine.kernels()?;
    let source = |path: &PathBuf| match path == Path::new("-") {
        true => Source::Stdin,
        false => Source::File(path.clone()),
    };
    let sources: Vec<Source> = args.pictures.iter().map(source).collect();
    let inputs = sources.iter().filter_map(Source::path).chain(args.model.model.as_deref());
    refuse_to_replace(&args.output, inputs)?;
    let decode = |source: &Source| {
        let decoded = interrupt::while_waiting(|| source.decode(&DecodeOptions::default()));
        Ok(decoded.with_context(|| format!("cannot use picture {source}"))?.image)
    };
    let pictures: Vec<RgbImage> = sources.iter().map(decode).collect::<anyhow::Result<_>>()?;
    let cancel = interrupt::listen()?;
    let model = models::open_or_demo(&args.model, console)?;
    let mut limits = args.model.machine.limits();
    limits.new_tokens = args.tokens as usize;
    limits.pictures = pictures.len();
    // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
    limits.prompt_tokens = (args.prompt.len() + 2).min(PROMPT_TOKENS_MAX);
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut kept: Vec<Entry> = Vec::new();
    // Tracing cannot be cancelled, and nothing is half done while it goes on.
    interrupt::while_waiting(|| {
        let views: Vec<_> = pictures.iter().map(RgbImage::view).collect();
        session.trace(&views, &args.prompt, limits.new_tokens, &mut |value| keep(&mut kept, value))
    })?;
    // Rows of several pictures follow each other; their pixels have a dimension of their own.
    if let Some(pixels) = kept.iter_mut().find(|k| k.name == PIXELS && pictures.len() > 1) {
        pixels.shape[0] /= pictures.len();
        pixels.shape.insert(0, pictures.len());
    }
    let names: Vec<String> = sources.iter().map(Source::to_string).collect();
    let metadata = json!({
        "palmtop": env!("CARGO_PKG_VERSION"),
        "prompt": args.prompt,
        "picture": names.join("\n"),
    });
    let target = Replacement::new(&args.output)?;
    write_safetensors(&mut kept, metadata, target.file())
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    if cancel.is_cancelled() {
        return Ok(Outcome::Interrupted);
    }
    target.finish()?;
    let bytes = kept.iter().map(|k| k.bytes.len() as u64).sum();
    console.note(format_args!(
        "wrote {} values, {}, to {}",
        kept.len(),
        human_bytes(bytes),
        shown(&args.output)
    ));
    Ok(Outcome::Done)
}

const PROMPT_TOKENS_MAX: usize = 4096;

/// The picture, which the processor of transformers gives a dimension for the number of pictures.
const PIXELS: &str = "pixel_values";

/// Keeps a value, behind what has come under its name before: what every picture has comes once for each.
fn keep(kept: &mut Vec<Entry>, value: Traced) {
    let (dtype, bytes): (_, Vec<u8>) = match value.values {
        TracedValues::F32(values) => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TracedValues::I64(values) => (I64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    match kept.iter_mut().find(|k| k.name == value.name) {
        Some(entry) => {
            entry.shape[0] += value.shape[0];
            entry.bytes.extend_from_slice(&bytes);
        }
        None => kept.push(Entry { name: value.name.to_owned(), dtype, shape: value.shape.to_vec(), bytes }),
    }
}

const I64: &str = "I64";

/// Writes a safetensors file value by value. The crate's own writers hold all of it in memory a second time, or make a
/// file that only its owner can read.
fn write_safetensors(kept: &mut [Entry], metadata: serde_json::Value, out: impl Write) -> io::Result<()> {
    // The widest first, so that all are aligned.
    kept.sort_by_key(|k| k.dtype != I64);
    let mut head = Map::new();
    head.insert("__metadata__".into(), metadata);
    let mut end = 0;
    for k in &*kept {
        let start = end;
        end += k.bytes.len();
        let entry = json!({"dtype": k.dtype, "shape": k.shape, "data_offsets": [start, end]});
        head.insert(k.name.clone(), entry);
    }
    let mut head = serde_json::to_vec(&head)?;
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(out);
    out.write_all(&(head.len() as u64).to_le_bytes())?;
    out.write_all(&head)?;
    for k in kept {
        out.write_all(&k.bytes)?;
    }
    out.flush()
}
