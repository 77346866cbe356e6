//! Sixteen lanes in four NEON registers.

use std::arch::aarch64::*;
use std::arch::asm;

use super::Simd;
use crate::layout::{LANES, TILE_BYTES};

/// Declares a capability and what it is made of.
macro_rules! neon {
    ($(#[$doc:meta])* $name:ident, [$($feature:tt),*], $dot:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The capability, if this CPU has it.
            pub fn try_new() -> Option<Self> {
                (true $(&& std::arch::is_aarch64_feature_detected!($feature))*).then_some(Self(()))
            }

            /// The capability, where it is known from elsewhere.
            ///
            /// # Safety
            /// [`try_new`](Self::try_new) gives `Some` on this CPU.
            #[inline(always)]
            pub unsafe fn new_unchecked() -> Self {
                Self(())
            }
        }

        impl Simd for $name {
            lanes!();

            #[inline(always)]
            fn dot(self, mut acc: I, tile: Tile, x: &[u8; 4]) -> I {
                // SAFETY: see `each`.
                let x = unsafe { vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(*x))) };
                for i in 0..4 {
                    // SAFETY: `self` exists only where the CPU has the features.
                    acc[i] = unsafe { $dot(acc[i], tile[i], x) };
                }
                acc
            }
        }
    };
}

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];
type Tile = [int8x16_t; 4];

/// `f` of each of four registers.
///
/// SAFETY of the intrinsics in all closures and methods here: every aarch64 CPU that Rust compiles for has NEON; loads
/// and stores go through references to arrays of exactly the size that is read or written.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// 1.5 · 2²³: a number of magnitude up to 2²² plus this is rounded to an integer, halves to even, and its low bits are
/// that integer's. Many CPUs add on every vector unit, but round and convert on one of them, at half its rate.
pub(crate) const ROUNDS: f32 = 12_582_912.0;

/// 2ⁿ for integers n in -126..=127 that [`ROUNDS`] was added to: what is above their low bits is shifted out.
#[inline(always)]
fn power_of_two(rounded: F) -> F {
    // SAFETY: see `each`.
    each(|i| unsafe {
        let biased = vaddq_s32(vreinterpretq_s32_f32(rounded[i]), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    })
}

/// The low bytes of all lanes.
#[inline(always)]
fn low_bytes(v: F) -> uint8x16_t {
    // SAFETY: see `each`.
    unsafe {
        let halves = |i: usize| {
            vreinterpretq_u8_u16(vuzp1q_u16(vreinterpretq_u16_f32(v[i]), vreinterpretq_u16_f32(v[i + 1])))
        };
        vuzp1q_u8(halves(0), halves(2))
    }
}

/// What all NEON sets have in common: everything but the dot product of bytes.
macro_rules! lanes {
    () => {
        const BLOCK_STRIPES: usize = 1;
        type F = F;
        type I = I;
        type Tile = Tile;

        #[inline(always)]
        fn splat(self, x: f32) -> F {
            // SAFETY: see `each`.
            unsafe { [vdupq_n_f32(x); 4] }
        }
        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
        }
        #[inline(always)]
        fn store(self, v: F, out: &mut [f32; LANES]) {
            for i in 0..4 {
                // SAFETY: see `each`.
                unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), v[i]) };
            }
        }
        #[inline(always)]
        fn load_f16(self, x: &[u16; LANES]) -> F {
            each(|i| {
                let out: float32x4_t;
                // SAFETY: see `each`. Rust's half-precision intrinsics are not stable, the instruction is as old as NEON.
                unsafe {
                    let half = vld1_u16(x.as_ptr().add(4 * i));
                    asm!("fcvtl {o:v}.4s, {h:v}.4h", o = out(vreg) out, h = in(vreg) half, options(pure, nomem, nostack, preserves_flags));
                }
                out
            })
        }
        #[inline(always)]
        fn load_i8(self, x: &[i8; LANES]) -> F {
            // SAFETY: see `each`.
            unsafe {
                let bytes = vld1q_s8(x.as_ptr());
                let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
                [
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                    vcvtq_f32_s32(vmovl_high_s16(low)),
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                    vcvtq_f32_s32(vmovl_high_s16(high)),
                ]
            }
        }
        #[inline(always)]
        fn add(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vaddq_f32(a[i], b[i]) })
        }
        #[inline(always)]
        fn sub(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vsubq_f32(a[i], b[i]) })
        }
        #[inline(always)]
        fn mul(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vmulq_f32(a[i], b[i]) })
        }
        #[inline(always)]
        fn div(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vdivq_f32(a[i], b[i]) })
        }
        #[inline(always)]
        fn fma(self, a: F, b: F, c: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
        }
        #[inline(always)]
        fn max(self, a: F, b: F) -> F {
            // Not `fmax`, which gives NaN where either is.
            // SAFETY: see `each`.
            each(|i| unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]) })
        }
        #[inline(always)]
        fn min(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]) })
        }
        #[inline(always)]
        fn abs(self, a: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vabsq_f32(a[i]) })
        }
        #[inline(always)]
        fn round_even(self, a: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vrndnq_f32(a[i]) })
        }
        #[inline(always)]
        fn select_lt(self, a: F, b: F, yes: F, no: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), yes[i], no[i]) })
        }
        #[inline(always)]
        fn exp2_int(self, n: F) -> F {
            power_of_two(self.add(n, self.splat(ROUNDS)))
        }
        #[inline(always)]
        fn clamp(self, v: F, low: f32, high: f32) -> F {
            // The bounds are numbers, and where `v` is NaN these give the bound.
            // SAFETY: see `each`.
            each(|i| unsafe { vminnmq_f32(vmaxnmq_f32(v[i], vdupq_n_f32(low)), vdupq_n_f32(high)) })
        }
        #[inline(always)]
        fn max_abs(self, v: F, most: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vmaxnmq_f32(vabsq_f32(v[i]), most[i]) })
        }
        #[inline(always)]
        fn round_exp2(self, a: F) -> (F, F) {
            let rounded = self.add(a, self.splat(ROUNDS));
            (self.sub(rounded, self.splat(ROUNDS)), power_of_two(rounded))
        }
        #[inline(always)]
        fn store_rounded_i8(self, v: F, out: &mut [i8; LANES], sum: I) -> I {
            let bytes = low_bytes(self.add(v, self.splat(ROUNDS)));
            // SAFETY: see `each`.
            unsafe {
                vst1q_s8(out.as_mut_ptr(), vreinterpretq_s8_u8(bytes));
                let pairs = vpaddlq_s8(vreinterpretq_s8_u8(bytes));
                [vpadalq_s16(sum[0], pairs), sum[1], sum[2], sum[3]]
            }
        }
        #[inline(always)]
        fn store_rounded_u8(self, v: F, out: &mut [u8; LANES], sum: I) -> I {
            let bytes = low_bytes(self.add(v, self.splat(ROUNDS)));
            // SAFETY: see `each`.
            unsafe {
                vst1q_u8(out.as_mut_ptr(), bytes);
                let pairs = vreinterpretq_s16_u16(vpaddlq_u8(bytes));
                [vpadalq_s16(sum[0], pairs), sum[1], sum[2], sum[3]]
            }
        }
        #[inline(always)]
        fn keep(self, v: F, from: usize, to: usize) -> F {
            const FIRST: [u32; 4] = [0, 1, 2, 3];
            let (from, to) = (from.min(LANES) as u32, to.min(LANES) as u32);
            // SAFETY: see `each`.
            each(|i| unsafe {
                let lane = vaddq_u32(vld1q_u32(FIRST.as_ptr()), vdupq_n_u32(4 * i as u32));
                let kept = vandq_u32(vcgeq_u32(lane, vdupq_n_u32(from)), vcltq_u32(lane, vdupq_n_u32(to)));
                vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v[i]), kept))
            })
        }
        #[inline(always)]
        fn store_i8(self, v: F, out: &mut [i8; LANES]) {
            // SAFETY: see `each`.
            unsafe {
                let n = each(|i| vmovn_s32(vcvtq_s32_f32(v[i])));
                let low = vmovn_s16(vcombine_s16(n[0], n[1]));
                let high = vmovn_s16(vcombine_s16(n[2], n[3]));
                vst1q_s8(out.as_mut_ptr(), vcombine_s8(low, high));
            }
        }
        #[inline(always)]
        fn store_tile(self, v: [F; 4], tile: &mut [i8; TILE_BYTES]) {
            // SAFETY: see `each`.
            unsafe {
                let bytes = v.map(|v| {
                    let n = each(|i| vmovn_s32(vcvtq_s32_f32(v[i])));
                    let low = vmovn_s16(vcombine_s16(n[0], n[1]));
                    vcombine_s8(low, vmovn_s16(vcombine_s16(n[2], n[3])))
                });
                vst4q_s8(tile.as_mut_ptr(), int8x16x4_t(bytes[0], bytes[1], bytes[2], bytes[3]));
            }
        }
        #[inline(always)]
        fn fraction(self, a: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vsubq_f32(a[i], vrndmq_f32(a[i])) })
        }
        #[inline(always)]
        fn mul_exp2_floor(self, a: F, y: F) -> F {
            // SAFETY: see `each`.
            let n = each(|i| unsafe { vmaxq_f32(vrndmq_f32(y[i]), vdupq_n_f32(-126.0)) });
            self.mul(a, self.exp2_int(n))
        }
        #[inline(always)]
        fn load_tile(self, tile: &[i8; TILE_BYTES]) -> Tile {
            // SAFETY: see `each`.
            each(|i| unsafe { vld1q_s8(tile.as_ptr().add(16 * i)) })
        }
        /// Bytes less 128: `sdot` wants both factors signed, and `dot_start` puts it right.
        #[inline(always)]
        fn prepare(self, x: &mut [u8]) {
            x.iter_mut().for_each(|x| *x ^= 0x80);
        }
        #[inline(always)]
        fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> I {
            // SAFETY: see `each`.
            each(|i| unsafe { vmulq_n_s32(vld1q_s32(tile_sums.as_ptr().add(4 * i)), 128 - zero) })
        }
        #[inline(always)]
        fn to_f32(self, v: I) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { vcvtq_f32_s32(v[i]) })
        }
        #[inline(always)]
        fn to_i32(self, v: F) -> I {
            // SAFETY: see `each`.
            each(|i| unsafe { vcvtnq_s32_f32(v[i]) })
        }
        #[inline(always)]
        fn add_i32(self, a: I, b: I) -> I {
            // SAFETY: see `each`.
            each(|i| unsafe { vaddq_s32(a[i], b[i]) })
        }
        #[inline(always)]
        fn sum_i32(self, v: I) -> i32 {
            // SAFETY: see `each`.
            unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]))) }
        }
        #[inline(always)]
        fn store_u8(self, v: I, out: &mut [u8; LANES]) {
            // SAFETY: see `each`.
            unsafe { vst1q_u8(out.as_mut_ptr(), low_bytes(each(|i| vreinterpretq_f32_s32(v[i])))) };
        }
        #[inline(always)]
        fn prefetch(self, address: *const u8) {
            crate::simd::neon::prefetch(address);
        }
        #[inline(always)]
        fn max_lane(self, v: F) -> f32 {
            // SAFETY: see `each`.
            unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3]))) }
        }
        #[inline(always)]
        fn sum(self, v: F) -> f32 {
            // SAFETY: see `each`. The additions follow the tree of `Simd::sum`.
            unsafe {
                let x = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
                let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
                vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
            }
        }
    };
}

neon! {
    /// Every 64-bit Arm CPU: Armv8.0.
    Neon, ["neon"], dot_base
}
neon! {
    /// The CPU has the dot product of bytes: Armv8.2, such as Cortex-A76.
    NeonDotprod, ["neon", "dotprod"], sdot
}
neon! {
    /// The CPU has matrix products of bytes too: Armv8.6, such as Cortex-X3 and Neoverse V1.
    NeonI8mm, ["neon", "dotprod", "i8mm"], sdot
}

/// `acc[i] + Σ_j a[4·i + j] · b[4·i + j]` without a dot product. No byte is -128, so that two products fit an i16.
///
/// # Safety
/// None: every aarch64 CPU has NEON.
#[inline(always)]
pub(crate) unsafe fn dot_base(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: every aarch64 CPU has NEON.
    unsafe {
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        let high = vmull_high_s8(a, b);
        vpadalq_s16(acc, vpaddq_s16(low, high))
    }
}

/// The same in one instruction, whose intrinsic is not stable in Rust yet.
///
/// # Safety
/// The CPU has `dotprod`.
#[inline(always)]
pub(crate) unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: by the caller's promise; registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Fetches a cache line that is to be read soon; any address will do.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    // SAFETY: a prefetch may be given any address.
    unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags)) };
}

/// The same into the second-level cache, for what is read later.
#[inline(always)]
pub(crate) fn prefetch_far(address: *const u8) {
    // SAFETY: a prefetch may be given any address.
    unsafe { asm!("prfm pldl2keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags)) };
}
