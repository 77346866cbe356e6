//! A picture as a small grid of luma: all that the pixel gate looks at.

use palmtop::image::Frame;

/// Samples of a cell in a row, and rows.
pub(super) const CELL: usize = 4;
/// Samples of a cell.
pub(super) const SAMPLES: usize = CELL * CELL;
/// Rows and columns of the picture that a sample is averaged over, at most.
const TAPS_MAX: usize = 3;

/// Mean luma of small blocks, cell by cell; a cell has four by four of them.
pub(super) struct Luma {
    columns: usize,
    rows: usize,
    /// `[rows, columns]` cells of `[CELL, CELL]` samples, 0 to 255.
    cells: Vec<[f32; SAMPLES]>,
    /// A row of the picture as RGB.
    row: Vec<u8>,
    /// Sums of the samples of a line of blocks.
    sums: Vec<u32>,
    /// Which columns stand for each of these blocks, in pictures of this width.
    taps: Vec<Taps>,
    width: usize,
}

/// Rows or columns that stand for a block.
#[derive(Clone, Copy)]
struct Taps {
    at: [u32; TAPS_MAX],
    n: usize,
}

impl Taps {
    fn new(index: usize, blocks: usize, side: usize) -> Self {
        let (mut at, mut n) = ([0; TAPS_MAX], 0);
        for tap in taps(index, blocks, side) {
            at[n] = tap as u32;
            n += 1;
        }
        Self { at, n }
    }

    fn each(&self) -> impl Iterator<Item = usize> + '_ {
        self.at[..self.n].iter().map(|&tap| tap as usize)
    }
}

impl Luma {
    /// For pictures of at most `side_max` pixels a side.
    pub fn new(columns: usize, rows: usize, side_max: usize) -> Self {
        Self {
            columns,
            rows,
            cells: vec![[0.0; SAMPLES]; columns * rows],
            row: vec![0; 3 * side_max],
            sums: vec![0; columns * CELL],
            taps: vec![Taps { at: [0; TAPS_MAX], n: 0 }; columns * CELL],
            width: 0,
        }
    }

    /// Bytes that it takes.
    pub fn bytes(columns: usize, rows: usize, side_max: usize) -> usize {
        columns * rows * size_of::<[f32; SAMPLES]>()
            + 3 * side_max
            + columns * CELL * (size_of::<u32>() + size_of::<Taps>())
    }

    /// Looks at a picture. Allocates nothing. False for one whose sides are above the limit, which is not looked at.
    pub fn look(&mut self, frame: &Frame<'_>) -> bool {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        if 3 * width > self.row.len() {
            return false;
        }
        let blocks = (self.columns * CELL, self.rows * CELL);
        if self.width != width {
            self.width = width;
            self.taps.iter_mut().enumerate().for_each(|(x, taps)| *taps = Taps::new(x, blocks.0, width));
        }
        for y in 0..blocks.1 {
            self.sums.fill(0);
            let rows = taps(y, blocks.1, height);
            for row in rows.clone() {
                let of_blocks = self.sums.iter_mut().zip(&self.taps);
                if let Some(levels) = frame.luma_row(row as u32) {
                    for (sum, taps) in of_blocks {
                        *sum += taps.each().map(|column| 256 * u32::from(levels[column])).sum::<u32>();
                    }
                    continue;
                }
                let rgb = &mut self.row[..3 * width];
                frame.write_row(row as u32, rgb);
                for (sum, taps) in of_blocks {
                    *sum += taps.each().map(|column| luma(&rgb[3 * column..])).sum::<u32>();
                }
            }
            let rows = rows.count();
            for (x, (&sum, taps)) in self.sums.iter().zip(&self.taps).enumerate() {
                let n = rows * taps.n;
                let cell = &mut self.cells[y / CELL * self.columns + x / CELL];
                cell[y % CELL * CELL + x % CELL] = sum as f32 / (n as f32 * 256.0);
            }
        }
        true
    }

    pub fn cells(&self) -> &[[f32; SAMPLES]] {
        &self.cells
    }
}

/// Luma of a pixel, times 256, by the weights of BT.601.
fn luma(rgb: &[u8]) -> u32 {
    77 * u32::from(rgb[0]) + 150 * u32::from(rgb[1]) + 29 * u32::from(rgb[2])
}

/// Which rows or columns of `side` stand for block `index` of `blocks`: evenly spread, at least one.
fn taps(index: usize, blocks: usize, side: usize) -> impl Iterator<Item = usize> + Clone {
    let (start, end) = (index * side / blocks, (index + 1) * side / blocks);
    let n = (end - start).clamp(1, TAPS_MAX);
    let last = side - 1;
    (0..n).map(move |tap| (start + (2 * tap + 1) * (end - start) / (2 * n)).min(last))
}

#[cfg(test)]
mod tests {
    use palmtop::image::PixelFormat;

    use super::*;

    #[test]
    fn samples_are_means_of_their_blocks() {
        // A gradient from left to right, and a bright lower half.
        let (width, height) = (320, 200);
        let value = |x: usize, y: usize| (x * 127 / 319 + if y < 100 { 0 } else { 100 }) as u8;
        let bytes: Vec<u8> = (0..width * height).map(|i| value(i % width, i / width)).collect();
        let frame = Frame::packed(PixelFormat::Grey, width as u32, height as u32, width, &bytes).unwrap();
        let mut luma = Luma::new(8, 5, 320);
        assert!(luma.look(&frame));
        for (i, cell) in luma.cells().iter().enumerate() {
            for (j, &sample) in cell.iter().enumerate() {
                let x = (i % 8 * CELL + j % CELL) as f32;
                let upper = i / 8 * CELL + j / CELL < 10;
                let want = (x + 0.5) * 127.0 / 32.0 + if upper { 0.0 } else { 100.0 };
                assert!((sample - want).abs() < 1.5, "cell {i}, sample {j}: {sample}, not {want}");
            }
        }
    }

    #[test]
    fn pictures_smaller_than_the_grid_and_larger_than_the_limit_are_no_danger() {
        let bytes = [9u8; 21];
        let frame = Frame::packed(PixelFormat::Grey, 3, 7, 3, &bytes).unwrap();
        let mut luma = Luma::new(8, 8, 7);
        assert!(luma.look(&frame));
        assert!(luma.cells().iter().flatten().all(|&v| (v - 9.0).abs() < 0.1));
        let wide = Frame::packed(PixelFormat::Grey, 21, 1, 21, &bytes).unwrap();
        assert!(!luma.look(&wide));
    }

    #[test]
    fn luma_planes_are_read_where_they_lie_and_pictures_of_other_widths_after_each_other() {
        use palmtop::image::{Plane, Rotation, YuvColor};

        let (width, height) = (64u32, 48u32);
        let levels: Vec<u8> = (0..width * height).map(|i| (i % 61 * 4) as u8).collect();
        let chroma = vec![128; (width * height / 2) as usize];
        let row = width as usize;
        let nv12 = Frame::nv12(width, height, Plane::new(&levels, row), Plane::new(&chroma, row)).unwrap();
        let nv12 = nv12.coloured(YuvColor::Bt601Full);
        let grey = Frame::packed(PixelFormat::Grey, width, height, row, &levels).unwrap();
        assert_eq!(nv12.luma_row(1), Some(&levels[64..128]));
        assert_eq!((nv12.luma_row(height), grey.luma_row(0)), (None, None));
        assert_eq!(nv12.turned(Rotation::Half).luma_row(0), None);
        let mut luma = Luma::new(4, 3, 200);
        let mut cells = |frame: &Frame<'_>| {
            assert!(luma.look(frame));
            luma.cells().to_vec()
        };
        let wide = vec![77; 200 * 20];
        let wide = Frame::packed(PixelFormat::Grey, 200, 20, 200, &wide).unwrap();
        let first = cells(&nv12);
        assert!(cells(&wide).iter().flatten().all(|&sample| (sample - 77.0).abs() < 0.01));
        assert_eq!(cells(&grey), first);
        assert_eq!(cells(&nv12), first);
    }
}
