//! The arena of keys and values: fixed in size, laid out as the attention kernel multiplies.

use half::f16;
use palmtop_kernels::layout::LANES;
use palmtop_kernels::{Kernels, KeysValues, Scores};

use crate::error::Result;
use crate::memory::zeroed;
use crate::pool::Disjoint;

/// Keys and values of some number of *slots*: one per sequence, layer and key-value head.
///
/// In each slot keys stand in blocks of 16, each `[head_dim][16]`, and values in stripes of 16 dimensions, each
/// `[capacity][16]`: both are then packed matrices (see [`KeysValues`]).
pub(crate) struct KvArena {
    elements: Elements,
    pub shape: KvShape,
}

/// Sizes of an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    pub slots: usize,
    pub head_dim: usize,
    /// Keys that a slot has room for, a multiple of 16.
    pub capacity: usize,
    /// f16 instead of f32.
    pub half: bool,
}

enum Elements {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

impl KvShape {
    fn key_elements(&self) -> usize {
        self.capacity.saturating_mul(self.head_dim)
    }

    fn slot_elements(&self) -> usize {
        let values = self.capacity.saturating_mul(self.head_dim.next_multiple_of(LANES));
        self.key_elements().saturating_add(values)
    }

    pub fn bytes(&self) -> usize {
        self.slots.saturating_mul(self.slot_elements()).saturating_mul(if self.half { 2 } else { 4 })
    }
}

impl KvArena {
    pub fn new(shape: KvShape) -> Result<Self> {
        let n = shape.slots.saturating_mul(shape.slot_elements());
        let elements = if shape.half { Elements::F16(zeroed(n)?) } else { Elements::F32(zeroed(n)?) };
        Ok(Self { elements, shape })
    }

    /// For writing from several threads.
    pub fn writer(&mut self) -> KvWriter<'_> {
        let elements = match &mut self.elements {
            Elements::F32(x) => Writer::F32(Disjoint::new(x)),
            Elements::F16(x) => Writer::F16(Disjoint::new(x)),
        };
        KvWriter { elements, shape: self.shape }
    }

    /// Attention of a few query rows over a range of a slot's keys.
    pub fn attend(
        &self,
        kernels: &Kernels,
        slot: usize,
        range: std::ops::Range<usize>,
        how: Scores,
        rows: usize,
        scratch: (&[f32], &mut [f32], &mut [f32]),
    ) {
        let (queries, scores, outputs) = scratch;
        let s = &self.shape;
        let start = slot * s.slot_elements();
        let (keys, values) =
            (start..start + s.key_elements(), start + s.key_elements()..start + s.slot_elements());
        match &self.elements {
            Elements::F32(x) => {
                let kv = KeysValues { keys: &x[keys], values: &x[values], capacity: s.capacity };
                kernels.attention_f32(queries, rows, s.head_dim, kv, range, how, scores, outputs);
            }
            Elements::F16(x) => {
                let kv = KeysValues { keys: &x[keys], values: &x[values], capacity: s.capacity };
                kernels.attention_f16(queries, rows, s.head_dim, kv, range, how, scores, outputs);
            }
        }
    }
}

/// Writes positions of an arena; see [`KvArena::writer`].
pub(crate) struct KvWriter<'a> {
    elements: Writer<'a>,
    shape: KvShape,
}

enum Writer<'a> {
    F32(Disjoint<'a, f32>),
    F16(Disjoint<'a, u16>),
}

impl KvWriter<'_> {
    /// Writes the key and the value of one position.
    ///
    /// # Safety
    /// No other thread writes to the same position of the same slot meanwhile.
    pub unsafe fn put(&self, slot: usize, position: usize, key: &[f32], value: &[f32]) {
        let s = &self.shape;
        assert!(slot < s.slots && position < s.capacity);
        assert!(key.len() == s.head_dim && value.len() == s.head_dim);
        let start = slot * s.slot_elements();
        let key_at = |d: usize| start + (position / LANES * s.head_dim + d) * LANES + position % LANES;
        let value_at =
            |d: usize| start + s.key_elements() + (d / LANES * s.capacity + position) * LANES + d % LANES;
        for (d, (&k, &v)) in key.iter().zip(value).enumerate() {
            for (at, x) in [(key_at(d), k), (value_at(d), v)] {
                // SAFETY: one element of this position, which by the caller's promise is this thread's alone.
                unsafe {
                    match &self.elements {
                        Writer::F32(out) => out.get(at..at + 1)[0] = x,
                        Writer::F16(out) => out.get(at..at + 1)[0] = f16::from_f32(x).to_bits(),
                    }
                }
            }
        }
    }
}
