//! A virtual vector of sixteen f32 lanes, which every instruction set implements with the same bits.
//!
//! Kernels are written once over [`Simd`]; [`Portable`] is plain Rust and **is the definition**. Every
//! operation here is one IEEE-754 operation per lane, or an exact one, so that a kernel written over the trait
//! gives the same bits on every machine. Reductions over lanes use one fixed tree.

mod portable;
pub use portable::Portable;

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDotprod, NeonI8mm};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni, AvxVnniEvex};

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;

use crate::layout::{LANES, TILE_BYTES};

/// A capability to run sixteen-lane operations. A value exists only where the CPU can run them.
pub trait Simd: Copy {
    /// Vectors side by side in a register block: so many that with six rows of them all sums stay in registers.
    const BLOCK_STRIPES: usize;
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32: sums of integer products.
    type I: Copy;
    /// Sixteen times four i8, in the form that [`dot`](Self::dot) multiplies.
    type Tile: Copy;

    /// The same value in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// Lane `i` is `x[i]`.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// `out[i]` becomes lane `i`.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Lane `i` is the half-precision number `x[i]`, widened exactly.
    fn load_f16(self, x: &[u16; LANES]) -> Self::F;
    /// Lane `i` is the integer `x[i]`.
    fn load_i8(self, x: &[i8; LANES]) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b` (so `b` if either is NaN).
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b` (so `b` if either is NaN).
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The magnitude.
    fn abs(self, a: Self::F) -> Self::F;
    /// The nearest integer, halves to even.
    fn round_even(self, a: Self::F) -> Self::F;
    /// Lane-wise `a < b ? yes : no`.
    fn select_lt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// 2 to the power of `n`, which holds integers in -126..=127.
    fn exp2_int(self, n: Self::F) -> Self::F;
    /// Lanes `from..to` of `v`, zero elsewhere.
    fn keep(self, v: Self::F, from: usize, to: usize) -> Self::F;
    /// Lanes as i8. They hold integers in -127..=127; anything else gives some i8.
    fn store_i8(self, v: Self::F, out: &mut [i8; LANES]);

    /// Byte `4·i + j` of the tile is lane `i` of `v[j]`, by [`store_i8`](Self::store_i8)'s rules.
    #[inline(always)]
    fn store_tile(self, v: [Self::F; 4], tile: &mut [i8; TILE_BYTES]) {
        for (j, v) in v.into_iter().enumerate() {
            let mut column = [0; LANES];
            self.store_i8(v, &mut column);
            for (i, byte) in column.into_iter().enumerate() {
                tile[4 * i + j] = byte;
            }
        }
    }

    /// `v` kept to `low..=high`, two numbers that are no zeros, and `low` where `v` is NaN, which must not be a
    /// signaling one.
    #[inline(always)]
    fn clamp(self, v: Self::F, low: f32, high: f32) -> Self::F {
        self.min(self.max(v, self.splat(low)), self.splat(high))
    }
    /// The larger of `|v|` and `most`, which is at least 0; `most` where `v` is NaN, which must not be a signaling one.
    #[inline(always)]
    fn max_abs(self, v: Self::F, most: Self::F) -> Self::F {
        self.max(self.abs(v), most)
    }
    /// The nearest integer, halves to even, and 2 to its power, for lanes in -126..=127. An integer that is zero may
    /// have either sign.
    #[inline(always)]
    fn round_exp2(self, a: Self::F) -> (Self::F, Self::F) {
        let n = self.round_even(a);
        (n, self.exp2_int(n))
    }
    /// Stores the nearest integers, halves to even, of lanes of which none is above 127 in magnitude, and adds them to
    /// the total of `sum`, in whatever lanes.
    #[inline(always)]
    fn store_rounded_i8(self, v: Self::F, out: &mut [i8; LANES], sum: Self::I) -> Self::I {
        let n = self.round_even(v);
        self.store_i8(n, out);
        self.add_i32(sum, self.to_i32(n))
    }
    /// The same for lanes in 0..=255.
    #[inline(always)]
    fn store_rounded_u8(self, v: Self::F, out: &mut [u8; LANES], sum: Self::I) -> Self::I {
        let n = self.to_i32(v);
        self.store_u8(n, out);
        self.add_i32(sum, n)
    }

    /// `a - ⌊a⌋` for finite `a`, rounded to nearest as any difference is.
    fn fraction(self, a: Self::F) -> Self::F;
    /// `a · 2^⌊y⌋` for `a` in 0..1024 and finite `y` up to 0. Where `y` is below -126 it may be any number from 0 to
    /// `a · 2⁻¹²⁶`.
    fn mul_exp2_floor(self, a: Self::F, y: Self::F) -> Self::F;

    /// Loads a tile; lane `i` owns bytes `4·i..4·i + 4`. No byte is -128.
    fn load_tile(self, tile: &[i8; TILE_BYTES]) -> Self::Tile;
    /// Brings unsigned bytes into the form that [`dot`](Self::dot) multiplies.
    #[inline(always)]
    fn prepare(self, _x: &mut [u8]) {}
    /// What sums of products must start at, for [`dot`](Self::dot) to sum up `tile · (x - zero)`; lane `i` of
    /// `tile_sums` is the sum of all that lane `i` of the tiles has. `zero` is 0 or 128.
    fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> Self::I;
    /// Lane `i` is `acc[i] + Σ_j tile[4·i + j] · x[j]`, for prepared `x` and once all products of a sum that began with
    /// [`dot_start`](Self::dot_start) are in it.
    fn dot(self, acc: Self::I, tile: Self::Tile, x: &[u8; 4]) -> Self::I;
    /// Lanes as f32, rounded to nearest even.
    fn to_f32(self, v: Self::I) -> Self::F;
    /// The nearest integers, halves to even, of lanes that an i32 can hold.
    fn to_i32(self, v: Self::F) -> Self::I;
    /// `a + b`
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// The sum of all lanes.
    fn sum_i32(self, v: Self::I) -> i32;
    /// The low bytes of all lanes.
    fn store_u8(self, v: Self::I, out: &mut [u8; LANES]);

    /// Fetches a cache line that is to be read soon; any address will do.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    /// The sum of all lanes by the tree (i, i+8), (i, i+4), (i, i+2), (0, 1).
    fn sum(self, v: Self::F) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }

    /// The largest lane; none is NaN, and a zero may have either sign where there are both.
    fn max_lane(self, v: Self::F) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        x.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    /// The first lanes from `x`, zero beyond it.
    #[inline(always)]
    fn load_tail(self, x: &[f32]) -> Self::F {
        let mut full = [0.0; LANES];
        full[..x.len()].copy_from_slice(x);
        self.load(&full)
    }

    /// As many of the first lanes as `out` is long.
    #[inline(always)]
    fn store_tail(self, v: Self::F, out: &mut [f32]) {
        let mut full = [0.0; LANES];
        self.store(v, &mut full);
        out.copy_from_slice(&full[..out.len()]);
    }
}
