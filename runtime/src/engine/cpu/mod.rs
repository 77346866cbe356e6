//! The engine on the CPU. The graph is written in `vision` and `text`; what they are made of has files of its own.

mod ahead;
mod attention;
mod buffers;
mod compute;
mod engine;
mod kv_cache;
mod rope;
mod rows;
mod scratch;
mod staged;
mod text;
mod vision;

use super::Engine;
use super::control::Watch;
use super::span::Batch;
use super::trace::Trace;
use super::wanted::Wanted;
use crate::error::Result;
pub(crate) use engine::{CpuEngine, Memory};

impl Engine for CpuEngine {
    fn patches(&mut self) -> &mut [f32] {
        &mut self.buffers.patches
    }

    fn encode(&mut self, features: &mut [f32], watch: &dyn Watch, trace: &mut Trace<'_>) -> Result<()> {
        vision::encode(self, features, watch, trace)
    }

    fn forward(
        &mut self,
        batch: Batch<'_>,
        wanted: Wanted<'_>,
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        text::forward(self, batch, wanted, watch, trace)
    }

    fn logits(&mut self, row: usize) -> &mut [f32] {
        let vocab = self.model.config().text.vocab;
        &mut self.buffers.logits[row * vocab..(row + 1) * vocab]
    }
}
