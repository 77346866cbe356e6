//! Rotary position embedding: a table of sines and cosines, the same on every machine.

use crate::error::Result;
use crate::system::memory::Reserve;

/// Cosines and sines for every position that a session can reach.
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    theta: f64,
}

impl Rope {
    /// The base of the angles.
    pub fn theta(&self) -> f64 {
        self.theta
    }

    /// Angles are rounded to f32 step by step, as transformers' `GemmaRotaryEmbedding` rounds them; sines and
    /// cosines come from `libm`'s software, since those of the systems differ in their last bits.
    pub fn new(reserve: &mut Reserve, head_dim: usize, theta: f64, positions: usize) -> Result<Self> {
        let half = head_dim / 2;
        let numbers = positions.saturating_mul(half);
        let (mut cos, mut sin) = (reserve.filled(numbers, 0.0)?, reserve.filled(numbers, 0.0)?);
        for i in 0..if reserve.counts_only() { 0 } else { half } {
            let exponent = (2 * i) as f32 / head_dim as f32;
            let frequency = 1.0 / libm::pow(theta, f64::from(exponent)) as f32;
            let column = cos[i..].iter_mut().step_by(half).zip(sin[i..].iter_mut().step_by(half));
            for (position, (cos, sin)) in column.enumerate() {
                // A position is one step more than its number, as in transformers; only differences matter.
                let (s, c) = libm::sincos(f64::from((position + 1) as f32 * frequency));
                (*sin, *cos) = (s as f32, c as f32);
            }
        }
        Ok(Self { cos, sin, half, theta })
    }

    /// Rotates a head's query or key in place by so many steps: pairs are a dimension of the first half and its twin in
    /// the second. The table begins with one step, and none changes nothing.
    pub fn rotate(&self, steps: usize, head: &mut [f32]) {
        let Some(row) = steps.checked_sub(1) else { return };
        let at = row * self.half..(row + 1) * self.half;
        let (first, second) = head.split_at_mut(self.half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(&self.cos[at.clone()]).zip(&self.sin[at])
        {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
