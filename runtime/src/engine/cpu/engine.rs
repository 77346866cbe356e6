//! What the engine on the CPU has: a model, memory and threads.

use std::sync::Arc;

use palmtop_kernels::Kernels;
use palmtop_kernels::layout::LANES;

use super::ahead::Ahead;
use super::buffers::{Buffers, scratch_sizes};
use super::compute::Compute;
use super::kv_cache::{KvCache, KvShape};
use super::rope::Rope;
use super::scratch::Scratch;
use crate::engine::limits::Extent;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::system::memory::{Purpose, Reserve};
use crate::system::pool::{ThreadHints, ThreadPool};

/// A model with the memory and the threads to run it.
pub(crate) struct CpuEngine {
    pub model: Arc<Model>,
    pub compute: Compute,
    pub buffers: Buffers,
    pub kv: KvCache,
    /// Layers whose keys and values are kept for passes to come: all, or one, which all use in turn.
    pub layers_kept: usize,
    pub ropes: Vec<Rope>,
    pub ahead: Ahead,
}

/// The memory of a [`CpuEngine`].
pub(crate) struct Memory {
    buffers: Buffers,
    scratch: Vec<Scratch>,
    kv: KvCache,
    layers_kept: usize,
    ropes: Vec<Rope>,
}

impl Memory {
    pub fn new(reserve: &mut Reserve, model: &Model, extent: &Extent) -> Result<Self> {
        let (config, weights) = (model.config(), model.weights());
        let t = &config.text;
        // Without answers, passes begin with a first sequence that is always free, and end with it.
        let (sequences, layers_kept) = if extent.answers { (extent.batch, t.layers) } else { (1, 1) };
        let slots = sequences.saturating_mul(t.kv_heads).saturating_mul(layers_kept);
        let shape = KvShape {
            slots,
            head_dim: t.head_dim,
            capacity: extent.positions.next_multiple_of(LANES),
            element: extent.kv.element(weights),
        };
        let kv = KvCache::new(reserve.for_purpose(Purpose::KeysValues), shape)?;
        let buffers = Buffers::new(reserve.for_purpose(Purpose::Activations), config, weights, extent)?;
        let mut ropes: Vec<Rope> = Vec::new();
        for layer in 0..t.layers {
            let theta = t.layer(layer).rope_theta;
            if ropes.iter().all(|rope| rope.theta() != theta) {
                ropes.push(Rope::new(reserve, t.head_dim, theta, extent.positions)?);
            }
        }
        reserve.for_purpose(Purpose::Threads);
        let sizes = scratch_sizes(config, weights, extent);
        let mut scratch = reserve.list(extent.threads)?;
        for _ in 0..extent.threads {
            scratch.push(Scratch::new(reserve, &sizes)?);
        }
        Ok(Self { buffers, scratch, kv, layers_kept, ropes })
    }
}

impl CpuEngine {
    /// Starts the threads over memory that was taken.
    pub fn new(model: &Arc<Model>, memory: Memory, kernels: Kernels, threads: &ThreadHints) -> Result<Self> {
        let Memory { buffers, scratch, kv, layers_kept, ropes } = memory;
        let pool = ThreadPool::with_hints(scratch.len(), threads).map_err(Error::Threads)?;
        let compute = Compute { kernels, pool, scratch };
        let ahead = Ahead::new(model.weights());
        Ok(Self { model: model.clone(), compute, buffers, kv, layers_kept, ropes, ahead })
    }
}
