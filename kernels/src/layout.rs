//! The packed weight layouts: one byte order for every instruction set, mapped and used in place.
//!
//! A weight matrix has `rows` outputs (N) and `cols` inputs (K); `y[n] = Σ_k w[n][k]·x[k]`.
//! Sixteen consecutive rows form a *stripe*; stripes follow each other in the file, so that one thread
//! reads one sequential stream. The last stripe is filled up with rows of zeros.
//!
//! ```text
//! f32, f16   stripe = for each k: 16 values (row 0..15), 4 or 2 bytes each, little-endian
//!
//! int8       stripe = scales | zeros to a multiple of 64 bytes | tiles
//!              scales: for each chunk of k: 16 × bf16                (one per row)
//!              tile:   64 bytes = 16 rows × 4 consecutive k, i8      (byte = row·4 + k mod 4)
//!              value = scale · q,           q in -127..=127
//!
//! int4       stripe = scales | group scales | zeros to a multiple of 64 bytes | tiles
//!              scales: as int8
//!              group scales: for each pair of groups of 16 k: 16 bytes (one per row),
//!                      low nibble the even group, high nibble the odd one; 0..=15
//!              tile:   64 bytes = 16 rows × 8 consecutive k          (byte = row·4 + k mod 4;
//!                      low nibble k mod 8 < 4, high nibble k mod 8 >= 4), nibble = q + 8
//!              value = scale · group scale · q,   q in -8..=7
//! ```
//!
//! A chunk is 256 consecutive k, or 32 in a matrix with at most 512 inputs.
//!
//! `K` is filled up to a multiple of 4 (int8) or 16 (int4) with values that multiply to zero.
//!
//! An int4 weight times its group scale fits an i8, so both formats multiply as int8 and the integer
//! sum of a chunk is exact in any order: 256·127·127 < 2²⁴ also converts to f32 without rounding.

use half::{bf16, f16};

/// Rows of a stripe: the lanes of a virtual vector.
pub const LANES: usize = 16;
/// Most consecutive k that share one activation scale and one weight scale per row; see [`chunk_of`].
pub const CHUNK_MAX: usize = 256;
/// Chunks of matrices with at most [`NARROW`] inputs.
const CHUNK_NARROW: usize = 32;
/// A matrix with at most so many inputs is narrow: it has few terms to average rounding over and costs little,
/// so its scales are finer.
pub const NARROW: usize = 512;

/// Consecutive k that share one activation scale and one weight scale per row, in a matrix of `cols` inputs.
pub const fn chunk_of(cols: usize) -> usize {
    if cols <= NARROW { CHUNK_NARROW } else { CHUNK_MAX }
}
/// Consecutive k that share one int4 group scale.
pub const GROUP: usize = 16;
/// Bytes of an integer tile.
pub const TILE_BYTES: usize = 64;
/// Largest magnitude of an int4 group scale.
pub const GROUP_SCALE_MAX: u8 = 15;

const _: () = assert!(CHUNK_NARROW.is_multiple_of(2 * GROUP) && CHUNK_MAX.is_multiple_of(2 * GROUP));
const _: () = assert!(CHUNK_MAX * 127 * 127 < 1 << 24, "a chunk's sum must be exact in f32");
const _: () = assert!(GROUP_SCALE_MAX as usize * 8 <= 127, "an int4 weight times its scale must fit an i8");

/// How the weights of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// IEEE single precision: 32 bits a weight.
    F32,
    /// IEEE half precision: 16 bits a weight.
    F16,
    /// 8-bit integers with a bf16 scale per row and chunk: 8.06 bits a weight.
    Int8,
    /// 4-bit integers with a 4-bit scale per group of 16 and a bf16 scale per chunk: 4.31 bits a weight.
    Int4,
}

impl WeightFormat {
    /// The name used on the command line, in reports and in file metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// True for the formats whose products run in integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }

    /// `K` is filled up to a multiple of this.
    const fn k_multiple(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Int8 => 4,
            Self::Int4 => GROUP,
        }
    }
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        [Self::F32, Self::F16, Self::Int8, Self::Int4]
            .into_iter()
            .find(|w| w.name() == s)
            .ok_or_else(|| format!("unknown weight format '{s}': use f32, f16, int8 or int4"))
    }
}

/// Where everything lies in a packed matrix of a given format and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixLayout {
    /// Storage of the weights.
    pub format: WeightFormat,
    /// Outputs, N.
    pub rows: usize,
    /// Inputs, K.
    pub cols: usize,
}

impl MatrixLayout {
    /// The layout of a `rows` × `cols` matrix; `None` if it is empty or its size overflows.
    pub fn new(format: WeightFormat, rows: usize, cols: usize) -> Option<Self> {
        let layout = Self { format, rows, cols };
        // Every size below is at most a small multiple of this product.
        let padded = rows.checked_add(LANES)?.checked_mul(cols.checked_add(CHUNK_MAX)?)?.checked_mul(8)?;
        (rows > 0 && cols > 0 && padded < isize::MAX as usize).then_some(layout)
    }

    /// Stripes of 16 rows.
    pub const fn stripes(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Consecutive k of a chunk.
    pub const fn chunk(&self) -> usize {
        chunk_of(self.cols)
    }

    /// Chunks; the last one may be shorter.
    pub const fn chunks(&self) -> usize {
        self.cols.div_ceil(self.chunk())
    }

    /// int4 groups of 16 k.
    pub const fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP)
    }

    /// `K` filled up to what the format needs.
    pub const fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(self.format.k_multiple())
    }

    /// Bytes of the bf16 scales at the head of a stripe (zero for floats).
    pub const fn scale_bytes(&self) -> usize {
        if self.format.is_integer() { self.chunks() * LANES * 2 } else { 0 }
    }

    /// Bytes of the int4 group scales, which follow the scales (zero for other formats).
    pub const fn group_scale_bytes(&self) -> usize {
        if matches!(self.format, WeightFormat::Int4) { self.groups().div_ceil(2) * LANES } else { 0 }
    }

    /// Offset of the weights inside a stripe.
    pub const fn tiles_offset(&self) -> usize {
        (self.scale_bytes() + self.group_scale_bytes()).next_multiple_of(TILE_BYTES)
    }

    /// Bytes of the weights of a stripe.
    pub const fn tile_bytes(&self) -> usize {
        let weights = LANES * self.padded_cols();
        match self.format {
            WeightFormat::F32 => weights * 4,
            WeightFormat::F16 => weights * 2,
            WeightFormat::Int8 => weights,
            WeightFormat::Int4 => weights / 2,
        }
    }

    /// Bytes of a stripe, a multiple of 32 (floats) or 64 (integers).
    pub const fn stripe_bytes(&self) -> usize {
        self.tiles_offset() + self.tile_bytes()
    }

    /// Bytes of the whole matrix.
    pub const fn bytes(&self) -> usize {
        self.stripes() * self.stripe_bytes()
    }
}

/// A packed matrix, borrowed from a mapped file.
#[derive(Clone, Copy)]
pub struct PackedMatrix<'a> {
    layout: MatrixLayout,
    bytes: &'a [u8],
}

impl<'a> PackedMatrix<'a> {
    /// Binds `bytes` to a layout; `None` unless the length is exactly what the layout needs.
    ///
    /// Any byte values are acceptable: a corrupt matrix gives wrong numbers, never undefined behaviour.
    pub fn new(layout: MatrixLayout, bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() == layout.bytes()).then_some(Self { layout, bytes })
    }

    /// Format and shape.
    pub fn layout(&self) -> &MatrixLayout {
        &self.layout
    }

    /// Outputs, N.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Inputs, K.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// The bytes of stripe `s`.
    pub fn stripe(&self, s: usize) -> &'a [u8] {
        let n = self.layout.stripe_bytes();
        &self.bytes[s * n..(s + 1) * n]
    }

    /// The bytes of consecutive stripes.
    pub fn stripes(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        let n = self.layout.stripe_bytes();
        &self.bytes[range.start * n..range.end * n]
    }

    /// Writes row `n`, dequantized, to `out` (`cols` values): an embedding lookup.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.rows(), "row {n} of a matrix of {}", self.rows());
        assert_eq!(out.len(), self.cols(), "a row holds one value per column");
        let stripe = self.stripe(n / LANES);
        let (tiles, lane) = (&stripe[self.layout.tiles_offset()..], n % LANES);
        match self.layout.format {
            WeightFormat::F32 => {
                for (k, o) in out.iter_mut().enumerate() {
                    let at = (k * LANES + lane) * 4;
                    *o = f32::from_le_bytes(tiles[at..at + 4].try_into().expect("four bytes"));
                }
            }
            WeightFormat::F16 => {
                for (k, o) in out.iter_mut().enumerate() {
                    let at = (k * LANES + lane) * 2;
                    *o = f16::from_le_bytes([tiles[at], tiles[at + 1]]).to_f32();
                }
            }
            WeightFormat::Int8 | WeightFormat::Int4 => {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = scale(stripe, k / self.layout.chunk(), lane)
                        * f32::from(integer(&self.layout, stripe, lane, k));
                }
            }
        }
    }
}

/// The f32 scale of a stripe's row in a chunk.
#[inline]
pub(crate) fn scale(stripe: &[u8], chunk: usize, lane: usize) -> f32 {
    let at = (chunk * LANES + lane) * 2;
    bf16::from_le_bytes([stripe[at], stripe[at + 1]]).to_f32()
}

/// The 8-bit integer that stands for a weight of an int8 or int4 stripe: with int4, group scale times q.
#[inline]
pub(crate) fn integer(layout: &MatrixLayout, stripe: &[u8], lane: usize, k: usize) -> i8 {
    let tiles = &stripe[layout.tiles_offset()..];
    match layout.format {
        WeightFormat::Int8 => tiles[k / 4 * TILE_BYTES + lane * 4 + k % 4] as i8,
        WeightFormat::Int4 => {
            let byte = tiles[k / 8 * TILE_BYTES + lane * 4 + k % 4];
            let q = (if k % 8 < 4 { byte & 15 } else { byte >> 4 }) as i8 - 8;
            let group = k / GROUP;
            let pair = stripe[layout.scale_bytes() + group / 2 * LANES + lane];
            let s = if group.is_multiple_of(2) { pair & 15 } else { pair >> 4 };
            q * s as i8
        }
        WeightFormat::F32 | WeightFormat::F16 => unreachable!("float stripes hold no integers"),
    }
}

/// One row of an integer matrix before packing: what a quantizer makes.
#[derive(Clone, Debug, Default)]
pub struct QuantizedRow {
    /// int8: `q` in -127..=127; int4: `q` in -8..=7. `cols` values.
    pub q: Vec<i8>,
    /// One scale per chunk.
    pub scales: Vec<bf16>,
    /// int4 only: one scale in 0..=15 per group of 16.
    pub group_scales: Vec<u8>,
}

/// Packs up to 16 rows into one stripe. Missing rows and columns are filled with zeros.
///
/// # Panics
/// If a row's lengths do not fit the layout, or `out` is not one stripe long: both are the caller's mistakes.
pub fn pack_integer_stripe(layout: &MatrixLayout, rows: &[QuantizedRow], out: &mut [u8]) {
    assert!(layout.format.is_integer() && rows.len() <= LANES);
    assert_eq!(out.len(), layout.stripe_bytes());
    let int4 = layout.format == WeightFormat::Int4;
    out.fill(0);
    let (head, tiles) = out.split_at_mut(layout.tiles_offset());
    if int4 {
        tiles.fill(0x88); // q = 0 in both nibbles
    }
    for (lane, row) in rows.iter().enumerate() {
        assert_eq!((row.q.len(), row.scales.len()), (layout.cols, layout.chunks()));
        for (c, s) in row.scales.iter().enumerate() {
            head[(c * LANES + lane) * 2..][..2].copy_from_slice(&s.to_le_bytes());
        }
        if int4 {
            assert_eq!(row.group_scales.len(), layout.groups());
            for (g, &s) in row.group_scales.iter().enumerate() {
                debug_assert!(s <= GROUP_SCALE_MAX);
                head[layout.scale_bytes() + g / 2 * LANES + lane] |= s << (g % 2 * 4);
            }
        }
        for (k, &q) in row.q.iter().enumerate() {
            if int4 {
                let shift = if k % 8 < 4 { 0 } else { 4 };
                let byte = &mut tiles[k / 8 * TILE_BYTES + lane * 4 + k % 4];
                *byte = *byte & !(15 << shift) | ((q + 8) as u8 & 15) << shift;
            } else {
                tiles[k / 4 * TILE_BYTES + lane * 4 + k % 4] = q as u8;
            }
        }
    }
}

/// Packs up to 16 rows of `cols` f32 into one f32 or f16 stripe. Missing rows are filled with zeros.
///
/// # Panics
/// If a row's length does not fit the layout, or `out` is not one stripe long.
pub fn pack_float_stripe(layout: &MatrixLayout, rows: &[&[f32]], out: &mut [u8]) {
    assert!(!layout.format.is_integer() && rows.len() <= LANES);
    assert_eq!(out.len(), layout.stripe_bytes());
    out.fill(0);
    for (lane, row) in rows.iter().enumerate() {
        assert_eq!(row.len(), layout.cols);
        for (k, &w) in row.iter().enumerate() {
            let at = k * LANES + lane;
            match layout.format {
                WeightFormat::F32 => out[at * 4..][..4].copy_from_slice(&w.to_le_bytes()),
                _ => out[at * 2..][..2].copy_from_slice(&f16::from_f32(w).to_le_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_shapes_cost_what_the_docs_say() {
        let bits = |f, n, k| {
            let l = MatrixLayout::new(f, n, k).unwrap();
            l.bytes() as f64 * 8.0 / (n * k) as f64
        };
        assert!((bits(WeightFormat::Int8, 2048, 2048) - 8.0625).abs() < 1e-9);
        assert!((bits(WeightFormat::Int4, 2048, 2048) - 4.3125).abs() < 1e-9);
        // 4304 is no multiple of 32; the layout wastes less than a hundredth on it.
        assert!(bits(WeightFormat::Int4, 1152, 4304) < 4.36);
        assert!(bits(WeightFormat::Int8, 1152, 4304) < 8.09);
    }

    #[test]
    fn absurd_shapes_have_no_layout() {
        assert!(MatrixLayout::new(WeightFormat::Int8, 0, 4).is_none());
        assert!(MatrixLayout::new(WeightFormat::Int8, 4, 0).is_none());
        assert!(MatrixLayout::new(WeightFormat::F32, usize::MAX / 2, 3).is_none());
        assert!(MatrixLayout::new(WeightFormat::F32, 1 << 40, 1 << 40).is_none());
    }

    #[test]
    fn integer_rows_come_back_as_packed() {
        for (format, rows, cols) in [
            (WeightFormat::Int8, 16, 256),
            (WeightFormat::Int8, 5, 137),
            (WeightFormat::Int8, 33, 601),
            (WeightFormat::Int4, 16, 256),
            (WeightFormat::Int4, 7, 137),
            (WeightFormat::Int4, 20, 4304),
        ] {
            let layout = MatrixLayout::new(format, rows, cols).unwrap();
            let mut bytes = vec![0xAA; layout.bytes()];
            let mut state = 1u32;
            let mut next = move || {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                state >> 8
            };
            let all: Vec<QuantizedRow> = (0..rows)
                .map(|_| QuantizedRow {
                    q: (0..cols)
                        .map(|_| match format {
                            WeightFormat::Int8 => (next() % 255) as i32 - 127,
                            _ => (next() % 16) as i32 - 8,
                        } as i8)
                        .collect(),
                    scales: (0..layout.chunks()).map(|_| bf16::from_f32(next() as f32 * 1e-6)).collect(),
                    group_scales: match format {
                        WeightFormat::Int4 => (0..layout.groups()).map(|_| (next() % 16) as u8).collect(),
                        _ => vec![],
                    },
                })
                .collect();
            for (s, out) in bytes.chunks_mut(layout.stripe_bytes()).enumerate() {
                pack_integer_stripe(&layout, &all[s * LANES..rows.min((s + 1) * LANES)], out);
            }
            let matrix = PackedMatrix::new(layout, &bytes).unwrap();
            let mut got = vec![0.0; cols];
            for (n, row) in all.iter().enumerate() {
                matrix.dequantize_row(n, &mut got);
                for (k, &got) in got.iter().enumerate() {
                    let s = row.group_scales.get(k / GROUP).map_or(1, |&s| s as i32);
                    let want = row.scales[k / layout.chunk()].to_f32() * (row.q[k] as i32 * s) as f32;
                    assert_eq!(got, want, "{format} row {n} column {k}");
                }
            }
        }
    }

    #[test]
    fn float_rows_come_back_as_packed() {
        for format in [WeightFormat::F32, WeightFormat::F16] {
            let (rows, cols) = (19, 37);
            let layout = MatrixLayout::new(format, rows, cols).unwrap();
            let mut bytes = vec![0xAA; layout.bytes()];
            let all: Vec<Vec<f32>> =
                (0..rows).map(|n| (0..cols).map(|k| (n * cols + k) as f32 * 0.125).collect()).collect();
            for (s, out) in bytes.chunks_mut(layout.stripe_bytes()).enumerate() {
                let rows: Vec<&[f32]> =
                    all[s * LANES..rows.min((s + 1) * LANES)].iter().map(|r| &r[..]).collect();
                pack_float_stripe(&layout, &rows, out);
            }
            let matrix = PackedMatrix::new(layout, &bytes).unwrap();
            let mut got = vec![0.0; cols];
            for (n, row) in all.iter().enumerate() {
                matrix.dequantize_row(n, &mut got);
                assert_eq!(&got, row);
            }
        }
    }
}
