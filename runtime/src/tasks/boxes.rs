//! Boxes: `<loc>` values as edges in a picture.

/// Steps of a `<loc>` token across the image: `<loc0512>` is the middle.
const LOCATION_STEPS: u32 = 1024;

/// A box in pixels of the original picture, as edges: a box over all of a picture is 0, 0, width, height.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundingBox {
    /// Left edge.
    pub x_min: f32,
    /// Upper edge.
    pub y_min: f32,
    /// Right edge, not less than `x_min`.
    pub x_max: f32,
    /// Lower edge, not less than `y_min`.
    pub y_max: f32,
}

impl BoundingBox {
    /// The box of `[y1, x1, y2, x2]` in a picture of `width` × `height` pixels: `location / 1024 * size`, and the
    /// lesser of two edges first, whatever their order in the answer.
    ///
    /// 1024 is what Google's demos, transformers' documentation and other readers of answers divide by. big_vision,
    /// which trained the models, writes `round(edge * 1023)` and its evaluators divide by 1023; the difference is
    /// below a thousandth of the picture.
    pub fn from_locations(locations: [u16; 4], width: u32, height: u32) -> Self {
        let edge = |location: u16, size: u32| {
            (f64::from(location) * f64::from(size) / f64::from(LOCATION_STEPS)) as f32
        };
        let [y1, x1, y2, x2] = locations;
        let (x1, x2) = (edge(x1, width), edge(x2, width));
        let (y1, y2) = (edge(y1, height), edge(y2, height));
        Self { x_min: x1.min(x2), y_min: y1.min(y2), x_max: x1.max(x2), y_max: y1.max(y2) }
    }
}

/// A box in whole pixels of the original picture: columns `x_min..x_max` and rows `y_min..y_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelBox {
    /// First column.
    pub x_min: u32,
    /// First row.
    pub y_min: u32,
    /// One past the last column, not less than `x_min`.
    pub x_max: u32,
    /// One past the last row, not less than `y_min`.
    pub y_max: u32,
}

impl PixelBox {
    /// [`BoundingBox::from_locations`] with every edge rounded to the nearest whole pixel, halves to the even one,
    /// as Python's `round` does.
    pub fn from_locations(locations: [u16; 4], width: u32, height: u32) -> Self {
        let [y1, x1, y2, x2] = locations;
        let (x1, x2) = (rounded_edge(x1, width), rounded_edge(x2, width));
        let (y1, y2) = (rounded_edge(y1, height), rounded_edge(y2, height));
        Self { x_min: x1.min(x2), y_min: y1.min(y2), x_max: x1.max(x2), y_max: y1.max(y2) }
    }

    /// Number of columns.
    pub fn width(&self) -> u32 {
        self.x_max.saturating_sub(self.x_min)
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.y_max.saturating_sub(self.y_min)
    }
}

/// `location / 1024 * size`, rounded half to even, not above `size`.
pub(super) fn rounded_edge(location: u16, size: u32) -> u32 {
    let steps = u64::from(LOCATION_STEPS);
    let scaled = u64::from(location) * u64::from(size);
    let (whole, rest) = (scaled / steps, scaled % steps);
    let rounds_up = rest > steps / 2 || (rest == steps / 2 && whole % 2 == 1);
    (whole + u64::from(rounds_up)).min(u64::from(size)) as u32
}
