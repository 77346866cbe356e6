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

/// What a machine can do.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// int8 multiply-adds a second.
    pub macs: f64,
    /// Bytes read a second.
    pub read: f64,
}

impl From<&MachineLimits> for Speed {
    fn from(limits: &MachineLimits) -> Self {
        Self { macs: limits.int8_macs_per_s, read: limits.read_bytes_per_s }
    }
}

/// What a published architecture needs on a machine of this speed; `None` if this system cannot tell.
pub fn needs(name: &str, format: WeightFormat, limits: &Limits, speed: Speed) -> Option<Needs> {
    let (model, file_bytes) = imagined(name, format)?;
    let plan = model.plan(limits).ok()?;
    let work = model.work(model.config().image_rows() + PROMPT_TOKENS, limits.kv);
    Some(Needs {
        file_bytes,
        session_bytes: plan.session_bytes() as u64,
        first_token_s: (work.encode_macs + work.prefill_macs) as f64 / speed.macs,
        tokens_per_s: speed.read / work.token_bytes as f64,
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

#[cfg(test)]
mod tests {
    use palmtop_hub::published::PUBLISHED;

    use super::*;

    /// What a Raspberry Pi 5 reaches of its limits; `docs/devices.md` says where these numbers come from.
    const PI_5: Speed = Speed { macs: 0.6 * 307e9, read: 0.8 * 10e9 };
    const THREADS: usize = 4;

    /// The row of `docs/family.md` of an architecture.
    fn row(name: &str) -> String {
        let mut limits = Limits::default();
        limits.threads = Some(THREADS);
        let needs = needs(name, WeightFormat::Int4, &limits, PI_5).expect("an architecture");
        let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        format!(
            "| {name} | {} | {} | {:.0} s | {:.1} |",
            gb(needs.file_bytes),
            gb(needs.file_bytes + needs.session_bytes),
            needs.first_token_s,
            needs.tokens_per_s,
        )
    }

    #[test]
    fn the_table_of_the_family_is_what_the_arithmetic_says() {
        let docs = include_str!("../../../docs/family.md");
        let mut names: Vec<&str> = PUBLISHED.iter().map(|published| published.preset).collect();
        names.sort_unstable();
        names.dedup();
        let missing: Vec<String> = names.into_iter().map(row).filter(|row| !docs.contains(row)).collect();
        assert!(missing.is_empty(), "docs/family.md lacks:\n{}", missing.join("\n"));
        for published in &PUBLISHED {
            assert!(docs.contains(&format!("`{}`", published.name)), "{}", published.name);
        }
    }
}
