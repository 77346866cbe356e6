//! A matrix that lies in an array with its axes in another order.

/// Values of an axis, and how far they lie apart in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub size: usize,
    pub stride: usize,
}

/// A matrix in an array: rows and columns each run over some axes of it, the last of them fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The first value.
    pub base: usize,
    pub rows: Vec<Axis>,
    pub cols: Vec<Axis>,
}

impl View {
    /// `rows` rows of `cols` values that lie in the array as they are.
    pub fn plain(base: usize, rows: usize, cols: usize) -> Self {
        Self {
            base,
            rows: vec![Axis { size: rows, stride: cols }],
            cols: vec![Axis { size: cols, stride: 1 }],
        }
    }

    /// The matrix of a layer's kernel `[inputs, outputs]`: its rows are outputs.
    pub fn transposed(base: usize, inputs: usize, outputs: usize) -> Self {
        let (rows, cols) = (Axis { size: outputs, stride: 1 }, Axis { size: inputs, stride: outputs });
        Self { base, rows: vec![rows], cols: vec![cols] }
    }

    pub fn row_count(&self) -> usize {
        self.rows.iter().map(|axis| axis.size).product()
    }

    pub fn col_count(&self) -> usize {
        self.cols.iter().map(|axis| axis.size).product()
    }

    /// True if the values of a row follow each other in the array.
    pub fn has_whole_rows(&self) -> bool {
        matches!(&self.cols[..], [Axis { stride: 1, .. }])
    }

    /// Where row `row` begins in the array.
    pub fn row(&self, row: usize) -> usize {
        self.base + offset(&self.rows, row)
    }

    /// Where a value lies in the array, given its place in the matrix in row-major order.
    pub fn at(&self, index: usize) -> usize {
        self.row(index / self.col_count()) + offset(&self.cols, index % self.col_count())
    }

    /// Calls `each` with every column and how far its values lie behind those of column 0.
    pub fn each_col(&self, mut each: impl FnMut(usize, usize)) {
        let Some((last, outer)) = self.cols.split_last() else { return };
        let mut col = 0;
        for block in 0..outer.iter().map(|axis| axis.size).product() {
            let start = offset(outer, block);
            for i in 0..last.size {
                each(col, start + i * last.stride);
                col += 1;
            }
        }
    }
}

fn offset(axes: &[Axis], mut index: usize) -> usize {
    let mut offset = 0;
    for axis in axes.iter().rev() {
        offset += index % axis.size * axis.stride;
        index /= axis.size;
    }
    offset
}
