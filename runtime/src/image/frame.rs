//! Pixels as cameras and programs have them, read in place.
//!
//! A frame is turned upright and becomes RGB row by row while it is resized: nothing is copied first. The result is,
//! bit for bit, that of converting the whole frame to RGB, turning it, and taking that.
//!
//! Luma and chroma become RGB in integers of 16 fraction bits, rounded to nearest: within half a level, and some
//! hundredths, of the real formula, and the same on every machine. The four pixels of a 2 × 2 block share its chroma
//! sample, as in libyuv's conversions; of 4:2:2 the two pixels of a pair.

use super::pixels::CHANNELS;
use super::{ImageError, LayoutError, RgbView};

/// Order of the bytes of packed pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PixelFormat {
    /// R, G, B.
    Rgb,
    /// B, G, R: OpenCV.
    Bgr,
    /// R, G, B and a byte that is not looked at: Android's bitmaps.
    Rgba,
    /// B, G, R and a byte that is not looked at: Core Video, Windows.
    Bgra,
    /// One byte, which becomes all three colours.
    Grey,
}

impl PixelFormat {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Rgba | Self::Bgra => 4,
            Self::Grey => 1,
        }
    }

    /// Where red, green and blue stand in a pixel.
    fn order(self) -> [usize; CHANNELS] {
        match self {
            Self::Rgb | Self::Rgba => [0, 1, 2],
            Self::Bgr | Self::Bgra => [2, 1, 0],
            Self::Grey => [0; CHANNELS],
        }
    }
}

/// How luma and chroma are meant: the matrix of a recommendation, and the bytes between which they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum YuvColor {
    /// ITU-R BT.601, luma 16 to 235 and chroma 16 to 240: what Android's NV21 and most cameras without a word about it
    /// give.
    #[default]
    Bt601Limited,
    /// ITU-R BT.601, 0 to 255: JPEG (JFIF), `ImageFormat.YUV_420_888` with the data space JFIF.
    Bt601Full,
    /// ITU-R BT.709, luma 16 to 235 and chroma 16 to 240: video in high definition, iOS's `420v`.
    Bt709Limited,
    /// ITU-R BT.709, 0 to 255: iOS's `420f` in high definition.
    Bt709Full,
}

/// How far a frame must be turned, clockwise, to stand upright: CameraX's `rotationDegrees`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// It stands upright.
    #[default]
    None,
    /// By 90 degrees.
    Clockwise90,
    /// By 180 degrees.
    Half,
    /// By 270 degrees.
    Clockwise270,
}

impl Rotation {
    /// The rotation by 0, 90, 180 or 270 degrees.
    ///
    /// # Errors
    /// For any other number.
    pub fn from_degrees(degrees: u32) -> Result<Self, ImageError> {
        Ok(match degrees {
            0 => Self::None,
            90 => Self::Clockwise90,
            180 => Self::Half,
            270 => Self::Clockwise270,
            _ => {
                return Err(LayoutError::Rotation { degrees }.into());
            }
        })
    }

    fn transposes(self) -> bool {
        matches!(self, Self::Clockwise90 | Self::Clockwise270)
    }
}

/// Samples of one kind, row by row.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    /// The bytes; the first one is the first sample.
    pub data: &'a [u8],
    /// Bytes from the start of one row to the start of the next.
    pub stride_bytes: usize,
    /// Bytes from one sample to the next in a row: 1, or 2 where two kinds alternate (`getPixelStride` on Android).
    pub step_bytes: usize,
}

impl<'a> Plane<'a> {
    /// Samples that follow each other without a gap.
    pub fn new(data: &'a [u8], stride_bytes: usize) -> Self {
        Self { data, stride_bytes, step_bytes: 1 }
    }

    /// Checks that the plane holds `width` × `height` samples of `bytes` bytes.
    fn check(
        &self,
        samples: &'static str,
        width: usize,
        height: usize,
        bytes: usize,
        step: usize,
    ) -> Result<(), LayoutError> {
        if step == 0 {
            return Err(LayoutError::NoStep { samples });
        }
        // What a row takes, without the gap behind its last sample.
        let row = (width - 1).checked_mul(step).and_then(|b| b.checked_add(bytes));
        let all = row.and_then(|row| (height - 1).checked_mul(self.stride_bytes)?.checked_add(row));
        let (Some(row), Some(all)) = (row, all) else {
            return Err(LayoutError::Unaddressable { width, height, samples });
        };
        let (stride_bytes, given_bytes) = (self.stride_bytes, self.data.len());
        if height > 1 && stride_bytes < row {
            return Err(LayoutError::RowsOverlap { stride_bytes, width, samples, row_bytes: row });
        }
        if given_bytes < all {
            let needed_bytes = all;
            return Err(LayoutError::TooShort {
                given_bytes,
                width,
                height,
                samples,
                stride_bytes,
                needed_bytes,
            });
        }
        Ok(())
    }
}

/// A borrowed picture in any of the forms that cameras deliver, and how it must be turned.
///
/// ```
/// use palmtop::image::{Frame, Plane, Rotation, YuvColor};
///
/// # fn main() -> Result<(), palmtop::image::ImageError> {
/// // 640 × 480 from a phone held upright, whose sensor lies on its side; rows are 704 bytes apart.
/// let buffer = vec![128u8; 704 * 480 * 3 / 2];
/// let (luma, chroma) = buffer.split_at(704 * 480);
/// let frame = Frame::nv21(640, 480, Plane::new(luma, 704), Plane::new(chroma, 704))?
///     .turned(Rotation::Clockwise90)
///     .coloured(YuvColor::Bt601Full);
/// assert_eq!((frame.width(), frame.height()), (480, 640));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Pixels in a row and rows, as they lie in memory.
    width: u32,
    height: u32,
    samples: Samples<'a>,
    rotation: Rotation,
}

#[derive(Clone, Copy)]
enum Samples<'a> {
    Packed { format: PixelFormat, plane: Plane<'a> },
    Yuv { y: Plane<'a>, u: Plane<'a>, v: Plane<'a>, rows: ChromaRows, color: YuvColor },
}

/// For how many rows of pixels a row of chroma is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChromaRows {
    /// 4:2:2.
    ForOne,
    /// 4:2:0.
    ForTwo,
}

impl<'a> Frame<'a> {
    /// Pixels of `format`, of which row `y` begins at byte `y * stride_bytes`.
    ///
    /// # Errors
    /// As [`RgbView::new`].
    pub fn packed(
        format: PixelFormat,
        width: u32,
        height: u32,
        stride_bytes: usize,
        data: &'a [u8],
    ) -> Result<Self, ImageError> {
        check_sides(width, height)?;
        let plane = Plane { data, stride_bytes, step_bytes: format.bytes() };
        plane.check("pixels", width as usize, height as usize, format.bytes(), format.bytes())?;
        Ok(Self { width, height, samples: Samples::Packed { format, plane }, rotation: Rotation::None })
    }

    /// A luma plane and one in which U and V alternate, U first. The step of `uv` does not matter.
    ///
    /// # Errors
    /// As [`yuv420`](Self::yuv420).
    pub fn nv12(width: u32, height: u32, y: Plane<'a>, uv: Plane<'a>) -> Result<Self, ImageError> {
        let v = uv.data.get(1..).unwrap_or_default();
        let plane = |data| Plane { data, stride_bytes: uv.stride_bytes, step_bytes: 2 };
        Self::yuv420(width, height, y, plane(uv.data), plane(v))
    }

    /// A luma plane and one in which V and U alternate, V first: what Android's first camera interface gives. The step
    /// of `vu` does not matter.
    ///
    /// # Errors
    /// As [`yuv420`](Self::yuv420).
    pub fn nv21(width: u32, height: u32, y: Plane<'a>, vu: Plane<'a>) -> Result<Self, ImageError> {
        let u = vu.data.get(1..).unwrap_or_default();
        let plane = |data| Plane { data, stride_bytes: vu.stride_bytes, step_bytes: 2 };
        Self::yuv420(width, height, y, plane(u), plane(vu.data))
    }

    /// Planes of luma and of both kinds of chroma, which have a sample for two pixels of two rows: I420, and with steps
    /// Android's `YUV_420_888`. Planes may share their bytes. An odd last column or row has chroma of its own.
    ///
    /// # Errors
    /// If a side is zero, a step is zero, rows overlap, or a plane is too short.
    pub fn yuv420(
        width: u32,
        height: u32,
        y: Plane<'a>,
        u: Plane<'a>,
        v: Plane<'a>,
    ) -> Result<Self, ImageError> {
        check_sides(width, height)?;
        y.check("luma samples", width as usize, height as usize, 1, y.step_bytes)?;
        let (chroma_width, chroma_height) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
        u.check("U samples", chroma_width, chroma_height, 1, u.step_bytes)?;
        v.check("V samples", chroma_width, chroma_height, 1, v.step_bytes)?;
        let samples = Samples::Yuv { y, u, v, rows: ChromaRows::ForTwo, color: YuvColor::default() };
        Ok(Self { width, height, samples, rotation: Rotation::None })
    }

    /// Luma of a pixel, U, luma of the next one, V: what most USB cameras give uncompressed, also named YUY2. Row `y`
    /// begins at byte `y * stride_bytes`. Two pixels share U and V; an odd last column has four bytes too.
    ///
    /// # Errors
    /// If a side is zero, rows overlap, or the bytes are too few.
    pub fn yuyv(width: u32, height: u32, stride_bytes: usize, data: &'a [u8]) -> Result<Self, ImageError> {
        Self::yuv422(width, height, stride_bytes, data, [0, 1, 3])
    }

    /// U, luma of a pixel, V, luma of the next one: [`yuyv`](Self::yuyv) in another order.
    ///
    /// # Errors
    /// As [`yuyv`](Self::yuyv).
    pub fn uyvy(width: u32, height: u32, stride_bytes: usize, data: &'a [u8]) -> Result<Self, ImageError> {
        Self::yuv422(width, height, stride_bytes, data, [1, 0, 2])
    }

    /// Two pixels in four bytes, and in which of them the first luma, U and V are.
    fn yuv422(
        width: u32,
        height: u32,
        stride_bytes: usize,
        data: &'a [u8],
        [y, u, v]: [usize; 3],
    ) -> Result<Self, ImageError> {
        check_sides(width, height)?;
        let pairs = width.div_ceil(2) as usize;
        Plane { data, stride_bytes, step_bytes: 4 }.check("pairs of pixels", pairs, height as usize, 4, 4)?;
        // There are four bytes at least.
        let plane = |place: usize, step_bytes| Plane { data: &data[place..], stride_bytes, step_bytes };
        let (y, u, v) = (plane(y, 2), plane(u, 4), plane(v, 4));
        let samples = Samples::Yuv { y, u, v, rows: ChromaRows::ForOne, color: YuvColor::default() };
        Ok(Self { width, height, samples, rotation: Rotation::None })
    }

    /// The same, to be turned by `rotation` to stand upright, instead of what was said before.
    pub fn turned(self, rotation: Rotation) -> Self {
        Self { rotation, ..self }
    }

    /// The same with another meaning of luma and chroma. Packed pixels have none and stay as they are.
    pub fn coloured(mut self, color: YuvColor) -> Self {
        if let Samples::Yuv { color: of_frame, .. } = &mut self.samples {
            *of_frame = color;
        }
        self
    }

    /// Width in pixels of the upright picture, at least 1.
    pub fn width(&self) -> u32 {
        if self.rotation.transposes() { self.height } else { self.width }
    }

    /// Height in pixels of the upright picture, at least 1.
    pub fn height(&self) -> u32 {
        if self.rotation.transposes() { self.width } else { self.height }
    }

    /// Row `y` of the upright picture if its bytes lie in memory just so.
    pub(super) fn plain_row(&self, y: u32) -> Option<&'a [u8]> {
        match self.samples {
            Samples::Packed { format: PixelFormat::Rgb, plane } if self.rotation == Rotation::None => {
                Some(&plane.data[y as usize * plane.stride_bytes..][..self.width as usize * CHANNELS])
            }
            _ => None,
        }
    }

    /// True if every [`plain_row`](Self::plain_row) is there.
    pub(super) fn is_plain(&self) -> bool {
        self.plain_row(0).is_some()
    }

    /// Writes row `row` of the upright picture as RGB into `out`, three bytes for each of its pixels.
    ///
    /// # Panics
    /// If `row` is not below the height. `out` is filled as far as it or the row goes.
    pub fn write_row(&self, row: u32, out: &mut [u8]) {
        assert!(row < self.height(), "row {row} of a frame of {} rows", self.height());
        let walk = self.walk(row);
        let out = out.as_chunks_mut::<CHANNELS>().0.iter_mut();
        match self.samples {
            Samples::Packed { format, plane } => {
                let order = format.order();
                if walk.is_row() {
                    let bytes = &plane.data[walk.y as usize * plane.stride_bytes..];
                    for (pixel, bytes) in
                        out.zip(bytes.chunks_exact(format.bytes())).take(self.width as usize)
                    {
                        *pixel = order.map(|place| bytes[place]);
                    }
                } else {
                    for (pixel, (x, y)) in out.zip(walk) {
                        let at = y * plane.stride_bytes + x * format.bytes();
                        let bytes = &plane.data[at..at + format.bytes()];
                        *pixel = order.map(|place| bytes[place]);
                    }
                }
            }
            Samples::Yuv { y: luma, u, v, rows, color } => {
                let to_rgb = ToRgb::of(color);
                let shift = u32::from(rows == ChromaRows::ForTwo);
                let at = |plane: &Plane, x, y| plane.data[y * plane.stride_bytes + x * plane.step_bytes];
                for (pixel, (x, y)) in out.zip(walk) {
                    let chroma = y >> shift;
                    *pixel = to_rgb.pixel(at(&luma, x, y), at(&u, x / 2, chroma), at(&v, x / 2, chroma));
                }
            }
        }
    }

    /// The luma of row `row` of the upright picture, where it lies in memory just so: of planes of YUV, and of pictures
    /// that need not be turned. In the range of its [`YuvColor`]; `None` for any other picture, or a row that it has
    /// not.
    pub fn luma_row(&self, row: u32) -> Option<&'a [u8]> {
        match self.samples {
            Samples::Yuv { y, .. }
                if y.step_bytes == 1 && self.rotation == Rotation::None && row < self.height =>
            {
                y.data.get(row as usize * y.stride_bytes..)?.get(..self.width as usize)
            }
            _ => None,
        }
    }

    /// Where the pixels of a row of the upright picture lie.
    fn walk(&self, row: u32) -> Walk {
        let (row, width, height) = (i64::from(row), i64::from(self.width), i64::from(self.height));
        let (x, y, dx, dy) = match self.rotation {
            Rotation::None => (0, row, 1, 0),
            Rotation::Clockwise90 => (row, height - 1, 0, -1),
            Rotation::Half => (width - 1, height - 1 - row, -1, 0),
            Rotation::Clockwise270 => (width - 1 - row, 0, 0, 1),
        };
        Walk { x, y, dx, dy, left: self.width() }
    }
}

impl<'a> From<RgbView<'a>> for Frame<'a> {
    fn from(view: RgbView<'a>) -> Self {
        let plane = Plane {
            data: view.data(),
            stride_bytes: view.stride_bytes(),
            step_bytes: PixelFormat::Rgb.bytes(),
        };
        let samples = Samples::Packed { format: PixelFormat::Rgb, plane };
        Self { width: view.width(), height: view.height(), samples, rotation: Rotation::None }
    }
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height, rotation) = (self.width, self.height, self.rotation);
        match self.samples {
            Samples::Packed { format, .. } => write!(f, "Frame({width}x{height}, {format:?}, {rotation:?})"),
            Samples::Yuv { color, rows, .. } => {
                let name = if rows == ChromaRows::ForTwo { "Yuv420" } else { "Yuv422" };
                write!(f, "Frame({width}x{height}, {name} {color:?}, {rotation:?})")
            }
        }
    }
}

fn check_sides(width: u32, height: u32) -> Result<(), LayoutError> {
    if width == 0 || height == 0 { Err(LayoutError::NoPixels { width, height }) } else { Ok(()) }
}

/// Columns and rows along a straight line.
struct Walk {
    x: i64,
    y: i64,
    dx: i64,
    dy: i64,
    left: u32,
}

impl Walk {
    fn is_row(&self) -> bool {
        self.dx == 1
    }
}

impl Iterator for Walk {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        self.left = self.left.checked_sub(1)?;
        let here = (self.x as usize, self.y as usize);
        self.x += self.dx;
        self.y += self.dy;
        Some(here)
    }
}

/// Fraction bits of the factors below.
const COLOR_BITS: u32 = 16;

/// `R = Y + red·V`, `G = Y − green_u·U − green_v·V`, `B = Y + blue·U`, with `Y = luma·(y − offset)` and U, V less 128.
///
/// A matrix is given by the shares `kr` and `kb` that red and blue have in luma: .299 and .114 in BT.601, .2126 and
/// .0722 in BT.709. Then red is `2(1 − kr)`, blue `2(1 − kb)`, green_u `2 kb (1 − kb) / kg`, green_v `2 kr (1 − kr) /
/// kg` with `kg = 1 − kr − kb`; in the limited range chroma is stretched by 255 / 224 and luma by 255 / 219.
#[derive(Clone, Copy)]
struct ToRgb {
    offset: i32,
    luma: i32,
    red: i32,
    green_u: i32,
    green_v: i32,
    blue: i32,
}

impl ToRgb {
    fn of(color: YuvColor) -> Self {
        match color {
            YuvColor::Bt601Limited => {
                Self { offset: 16, luma: 76309, red: 104597, green_u: 25675, green_v: 53279, blue: 132201 }
            }
            YuvColor::Bt601Full => {
                Self { offset: 0, luma: 65536, red: 91881, green_u: 22553, green_v: 46802, blue: 116130 }
            }
            YuvColor::Bt709Limited => {
                Self { offset: 16, luma: 76309, red: 117489, green_u: 13975, green_v: 34925, blue: 138438 }
            }
            YuvColor::Bt709Full => {
                Self { offset: 0, luma: 65536, red: 103206, green_u: 12276, green_v: 30679, blue: 121609 }
            }
        }
    }

    /// No sum leaves 32 bits: luma is below 76309 · 239 and chroma below 138438 · 128, together under 2²⁶.
    #[inline]
    fn pixel(&self, y: u8, u: u8, v: u8) -> [u8; CHANNELS] {
        let y = (i32::from(y) - self.offset) * self.luma + (1 << (COLOR_BITS - 1));
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let byte = |sum: i32| (sum >> COLOR_BITS).clamp(0, 255) as u8;
        [byte(y + self.red * v), byte(y - self.green_u * u - self.green_v * v), byte(y + self.blue * u)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLORS: [(YuvColor, f64, f64, bool); 4] = [
        (YuvColor::Bt601Limited, 0.299, 0.114, true),
        (YuvColor::Bt601Full, 0.299, 0.114, false),
        (YuvColor::Bt709Limited, 0.2126, 0.0722, true),
        (YuvColor::Bt709Full, 0.2126, 0.0722, false),
    ];

    #[test]
    fn colours_are_within_half_a_level_of_the_recommendations() {
        for (color, kr, kb, limited) in COLORS {
            let to_rgb = ToRgb::of(color);
            let (offset, luma, chroma) =
                if limited { (16.0, 255.0 / 219.0, 255.0 / 224.0) } else { (0.0, 1.0, 1.0) };
            let kg = 1.0 - kr - kb;
            for y in (0..=255u8).step_by(3).chain([16, 235, 254]) {
                for (u, v) in (0..=255u8).step_by(5).flat_map(|u| (0..=255u8).step_by(5).map(move |v| (u, v)))
                {
                    let luma = (f64::from(y) - offset) * luma;
                    let (cb, cr) = ((f64::from(u) - 128.0) * chroma, (f64::from(v) - 128.0) * chroma);
                    let real = [
                        luma + 2.0 * (1.0 - kr) * cr,
                        luma - 2.0 * kb * (1.0 - kb) / kg * cb - 2.0 * kr * (1.0 - kr) / kg * cr,
                        luma + 2.0 * (1.0 - kb) * cb,
                    ];
                    for (byte, real) in to_rgb.pixel(y, u, v).into_iter().zip(real) {
                        let error = (f64::from(byte) - real.clamp(0.0, 255.0)).abs();
                        assert!(error < 0.51, "{color:?} {y} {u} {v}: {byte} for {real}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_black_and_white() {
        for (color, .., limited) in COLORS {
            let (black, white) = if limited { (16, 235) } else { (0, 255) };
            assert_eq!(ToRgb::of(color).pixel(black, 128, 128), [0; 3], "{color:?}");
            assert_eq!(ToRgb::of(color).pixel(white, 128, 128), [255; 3], "{color:?}");
        }
    }

    /// Rows of an upright frame.
    fn rgb(frame: Frame) -> Vec<Vec<[u8; 3]>> {
        let row = |y| {
            let mut row = vec![0; frame.width() as usize * 3];
            frame.write_row(y, &mut row);
            row.as_chunks().0.to_vec()
        };
        (0..frame.height()).map(row).collect()
    }

    /// 3 × 2 pixels with two bytes between the rows.
    fn pixels(format: PixelFormat) -> Vec<u8> {
        let row = 3 * format.bytes();
        (0..2).flat_map(|y| (0..row + 2).map(move |i| (y * 100 + i) as u8)).collect()
    }

    #[test]
    fn bytes_of_packed_pixels_are_put_in_order() {
        let first = |format: PixelFormat| {
            let data = pixels(format);
            rgb(Frame::packed(format, 3, 2, 3 * format.bytes() + 2, &data).unwrap())[1][1]
        };
        assert_eq!(first(PixelFormat::Rgb), [103, 104, 105]);
        assert_eq!(first(PixelFormat::Bgr), [105, 104, 103]);
        assert_eq!(first(PixelFormat::Rgba), [104, 105, 106]);
        assert_eq!(first(PixelFormat::Bgra), [106, 105, 104]);
        assert_eq!(first(PixelFormat::Grey), [101; 3]);
    }

    #[test]
    fn frames_are_turned_clockwise() {
        // a b c      d a     f e d     c f
        // d e f      e b     c b a     b e
        //            f c               a d
        let data = b"abcdef";
        let turned = |rotation| {
            let frame = Frame::packed(PixelFormat::Grey, 3, 2, 3, data).unwrap().turned(rotation);
            let rows: Vec<Vec<u8>> =
                rgb(frame).iter().map(|row| row.iter().map(|p| p[0]).collect()).collect();
            String::from_utf8(rows.join(&b' ')).unwrap()
        };
        assert_eq!(turned(Rotation::None), "abc def");
        assert_eq!(turned(Rotation::Clockwise90), "da eb fc");
        assert_eq!(turned(Rotation::Half), "fed cba");
        assert_eq!(turned(Rotation::Clockwise270), "cf be ad");
        let upright = |degrees| Rotation::from_degrees(degrees).map(turned).unwrap();
        assert_eq!([0, 90, 180, 270].map(upright).map(|s| s.len()), [7, 8, 7, 8]);
        assert!(Rotation::from_degrees(45).is_err());
    }

    #[test]
    fn all_layouts_of_the_same_samples_are_the_same_picture() {
        for (width, height) in [(1, 1), (2, 2), (5, 3), (4, 7)] {
            let (w, h) = (width as usize, height as usize);
            let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
            let luma: Vec<u8> = (0..w * h).map(|i| (i * 37) as u8).collect();
            let u: Vec<u8> = (0..cw * ch).map(|i| (i * 71 + 3) as u8).collect();
            let v: Vec<u8> = (0..cw * ch).map(|i| (i * 53 + 100) as u8).collect();
            let y = Plane::new(&luma, w);
            let planar = Frame::yuv420(width, height, y, Plane::new(&u, cw), Plane::new(&v, cw)).unwrap();
            let pairs = |a: &[u8], b: &[u8]| a.iter().zip(b).flat_map(|(&a, &b)| [a, b]).collect::<Vec<u8>>();
            let (uv, vu) = (pairs(&u, &v), pairs(&v, &u));
            let plane = |data| Plane::new(data, 2 * cw);
            let nv12 = Frame::nv12(width, height, y, plane(&uv)).unwrap();
            let nv21 = Frame::nv21(width, height, y, plane(&vu)).unwrap();
            for rotation in [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270] {
                let expected = rgb(planar.turned(rotation));
                assert_eq!(rgb(nv12.turned(rotation)), expected, "{width}x{height}");
                assert_eq!(rgb(nv21.turned(rotation)), expected, "{width}x{height}");
            }
            for (row, y) in rgb(planar).iter().zip(0..) {
                for (pixel, x) in row.iter().zip(0..) {
                    let chroma = y / 2 * cw + x / 2;
                    let same = ToRgb::of(YuvColor::Bt601Limited).pixel(luma[y * w + x], u[chroma], v[chroma]);
                    assert_eq!(*pixel, same);
                }
            }
            // A stride may end behind the last sample of the last row.
            assert!(Frame::nv12(width, height, y, plane(&uv[..uv.len() - 1])).is_err());
        }
    }

    /// Where two rows share their chroma, 4:2:2 is 4:2:0, which is tested above.
    #[test]
    fn pairs_of_pixels_are_what_planes_with_the_same_chroma_are() {
        for (width, height) in [(4u32, 4u32), (5, 3), (1, 1), (2, 1), (6, 2), (1, 2)] {
            let (w, h, pairs) = (width as usize, height as usize, width.div_ceil(2) as usize);
            let luma = |x: usize, y: usize| (x * 37 + y * 59 + 20) as u8;
            let chroma = |pair: usize, y: usize, kind: usize| (pair * 71 + y / 2 * 43 + kind * 90) as u8;
            let stride = 4 * pairs + 3;
            let packed = |places: [usize; 4]| {
                let mut data = vec![99; stride * (h - 1) + 4 * pairs];
                for (y, pair) in (0..h).flat_map(|y| (0..pairs).map(move |pair| (y, pair))) {
                    let at = y * stride + 4 * pair;
                    let four =
                        [luma(2 * pair, y), chroma(pair, y, 0), luma(2 * pair + 1, y), chroma(pair, y, 1)];
                    data[at..at + 4].copy_from_slice(&places.map(|place| four[place]));
                }
                data
            };
            let y: Vec<u8> = (0..h).flat_map(|y| (0..w).map(move |x| luma(x, y))).collect();
            let both = |y, pair| [chroma(pair, y, 0), chroma(pair, y, 1)];
            let uv: Vec<u8> =
                (0..h.div_ceil(2)).flat_map(|y| (0..pairs).flat_map(move |pair| both(2 * y, pair))).collect();
            let nv12 = Frame::nv12(width, height, Plane::new(&y, w), Plane::new(&uv, 2 * pairs)).unwrap();
            let (yuyv, uyvy) = (packed([0, 1, 2, 3]), packed([1, 0, 3, 2]));
            for (color, ..) in COLORS {
                for rotation in
                    [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270]
                {
                    let expected = rgb(nv12.turned(rotation).coloured(color));
                    let frame = Frame::yuyv(width, height, stride, &yuyv).unwrap();
                    assert_eq!(rgb(frame.turned(rotation).coloured(color)), expected, "{width}x{height}");
                    let frame = Frame::uyvy(width, height, stride, &uyvy).unwrap();
                    assert_eq!(rgb(frame.turned(rotation).coloured(color)), expected, "{width}x{height}");
                }
            }
            assert!(Frame::yuyv(width, height, stride, &yuyv[1..]).is_err());
            assert!(h == 1 || Frame::uyvy(width, height, 4 * pairs - 1, &uyvy).is_err());
        }
        // Rows of their own have chroma of their own.
        let data = [81, 90, 81, 240, 145, 54, 145, 34];
        let rows = rgb(Frame::yuyv(2, 2, 4, &data).unwrap());
        let to_rgb = ToRgb::of(YuvColor::default());
        assert_eq!(rows, [[to_rgb.pixel(81, 90, 240); 2], [to_rgb.pixel(145, 54, 34); 2]]);
        assert!(Frame::yuyv(0, 1, 4, &data).is_err() && Frame::yuyv(u32::MAX, u32::MAX, 4, &data).is_err());
    }

    #[test]
    fn planes_that_are_too_short_are_refused() {
        let data = [0u8; 100];
        let plane = |bytes: usize, stride| Plane::new(&data[..bytes], stride);
        let bad = |result: Result<Frame, ImageError>| match result {
            Err(ImageError::Layout(_)) => {}
            other => panic!("{other:?}"),
        };
        bad(Frame::packed(PixelFormat::Rgba, 0, 1, 4, &data));
        bad(Frame::packed(PixelFormat::Rgba, 5, 5, 19, &data));
        bad(Frame::packed(PixelFormat::Rgba, 5, 6, 20, &data));
        bad(Frame::packed(PixelFormat::Bgra, u32::MAX, u32::MAX, usize::MAX, &data));
        bad(Frame::nv12(4, 4, plane(15, 4), plane(8, 4)));
        bad(Frame::nv12(4, 4, plane(16, 4), plane(7, 4)));
        bad(Frame::nv12(4, 4, plane(16, 4), plane(0, 4)));
        bad(Frame::nv21(4, 4, plane(16, 3), plane(8, 4)));
        bad(Frame::nv21(4, 4, plane(16, 4), plane(8, 2)));
        let still = Plane { data: &data, stride_bytes: 4, step_bytes: 0 };
        bad(Frame::yuv420(4, 4, plane(16, 4), still, plane(8, 2)));
        bad(Frame::yuv420(4, 4, plane(16, 4), plane(3, 2), plane(8, 2)));
        bad(Frame::yuv420(u32::MAX, u32::MAX, plane(16, usize::MAX), plane(3, 2), plane(8, 2)));
        assert!(Frame::yuv420(4, 4, plane(16, 4), plane(4, 2), plane(4, 2)).is_ok());
    }
}
