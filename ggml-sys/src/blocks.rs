//! ggml's Q4_0 and Q8_0: blocks of 32 values with one f16 scale, in plain Rust.
//!
//! ```text
//! Q4_0, 18 bytes   d: f16 | 16 bytes: byte j = value j in the low nibble, value j + 16 in the high one
//!                  value = d · (nibble - 8)
//!                  d = extreme / -8, where extreme is the value of largest magnitude (the first one of equals)
//!                  nibble = min(15, trunc(value · 1/d + 8.5))
//!
//! Q8_0, 34 bytes   d: f16 | 32 × i8
//!                  value = d · q
//!                  d = largest magnitude / 127
//!                  q = value · 1/d, rounded to the nearest, half away from zero
//! ```
//!
//! All numbers are little-endian. Values are divided by `d` in f32; the stored `d` is rounded to f16. Products and sums
//! are rounded separately, never fused. A row is the sequence of its blocks.
//!
//! `.palm` files do not use these formats: palmtop's int8 and int4 are different and laid out for its kernels. These
//! are here for comparison: `tests/same_blocks.rs` checks them against ggml's own quantizers, byte for byte.

use half::f16;

/// Values of a block.
pub const BLOCK: usize = 32;

/// A block format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 4-bit values: 4.5 bits each with the scale.
    Q4_0,
    /// 8-bit values: 8.5 bits each with the scale.
    Q8_0,
}

impl BlockFormat {
    /// All.
    pub const ALL: [Self; 2] = [Self::Q4_0, Self::Q8_0];

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q8_0 => 2 + BLOCK,
        }
    }

    /// Bytes of `values` values; `None` if they are not whole blocks, or too many.
    pub const fn bytes(self, values: usize) -> Option<usize> {
        if values.is_multiple_of(BLOCK) { (values / BLOCK).checked_mul(self.block_bytes()) } else { None }
    }

    /// Quantizes finite `values` into `blocks`.
    ///
    /// Where the largest magnitude of a block is so small that `1/d` overflows (below 4·10⁻³⁷), C leaves open what the
    /// values become, and compilers differ. Here they become what GCC makes of them on x86-64, zero bytes; the scale is
    /// zero anyway.
    ///
    /// # Panics
    /// If the lengths do not fit together: the caller's mistake.
    pub fn quantize(self, values: &[f32], blocks: &mut [u8]) {
        assert_eq!(Some(blocks.len()), self.bytes(values.len()), "blocks for these values");
        let (values, _) = values.as_chunks::<BLOCK>();
        for (values, block) in values.iter().zip(blocks.chunks_exact_mut(self.block_bytes())) {
            match self {
                Self::Q4_0 => quantize_q4_0(values, block),
                Self::Q8_0 => quantize_q8_0(values, block),
            }
        }
    }

    /// The values that `blocks` stand for.
    ///
    /// # Panics
    /// If the lengths do not fit together: the caller's mistake.
    pub fn dequantize(self, blocks: &[u8], values: &mut [f32]) {
        assert_eq!(Some(blocks.len()), self.bytes(values.len()), "values of these blocks");
        let (values, _) = values.as_chunks_mut::<BLOCK>();
        for (values, block) in values.iter_mut().zip(blocks.chunks_exact(self.block_bytes())) {
            let (d, q) = block.split_at(2);
            let d = f16::from_le_bytes([d[0], d[1]]).to_f32();
            for (j, value) in values.iter_mut().enumerate() {
                let q = match self {
                    Self::Q4_0 if j < BLOCK / 2 => (q[j] & 15) as i8 - 8,
                    Self::Q4_0 => (q[j - BLOCK / 2] >> 4) as i8 - 8,
                    Self::Q8_0 => q[j] as i8,
                };
                *value = d * f32::from(q);
            }
        }
    }
}

impl std::fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

fn quantize_q4_0(values: &[f32; BLOCK], block: &mut [u8]) {
    let extreme = values.iter().fold(0f32, |most, &v| if most.abs() < v.abs() { v } else { most });
    let d = extreme / -8.0;
    let id = reciprocal(d);
    // The first of equal magnitudes can be the negative one: then the positive one would be 16.
    let nibble = |v: f32| (byte(v * id + 8.5) as i8).min(15) as u8;
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for j in 0..BLOCK / 2 {
        block[2 + j] = nibble(values[j]) | nibble(values[j + BLOCK / 2]) << 4;
    }
}

fn quantize_q8_0(values: &[f32; BLOCK], block: &mut [u8]) {
    let most = values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let d = most / 127.0;
    let id = reciprocal(d);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, v) in block[2..].iter_mut().zip(values) {
        *q = byte((v * id).round());
    }
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The low byte of `x` as an integer; 0 if it is not one of 32 bits.
fn byte(x: f32) -> u8 {
    if x.abs() < 2f32.powi(31) { x as i32 as u8 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(format: BlockFormat, values: &[f32]) -> Vec<u8> {
        let mut blocks = vec![0xAA; format.bytes(values.len()).expect("whole blocks")];
        format.quantize(values, &mut blocks);
        blocks
    }

    fn half(x: f32) -> [u8; 2] {
        f16::from_f32(x).to_le_bytes()
    }

    #[test]
    fn q4_0_is_laid_out_as_described() {
        // -8 … 7 twice: the scale is 1, value j becomes nibble j mod 16.
        let values: [f32; BLOCK] = std::array::from_fn(|j| (j % 16) as f32 - 8.0);
        let block = quantized(BlockFormat::Q4_0, &values);
        let expected: Vec<u8> = half(1.0).into_iter().chain((0..16).map(|j| j | j << 4)).collect();
        assert_eq!(block, expected);
    }

    #[test]
    fn q8_0_is_laid_out_as_described() {
        // 127 and small steps: the scale is 1. Halves are rounded away from zero.
        let mut values = [0f32; BLOCK];
        values[..8].copy_from_slice(&[127.0, -127.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49]);
        let block = quantized(BlockFormat::Q8_0, &values);
        assert_eq!(block[..2], half(1.0));
        let q: Vec<i8> = block[2..].iter().map(|&q| q as i8).collect();
        assert_eq!(q[..8], [127, -127, 1, -1, 2, 3, -3, 0]);
        assert_eq!(q[8..], [0; 24]);
    }

    #[test]
    fn the_first_of_equal_magnitudes_gives_q4_0_its_sign() {
        let mut values = [0f32; BLOCK];
        (values[3], values[20]) = (16.0, -16.0);
        let block = quantized(BlockFormat::Q4_0, &values);
        // Scale -2: 16 is -8 steps, nibble 0; -16 would be 8 steps, and 7 is the last.
        assert_eq!((&block[..2], block[2 + 3] & 15, block[2 + 4] >> 4), (&half(-2.0)[..], 0, 15));
        assert_eq!(block[2], 0x88, "zeros are nibble 8");
    }

    #[test]
    fn zeros_and_what_is_next_to_nothing_become_zero_scales() {
        for value in [0.0, -0.0, f32::from_bits(1), 1e-40] {
            for format in BlockFormat::ALL {
                let block = quantized(format, &[value; BLOCK]);
                assert_eq!(f16::from_le_bytes([block[0], block[1]]).to_f32(), 0.0, "{format} of {value}");
                let mut back = [1f32; BLOCK];
                format.dequantize(&block, &mut back);
                assert_eq!(back, [0.0; BLOCK], "{format} of {value}");
            }
        }
    }

    #[test]
    fn values_come_back_within_a_step() {
        let values: Vec<f32> = (0..4 * BLOCK).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        for (format, steps) in [(BlockFormat::Q4_0, 8.0), (BlockFormat::Q8_0, 127.0)] {
            let mut back = vec![0.0; values.len()];
            format.dequantize(&quantized(format, &values), &mut back);
            for (v, b) in values.as_chunks::<BLOCK>().0.iter().zip(back.as_chunks::<BLOCK>().0) {
                let most = v.iter().fold(0f32, |m, v| m.max(v.abs()));
                // Half a step, but a whole one for Q4_0's eighth step of the sign that has seven; and f16's rounding of
                // d.
                let step = most / steps * if format == BlockFormat::Q4_0 { 1.0 } else { 0.5 } + most / 1024.0;
                v.iter().zip(b).for_each(|(v, b)| assert!((v - b).abs() <= step, "{format}: {v} became {b}"));
            }
        }
    }

    #[test]
    fn only_whole_blocks_have_a_size() {
        assert_eq!(BlockFormat::Q4_0.bytes(64), Some(36));
        assert_eq!(BlockFormat::Q8_0.bytes(64), Some(68));
        assert_eq!(BlockFormat::Q8_0.bytes(0), Some(0));
        assert_eq!(BlockFormat::Q4_0.bytes(33), None);
        assert_eq!(BlockFormat::Q8_0.bytes(usize::MAX - 31), None);
    }
}
