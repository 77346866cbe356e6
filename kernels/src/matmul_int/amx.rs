//! Integer matrix products with AMX: tiles of 16 by 64 bytes, multiplied sixteen rows at once.
//!
//! The packed layout is what the tile unit reads: 16 tiles of 16 outputs by 4 k, one behind the other, are its right
//! factor, and 16 rows of quantized activations its left one. Full int8 chunks are multiplied straight from the mapped
//! file, int4 is unpacked into the first-level cache. Two by two products run side by side; while they do, the sums of
//! the two by two before become floats. Up to 16 rows stream: four stripes are read side by side, and fetched ahead; a
//! few rows, that is, through the registers of AVX-512.
//!
//! Rust has no stable intrinsics for it, so the tile instructions are inline assembly. What is in tile registers never
//! outlives a block of assembly: each makes them zero, multiplies, stores the sums, and names the registers as
//! clobbered. So what is to happen while the tile unit multiplies, fetching ahead and making floats of the sums before,
//! is part of the block too. Only the unit's configuration stays from block to block: it is no register that the
//! compiler knows, and [`Tiles`] owns it.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::Range;

use super::avx512::{PREFETCH_BYTES, accumulate, scales, stream};
use super::packed::{Ahead, PackedChunk, StreamAhead, check, chunk_tiles, prefetch};
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
        // SAFETY: as this function's.
        unsafe { many(w, stripes, x, rows, scratch, out) };
    } else if rows.len() >= TILES_FROM_ROWS && stripes.len() == PANEL_STRIPES {
        // SAFETY: as this function's.
        unsafe { few(w, stripes, x, rows.start, scratch, out) };
    } else {
        stream(w, stripes, x, rows.start, out);
    }
}

/// Up to a tile of rows: a panel is read once, its four stripes side by side.
///
/// # Safety
/// As [`matmul_integer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
unsafe fn few(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    let stripes: [&[u8]; PANEL_STRIPES] = std::array::from_fn(|j| w.stripe(stripes.start + j));
    // SAFETY: as this function's.
    let mut tiles = unsafe { Tiles::configure(out.len(), layout.chunk().min(TILE_BYTES)) };
    let mut sums = Sums::default();
    for c in 0..layout.chunks() {
        let ahead = StreamAhead::new(layout, c, PANEL_STRIPES, PREFETCH_BYTES / PANEL_STRIPES);
        for stripe in stripes {
            ahead.scales(stripe).into_iter().for_each(prefetch);
        }
        let chunks = stripes.map(|stripe| PackedChunk::new(w, stripe, c));
        let n = chunk_tiles(layout, c);
        let padded = n.next_multiple_of(tiles.k / 4);
        let steps = padded / (tiles.k / 4);
        let left = Left { bytes: x.q_rows(c, m, out.len()), stride: x.chunk() };
        if layout.format == WeightFormat::Int8 && n == padded {
            let distances = std::array::from_fn(|step| ahead.distance(step * tiles.k / 4));
            let right = chunks.map(|chunk| bytemuck::cast_slice(chunk.tiles.as_flattened()));
            tiles.one_by_four_ahead(left, right, steps, &distances, &mut sums);
        } else {
            let mut stripe = 0;
            let right = scratch.0.each_mut().map(|unpacked| {
                let unpacked = &mut unpacked[..padded * TILE_BYTES];
                let fetch = |tile: &[u8; TILE_BYTES], t: usize| prefetch(ahead.tile(tile, t));
                chunks[stripe].unpack_signed(layout.format, fetch, unpacked.as_chunks_mut().0);
                unpacked[n * TILE_BYTES..].fill(0);
                stripe += 1;
                bytemuck::cast_slice(unpacked)
            });
            tiles.one_by_four(left, right, steps, &Pending::none(), &mut sums);
        }
        let mut outputs = Outputs { scales: [_mm512_setzero_ps(); PANEL_STRIPES], len: PANEL_STRIPES, c };
        for (scale, stripe) in outputs.scales.iter_mut().zip(stripes) {
            *scale = scales(stripe, c);
        }
        Block { m: 0, s: 0, two_rows: false }.finish(&sums, &outputs, x, m, out);
    }
}

/// More rows than a tile has.
///
/// # Safety
/// As [`matmul_integer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
unsafe fn many(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    // SAFETY: as this function's.
    let mut tiles = unsafe { Tiles::configure(TILE_ROWS, layout.chunk().min(TILE_BYTES)) };
    let mut sums = [Sums::default(), Sums::default()];
    for c in 0..layout.chunks() {
        let panel = Panel::new(w, stripes.clone(), c, tiles.k, scratch);
        let ahead = Ahead::new(w, &stripes, c, rows.len().div_ceil(2 * TILE_ROWS));
        let mut tail = [[0i8; CHUNK_MAX]; TILE_ROWS];
        let whole = rows.len() / TILE_ROWS * TILE_ROWS;
        for (i, tail) in tail.iter_mut().enumerate().take(rows.len() - whole) {
            tail[..x.chunk()].copy_from_slice(x.q(c, rows.start + whole + i));
        }
        // The rows from `m` on as the left factor: 16 of them, or what is left and zeros.
        let left = |m: usize| -> Left<'_> {
            if m < whole {
                Left { bytes: x.q_rows(c, rows.start + m, TILE_ROWS), stride: x.chunk() }
            } else {
                Left { bytes: tail.as_flattened(), stride: CHUNK_MAX }
            }
        };
        // What has been multiplied last, and waits for becoming floats: its sums are in `before`.
        let mut waiting: Option<Block> = None;
        let [mut now, mut before] = sums.each_mut();
        for m in (0..rows.len()).step_by(2 * TILE_ROWS) {
            ahead.fetch(m / (2 * TILE_ROWS), prefetch);
            let two_rows = rows.len() - m > TILE_ROWS;
            let step = if two_rows { 2 } else { 4 };
            for s in (0..stripes.len()).step_by(step) {
                let pending = match waiting.replace(Block { m, s, two_rows }) {
                    Some(block) => Pending::new(block, before, &panel.outputs, x, rows.start, out),
                    None => Pending::none(),
                };
                if two_rows {
                    let left = [left(m), left(m + TILE_ROWS)];
                    let right = [panel.right(s), panel.right(s + 1)];
                    tiles.two_by_two(left, right, panel.steps, &pending, now);
                } else {
                    let right = std::array::from_fn(|i| panel.right(s + i));
                    tiles.one_by_four(left(m), right, panel.steps, &pending, now);
                }
                std::mem::swap(&mut now, &mut before);
            }
        }
        if let Some(block) = waiting {
            block.finish(before, &panel.outputs, x, rows.start, out);
        }
    }
}

/// Sums of four tiles.
#[repr(C, align(64))]
#[derive(Default)]
struct Sums([[[i32; LANES]; TILE_ROWS]; 4]);

/// Rows of activations, one every `stride` bytes.
#[derive(Clone, Copy)]
struct Left<'a> {
    bytes: &'a [i8],
    stride: usize,
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
    /// Chunk `c` for tiles of `k` bytes along the sum.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new(
        w: &PackedMatrix<'a>,
        stripes: Range<usize>,
        c: usize,
        k: usize,
        scratch: &'a mut PanelScratch,
    ) -> Self {
        let layout = w.layout();
        let n = chunk_tiles(layout, c);
        let padded = n.next_multiple_of(k / 4);
        let mut panel = Self {
            stripes: [&[]; PANEL_STRIPES],
            outputs: Outputs { scales: [_mm512_setzero_ps(); PANEL_STRIPES], len: stripes.len(), c },
            steps: padded / (k / 4),
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

    /// The right factor of stripe `s`; where the panel, at the edge, has no such stripe, some other one, whose sums
    /// nobody reads.
    fn right(&self, s: usize) -> &'a [i8] {
        self.stripes[if s < self.outputs.len { s } else { 0 }]
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
    /// Row and stripe of tile `t`'s first sum.
    fn place(&self, t: usize) -> (usize, usize) {
        let columns = if self.two_rows { 2 } else { 4 };
        (self.m + t / columns * TILE_ROWS, self.s + t % columns)
    }

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
        for (t, sums) in sums.0.iter().enumerate() {
            let (m, s) = self.place(t);
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

/// What [`Block::finish`] does, written down for the assembly that does it while the next block is multiplied.
/// Everything pointed to is borrowed for `'a`, and has been compared with what is read and written there.
#[repr(C)]
struct Pending<'a> {
    tiles: [PendingTile; 4],
    /// How many of `tiles` there are.
    count: usize,
    /// Lanes of the outputs that are read before they are written: none in the first chunk, otherwise all.
    before: u64,
    borrowed: PhantomData<&'a mut [[f32; PANEL]]>,
}

/// A tile of sums, and what they become.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct PendingTile {
    /// `rows` times 16 sums.
    sums: *const i32,
    /// `rows` scales of activations.
    x_scales: *const f32,
    /// `rows` times 16 outputs, one row every [`PANEL`].
    out: *mut f32,
    /// At least 1.
    rows: usize,
    w_scales: __m512,
}

impl<'a> Pending<'a> {
    /// Nothing.
    #[target_feature(enable = "avx512f")]
    fn none() -> Self {
        let none = PendingTile {
            sums: std::ptr::null(),
            x_scales: std::ptr::null(),
            out: std::ptr::null_mut(),
            rows: 0,
            w_scales: _mm512_setzero_ps(),
        };
        Self { tiles: [none; 4], count: 0, before: 0, borrowed: PhantomData }
    }

    /// What [`Block::finish`] does with the same arguments.
    #[target_feature(enable = "avx512f")]
    fn new(
        block: Block,
        sums: &'a Sums,
        outputs: &Outputs,
        x: &QuantizedRows<'a>,
        first: usize,
        out: &'a mut [[f32; PANEL]],
    ) -> Self {
        let mut pending = Self::none();
        pending.before = if outputs.c == 0 { 0 } else { u64::MAX };
        for (t, sums) in sums.0.iter().enumerate() {
            let (m, s) = block.place(t);
            if s < outputs.len && m < out.len() {
                let rows = TILE_ROWS.min(out.len() - m);
                pending.tiles[pending.count] = PendingTile {
                    sums: sums.as_ptr().cast(),
                    x_scales: x.scales(outputs.c, first + m, rows).as_ptr(),
                    // Tiles share rows, so that the address comes from all of them; the stripe is one of the panel's.
                    out: out.as_mut_ptr().cast::<f32>().wrapping_add(m * PANEL + s * LANES),
                    rows,
                    w_scales: outputs.scales[s],
                };
                pending.count += 1;
            }
        }
        pending
    }
}

/// Assembly: makes floats of what is pending at `{pending}`. Changes that and `{a}` to `{d}`, `{n}`, zmm0 to zmm3 and
/// k1.
macro_rules! finish_pending {
    () => {
        "
        mov {n}, [{pending} + {count_at}]
        kmovw k1, word ptr [{pending} + {before_at}]
        test {n}, {n}
        jz 5f
        3:
        mov {a}, [{pending} + {sums_at}]
        mov {b}, [{pending} + {x_scales_at}]
        mov {c}, [{pending} + {out_at}]
        mov {d}, [{pending} + {rows_at}]
        vmovaps zmm0, zmmword ptr [{pending} + {w_scales_at}]
        4:
        vmulps zmm1, zmm0, dword ptr [{b}] {{1to16}}
        vcvtdq2ps zmm2, zmmword ptr [{a}]
        vmovups zmm3 {{k1}} {{z}}, zmmword ptr [{c}]
        vfmadd231ps zmm3, zmm2, zmm1
        vmovups zmmword ptr [{c}], zmm3
        add {a}, {sums_step}
        add {b}, 4
        add {c}, {out_step}
        dec {d}
        jnz 4b
        add {pending}, {pending_step}
        dec {n}
        jnz 3b
        5:
        "
    };
}

/// Assembly: the tile registers of sums become zero.
macro_rules! zero {
    () => {
        "
        tilezero tmm0
        tilezero tmm1
        tilezero tmm2
        tilezero tmm3
        "
    };
}

/// Assembly: writes the sums to `{sums}`, four times 16 rows of 64 bytes.
macro_rules! store {
    () => {
        "
        tilestored [{sums} + {line}*1], tmm0
        tilestored [{sums} + {line}*1 + 1024], tmm1
        tilestored [{sums} + {line}*1 + 2048], tmm2
        tilestored [{sums} + {line}*1 + 3072], tmm3
        "
    };
}

/// Assembly: one step of one by four, and on to the next.
macro_rules! one_by_four {
    () => {
        "
        tileloadd tmm4, [{a} + {a_stride}*1]
        tileloadd tmm6, [{b} + {line}*1]
        tileloadd tmm7, [{c} + {line}*1]
        tdpbssd tmm0, tmm4, tmm6
        tdpbssd tmm1, tmm4, tmm7
        tileloadd tmm6, [{d} + {line}*1]
        tileloadd tmm7, [{e} + {line}*1]
        tdpbssd tmm2, tmm4, tmm6
        tdpbssd tmm3, tmm4, tmm7
        add {a}, {left_step}
        add {b}, {right_step}
        add {c}, {right_step}
        add {d}, {right_step}
        add {e}, {right_step}
        "
    };
}

/// Assembly: fetches the sixteen cache lines that lie `{ahead}` bytes behind a register.
macro_rules! fetch {
    ($at:literal) => {
        concat!(
            fetch!($at, 0),
            fetch!($at, 64),
            fetch!($at, 128),
            fetch!($at, 192),
            fetch!($at, 256),
            fetch!($at, 320),
            fetch!($at, 384),
            fetch!($at, 448),
            fetch!($at, 512),
            fetch!($at, 576),
            fetch!($at, 640),
            fetch!($at, 704),
            fetch!($at, 768),
            fetch!($at, 832),
            fetch!($at, 896),
            fetch!($at, 960),
        )
    };
    ($at:literal, $line:literal) => {
        concat!("prefetcht0 [{", $at, "} + {ahead} + ", $line, "]\n")
    };
}

/// Steps along k that a chunk has at most.
const STEPS_MAX: usize = CHUNK_MAX / TILE_BYTES;
/// Bytes of a right factor: sixteen outputs, and as many k as a row of the left one has at most.
const RIGHT_BYTES: usize = LANES * TILE_BYTES;

/// The tile unit, configured: registers 0 to 3 are sums, the others factors. To have one is the proof that the CPU has
/// it.
struct Tiles {
    /// Rows of a left factor.
    rows: usize,
    /// Bytes of a row of a left factor: 64, or fewer where a chunk is narrower.
    k: usize,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: leaves the tile unit as it was before `configure`.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

impl Tiles {
    /// `rows` rows and sixteen columns, `k` bytes along the sum.
    ///
    /// # Safety
    /// [`is_available`] has said yes, and this thread has no other `Tiles`.
    unsafe fn configure(rows: usize, k: usize) -> Self {
        assert!(0 < rows && rows <= TILE_ROWS && 0 < k && k <= TILE_BYTES && k.is_multiple_of(4));
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
        // SAFETY: 64 bytes of a valid configuration of palette 1; the CPU has the unit, as the caller vouches.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self { rows, k }
    }

    /// Panics unless the factors reach as far as `steps` steps read.
    fn check<const L: usize, const R: usize>(&self, left: [Left<'_>; L], right: [&[i8]; R], steps: usize) {
        // Between steps the addresses move on by those of whole tiles.
        assert!(steps == 1 || (steps > 1 && steps <= STEPS_MAX && self.k == TILE_BYTES));
        for left in left {
            let last_row = (self.rows - 1).checked_mul(left.stride).expect("rows are in memory");
            assert!(last_row <= left.bytes.len() && steps * self.k <= left.bytes.len() - last_row);
        }
        for right in right {
            assert!(steps * self.k * LANES <= right.len());
        }
    }

    /// `sums` become the products of two left with two right factors, summed over `steps` tiles along k; meanwhile,
    /// what is pending becomes floats.
    #[target_feature(enable = "avx512f,fma")]
    fn two_by_two(
        &mut self,
        left: [Left<'_>; 2],
        right: [&[i8]; 2],
        steps: usize,
        pending: &Pending<'_>,
        sums: &mut Sums,
    ) {
        self.check(left, right, steps);
        // SAFETY: the factors reach as far as is read, as just checked; four tiles of at most 16 rows of 64 bytes are written to
        // `sums`, which has as many; `Pending` holds what else is read and written.
        unsafe {
            asm!(
                zero!(),
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}*1]",
                "tileloadd tmm6, [{c} + {line}*1]",
                "tileloadd tmm7, [{d} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{b} + {b_stride}*1]",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                "add {a}, {left_step}",
                "add {b}, {left_step}",
                "add {c}, {right_step}",
                "add {d}, {right_step}",
                "dec {n}",
                "jnz 2b",
                finish_pending!(),
                store!(),
                a = inout(reg) left[0].bytes.as_ptr() => _,
                b = inout(reg) left[1].bytes.as_ptr() => _,
                c = inout(reg) right[0].as_ptr() => _,
                d = inout(reg) right[1].as_ptr() => _,
                n = inout(reg) steps => _,
                a_stride = in(reg) left[0].stride,
                b_stride = in(reg) left[1].stride,
                line = in(reg) TILE_BYTES,
                pending = inout(reg) pending => _,
                sums = in(reg) sums,
                left_step = const TILE_BYTES,
                right_step = const RIGHT_BYTES,
                count_at = const offset_of!(Pending<'_>, count),
                before_at = const offset_of!(Pending<'_>, before),
                sums_at = const offset_of!(PendingTile, sums),
                x_scales_at = const offset_of!(PendingTile, x_scales),
                out_at = const offset_of!(PendingTile, out),
                rows_at = const offset_of!(PendingTile, rows),
                w_scales_at = const offset_of!(PendingTile, w_scales),
                sums_step = const LANES * size_of::<i32>(),
                out_step = const PANEL * size_of::<f32>(),
                pending_step = const size_of::<PendingTile>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("k1") _,
                options(nostack),
            );
        }
    }

    /// `sums` become the products of one left with four right factors, summed over `steps` tiles along k; meanwhile,
    /// what is pending becomes floats.
    #[target_feature(enable = "avx512f,fma")]
    fn one_by_four(
        &mut self,
        left: Left<'_>,
        right: [&[i8]; 4],
        steps: usize,
        pending: &Pending<'_>,
        sums: &mut Sums,
    ) {
        self.check([left], right, steps);
        // SAFETY: as in `two_by_two`, with as many rows as are configured.
        unsafe {
            asm!(
                zero!(),
                "2:",
                one_by_four!(),
                "dec {n}",
                "jnz 2b",
                finish_pending!(),
                store!(),
                a = inout(reg) left.bytes.as_ptr() => _,
                b = inout(reg) right[0].as_ptr() => _,
                c = inout(reg) right[1].as_ptr() => _,
                d = inout(reg) right[2].as_ptr() => _,
                e = inout(reg) right[3].as_ptr() => _,
                n = inout(reg) steps => _,
                a_stride = in(reg) left.stride,
                line = in(reg) TILE_BYTES,
                pending = inout(reg) pending => _,
                sums = in(reg) sums,
                left_step = const TILE_BYTES,
                right_step = const RIGHT_BYTES,
                count_at = const offset_of!(Pending<'_>, count),
                before_at = const offset_of!(Pending<'_>, before),
                sums_at = const offset_of!(PendingTile, sums),
                x_scales_at = const offset_of!(PendingTile, x_scales),
                out_at = const offset_of!(PendingTile, out),
                rows_at = const offset_of!(PendingTile, rows),
                w_scales_at = const offset_of!(PendingTile, w_scales),
                sums_step = const LANES * size_of::<i32>(),
                out_step = const PANEL * size_of::<f32>(),
                pending_step = const size_of::<PendingTile>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("k1") _,
                options(nostack),
            );
        }
    }

    /// `sums` become the products of one left with four right factors, summed over `steps` tiles along k; with each of
    /// them as many bytes of every right factor are fetched that lie so far behind it.
    fn one_by_four_ahead(
        &mut self,
        left: Left<'_>,
        right: [&[i8]; 4],
        steps: usize,
        distances: &[usize; STEPS_MAX],
        sums: &mut Sums,
    ) {
        self.check([left], right, steps);
        // SAFETY: as in `two_by_two`, with as many rows as are configured; a distance is read for each of at most `STEPS_MAX`
        // steps, and a prefetch may be given any address.
        unsafe {
            asm!(
                zero!(),
                "2:",
                "mov {ahead}, [{distances}]",
                "add {distances}, 8",
                fetch!("b"),
                fetch!("c"),
                fetch!("d"),
                fetch!("e"),
                one_by_four!(),
                "dec {n}",
                "jnz 2b",
                store!(),
                a = inout(reg) left.bytes.as_ptr() => _,
                b = inout(reg) right[0].as_ptr() => _,
                c = inout(reg) right[1].as_ptr() => _,
                d = inout(reg) right[2].as_ptr() => _,
                e = inout(reg) right[3].as_ptr() => _,
                n = inout(reg) steps => _,
                a_stride = in(reg) left.stride,
                line = in(reg) TILE_BYTES,
                distances = inout(reg) distances => _,
                ahead = out(reg) _,
                sums = in(reg) sums,
                left_step = const TILE_BYTES,
                right_step = const RIGHT_BYTES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
