//! Scores masks: intersection over union, in pixels.

use palmtop::image::RgbImage;
use palmtop::tasks::Mask;

/// Pixels of a picture that are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    /// Rows of whole words, the lowest bit first; bits beyond the width are zero.
    words: Vec<u64>,
}

impl Pixels {
    /// None of a picture's pixels.
    pub fn none(width: u32, height: u32) -> Self {
        Self { width, height, words: vec![0; row_words(width) * height as usize] }
    }

    /// Those that are at least half bright in a grey picture.
    pub fn of_grey(picture: &RgbImage) -> Self {
        let mut out = Self::none(picture.width(), picture.height());
        for (row, pixels) in picture.data().chunks(3 * picture.width() as usize).enumerate() {
            for (column, pixel) in pixels.chunks(3).enumerate() {
                if pixel[0] >= 128 {
                    out.set(column, row);
                }
            }
        }
        out
    }

    /// Sets those of a mask too, which must be of a picture of the same size.
    pub fn add(&mut self, mask: &Mask) {
        for (y, row) in (mask.y() as usize..self.height as usize).zip(mask.rows()) {
            for (x, set) in (mask.x() as usize..self.width as usize).zip(row) {
                if set {
                    self.set(x, y);
                }
            }
        }
    }

    /// Columns and rows of the picture.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Common pixels over those of both; 1 if neither has any. Both must be of the same size.
    pub fn iou(&self, other: &Self) -> f64 {
        debug_assert_eq!(self.size(), other.size());
        let (mut common, mut all) = (0u64, 0u64);
        for (a, b) in self.words.iter().zip(&other.words) {
            common += u64::from((a & b).count_ones());
            all += u64::from((a | b).count_ones());
        }
        if all > 0 { common as f64 / all as f64 } else { 1.0 }
    }

    fn set(&mut self, column: usize, row: usize) {
        self.words[row * row_words(self.width) + column / 64] |= 1 << (column % 64);
    }
}

fn row_words(width: u32) -> usize {
    width.div_ceil(64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmtop::tasks::{BoxRounding, MASK_SIDE};

    fn filled(locations: [u16; 4], width: u32, height: u32) -> Mask {
        let logits = [1.0; MASK_SIDE * MASK_SIDE];
        Mask::paste(&logits, locations, width, height, BoxRounding::Nearest).unwrap()
    }

    fn of(masks: &[Mask], width: u32, height: u32) -> Pixels {
        let mut pixels = Pixels::none(width, height);
        masks.iter().for_each(|m| pixels.add(m));
        pixels
    }

    #[test]
    fn rectangles_overlap_by_their_area() {
        // 200 x 100 pixels, wider than three words: the left half, all, the right three quarters.
        let (left, all, right) = ([0, 0, 1024, 512], [0, 0, 1023, 1023], [0, 256, 1024, 1024]);
        let pixels = |l| of(&[filled(l, 200, 100)], 200, 100);
        assert_eq!(pixels(left).iou(&pixels(left)), 1.0);
        assert_eq!(pixels(left).iou(&pixels(all)), 0.5);
        assert_eq!(pixels(left).iou(&pixels(right)), 0.25);
        assert_eq!(pixels(left).iou(&Pixels::none(200, 100)), 0.0);
        assert_eq!(Pixels::none(200, 100).iou(&Pixels::none(200, 100)), 1.0);
        let both = of(&[filled(left, 200, 100), filled([0, 512, 1024, 1024], 200, 100)], 200, 100);
        assert_eq!(both.iou(&pixels(all)), 1.0);
    }

    #[test]
    fn a_grey_picture_is_a_mask_from_the_middle_on() {
        let data = [0, 127, 128, 255].iter().flat_map(|&v| [v; 3]).collect();
        let grey = Pixels::of_grey(&RgbImage::new(2, 2, data).unwrap());
        let lower = of(&[filled([512, 0, 1024, 1024], 2, 2)], 2, 2);
        assert_eq!((grey.iou(&lower), grey.size()), (1.0, (2, 2)));
    }
}
