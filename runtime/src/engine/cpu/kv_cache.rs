//! The KV cache: fixed in size, laid out as the attention kernel multiplies.

use half::f16;
use palmtop_kernels::layout::LANES;
use palmtop_kernels::{Kernels, KeysValues, KvScales, Scores};

use crate::error::Result;
use crate::model::config::HEAD_DIM_MAX;
use crate::model::kv_format::KvElement;
use crate::system::memory::{Aligned, Reserve};
use crate::system::pool::Disjoint;

/// Keys and values of some number of *slots*: one per sequence, layer and key-value head.
///
/// In each slot keys stand in blocks of 16, each `[head_dim][16]`, and values in stripes of 16 dimensions, each
/// `[capacity][16]`: both are then packed matrices (see [`KeysValues`]). Integers have scales beside them, in each slot
/// one for every key, then one for every value.
pub(crate) struct KvCache {
    elements: Elements,
    pub shape: KvShape,
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    pub slots: usize,
    pub head_dim: usize,
    /// Keys that a slot has room for, a multiple of 16.
    pub capacity: usize,
    pub element: KvElement,
}

enum Elements {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
    Int8 { integers: Aligned<i8>, scales: Aligned<f32> },
}

impl KvShape {
    fn key_elements(&self) -> usize {
        self.capacity.saturating_mul(self.head_dim)
    }

    fn slot_elements(&self) -> usize {
        let values = self.capacity.saturating_mul(self.head_dim.next_multiple_of(LANES));
        self.key_elements().saturating_add(values)
    }

    fn slot_scales(&self) -> usize {
        self.capacity.saturating_mul(2)
    }

    /// Numbers of elements and, for integers, of scales.
    fn numbers(&self) -> (usize, usize) {
        (self.slots.saturating_mul(self.slot_elements()), self.slots.saturating_mul(self.slot_scales()))
    }
}

impl KvCache {
    pub fn new(reserve: &mut Reserve, shape: KvShape) -> Result<Self> {
        let (elements, scales) = shape.numbers();
        let elements = match shape.element {
            KvElement::F32 => Elements::F32(reserve.aligned(elements)?),
            KvElement::F16 => Elements::F16(reserve.aligned(elements)?),
            KvElement::Int8 => {
                Elements::Int8 { integers: reserve.aligned(elements)?, scales: reserve.aligned(scales)? }
            }
        };
        Ok(Self { elements, shape })
    }

    /// For writing from several threads.
    pub fn writer(&mut self) -> KvWriter<'_> {
        let elements = match &mut self.elements {
            Elements::F32(x) => Writer::F32(Disjoint::new(x)),
            Elements::F16(x) => Writer::F16(Disjoint::new(x)),
            Elements::Int8 { integers, scales } => {
                Writer::Int8 { integers: Disjoint::new(integers), scales: Disjoint::new(scales) }
            }
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
        let KvShape { head_dim, capacity, .. } = self.shape;
        match &self.elements {
            Elements::F32(x) => {
                let (keys, values) = self.of_slot(x, slot);
                let kv = KeysValues { keys, values, capacity, scales: None };
                kernels.attention_f32(queries, rows, head_dim, kv, range, how, scores, outputs);
            }
            Elements::F16(x) => {
                let (keys, values) = self.of_slot(x, slot);
                let kv = KeysValues { keys, values, capacity, scales: None };
                kernels.attention_f16(queries, rows, head_dim, kv, range, how, scores, outputs);
            }
            Elements::Int8 { integers, scales } => {
                let n = self.shape.slot_scales();
                let (key_scales, value_scales) = scales[slot * n..(slot + 1) * n].split_at(capacity);
                let scales = Some(KvScales { keys: key_scales, values: value_scales });
                let (keys, values) = self.of_slot(integers, slot);
                let kv = KeysValues { keys, values, capacity, scales };
                kernels.attention_scaled_i8(queries, rows, head_dim, kv, range, how, scores, outputs);
            }
        }
    }

    /// A slot's keys and values.
    fn of_slot<'a, T>(&self, elements: &'a [T], slot: usize) -> (&'a [T], &'a [T]) {
        let n = self.shape.slot_elements();
        elements[slot * n..(slot + 1) * n].split_at(self.shape.key_elements())
    }
}

/// Writes positions of a cache; see [`KvCache::writer`].
pub(crate) struct KvWriter<'a> {
    elements: Writer<'a>,
    shape: KvShape,
}

enum Writer<'a> {
    F32(Disjoint<'a, f32>),
    F16(Disjoint<'a, u16>),
    Int8 { integers: Disjoint<'a, i8>, scales: Disjoint<'a, f32> },
}

impl KvWriter<'_> {
    /// Writes the key and the value of one position.
    ///
    /// # Safety
    /// No other thread writes to the same position of the same slot meanwhile.
    pub unsafe fn put(&self, kernels: &Kernels, slot: usize, position: usize, key: &[f32], value: &[f32]) {
        let s = &self.shape;
        assert!(slot < s.slots && position < s.capacity);
        assert!(key.len() == s.head_dim && value.len() == s.head_dim);
        let place = (slot, position);
        // SAFETY: what is written belongs to this position, which by the caller's promise is this thread's alone.
        unsafe {
            match &self.elements {
                Writer::F32(out) => self.scatter(out, place, key, value, |x| x),
                Writer::F16(out) => self.scatter(out, place, key, value, |x| f16::from_f32(x).to_bits()),
                Writer::Int8 { integers, scales } => {
                    let mut q = [[0; HEAD_DIM_MAX]; 2];
                    let first = slot * s.slot_scales() + position;
                    for ((x, q), at) in [key, value].iter().zip(&mut q).zip([first, first + s.capacity]) {
                        let (scale, _) =
                            kernels.quantize_chunk(x, &mut q[..s.head_dim.next_multiple_of(LANES)]);
                        scales.get(at..at + 1)[0] = scale;
                    }
                    let [key, value] = q.each_ref().map(|q| &q[..s.head_dim]);
                    self.scatter(integers, place, key, value, |x| x);
                }
            }
        }
    }

    /// Writes the elements of a key and of a value where the layout has them.
    ///
    /// # Safety
    /// No other thread writes to this place, a slot and a position, meanwhile.
    unsafe fn scatter<X: Copy, T>(
        &self,
        out: &Disjoint<'_, T>,
        (slot, position): (usize, usize),
        key: &[X],
        value: &[X],
        element: impl Fn(X) -> T,
    ) {
        let s = &self.shape;
        let keys = slot * s.slot_elements() + position / LANES * s.head_dim * LANES + position % LANES;
        let values = slot * s.slot_elements() + s.key_elements() + position * LANES;
        for (d, &x) in key.iter().enumerate() {
            let at = keys + d * LANES;
            // SAFETY: one element of this position, which by the caller's promise is this thread's alone.
            let out = unsafe { out.get(at..at + 1) };
            out[0] = element(x);
        }
        for (stripe, part) in value.chunks(LANES).enumerate() {
            let at = values + stripe * s.capacity * LANES;
            // SAFETY: a stripe's elements of this position; as above.
            let out = unsafe { out.get(at..at + part.len()) };
            out.iter_mut().zip(part).for_each(|(out, &x)| *out = element(x));
        }
    }
}
