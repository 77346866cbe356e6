//! Rows of f32, packed as f16 or int8 in the layout that the kernels multiply: stripes of sixteen rows, the last one
//! filled up with rows of zeros.
//!
//! f16 rounds each number to nearest even. int8 rounds each to a grid of 255 steps that reaches to the largest of its
//! chunk (32 numbers, or 256 of rows above 512): `scale = bf16(max|x| / 127)`, `q = round(x / scale)`, halves to even.

use half::{bf16, f16};
use palmtop_kernels::layout::{
    LANES, MatrixLayout, PackedMatrix, QuantizedRow, WeightFormat, chunk_of, pack_float_stripe,
    pack_integer_stripe,
};

use crate::error::PageError;
use crate::format::{DIMS_MAX, ROWS_MAX};

/// How vectors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorFormat {
    /// IEEE half precision: 2 bytes a number.
    F16,
    /// 8-bit integers with a bf16 scale for 32 of them: 1.06 bytes a number.
    Int8,
}

impl VectorFormat {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F16, Self::Int8];

    /// The name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        self.weights().name()
    }

    const fn weights(self) -> WeightFormat {
        match self {
            Self::F16 => WeightFormat::F16,
            Self::Int8 => WeightFormat::Int8,
        }
    }

    /// As in a file: the codes of these storages in `.palm` files.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::F16 => 17,
            Self::Int8 => 18,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }

    /// The layout of `rows` rows of `dims` numbers, which are within their bounds.
    pub(crate) fn layout(self, rows: usize, dims: usize) -> MatrixLayout {
        debug_assert!((1..=ROWS_MAX).contains(&rows) && (1..=DIMS_MAX).contains(&dims));
        MatrixLayout::new(self.weights(), rows, dims).expect("rows and dims are bounded and not 0")
    }

    /// Bytes of `rows` rows of `dims` numbers: what a page takes, but for its name.
    pub fn bytes(self, rows: usize, dims: usize) -> usize {
        self.layout(rows.clamp(1, ROWS_MAX), dims.clamp(1, DIMS_MAX)).bytes()
    }

    /// Packs rows of `dims` numbers that stand one behind the other.
    pub(crate) fn pack(self, rows: &[f32], dims: usize) -> Result<Vec<u8>, PageError> {
        let count = rows.len() / dims;
        if !(1..=ROWS_MAX).contains(&count) || !rows.len().is_multiple_of(dims) {
            return Err(PageError::Rows { values: rows.len(), dims });
        }
        if let Some(at) = rows.iter().position(|&value| !self.can_keep(value)) {
            return Err(PageError::Value { row: at / dims, value: rows[at].to_string() });
        }
        let layout = self.layout(count, dims);
        let mut bytes = vec![0; layout.bytes()];
        let stripes = rows.chunks(LANES * dims).zip(bytes.chunks_mut(layout.stripe_bytes()));
        for (rows, stripe) in stripes {
            match self {
                Self::F16 => {
                    pack_float_stripe(&layout, &rows.chunks(dims).collect::<Vec<_>>(), stripe);
                }
                Self::Int8 => {
                    pack_integer_stripe(
                        &layout,
                        &rows.chunks(dims).map(quantize).collect::<Vec<_>>(),
                        stripe,
                    );
                }
            }
        }
        Ok(bytes)
    }

    fn can_keep(self, value: f32) -> bool {
        match self {
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::Int8 => value.is_finite() && value.abs() <= INT8_MAX,
        }
    }

    /// The rows that packed bytes stand for.
    pub(crate) fn unpack(matrix: &PackedMatrix<'_>) -> Vec<f32> {
        let mut rows = vec![0.0; matrix.rows() * matrix.cols()];
        for (n, row) in rows.chunks_mut(matrix.cols()).enumerate() {
            matrix.dequantize_row(n, row);
        }
        rows
    }
}

impl std::fmt::Display for VectorFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Larger numbers are none that a normalized vector could have, and their products would overflow.
const INT8_MAX: f32 = 65504.0;
/// Below this a chunk counts as zero: its scale would be lost in the range of f32.
const TINY: f32 = 1e-30;

fn quantize(row: &[f32]) -> QuantizedRow {
    let mut out = QuantizedRow::default();
    for chunk in row.chunks(chunk_of(row.len())) {
        let max = chunk.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let scale = if max > TINY { bf16::from_f32(max / 127.0) } else { bf16::ZERO };
        let inverse = if max > TINY { 1.0 / scale.to_f32() } else { 0.0 };
        out.scales.push(scale);
        out.q.extend(chunk.iter().map(|x| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of no pattern, in -1..1.
    fn noise(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i as u64 * 2_654_435_761) % 20_011) as f32 / 10_005.5 - 1.0).collect()
    }

    #[test]
    fn rows_come_back_within_a_step() {
        for format in VectorFormat::ALL {
            for (rows, dims) in [(1, 1), (1, 128), (15, 128), (16, 128), (17, 128), (33, 37), (3, 600)] {
                let given = noise(rows * dims);
                let bytes = format.pack(&given, dims).unwrap();
                assert_eq!(bytes.len(), format.bytes(rows, dims));
                let matrix = PackedMatrix::new(format.layout(rows, dims), &bytes).unwrap();
                let kept = VectorFormat::unpack(&matrix);
                assert_eq!(kept.len(), given.len());
                for (row_kept, row_given) in kept.chunks(dims).zip(given.chunks(dims)) {
                    let chunks = row_kept.chunks(chunk_of(dims)).zip(row_given.chunks(chunk_of(dims)));
                    for (kept, given) in chunks {
                        let max = given.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                        // Half a step, which bf16 rounds by 1/512 at most; beyond the ends of the grid less is cut off.
                        let most =
                            if format == VectorFormat::F16 { max / 2048.0 } else { max / 127.0 * 0.502 };
                        for (kept, given) in kept.iter().zip(given) {
                            assert!(
                                (kept - given).abs() <= most,
                                "{format} {rows}x{dims}: {kept} for {given}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let rows = |values| PageError::Rows { values, dims: 4 };
        for format in VectorFormat::ALL {
            assert_eq!(format.pack(&[], 4), Err(rows(0)));
            assert_eq!(format.pack(&[0.0; 6], 4), Err(rows(6)));
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e6] {
                let refused = format.pack(&[0.0, 0.0, 0.0, 0.0, 0.0, value, 0.0, 0.0], 4);
                assert_eq!(refused, Err(PageError::Value { row: 1, value: value.to_string() }), "{format}");
            }
            let zeros = format.pack(&[0.0; 8], 4).unwrap();
            let matrix = PackedMatrix::new(format.layout(2, 4), &zeros).unwrap();
            assert_eq!(VectorFormat::unpack(&matrix), [0.0; 8]);
        }
    }

    #[test]
    fn a_page_of_colpali_takes_what_the_docs_say() {
        assert_eq!(VectorFormat::F16.bytes(1030, 128), 266_240);
        assert_eq!(VectorFormat::Int8.bytes(1030, 128), 141_440);
    }
}
