//! The limits of the machine, measured in the same run as what is held against them.

use std::hint::black_box;
use std::time::Instant;

/// Bytes a second that one thread reads in sequence, best of some passes over 256 MiB.
pub fn read_bytes_per_s() -> f64 {
    let memory = vec![1u64; 256 << 17];
    best(|| {
        // Eight sums, so that adding does not limit the reading.
        let sums = memory.chunks_exact(8).fold([0u64; 8], |mut sums, part| {
            sums.iter_mut().zip(part).for_each(|(s, x)| *s = s.wrapping_add(*x));
            sums
        });
        black_box(sums);
        (memory.len() * 8) as f64
    })
}

/// int8 multiply-adds a second of one thread at the peak of the widest instruction that the kernels use; `None` where
/// this program has no such loop.
pub fn int8_macs_per_s() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if let Some(_proof) = palmtop_kernels::simd::Avx512::try_new() {
        const ROUNDS: usize = 4_000_000;
        return Some(best(|| {
            // SAFETY: the CPU has AVX-512 with VNNI, as `try_new` has just said.
            black_box(unsafe { vnni(ROUNDS) });
            (ROUNDS * 12 * 64) as f64
        }));
    }
    None
}

/// Twelve independent chains of `vpdpbusd`: more than latency times throughput.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni(rounds: usize) -> i32 {
    use std::arch::x86_64::*;
    let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
    let mut sums = [_mm512_setzero_si512(); 12];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = _mm512_dpbusd_epi32(*s, a, b);
        }
    }
    sums.into_iter().map(|s| _mm512_reduce_add_epi32(s)).fold(0, i32::wrapping_add)
}

/// The best rate of seven runs; `run` gives its amount of work.
fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            run() / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}
