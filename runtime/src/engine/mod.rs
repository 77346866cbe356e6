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
pub(crate) mod wanted;

use crate::error::Result;
use control::Watch;
use span::Batch;
use trace::Trace;
use wanted::Wanted;

/// A model with the memory to run it.
pub(crate) trait Engine: Send + Sync {
    /// Where the patches of the next picture are written, `[patches, 3·p·p]`.
    fn patches(&mut self) -> &mut [f32];

    /// Encodes the patches; writes `[image rows, decoder width]`.
    ///
    /// # Errors
    /// What `watch` says, looked at between layers; `features` are then of no use.
    fn encode(&mut self, features: &mut [f32], watch: &dyn Watch, trace: &mut Trace<'_>) -> Result<()>;

    /// Runs all rows of a batch through the decoder, and gives of them what is wanted.
    ///
    /// # Errors
    /// What `watch` says, looked at between layers; keys and values of the batch's positions, and what was to be given,
    /// are then undefined.
    fn forward(
        &mut self,
        batch: Batch<'_>,
        wanted: Wanted<'_>,
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()>;

    /// A row of the logits of the last pass that gave any, `[vocab]`.
    fn logits(&mut self, row: usize) -> &mut [f32];
}
