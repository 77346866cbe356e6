//! What published models need: their files, their memory, and what this machine's limits allow, before they are here.

use std::sync::Arc;

use memmap2::MmapOptions;
use palmtop::Limits;
use palmtop::model::Model;
use palmtop::system::machine::MachineLimits;
use palmtop_convert::synthetic::preset;
use palmtop_convert::{Options, outline};
use palmtop_kernels::layout::WeightFormat;
use serde::Serialize;

use crate::synthetic;

/// A prompt of a few words, besides the image's tokens.
const PROMPT_TOKENS: usize = 8;

/// What one needs. `docs/json.md` promises this shape.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Needs {
    /// Of its file, about: the tokenizer's table is not counted.
    pub file_bytes: u64,
    /// Of a session with one prompt.
    pub session_bytes: u64,
    /// From a picture to the first token, at least.
    pub first_token_s: f64,
    /// At most.
    pub tokens_per_s: f64,
}

/// What a published architecture needs on a machine with these limits; `None` if this system cannot tell.
pub fn needs(name: &str, format: WeightFormat, limits: &Limits, machine: &MachineLimits) -> Option<Needs> {
    let (model, file_bytes) = imagined(name, format)?;
    let plan = model.plan(limits).ok()?;
    let work = model.work(model.config().image_rows() + PROMPT_TOKENS, limits.kv);
    Some(Needs {
        file_bytes,
        session_bytes: plan.session_bytes() as u64,
        first_token_s: (work.encode_macs + work.prefill_macs) as f64 / machine.int8_macs_per_s,
        tokens_per_s: machine.read_bytes_per_s / work.token_bytes as f64,
    })
}

/// A model of these sizes whose weights are nowhere: only its plan and its work can be asked for. The bytes are those
/// of its file.
fn imagined(name: &str, format: WeightFormat) -> Option<(Arc<Model>, u64)> {
    let config = preset(name)?;
    let options = Options { recipe: format.name().parse().ok()?, ..Options::default() };
    let outline = outline(&config, synthetic::tokenizer().ok()?, &options).ok()?;
    // Addresses without memory behind them, but for the pages of head and tokenizer.
    let mut map =
        MmapOptions::new().len(usize::try_from(outline.bytes).ok()?).no_reserve_swap().map_anon().ok()?;
    for (offset, bytes) in outline.pieces {
        map[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Some((Model::from_memory(map).ok()?, outline.bytes))
}
