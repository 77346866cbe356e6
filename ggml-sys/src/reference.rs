//! ggml's quantizers and dot products, with slices as arguments.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

use crate::blocks::BlockFormat;
use crate::ffi;

/// ggml's version.
pub fn version() -> &'static str {
    // SAFETY: gives a string constant.
    unsafe { CStr::from_ptr(ffi::ggml_version()) }.to_str().unwrap_or("unknown")
}

/// What ggml's kernels were compiled for.
pub fn cpu_features() -> Vec<&'static str> {
    let features: [(&str, unsafe extern "C" fn() -> c_int); 10] = [
        ("avx2", ffi::ggml_cpu_has_avx2),
        ("fma", ffi::ggml_cpu_has_fma),
        ("avx-vnni", ffi::ggml_cpu_has_avx_vnni),
        ("avx512", ffi::ggml_cpu_has_avx512),
        ("avx512-vnni", ffi::ggml_cpu_has_avx512_vnni),
        ("amx-int8", ffi::ggml_cpu_has_amx_int8),
        ("neon", ffi::ggml_cpu_has_neon),
        ("dotprod", ffi::ggml_cpu_has_dotprod),
        ("i8mm", ffi::ggml_cpu_has_matmul_int8),
        ("sve", ffi::ggml_cpu_has_sve),
    ];
    // SAFETY: each gives a constant.
    features.into_iter().filter(|(_, has)| unsafe { has() } != 0).map(|(name, _)| name).collect()
}

/// Quantizes with the reference quantizer (`quantize_row_*_ref`), which ggml makes model files with.
///
/// # Panics
/// If the lengths do not fit together: the caller's mistake.
pub fn quantize(format: BlockFormat, values: &[f32], blocks: &mut [u8]) {
    let from_float = {
        // SAFETY: an entry of a constant table.
        unsafe { (*ffi::ggml_get_type_traits(type_of(format))).from_float_ref }
    };
    quantize_with(from_float.expect("both formats have a quantizer"), format, values, blocks)
}

/// Quantizes activations to Q8_0 with the vector code that ggml's products use. It may differ from [`quantize`] in a
/// last bit.
///
/// # Panics
/// If the lengths do not fit together: the caller's mistake.
pub fn quantize_activations(values: &[f32], blocks: &mut [u8]) {
    init();
    // SAFETY: an entry of a constant table.
    let from_float = unsafe { (*ffi::ggml_get_type_traits_cpu(ffi::GGML_TYPE_Q8_0)).from_float };
    quantize_with(from_float.expect("Q8_0 has a quantizer"), BlockFormat::Q8_0, values, blocks)
}

fn quantize_with(
    from_float: unsafe extern "C" fn(*const f32, *mut c_void, i64),
    format: BlockFormat,
    values: &[f32],
    blocks: &mut [u8],
) {
    assert_eq!(Some(blocks.len()), format.bytes(values.len()), "blocks for these values");
    assert!(is_aligned(blocks));
    // SAFETY: reads all values, which are whole blocks, and writes just these blocks, whose f16 is aligned.
    unsafe { from_float(values.as_ptr(), blocks.as_mut_ptr().cast(), values.len() as i64) }
}

/// The values that `blocks` stand for.
///
/// # Panics
/// If the lengths do not fit together: the caller's mistake.
pub fn dequantize(format: BlockFormat, blocks: &[u8], values: &mut [f32]) {
    assert_eq!(Some(blocks.len()), format.bytes(values.len()), "values of these blocks");
    assert!(is_aligned(blocks));
    // SAFETY: an entry of a constant table.
    let to_float = unsafe { (*ffi::ggml_get_type_traits(type_of(format))).to_float };
    let to_float = to_float.expect("both formats can be read");
    // SAFETY: reads all blocks, whose f16 is aligned, and writes just their values.
    unsafe { to_float(blocks.as_ptr().cast(), values.as_mut_ptr(), values.len() as i64) }
}

/// A dot product of weights and Q8_0 activations by ggml's vector code.
///
/// # Panics
/// If the two are not equally many values: the caller's mistake.
pub fn vec_dot(format: BlockFormat, weights: &[u8], activations: &[u8]) -> f32 {
    init();
    // SAFETY: an entry of a constant table.
    let traits = unsafe { &*ffi::ggml_get_type_traits_cpu(type_of(format)) };
    assert_eq!(traits.vec_dot_type, ffi::GGML_TYPE_Q8_0, "both formats are multiplied with Q8_0");
    dot_with(traits.vec_dot.expect("both formats have a product"), format, weights, activations)
}

/// A dot product of weights and Q8_0 activations by ggml's plain C.
///
/// # Panics
/// If the two are not equally many values: the caller's mistake.
pub fn vec_dot_plain(format: BlockFormat, weights: &[u8], activations: &[u8]) -> f32 {
    init();
    let dot = match format {
        BlockFormat::Q4_0 => ffi::ggml_vec_dot_q4_0_q8_0_generic,
        BlockFormat::Q8_0 => ffi::ggml_vec_dot_q8_0_q8_0_generic,
    };
    dot_with(dot, format, weights, activations)
}

type Dot = unsafe extern "C" fn(c_int, *mut f32, usize, *const c_void, usize, *const c_void, usize, c_int);

fn dot_with(dot: Dot, format: BlockFormat, weights: &[u8], activations: &[u8]) -> f32 {
    let blocks = weights.len() / format.block_bytes();
    let values = blocks * crate::blocks::BLOCK;
    assert_eq!(Some(weights.len()), format.bytes(values), "whole blocks");
    assert_eq!(Some(activations.len()), BlockFormat::Q8_0.bytes(values), "an activation for every weight");
    assert!(is_aligned(weights) && is_aligned(activations));
    let n = c_int::try_from(values).expect("ggml counts with 32 bits");
    let mut sum = 0.0;
    // SAFETY: reads `n` values of each, just as many as there are, with aligned f16; writes one f32.
    unsafe { dot(n, &mut sum, 0, weights.as_ptr().cast(), 0, activations.as_ptr().cast(), 0, 1) }
    sum
}

/// Blocks begin with an f16.
fn is_aligned(blocks: &[u8]) -> bool {
    blocks.as_ptr().cast::<u16>().is_aligned()
}

pub(crate) fn type_of(format: BlockFormat) -> ffi::ggml_type {
    match format {
        BlockFormat::Q4_0 => ffi::GGML_TYPE_Q4_0,
        BlockFormat::Q8_0 => ffi::GGML_TYPE_Q8_0,
    }
}

/// Fills ggml's tables, which its vector code reads, and keeps it from writing what it does to standard error.
pub(crate) fn init() {
    unsafe extern "C" fn say_nothing(_level: ffi::ggml_log_level, _text: *const c_char, _data: *mut c_void) {}
    static ONCE: Once = Once::new();
    // SAFETY: the first may be called at any time, since it locks; the second is called before anything that logs.
    ONCE.call_once(|| unsafe {
        ffi::ggml_cpu_init();
        ffi::ggml_log_set(Some(say_nothing), std::ptr::null_mut());
    });
}
