//! What this CPU can do at most with an instruction set: what kernels are held against.

use crate::layout::{LANES, TILE_BYTES};
use crate::simd::Simd;

/// Independent sums: twice latency times throughput, or the units would wait now and then.
const SUMS: usize = 20;
/// Where a vector of sixteen lanes is several registers, so many stay in them.
const SUMS_OF_WIDE_VECTORS: usize = 6;

/// Multiplies int8 from registers for some rounds; gives the multiply-adds done, and a number that depends on them.
#[inline(always)]
pub fn multiply<I: Simd>(isa: I, rounds: usize) -> (usize, f32) {
    let tiles = std::hint::black_box([[3; TILE_BYTES], [5; TILE_BYTES]]);
    let tiles = [isa.load_tile(&tiles[0]), isa.load_tile(&tiles[1])];
    let mut x = [[7; 4]; SUMS / 2];
    let mut sums = [isa.to_i32(isa.splat(0.0)); SUMS];
    let count = if I::BLOCK_STRIPES == 1 { SUMS_OF_WIDE_VECTORS } else { SUMS };
    for _ in 0..rounds {
        // New factors each round, as far as the compiler knows, and a pair of them for every sum: none is multiplied once for
        // several, or for all rounds.
        std::hint::black_box(&mut x);
        for i in 0..count {
            sums[i] = isa.dot(sums[i], tiles[i % 2], &x[i / 2]);
        }
    }
    let total = sums.into_iter().fold(isa.splat(0.0), |total, sum| isa.add(total, isa.to_f32(sum)));
    (rounds * count * TILE_BYTES, isa.sum(total))
}

/// Reads all of `memory` in sequence; gives a number that depends on it.
#[inline(always)]
pub fn read<I: Simd>(isa: I, memory: &[f32]) -> f32 {
    /// Vectors of 64 bytes that the next one is fetched ahead of: a page.
    const AHEAD: usize = 4096 / 4;
    let mut sums = [isa.splat(0.0); 4];
    for vectors in memory.as_chunks::<LANES>().0.as_chunks::<4>().0 {
        for i in 0..4 {
            isa.prefetch(vectors[i].as_ptr().wrapping_add(AHEAD).cast());
            sums[i] = isa.add(sums[i], isa.load(&vectors[i]));
        }
    }
    isa.sum(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])))
}
