//! Integer matrix products with AMX: tiles of 16 by 64 bytes, multiplied sixteen rows at once.
//!
//! The packed layout is what the tile unit reads: 16 tiles of 16 outputs by 4 k, one behind the other, are its right factor,
//! and 16 rows of quantized activations its left one. Full int8 chunks are multiplied straight from the mapped file, int4 is
//! unpacked into the first-level cache. Two by two products run side by side; while they do, the sums of the two by two before
//! become floats. Up to 16 rows stream: four stripes are read side by side, and fetched ahead; a few rows, that is, through the
//! registers of AVX-512.
//!
//! Rust has no stable intrinsics for it, so the tile instructions are inline assembly. Nothing else in this program uses tile
//! registers, so what one block of assembly leaves in them is there for the next.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512::{Ahead, PREFETCH_BYTES, accumulate, prefetch, scales, stream};
use super::packed::{PackedChunk, StreamAhead, check, chunk_tiles};
use super::{PANEL, PANEL_STRIPES, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, LANES, PackedMatrix, TILE_BYTES, WeightFormat};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// From so many rows on a tile product is faster than one product of vectors for each of them.
const TILES_FROM_ROWS: usize = 9;

/// True if the CPU has AMX with int8, and the system lets this process use it.
pub fn is_available() -> bool {
    #[cfg(target_os = "linux")]
    {
        const TILE: u32 = 1 << 24;
        const INT8: u32 = 1 << 25;
        let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        features & (TILE | INT8) == TILE | INT8 && ask_for_tiles()
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Linux gives the large tile state only to processes that ask for it; threads inherit the permission.
#[cfg(target_os = "linux")]
fn ask_for_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call reads two numbers and touches no memory of the process; an old kernel answers with an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI, and [`is_available`] has said yes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub unsafe fn matmul_integer(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    check(w, &stripes, x, &rows);
    let out = &mut out[..rows.len()];
    if rows.len() > TILE_ROWS {
        many(w, stripes, x, rows, scratch, out);
    } else if rows.len() >= TILES_FROM_ROWS && stripes.len() == PANEL_STRIPES {
        few(w, stripes, x, rows.start, scratch, out);
    } else {
        stream(w, stripes, x, rows.start, out);
    }
}

/// Up to a tile of rows: a panel is read once, its four stripes side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn few(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    let stripes: [&[u8]; PANEL_STRIPES] = std::array::from_fn(|j| w.stripe(stripes.start + j));
    let tiles = Tiles::configure(out.len(), layout.chunk().min(TILE_BYTES));
    let mut sums = Sums::default();
    for c in 0..layout.chunks() {
        let ahead = StreamAhead::new(layout, c, PANEL_STRIPES, PREFETCH_BYTES / PANEL_STRIPES);
        for stripe in stripes {
            ahead.scales(stripe).into_iter().for_each(prefetch);
        }
        let chunks = stripes.map(|stripe| PackedChunk::new(w, stripe, c));
        let n = chunk_tiles(layout, c);
        let padded = n.next_multiple_of(tiles.k / 4);
        let left = Left { start: x.q_rows(c, m, out.len()).as_ptr(), stride: x.chunk() };
        tiles.zero();
        if layout.format == WeightFormat::Int8 && n == padded {
            for t in (0..n).step_by(tiles.k / 4) {
                let right = chunks.map(|chunk| {
                    let now = &chunk.tiles[t..t + tiles.k / 4];
                    now.iter().enumerate().for_each(|(i, tile)| prefetch(ahead.tile(tile, t + i)));
                    now.as_ptr().cast()
                });
                tiles.one_by_four(left.from(4 * t), right, 1);
            }
        } else {
            let right = std::array::from_fn(|j| {
                let unpacked = &mut scratch.0[j][..padded * TILE_BYTES];
                let fetch = |tile: &[u8; TILE_BYTES], t: usize| prefetch(ahead.tile(tile, t));
                chunks[j].unpack_signed(layout.format, fetch, unpacked.as_chunks_mut().0);
                unpacked[n * TILE_BYTES..].fill(0);
                unpacked.as_ptr().cast()
            });
            tiles.one_by_four(left, right, padded / (tiles.k / 4));
        }
        let mut outputs = Outputs { scales: [_mm512_setzero_ps(); PANEL_STRIPES], len: PANEL_STRIPES, c };
        for (scale, stripe) in outputs.scales.iter_mut().zip(stripes) {
            *scale = scales(stripe, c);
        }
        tiles.store(&mut sums);
        Block { m: 0, s: 0, two_rows: false }.finish(&sums, &outputs, x, m, out);
    }
}

/// More rows than a tile has.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn many(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    let tiles = Tiles::configure(TILE_ROWS, layout.chunk().min(TILE_BYTES));
    let mut sums = [Sums::default(), Sums::default()];
    for c in 0..layout.chunks() {
        let panel = Panel::new(w, stripes.clone(), c, &tiles, scratch);
        let mut ahead = Ahead::new(w, &stripes, c, rows.len().div_ceil(2 * TILE_ROWS));
        let mut tail = [[0i8; CHUNK_MAX]; TILE_ROWS];
        let whole = rows.len() / TILE_ROWS * TILE_ROWS;
        for (i, tail) in tail.iter_mut().enumerate().take(rows.len() - whole) {
            tail[..x.chunk()].copy_from_slice(x.q(c, rows.start + whole + i));
        }
        // The rows from `m` on as the left factor: 16 of them, or what is left and zeros.
        let left = |m: usize| -> Left {
            if m < whole {
                let rows = x.q_rows(c, rows.start + m, TILE_ROWS);
                Left { start: rows.as_ptr(), stride: x.chunk() }
            } else {
                Left { start: tail.as_ptr().cast(), stride: CHUNK_MAX }
            }
        };
        // What has been multiplied last, and waits for becoming floats.
        let mut waiting: Option<Block> = None;
        let mut turn = 0;
        for m in (0..rows.len()).step_by(2 * TILE_ROWS) {
            ahead.step();
            let two_rows = rows.len() - m > TILE_ROWS;
            let step = if two_rows { 2 } else { 4 };
            for s in (0..stripes.len()).step_by(step) {
                let block = Block { m, s, two_rows };
                if two_rows {
                    tiles.two_by_two(
                        left(m),
                        left(m + TILE_ROWS),
                        panel.right(s),
                        panel.right(s + 1),
                        panel.steps,
                    );
                } else {
                    let right = std::array::from_fn(|i| panel.right(s + i));
                    tiles.zero();
                    tiles.one_by_four(left(m), right, panel.steps);
                }
                if let Some(block) = waiting.replace(block) {
                    block.finish(&sums[1 - turn], &panel.outputs, x, rows.start, out);
                }
                tiles.store(&mut sums[turn]);
                turn = 1 - turn;
            }
        }
        if let Some(block) = waiting {
            block.finish(&sums[1 - turn], &panel.outputs, x, rows.start, out);
        }
    }
}

/// Sums of four tiles.
#[repr(align(64))]
#[derive(Default)]
struct Sums([[[i32; LANES]; TILE_ROWS]; 4]);

/// Sixteen rows of activations.
#[derive(Clone, Copy)]
struct Left {
    start: *const i8,
    stride: usize,
}

impl Left {
    /// The same rows from column `k` of the chunk on.
    fn from(self, k: usize) -> Self {
        Self { start: self.start.wrapping_add(k), ..self }
    }
}

/// The outputs of a panel: chunk `c`'s scales of its `len` stripes.
struct Outputs {
    scales: [__m512; PANEL_STRIPES],
    len: usize,
    c: usize,
}

/// A chunk of a panel's weights as signed bytes, each stripe's tiles one behind the other.
struct Panel<'a> {
    stripes: [&'a [i8]; PANEL_STRIPES],
    outputs: Outputs,
    /// Tile products along k.
    steps: usize,
}

impl<'a> Panel<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new(
        w: &PackedMatrix<'a>,
        stripes: Range<usize>,
        c: usize,
        tiles: &Tiles,
        scratch: &'a mut PanelScratch,
    ) -> Self {
        let layout = w.layout();
        let n = chunk_tiles(layout, c);
        let padded = n.next_multiple_of(tiles.k / 4);
        let mut panel = Self {
            stripes: [&[]; PANEL_STRIPES],
            outputs: Outputs { scales: [_mm512_setzero_ps(); PANEL_STRIPES], len: stripes.len(), c },
            steps: padded / (tiles.k / 4),
        };
        for (j, unpacked) in scratch.0.iter_mut().enumerate().take(stripes.len()) {
            let stripe = w.stripe(stripes.start + j);
            let chunk = PackedChunk::new(w, stripe, c);
            panel.outputs.scales[j] = scales(stripe, c);
            panel.stripes[j] = if layout.format == WeightFormat::Int8 && n == padded {
                bytemuck::cast_slice(chunk.tiles.as_flattened())
            } else {
                let unpacked = &mut unpacked[..padded * TILE_BYTES];
                chunk.unpack_signed(layout.format, |_, _| (), unpacked.as_chunks_mut().0);
                unpacked[n * TILE_BYTES..].fill(0);
                bytemuck::cast_slice(unpacked)
            };
        }
        panel
    }

    /// The right factor of stripe `s`; where the panel, at the edge, has no such stripe, some other one, whose sums nobody reads.
    fn right(&self, s: usize) -> *const i8 {
        self.stripes[if s < self.outputs.len { s } else { 0 }].as_ptr()
    }
}

/// Tiles that were multiplied together: two by two of rows `m..` and stripes `s..`, or one by four.
#[derive(Clone, Copy)]
struct Block {
    m: usize,
    s: usize,
    two_rows: bool,
}

impl Block {
    /// `out = fma(sum, activation scale · weight scale, out)` for all sums of the block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
    fn finish(
        &self,
        sums: &Sums,
        outputs: &Outputs,
        x: &QuantizedRows<'_>,
        first: usize,
        out: &mut [[f32; PANEL]],
    ) {
        let columns = if self.two_rows { 2 } else { 4 };
        for (t, sums) in sums.0.iter().enumerate() {
            let (m, s) = (self.m + t / columns * TILE_ROWS, self.s + t % columns);
            if s >= outputs.len {
                continue;
            }
            let scale = outputs.scales[s];
            for (i, (sums, out)) in sums.iter().zip(out.iter_mut().skip(m)).enumerate() {
                // SAFETY: 16 numbers are read from an array of 16.
                let sum = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
                let out = &mut out.as_chunks_mut::<LANES>().0[s];
                accumulate(sum, x.scale(outputs.c, first + m + i), scale, outputs.c == 0, out);
            }
        }
    }
}

/// The tile unit, configured: registers 0 to 3 are sums, the others factors.
struct Tiles {
    /// Bytes of a row of a left factor: 64, or fewer where a chunk is narrower.
    k: usize,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: leaves the tile unit as it was before `configure`.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Tiles {
    /// `rows` rows and sixteen columns, `k` bytes along the sum.
    fn configure(rows: usize, k: usize) -> Self {
        assert!(rows <= TILE_ROWS && k <= TILE_BYTES);
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for t in 0..8 {
            (config.rows[t], config.row_bytes[t]) = (TILE_ROWS as u8, 64);
        }
        // In one by four register 4 is the left factor; in two by two 4 and 5 are.
        for t in [4, 5] {
            config.row_bytes[t] = k as u16;
        }
        for t in 0..6 {
            config.rows[t] = rows as u8;
        }
        for t in [6, 7] {
            config.rows[t] = (k / 4) as u8;
        }
        // SAFETY: 64 bytes of a valid configuration of palette 1; the CPU has the unit, as `matmul_integer`'s caller vouches.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        Self { k }
    }

    /// Registers 0 to 3 become the products of two left with two right factors, summed over `steps` tiles along k.
    fn two_by_two(&self, a: Left, b: Left, c: *const i8, d: *const i8, steps: usize) {
        // SAFETY: `Left` points to 16 rows of at least `steps · k` bytes, `c` and `d` to `steps · k / 4` tiles of 64.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}*1]",
                "tileloadd tmm6, [{c} + {line}*1]",
                "tileloadd tmm7, [{d} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{b} + {b_stride}*1]",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                "add {a}, {k}",
                "add {b}, {k}",
                "add {c}, {right}",
                "add {d}, {right}",
                "dec {n}",
                "jnz 2b",
                a = inout(reg) a.start => _,
                b = inout(reg) b.start => _,
                c = inout(reg) c => _,
                d = inout(reg) d => _,
                n = inout(reg) steps => _,
                a_stride = in(reg) a.stride,
                b_stride = in(reg) b.stride,
                line = in(reg) TILE_BYTES,
                k = in(reg) self.k,
                right = in(reg) self.k / 4 * TILE_BYTES,
                options(nostack, readonly),
            );
        }
    }

    /// Registers 0 to 3 become zero.
    fn zero(&self) {
        // SAFETY: no memory is touched.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem))
        };
    }

    /// Adds to registers 0 to 3 the products of one left with four right factors, summed over `steps` tiles along k.
    fn one_by_four(&self, a: Left, right: [*const i8; 4], steps: usize) {
        let [b, c, d, e] = right;
        // SAFETY: as in `two_by_two`, with as many rows as are configured.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}*1]",
                "tileloadd tmm6, [{b} + {line}*1]",
                "tileloadd tmm7, [{c} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{d} + {line}*1]",
                "tileloadd tmm7, [{e} + {line}*1]",
                "tdpbssd tmm2, tmm4, tmm6",
                "tdpbssd tmm3, tmm4, tmm7",
                "add {a}, {k}",
                "add {b}, {right}",
                "add {c}, {right}",
                "add {d}, {right}",
                "add {e}, {right}",
                "dec {n}",
                "jnz 2b",
                a = inout(reg) a.start => _,
                b = inout(reg) b => _,
                c = inout(reg) c => _,
                d = inout(reg) d => _,
                e = inout(reg) e => _,
                n = inout(reg) steps => _,
                a_stride = in(reg) a.stride,
                line = in(reg) TILE_BYTES,
                k = in(reg) self.k,
                right = in(reg) self.k / 4 * TILE_BYTES,
                options(nostack, readonly),
            );
        }
    }

    /// Writes registers 0 to 3.
    fn store(&self, sums: &mut Sums) {
        // SAFETY: four tiles of at most 16 rows of 64 bytes, which is what `Sums` holds.
        unsafe {
            asm!(
                "tilestored [{out} + {line}*1], tmm0",
                "tilestored [{out} + {line}*1 + 1024], tmm1",
                "tilestored [{out} + {line}*1 + 2048], tmm2",
                "tilestored [{out} + {line}*1 + 3072], tmm3",
                out = in(reg) sums,
                line = in(reg) TILE_BYTES,
                options(nostack),
            );
        }
    }
}
