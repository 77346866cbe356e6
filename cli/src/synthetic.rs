//! Models of any size with random weights, for measuring machines.

use std::path::Path;

use palmtop::model::config::Config;
use palmtop::session::CancelToken;
use palmtop_convert::synthetic::Synthetic;
use palmtop_convert::{Options, convert_source, tokenizer};

use crate::output::Console;
use crate::progress::Bar;

/// A small SentencePiece vocabulary with PaliGemma's `<loc>` and `<seg>` tokens.
const TOKENIZER_JSON: &[u8] = include_bytes!("../../demo/tokenizer/tokenizer.json");
const SEED: u64 = 2026;

/// The table of a small tokenizer.
pub fn tokenizer() -> anyhow::Result<Vec<u8>> {
    Ok(tokenizer::json::parse(TOKENIZER_JSON)?.to_table()?)
}

/// Writes a model of random weights.
pub fn write(
    config: Config,
    path: &Path,
    options: &Options,
    console: Console,
    cancel: &CancelToken,
) -> anyhow::Result<()> {
    let table = tokenizer()?;
    let bar = Bar::new(console, "making random weights", Some(cancel.clone()));
    let done = convert_source(&Synthetic::new(config.clone(), SEED), &config, table, path, options, &bar);
    bar.finish();
    done?;
    Ok(())
}
