//! Sixteen lanes in two AVX registers.

use std::arch::x86_64::*;

use super::Simd;
use crate::layout::{LANES, TILE_BYTES};

type F = [__m256; 2];
type I = [__m256i; 2];
type Tile = [__m256i; 2];

/// Declares a capability and what it is made of: its features, and how it multiplies bytes.
macro_rules! avx {
    ($(#[$doc:meta])* $name:ident, [$($feature:tt),*], { $($dot:item)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The capability, if this CPU has it.
            pub fn try_new() -> Option<Self> {
                (true $(&& is_x86_feature_detected!($feature))*).then_some(Self(()))
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
            $($dot)*
        }
    };
}

/// `f` of each of two registers.
///
/// SAFETY of the intrinsics in all closures and methods here: a capability exists only where the CPU has the features
/// (see `try_new`); loads and stores go through references to arrays of exactly the size that is read or written, and
/// use the unaligned instructions.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; 2] {
    [f(0), f(1)]
}

/// What both have in common: everything but the product of bytes.
macro_rules! lanes {
    () => {
        const BLOCK_STRIPES: usize = 1;
        type F = F;
        type I = I;
        type Tile = Tile;

        #[inline(always)]
        fn splat(self, x: f32) -> F {
            // SAFETY: see `each`.
            unsafe { [_mm256_set1_ps(x); 2] }
        }
        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) })
        }
        #[inline(always)]
        fn store(self, v: F, out: &mut [f32; LANES]) {
            for i in 0..2 {
                // SAFETY: see `each`.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(8 * i), v[i]) };
            }
        }
        #[inline(always)]
        fn load_f16(self, x: &[u16; LANES]) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(8 * i).cast())) })
        }
        #[inline(always)]
        fn load_i8(self, x: &[i8; LANES]) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().add(8 * i).cast())))
            })
        }
        #[inline(always)]
        fn add(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_add_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn sub(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_sub_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn mul(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_mul_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn div(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_div_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn fma(self, a: F, b: F, c: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_fmadd_ps(a[i], b[i], c[i]) })
        }
        #[inline(always)]
        fn max(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_max_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn min(self, a: F, b: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_min_ps(a[i], b[i]) })
        }
        #[inline(always)]
        fn abs(self, a: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a[i]) })
        }
        #[inline(always)]
        fn round_even(self, a: F) -> F {
            const NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_round_ps::<NEAREST_EVEN>(a[i]) })
        }
        #[inline(always)]
        fn select_lt(self, a: F, b: F, yes: F, no: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_blendv_ps(no[i], yes[i], _mm256_cmp_ps::<_CMP_LT_OQ>(a[i], b[i])) })
        }
        #[inline(always)]
        fn exp2_int(self, n: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe {
                let biased = _mm256_add_epi32(_mm256_cvttps_epi32(n[i]), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            })
        }
        #[inline(always)]
        fn keep(self, v: F, from: usize, to: usize) -> F {
            let (from, to) = (from.min(LANES) as i32, to.min(LANES) as i32);
            // SAFETY: see `each`.
            each(|i| unsafe {
                let lane = _mm256_add_epi32(
                    _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                    _mm256_set1_epi32(8 * i as i32),
                );
                let before = _mm256_cmpgt_epi32(_mm256_set1_epi32(from), lane);
                let kept = _mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lane));
                _mm256_and_ps(v[i], _mm256_castsi256_ps(kept))
            })
        }
        #[inline(always)]
        fn store_i8(self, v: F, out: &mut [i8; LANES]) {
            // SAFETY: see `each`.
            let n = each(|i| unsafe { _mm256_cvttps_epi32(v[i]) });
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), low_bytes(n)) };
        }
        #[inline(always)]
        fn store_tile(self, v: [F; 4], tile: &mut [i8; TILE_BYTES]) {
            for i in 0..2 {
                // SAFETY: see `each`.
                unsafe {
                    let low = _mm256_set1_epi32(0xFF);
                    let n = [v[0][i], v[1][i], v[2][i], v[3][i]].map(|v| _mm256_cvttps_epi32(v));
                    let a = _mm256_or_si256(
                        _mm256_and_si256(n[0], low),
                        _mm256_slli_epi32::<8>(_mm256_and_si256(n[1], low)),
                    );
                    let b = _mm256_or_si256(_mm256_and_si256(n[2], low), _mm256_slli_epi32::<8>(n[3]));
                    let bytes = _mm256_or_si256(a, _mm256_slli_epi32::<16>(b));
                    _mm256_storeu_si256(tile.as_mut_ptr().add(32 * i).cast(), bytes);
                }
            }
        }
        #[inline(always)]
        fn fraction(self, a: F) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_sub_ps(a[i], _mm256_floor_ps(a[i])) })
        }
        #[inline(always)]
        fn mul_exp2_floor(self, a: F, y: F) -> F {
            // SAFETY: see `each`.
            let n = each(|i| unsafe { _mm256_max_ps(_mm256_floor_ps(y[i]), _mm256_set1_ps(-126.0)) });
            self.mul(a, self.exp2_int(n))
        }
        #[inline(always)]
        fn load_tile(self, tile: &[i8; TILE_BYTES]) -> Tile {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_loadu_si256(tile.as_ptr().add(32 * i).cast()) })
        }
        #[inline(always)]
        fn to_f32(self, v: I) -> F {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_cvtepi32_ps(v[i]) })
        }
        #[inline(always)]
        fn to_i32(self, v: F) -> I {
            // SAFETY: see `each`. The rounding mode of a Rust program is to nearest even.
            each(|i| unsafe { _mm256_cvtps_epi32(v[i]) })
        }
        #[inline(always)]
        fn add_i32(self, a: I, b: I) -> I {
            // SAFETY: see `each`.
            each(|i| unsafe { _mm256_add_epi32(a[i], b[i]) })
        }
        #[inline(always)]
        fn sum_i32(self, v: I) -> i32 {
            // SAFETY: see `each`.
            unsafe {
                let x = _mm256_add_epi32(v[0], v[1]);
                let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
                let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
                _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
            }
        }
        #[inline(always)]
        fn store_u8(self, v: I, out: &mut [u8; LANES]) {
            // SAFETY: see `each`.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), low_bytes(v)) };
        }
        #[inline(always)]
        fn prefetch(self, address: *const u8) {
            // SAFETY: a prefetch may be given any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
        #[inline(always)]
        fn max_lane(self, v: F) -> f32 {
            // SAFETY: see `each`. A maximum is the same in any order.
            unsafe {
                let x = _mm256_max_ps(v[0], v[1]);
                let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
        #[inline(always)]
        fn sum(self, v: F) -> f32 {
            // SAFETY: see `each`. The shuffles follow the tree of `Simd::sum`.
            unsafe {
                let x = _mm256_add_ps(v[0], v[1]);
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
    };
}

avx! {
    /// The CPU has AVX2, FMA and F16C.
    Avx2, ["avx2", "fma", "f16c"], {
        /// Bytes less 128, see `dot`.
        #[inline(always)]
        fn prepare(self, x: &mut [u8]) {
            x.iter_mut().for_each(|x| *x ^= 0x80);
        }
        #[inline(always)]
        fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> I {
            // SAFETY: see `each`.
            each(|i| unsafe {
                let sums = _mm256_loadu_si256(tile_sums.as_ptr().add(8 * i).cast());
                _mm256_mullo_epi32(sums, _mm256_set1_epi32(128 - zero))
            })
        }
        /// `vpmaddubsw` multiplies unsigned by signed bytes and adds two products in 16 bits, where it saturates: with
        /// both factors signed in the first place, and signs moved from `x` (which may be -128) to the tile (which is
        /// not), two products are at most 2 · 128 · 127, which fits.
        #[inline(always)]
        fn dot(self, acc: I, tile: Tile, x: &[u8; 4]) -> I {
            // SAFETY: see `each`.
            unsafe {
                let x = _mm256_set1_epi32(i32::from_le_bytes(*x));
                let magnitude = _mm256_abs_epi8(x);
                each(|i| {
                    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(tile[i], x));
                    _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
                })
            }
        }
    }
}

/// Declares a capability that has `vpdpbusd`, in one of its encodings.
macro_rules! vnni {
    ($(#[$doc:meta])* $name:ident, [$($feature:tt),*], $dpbusd:ident) => {
        avx! {
            $(#[$doc])*
            $name, [$($feature),*], {
                #[inline(always)]
                fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> I {
                    // SAFETY: see `each`.
                    each(|i| unsafe {
                        let sums = _mm256_loadu_si256(tile_sums.as_ptr().add(8 * i).cast());
                        _mm256_mullo_epi32(sums, _mm256_set1_epi32(-zero))
                    })
                }
                #[inline(always)]
                fn dot(self, acc: I, tile: Tile, x: &[u8; 4]) -> I {
                    // SAFETY: see `each`. `vpdpbusd` multiplies unsigned by signed bytes, as they are here.
                    unsafe {
                        let x = _mm256_set1_epi32(i32::from_le_bytes(*x));
                        each(|i| $dpbusd(acc[i], x, tile[i]))
                    }
                }
            }
        }
    };
}

vnni! {
    /// The CPU has AVX-VNNI too.
    AvxVnni, ["avx2", "fma", "f16c", "avxvnni"], _mm256_dpbusd_avx_epi32
}

vnni! {
    /// The CPU has what AVX-VNNI does as a part of AVX-512, in its own encoding.
    AvxVnniEvex, ["avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512vnni"], _mm256_dpbusd_epi32
}

/// The low byte of each of sixteen lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn low_bytes(v: I) -> __m128i {
    // SAFETY: by the caller's promise; registers only. Masked, so that packing need not saturate.
    unsafe {
        let v = each(|i| _mm256_and_si256(v[i], _mm256_set1_epi32(0xFF)));
        // Quarters 0 and 2 of the first register and the second come to lie side by side.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
        let bytes = _mm256_packus_epi16(words, words);
        _mm_unpacklo_epi64(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes))
    }
}
