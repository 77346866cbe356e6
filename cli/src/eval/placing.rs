//! Brings boxes onto a picture that has another size than the one they were drawn on.
//!
//! Data sets are copied as thumbnails, and annotated before or after a camera's Exif orientation is applied. Where the
//! sizes tell which, boxes are scaled and turned; where they do not, the picture is refused: boxes in the wrong place
//! would score 0 without a word.

use anyhow::anyhow;

use super::boxes::{GroundTruth, Rect};

/// How boxes come from the picture that they were drawn on to the one that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placing {
    /// Columns and rows of the picture that they were drawn on.
    from: (u32, u32),
    /// Exif's number of the orientation in which that picture must be turned, 1 for none.
    turn: u8,
    /// Columns and rows of the picture that is there.
    to: (u32, u32),
}

impl Placing {
    /// `annotated` are columns and rows of the picture that the boxes were drawn on, `size` those of the upright
    /// picture that is there, `orientation` what its Exif says, from 1 to 8.
    pub fn of(annotated: (u32, u32), size: (u32, u32), orientation: u8) -> anyhow::Result<Self> {
        let placing = |turn| Self { from: annotated, turn, to: size };
        let stored = (size.1, size.0);
        let lies = (5..=8).contains(&orientation);
        match () {
            _ if annotated == size => Ok(placing(1)),
            _ if lies && annotated == stored => Ok(placing(orientation)),
            _ if is_scaled(annotated, size) => Ok(placing(1)),
            _ if lies && is_scaled(annotated, stored) => Ok(placing(orientation)),
            _ => Err(anyhow!(
                "its annotations are for {} × {} pixels and the picture has {} × {}, which is neither a scaled nor, by \
                 its Exif, a turned copy",
                annotated.0,
                annotated.1,
                size.0,
                size.1
            )),
        }
    }

    /// A box on the picture that is there.
    pub fn place(&self, truth: &mut GroundTruth) {
        let Rect { x, y, width, height } = truth.rect;
        let (columns, rows) = (f64::from(self.from.0), f64::from(self.from.1));
        let (right, below) = (columns - x - width, rows - y - height);
        let (x, y) = match self.turn {
            5 => (y, x),
            6 => (below, x),
            7 => (below, right),
            8 => (y, right),
            _ => (x, y),
        };
        let lies = self.turn >= 5;
        let (width, height) = if lies { (height, width) } else { (width, height) };
        let (columns, rows) = if lies { (rows, columns) } else { (columns, rows) };
        let (across, down) = (f64::from(self.to.0) / columns, f64::from(self.to.1) / rows);
        truth.rect = Rect { x: x * across, y: y * down, width: width * across, height: height * down };
        truth.area *= across * down;
    }
}

/// Whether the number that scales one side scales the other too, to less than a pixel of the smaller picture: there it
/// was rounded up or down.
fn is_scaled(a: (u32, u32), b: (u32, u32)) -> bool {
    let (small, large) = if a.0 < b.0 { (a, b) } else { (b, a) };
    let [small, large] = [small, large].map(|(columns, rows)| (f64::from(columns), f64::from(rows)));
    (small.1 - large.1 * small.0 / large.0).abs() < 1.0 || (small.0 - large.0 * small.1 / large.1).abs() < 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        annotated: (u32, u32),
        size: (u32, u32),
        orientation: u8,
        rect: [f64; 4],
    ) -> Option<([f64; 4], f64)> {
        let [x, y, width, height] = rect;
        let rect = Rect { x, y, width, height };
        let mut truth = GroundTruth { label: "cat".into(), rect, area: 6.0, crowd: false };
        Placing::of(annotated, size, orientation).ok()?.place(&mut truth);
        let Rect { x, y, width, height } = truth.rect;
        Some(([x, y, width, height], truth.area))
    }

    #[test]
    fn thumbnails_scale_boxes() {
        let rect = [10.0, 20.0, 30.0, 40.0];
        assert_eq!(placed((640, 480), (640, 480), 1, rect), Some((rect, 6.0)));
        assert_eq!(placed((640, 480), (320, 240), 1, rect), Some(([5.0, 10.0, 15.0, 20.0], 1.5)));
        assert_eq!(placed((640, 480), (1280, 960), 1, rect), Some(([20.0, 40.0, 60.0, 80.0], 24.0)));
        // 640 x 427 to a longest side of 200 makes 133.4 rows: 133 or, rounded up, 134.
        assert!(placed((640, 427), (200, 133), 1, rect).is_some());
        assert!(placed((640, 427), (200, 134), 1, rect).is_some());
        // The other way round: the annotations are on the thumbnail.
        assert!(placed((320, 180), (640, 361), 1, rect).is_some());
        for size in [(200, 132), (200, 135), (200, 200), (480, 640)] {
            assert_eq!(placed((640, 427), size, 1, rect), None, "{size:?}");
        }
    }

    #[test]
    fn pictures_that_lie_turn_boxes() {
        // A box of 1 x 2 pixels at column 3, row 4 of a stored picture of 8 columns and 10 rows, by the definition: a
        // pixel's place in the upright picture of 10 columns and 8 rows.
        let rect = [3.0, 4.0, 1.0, 2.0];
        type Turn = fn(u32, u32) -> (u32, u32);
        let turns: [(u8, Turn); 4] =
            [(5, |x, y| (y, x)), (6, |x, y| (9 - y, x)), (7, |x, y| (9 - y, 7 - x)), (8, |x, y| (y, 7 - x))];
        for (orientation, turn) in turns {
            let pixels = [turn(3, 4), turn(3, 5)];
            let (x, y) =
                (pixels.iter().map(|p| p.0).min().unwrap(), pixels.iter().map(|p| p.1).min().unwrap());
            let want = ([f64::from(x), f64::from(y), 2.0, 1.0], 6.0);
            assert_eq!(placed((8, 10), (10, 8), orientation, rect), Some(want), "{orientation}");
            // Drawn on the upright picture, they stay.
            assert_eq!(placed((10, 8), (10, 8), orientation, rect), Some((rect, 6.0)));
            // And drawn on the stored picture in twice the size.
            let half = |v: f64| v / 2.0;
            let want = (want.0.map(half), 1.5);
            assert_eq!(placed((80, 100), (50, 40), orientation, [30.0, 40.0, 10.0, 20.0]).map(|p| p.0), {
                Some(want.0.map(|v| v * 10.0))
            });
        }
        // The same sizes without a reason.
        assert_eq!(placed((8, 10), (10, 8), 1, rect), None);
        assert_eq!(placed((8, 10), (10, 8), 3, rect), None);
    }
}
