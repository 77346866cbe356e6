//! Integer matrix products with AVX2, and with AVX-VNNI in either of its encodings.
//!
//! One row and a few of int8 stream the packed weights (`streams.rs`), and some more rows read them where they lie, too
//! (`few_rows.rs`). Many rows unpack a chunk of some stripes into the
//! first-level cache and use it for all of them (`many_rows.rs`), in the form that the instruction set multiplies best
//! (`forms.rs`).

mod few_rows;
mod forms;
mod many_rows;
mod nibbles;
mod rows;
mod streams;

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::packed::{check, scale_bytes};
use super::{PANEL, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{LANES, PackedMatrix, WeightFormat};

/// Rows of a register block: their 6 · 2 sums, two registers of weights, and an activation.
const BLOCK_ROWS: usize = 6;

/// So many rows are few at most, whatever the format and the set.
const FEW_ROWS: usize = 18;

/// Up to so many rows read packed weights. int4 is worth unpacking sooner, and soonest where a product then takes one
/// instruction.
const fn few_rows(format: WeightFormat, vnni: bool) -> usize {
    match format {
        WeightFormat::Int4 if vnni => 4,
        WeightFormat::Int4 => 8,
        _ => FEW_ROWS,
    }
}

/// The products of an instruction set, as [`super::MatmulInteger`], and what multiplies at most.
macro_rules! products {
    ($($(#[$doc:meta])* $matmul:ident, $peak:ident: $dots:ident, $features:literal;)*) => {$(
        /// See [`super::MatmulInteger`].
        ///
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub unsafe fn $matmul(
            w: &PackedMatrix<'_>,
            stripes: Range<usize>,
            x: &QuantizedRows<'_>,
            rows: Range<usize>,
            scratch: &mut PanelScratch,
            out: &mut [[f32; PANEL]],
        ) {
            // SAFETY: as this function's.
            unsafe { matmul::<$dots>(w, stripes, x, rows, scratch, out) };
        }

        /// See [`peak::multiply`](crate::ops::peak::multiply).
        ///
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub unsafe fn $peak(rounds: usize) -> (usize, f32) {
            // SAFETY: as this function's.
            unsafe { peak_multiply::<$dots>(rounds) }
        }
    )*};
}

products! {
    /// # Safety
    /// The CPU has AVX2 and FMA.
    matmul_integer, peak_multiply_avx2: Avx2, "avx2,fma";
    /// # Safety
    /// The CPU has AVX2, FMA and AVX-VNNI.
    matmul_integer_vnni, peak_multiply_vnni: AvxVnni, "avx2,fma,avxvnni";
    /// # Safety
    /// The CPU has AVX2, FMA, and of AVX-512 F, VL and VNNI.
    matmul_integer_vnni_evex, peak_multiply_vnni_evex: AvxVnniEvex, "avx2,fma,avx512f,avx512vl,avx512vnni";
}

/// A way to multiply bytes. Eight outputs are a register of weights, four k of a row are the same 32 bits eight times.
///
/// # Safety
/// Of all methods: the CPU has what the implementor names, and AVX2.
trait Dots: Copy {
    /// Whether `vpdpbusd` is there, and [`Dots::dot`] therefore one instruction.
    const VNNI: bool;

    /// What multiplies a group's sum and makes 32 bits of it: its scale, in one or both of the halves of a lane.
    const SCALE_MASK: i32;

    /// What sums of int8 start at, where `sum` is that of the row's chunk.
    fn start(sum: i32) -> i32;

    /// Of what sums of a group of int4 start at, -8 times the sum of the row's group: those bits that are not of
    /// another half of the lane.
    const START_MASK: i32;

    /// Eight weights of int8 in the form that `dot` multiplies.
    unsafe fn weights(w: __m256i) -> [__m256i; 2];

    /// `acc + Σ w · x`, four products a lane.
    unsafe fn dot(acc: __m256i, w: [__m256i; 2], x: __m256i) -> __m256i;

    /// `acc + Σ nibble · x`, four products a lane, in the form that the scale multiplies.
    unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// Products in 16 bits.
#[derive(Clone, Copy)]
struct Avx2;

impl Dots for Avx2 {
    const VNNI: bool = false;
    const SCALE_MASK: i32 = 0x000F_000F;
    const START_MASK: i32 = 0xFFFF;

    #[inline(always)]
    fn start(_sum: i32) -> i32 {
        0
    }

    /// The weights and their magnitudes.
    #[inline(always)]
    unsafe fn weights(w: __m256i) -> [__m256i; 2] {
        // SAFETY: by the caller's promise.
        unsafe { [w, _mm256_abs_epi8(w)] }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m256i, [w, magnitude]: [__m256i; 2], x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise. No byte of `x` is -128, so its sign can change, and two products are at most
        // 2 · 128 · 127, which fits an i16.
        unsafe {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    /// In 16 bits: eight products of a half lane are at most 8 · 15 · 127, and what the low half starts at 16 · 8 ·
    /// 127.
    #[inline(always)]
    unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)) }
    }
}

/// Declares a set that has `vpdpbusd`, in one of its encodings.
macro_rules! vnni {
    ($(#[$doc:meta])* $name:ident, $dpbusd:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        struct $name;

        impl Dots for $name {
            const VNNI: bool = true;
            /// A group's sum fits 16 bits: 16 · 8 · 127.
            const SCALE_MASK: i32 = 0x0000_000F;
            const START_MASK: i32 = -1;

            /// Weights are made unsigned by adding 128.
            #[inline(always)]
            fn start(sum: i32) -> i32 {
                -128 * sum
            }

            #[inline(always)]
            unsafe fn weights(w: __m256i) -> [__m256i; 2] {
                // SAFETY: by the caller's promise.
                unsafe { [_mm256_xor_si256(w, _mm256_set1_epi8(-128)); 2] }
            }

            #[inline(always)]
            unsafe fn dot(acc: __m256i, [w, _]: [__m256i; 2], x: __m256i) -> __m256i {
                // SAFETY: by the caller's promise.
                unsafe { $dpbusd(acc, w, x) }
            }

            #[inline(always)]
            unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
                // SAFETY: by the caller's promise.
                unsafe { $dpbusd(acc, w, x) }
            }
        }
    };
}

vnni! {
    /// `vpdpbusd` as AVX-VNNI has it.
    AvxVnni, _mm256_dpbusd_avx_epi32
}
vnni! {
    /// The same instruction as AVX-512 has it.
    AvxVnniEvex, _mm256_dpbusd_epi32
}

/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn matmul<D: Dots>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    check(w, &stripes, x, &rows);
    let out = &mut out[..rows.len()];
    // SAFETY: as this function's.
    unsafe {
        let format = w.layout().format;
        if rows.len() <= streams::rows_max(format) {
            streams::matmul::<D>(w, stripes, x, rows.start, out);
        } else if rows.len() <= few_rows(format, D::VNNI) {
            few_rows::matmul::<D>(w, stripes, x, rows.start, out);
        } else if D::VNNI {
            many_rows::matmul::<forms::Bytes<D>>(w, stripes, x, rows.start, scratch, out);
        } else if format == WeightFormat::Int8 {
            many_rows::matmul::<forms::Words>(w, stripes, x, rows.start, scratch, out);
        } else {
            many_rows::matmul::<forms::Nibbles>(w, stripes, x, rows.start, scratch, out);
        }
    }
}

/// The f32 scales of a stripe's chunk, one lane per output.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scales(stripe: &[u8], c: usize) -> [__m256; 2] {
    let bytes = scale_bytes(stripe, c);
    let half = |i: usize| {
        // SAFETY: 16 bytes are read from within an array of 32; the CPU has AVX2, as the caller vouches.
        unsafe {
            let bf16 = _mm_loadu_si128(bytes.as_ptr().add(16 * i).cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bf16)))
        }
    };
    [half(0), half(1)]
}

/// `out = fma(sum, activation scale · weight scale, out)`.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[inline(always)]
unsafe fn accumulate(
    sums: [__m256i; 2],
    x_scale: f32,
    scales: [__m256; 2],
    first: bool,
    out: &mut [f32; LANES],
) {
    for n in 0..2 {
        // SAFETY: eight numbers within an array of 16; the CPU has AVX2 and FMA, as the caller vouches.
        unsafe {
            let place = out.as_mut_ptr().add(8 * n);
            let before = if first { _mm256_setzero_ps() } else { _mm256_loadu_ps(place) };
            let scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), scales[n]);
            _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[n]), scale, before));
        }
    }
}

/// Multiplies from registers in the form that many rows of int8 have: with all that a kernel's step does but the loads
/// of weights, whose registers stay.
///
/// # Safety
/// The CPU has what `D` names, and AVX2.
#[inline(always)]
unsafe fn peak_multiply<D: Dots>(rounds: usize) -> (usize, f32) {
    /// Independent sums: at least latency times throughput, and as many as stay in registers.
    const SUMS: usize = 12;
    // SAFETY: by the caller's promise; registers only, and 4 bytes of an array.
    unsafe {
        let w = black_box([_mm256_set1_epi16(0x0101), _mm256_set1_epi16(0x0101)]);
        let mut x = [[1u8; 4]; SUMS / 2];
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            // New factors each round, as far as the compiler knows: none is multiplied once for all rounds.
            black_box(&mut x);
            for i in 0..SUMS {
                let x = _mm256_set1_epi32(i32::from_le_bytes(x[i / 2]));
                sums[i] = if D::VNNI {
                    D::dot(sums[i], [w[i % 2]; 2], x)
                } else {
                    forms::multiply_words(sums[i], w[i % 2], x)
                };
            }
        }
        let mut lanes = [0i32; 8];
        let mut total = 0.0;
        for sum in sums {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum);
            total += lanes.iter().map(|&lane| lane as f32).sum::<f32>();
        }
        (rounds * SUMS * if D::VNNI { 32 } else { 16 }, total)
    }
}
