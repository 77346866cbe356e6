//! What computes: a model, the memory of a session, and threads. The graph is written in `vision` and `text`.

pub(crate) mod attention;
pub(crate) mod buffers;
pub(crate) mod compute;
pub(crate) mod kv;
mod rope;
pub(crate) mod text;
pub(crate) mod vision;

use std::sync::Arc;

use palmtop_kernels::{Isa, Kernels};

use crate::engine::cpu::buffers::{BufferSizes, Buffers};
use crate::engine::cpu::compute::{Compute, Scratch};
use crate::engine::cpu::kv::{KvArena, KvShape};
use crate::engine::cpu::rope::Rope;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::system::pool::{ThreadHints, ThreadPool};

/// A model with the memory to run it.
pub(crate) struct Engine {
    pub model: Arc<Model>,
    pub compute: Compute,
    pub buffers: Buffers,
    pub kv: KvArena,
    pub rope: Rope,
}

/// Sizes of an [`Engine`].
pub(crate) struct EngineSizes {
    pub buffers: BufferSizes,
    pub kv: KvShape,
    /// Positions that a sequence can reach.
    pub positions: usize,
    pub threads: usize,
}

impl EngineSizes {
    /// Bytes of the activations, positions' table included.
    pub fn activation_bytes(&self, head_dim: usize) -> usize {
        self.buffers.bytes().saturating_add(Rope::bytes(head_dim, self.positions))
    }

    /// Bytes of all threads' scratch memory.
    pub fn thread_bytes(&self) -> usize {
        self.threads.saturating_mul(self.buffers.scratch.bytes() + size_of::<Scratch>())
    }
}

impl Engine {
    /// Allocates everything and starts the threads. Without `isa` the kernels are those of the process's default.
    pub fn new(
        model: &Arc<Model>,
        sizes: &EngineSizes,
        isa: Option<Isa>,
        threads: &ThreadHints,
    ) -> Result<Self> {
        let t = &model.config().text;
        let scratch =
            (0..sizes.threads).map(|_| Scratch::new(&sizes.buffers.scratch)).collect::<Result<_>>()?;
        Ok(Self {
            compute: Compute {
                kernels: Kernels::new(isa)?,
                pool: ThreadPool::with_hints(sizes.threads, threads).map_err(Error::Threads)?,
                scratch,
            },
            buffers: Buffers::new(&sizes.buffers)?,
            kv: KvArena::new(sizes.kv)?,
            rope: Rope::new(t.head_dim, t.rope_theta, sizes.positions),
            model: model.clone(),
        })
    }
}
