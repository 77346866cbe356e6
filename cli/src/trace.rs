//! `palmtop trace`: every intermediate value of one picture and prompt, for comparison with another
//! implementation. `docs/trace.md` lists the names.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use palmtop::image::ImageLimits;
use palmtop::session::{Session, Traced, TracedValues};
use palmtop_present::plain::human_bytes;
use palmtop_present::sources::Source;
use serde_json::{Map, json};

use crate::args::TraceArgs;
use crate::files::Replacement;
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
    let source =
        if args.picture == Path::new("-") { Source::Stdin } else { Source::File(args.picture.clone()) };
    let picture = interrupt::while_waiting(|| source.decode(&ImageLimits::default()));
    let picture = picture.with_context(|| format!("cannot use picture {source}"))?;
    let cancel = interrupt::listen()?;
    let model = models::open_or_demo(&args.model, console)?;
    let mut limits = args.model.machine.limits();
    limits.new_tokens = args.tokens as usize;
    // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
    limits.prompt_tokens = (args.prompt.len() + 2).min(PROMPT_TOKENS_MAX);
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut kept: Vec<Entry> = Vec::new();
    // Tracing cannot be cancelled, and nothing is half done while it goes on.
    interrupt::while_waiting(|| {
        session.trace(&[picture.view()], &args.prompt, limits.new_tokens, &mut |value| kept.push(keep(value)))
    })?;
    let metadata = json!({
        "palmtop": env!("CARGO_PKG_VERSION"),
        "prompt": args.prompt,
        "picture": source.to_string(),
    });
    let mut target = Replacement::new(&args.output)?;
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

fn keep(value: Traced) -> Entry {
    let (dtype, bytes) = match value.values {
        TracedValues::F32(values) => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TracedValues::I64(values) => (I64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    Entry { name: value.name.to_owned(), dtype, shape: value.shape.to_vec(), bytes }
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
