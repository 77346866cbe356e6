//! The built-in model, used if the user has no other: trained on a small world of its own (`demo/train`).

use std::sync::Arc;

use anyhow::Context;
use palmtop::model::Model;

use crate::output::Console;

/// As a model in memory must lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../demo/demo.palm"));

/// Opens the model where it lies in the program, and tells the user what it is.
pub fn model(console: Console) -> anyhow::Result<Arc<Model>> {
    console.note(
        "note: no model was named, so the built-in one answers. It knows only a small world of emoji and words,\n      \
         as in demo/*.png. For other pictures get a PaliGemma, which answers from then on:\n      \
         palmtop pull paligemma2-3b-mix-224",
    );
    Model::from_static(&FILE.0).context("cannot open the built-in model")
}
