//! Sixteen lanes in one AVX-512 register.

use std::arch::x86_64::*;

use super::Simd;
use crate::layout::{LANES, TILE_BYTES};

/// The CPU has AVX-512 F, BW, DQ, VL and VNNI (and with them AVX2, FMA and F16C).
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The capability, if this CPU has it.
    pub fn try_new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
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

const NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// SAFETY of every block below: `self` exists only where the CPU has the features (see `try_new`); loads and
// stores go through references to arrays of exactly the size that is read or written and use the unaligned instructions.
impl Simd for Avx512 {
    const BLOCK_STRIPES: usize = 4;
    type F = __m512;
    type I = __m512i;
    type Tile = __m512i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // SAFETY: see above the impl.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn round_even(self, a: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_roundscale_ps::<NEAREST_EVEN>(a) }
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn keep(self, v: __m512, from: usize, to: usize) -> __m512 {
        let below = |n: usize| ((1u32 << n.min(LANES)) - 1) as u16;
        // SAFETY: see above the impl.
        unsafe { _mm512_maskz_mov_ps(below(to) & !below(from), v) }
    }
    #[inline(always)]
    fn store_i8(self, v: __m512, out: &mut [i8; LANES]) {
        // SAFETY: see above the impl.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn store_tile(self, v: [__m512; 4], tile: &mut [i8; TILE_BYTES]) {
        // SAFETY: see above the impl.
        unsafe {
            let low = _mm512_set1_epi32(0xFF);
            let n = v.map(|v| _mm512_cvttps_epi32(v));
            let a = _mm512_or_si512(
                _mm512_and_si512(n[0], low),
                _mm512_slli_epi32::<8>(_mm512_and_si512(n[1], low)),
            );
            let b = _mm512_or_si512(_mm512_and_si512(n[2], low), _mm512_slli_epi32::<8>(n[3]));
            let bytes = _mm512_or_si512(a, _mm512_slli_epi32::<16>(b));
            _mm512_storeu_si512(tile.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn fraction(self, a: __m512) -> __m512 {
        // Not `vreduceps`, which rounds the difference down too.
        const FLOOR: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
        // SAFETY: see above the impl.
        unsafe { _mm512_sub_ps(a, _mm512_roundscale_ps::<FLOOR>(a)) }
    }
    #[inline(always)]
    fn mul_exp2_floor(self, a: __m512, y: __m512) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_scalef_ps(a, y) }
    }
    #[inline(always)]
    fn load_tile(self, tile: &[i8; TILE_BYTES]) -> __m512i {
        // SAFETY: see above the impl.
        unsafe { _mm512_loadu_si512(tile.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot_start(self, tile_sums: &[i32; LANES], zero: i32) -> __m512i {
        // SAFETY: see above the impl.
        unsafe { _mm512_mullo_epi32(_mm512_loadu_si512(tile_sums.as_ptr().cast()), _mm512_set1_epi32(-zero)) }
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, tile: __m512i, x: &[u8; 4]) -> __m512i {
        // SAFETY: see above the impl. `vpdpbusd` multiplies unsigned by signed bytes, as they are here.
        unsafe { _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(i32::from_le_bytes(*x)), tile) }
    }
    #[inline(always)]
    fn to_f32(self, v: __m512i) -> __m512 {
        // SAFETY: see above the impl.
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    #[inline(always)]
    fn to_i32(self, v: __m512) -> __m512i {
        // SAFETY: see above the impl. The rounding mode of a Rust program is to nearest even.
        unsafe { _mm512_cvtps_epi32(v) }
    }
    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above the impl.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sum_i32(self, v: __m512i) -> i32 {
        // SAFETY: see above the impl.
        unsafe { _mm512_reduce_add_epi32(v) }
    }
    #[inline(always)]
    fn store_u8(self, v: __m512i, out: &mut [u8; LANES]) {
        // SAFETY: see above the impl.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: see above the impl. The shuffles follow the tree of `Simd::sum`.
        unsafe {
            let x = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        // SAFETY: see above the impl. A maximum is the same in any order.
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    fn load_tail(self, x: &[f32]) -> __m512 {
        assert!(x.len() <= LANES);
        // SAFETY: see above the impl; masked lanes are not touched in memory.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << x.len()) - 1) as u16, x.as_ptr()) }
    }
    #[inline(always)]
    fn store_tail(self, v: __m512, out: &mut [f32]) {
        assert!(out.len() <= LANES);
        // SAFETY: see above the impl; masked lanes are not touched in memory.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1u32 << out.len()) - 1) as u16, v) }
    }
}
