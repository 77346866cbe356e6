//! Sixteen lanes in plain Rust: the definition.

use half::f16;

use super::Simd;
use crate::layout::{LANES, TILE_BYTES};

/// Runs everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

type F = [f32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> F {
    std::array::from_fn(f)
}

impl Simd for Portable {
    const BLOCK_STRIPES: usize = 1;
    type F = F;
    type I = [i32; LANES];
    type Tile = [i8; TILE_BYTES];

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        *x
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        each(|i| f16::from_bits(x[i]).to_f32())
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> F {
        each(|i| f32::from(x[i]))
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    fn round_even(self, a: F) -> F {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn select_lt(self, a: F, b: F, yes: F, no: F) -> F {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn exp2_int(self, n: F) -> F {
        each(|i| f32::from_bits(((n[i] as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    fn keep(self, v: F, from: usize, to: usize) -> F {
        each(|i| if (from..to).contains(&i) { v[i] } else { 0.0 })
    }
    #[inline(always)]
    fn store_i8(self, v: F, out: &mut [i8; LANES]) {
        *out = std::array::from_fn(|i| v[i] as i8);
    }
    #[inline(always)]
    fn fraction(self, a: F) -> F {
        each(|i| a[i] - a[i].floor())
    }
    #[inline(always)]
    fn mul_exp2_floor(self, a: F, y: F) -> F {
        self.mul(a, self.exp2_int(each(|i| y[i].floor().max(-126.0))))
    }
    #[inline(always)]
    fn load_tile(self, tile: &[i8; TILE_BYTES]) -> Self::Tile {
        *tile
    }
    #[inline(always)]
    fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> Self::I {
        tile_sums.map(|sum| -zero * sum)
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, tile: Self::Tile, x: &[u8; 4]) -> Self::I {
        std::array::from_fn(|i| {
            (0..4).fold(acc[i], |sum, j| sum + i32::from(tile[4 * i + j]) * i32::from(x[j]))
        })
    }
    #[inline(always)]
    fn to_f32(self, v: Self::I) -> F {
        each(|i| v[i] as f32)
    }
    #[inline(always)]
    fn to_i32(self, v: F) -> Self::I {
        v.map(|v| v.round_ties_even() as i32)
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sum_i32(self, v: Self::I) -> i32 {
        v.into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, out: &mut [u8; LANES]) {
        *out = v.map(|v| v as u8);
    }
}
