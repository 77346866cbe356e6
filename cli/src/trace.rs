//! `palmtop trace`: every intermediate value of one picture and prompt, for comparison with another
//! implementation. `docs/trace.md` lists the names.

use anyhow::Context;
use palmtop::session::{Session, Traced, TracedValues};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::args::TraceArgs;
use crate::output::{Voice, human_bytes, shown};
use crate::sources::Source;
use crate::{Outcome, files, models};

/// A value as it will stand in the file.
struct Kept {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub fn run(args: &TraceArgs, voice: Voice) -> anyhow::Result<Outcome> {
    let target = files::Replacement::new(&args.output)?;
    let source = Source::File(args.picture.clone());
    let picture = source.decode().with_context(|| format!("cannot use picture {source}"))?;
    let model = models::open_or_demo(&args.model, voice)?;
    let mut limits = args.model.machine.limits();
    limits.new_tokens = args.tokens as usize;
    // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
    limits.prompt_tokens = (args.prompt.len() + 2).min(PROMPT_TOKENS_MAX);
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut kept: Vec<Kept> = Vec::new();
    session.trace(picture.view(), &args.prompt, limits.new_tokens, &mut |value| kept.push(keep(value)))?;
    let views = kept
        .iter()
        .map(|k| Ok((k.name.as_str(), TensorView::new(k.dtype, k.shape.clone(), &k.bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .context("a traced value has another size than its shape says")?;
    let metadata =
        [("palmtop", env!("CARGO_PKG_VERSION")), ("prompt", &args.prompt), ("picture", &source.to_string())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    safetensors::serialize_to_file(views, Some(metadata), target.temporary())
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    target.finish()?;
    let bytes = kept.iter().map(|k| k.bytes.len() as u64).sum();
    voice.note(format_args!(
        "wrote {} values, {}, to {}",
        kept.len(),
        human_bytes(bytes),
        shown(&args.output)
    ));
    Ok(Outcome::Done)
}

const PROMPT_TOKENS_MAX: usize = 4096;

fn keep(value: Traced) -> Kept {
    let (dtype, bytes) = match value.values {
        TracedValues::F32(values) => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TracedValues::I64(values) => (Dtype::I64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    Kept { name: value.name.to_owned(), dtype, shape: value.shape.to_vec(), bytes }
}
