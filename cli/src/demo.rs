//! A model for those who have none yet: the right architecture, tiny, with random weights.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use palmtop::config::Config;
use palmtop::model::Model;
use palmtop::session::CancelToken;
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{Options, convert_source, tokenizer};

use crate::output::Voice;
use crate::progress::Bar;

/// A small SentencePiece vocabulary with PaliGemma's `<loc>` and `<seg>` tokens.
const TOKENIZER_JSON: &[u8] = include_bytes!("../../demo/tokenizer/tokenizer.json");
const SEED: u64 = 2026;

/// Makes the model in a temporary folder, opens it and tells the user what it is.
pub fn model(voice: Voice, cancel: &CancelToken) -> anyhow::Result<Arc<Model>> {
    voice.note(
        "note: no model was named, so a tiny one of random weights answers: its words mean nothing.\n      \
         For real answers convert a PaliGemma checkpoint and name the result:\n      \
         palmtop convert CHECKPOINT_DIR -o model.palm, then -m model.palm",
    );
    make(cancel).context("cannot make the model of random weights")
}

fn make(cancel: &CancelToken) -> anyhow::Result<Arc<Model>> {
    let folder =
        tempfile::Builder::new().prefix("palmtop-").tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("random.palm");
    let options = Options { name: Some("random weights".into()), ..Options::default() };
    let quiet = Voice { quiet: true, verbose: false };
    write(preset("tiny").context("the architecture is unknown")?, &path, &options, quiet, cancel)?;
    let model = Model::open(&path)?;
    // The mapping outlives the file's name, except where a mapped file cannot be removed: there it stays in the
    // system's temporary folder.
    drop(folder);
    Ok(model)
}

/// Writes a model of random weights.
pub fn write(
    config: Config,
    path: &Path,
    options: &Options,
    voice: Voice,
    cancel: &CancelToken,
) -> anyhow::Result<()> {
    let table = tokenizer::json::parse(TOKENIZER_JSON)?.to_table()?;
    let bar = Bar::new(voice, "making random weights", Some(cancel.clone()));
    let done = convert_source(&Synthetic::new(config.clone(), SEED), &config, table, path, options, &bar);
    bar.finish();
    done?;
    Ok(())
}
