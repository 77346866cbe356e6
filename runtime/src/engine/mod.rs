//! What computes the model's graph.
//!
//! The border is [`Engine`]: patches in, image features out; spans of rows in, logits out. Everything behind it, memory
//! and threads included, is an engine's own. [`cpu`] is the one that there is, and the one whose bits are promised.

pub(crate) mod control;
pub(crate) mod cpu;
pub(crate) mod features;
pub(crate) mod head;
pub(crate) mod limits;
pub(crate) mod span;
pub(crate) mod trace;

use crate::error::Result;
use control::Watch;
use head::HeadPart;
use span::Batch;
use trace::Trace;

/// A model with the memory to run it.
pub(crate) trait Engine: Send + Sync {
    /// Where the patches of the next picture are written, `[patches, 3·p·p]`.
    fn patches(&mut self) -> &mut [f32];

    /// Encodes the patches; writes `[image rows, decoder width]`.
    ///
    /// # Errors
    /// What `watch` says, looked at between layers; `features` are then of no use.
    fn encode(&mut self, features: &mut [f32], watch: &dyn Watch, trace: &mut Trace<'_>) -> Result<()>;

    /// Runs all rows of a batch through the decoder, and the last ones of its spans through the LM head, as far as
    /// `head` selects it: [`logits`](Self::logits) has them, span by span. Logits that are not selected are left as
    /// they were.
    ///
    /// # Errors
    /// What `watch` says, looked at between layers; keys and values of the batch's positions are then undefined.
    fn forward(
        &mut self,
        batch: Batch<'_>,
        head: &HeadPart,
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()>;

    /// A row of the logits of the last pass, `[vocab]`.
    fn logits(&mut self, row: usize) -> &mut [f32];
}
