//! Rotary position embedding: a table of sines and cosines, the same on every machine.

/// Cosines and sines for every position that a session can reach.
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// Bytes of a table.
    pub fn bytes(head_dim: usize, positions: usize) -> usize {
        2 * 4 * positions * (head_dim / 2)
    }

    /// Angles are rounded to f32 step by step, as transformers' `GemmaRotaryEmbedding` rounds them; sines and
    /// cosines come from `libm`'s software, since those of the systems differ in their last bits.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let half = head_dim / 2;
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / libm::pow(theta, f64::from(exponent)) as f32
        };
        let (mut cos, mut sin) = (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for position in 0..positions {
            for i in 0..half {
                // Positions count from 1, as in transformers; only their differences matter.
                let angle = f64::from((position + 1) as f32 * frequency(i));
                cos.push(libm::cos(angle) as f32);
                sin.push(libm::sin(angle) as f32);
            }
        }
        Self { cos, sin, half }
    }

    /// Rotates a head's query or key in place: pairs are a dimension of the first half and its twin in the second.
    pub fn rotate(&self, position: usize, head: &mut [f32]) {
        let at = position * self.half..(position + 1) * self.half;
        let (first, second) = head.split_at_mut(self.half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(&self.cos[at.clone()]).zip(&self.sin[at])
        {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
