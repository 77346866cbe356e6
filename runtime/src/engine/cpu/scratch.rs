//! What each thread needs for itself.

use palmtop_kernels::layout::{CHUNK_MAX, LANES};
use palmtop_kernels::ops::attention_int8::ROWS_MAX as INT8_ROWS_MAX;
use palmtop_kernels::{ATTENTION_ROWS_MAX, Int8Scratch, PANEL, PanelScratch};

use crate::error::Result;
use crate::system::memory::{Aligned, Reserve};

/// Columns that a task makes of every row between the matrices of an MLP: whole chunks of the second one's input.
pub(crate) const UNIT: usize = CHUNK_MAX;
const _: () = assert!(UNIT >= PANEL);

/// A thread's memory.
pub(crate) struct Scratch {
    /// Products of a panel of outputs.
    pub panel: Aligned<[f32; PANEL]>,
    /// A panel's weights.
    pub unpacked: Box<PanelScratch>,
    /// Rows of what comes through an activation.
    pub unit: Aligned<f32>,
    /// A row of activations.
    pub row: Aligned<f32>,
    pub attention: AttentionScratch,
}

/// A thread's memory for attention.
pub(crate) struct AttentionScratch {
    pub queries: Aligned<f32>,
    pub scores: Aligned<f32>,
    pub outputs: Aligned<f32>,
    pub int8: Box<Int8Scratch>,
}

/// What a [`Scratch`] must have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScratchSizes {
    /// Rows of a matrix product.
    pub rows: usize,
    /// Widest row of activations.
    pub width: usize,
    /// Widest attention head.
    pub head_dim: usize,
    /// Most keys.
    pub keys: usize,
}

/// Query rows that attend together.
const TILE_ROWS_MAX: usize =
    if ATTENTION_ROWS_MAX > INT8_ROWS_MAX { ATTENTION_ROWS_MAX } else { INT8_ROWS_MAX };

impl Scratch {
    pub fn new(reserve: &mut Reserve, sizes: &ScratchSizes) -> Result<Self> {
        let &ScratchSizes { rows, width, head_dim, keys } = sizes;
        Ok(Self {
            panel: reserve.aligned(rows)?,
            unpacked: reserve.boxed(),
            unit: reserve.aligned(rows.saturating_mul(UNIT))?,
            row: reserve.aligned(width)?,
            attention: AttentionScratch {
                queries: reserve.aligned(TILE_ROWS_MAX * head_dim)?,
                scores: reserve.aligned(keys.saturating_mul(ATTENTION_ROWS_MAX))?,
                outputs: reserve.aligned(TILE_ROWS_MAX * head_dim.next_multiple_of(LANES))?,
                int8: reserve.boxed(),
            },
        })
    }
}
