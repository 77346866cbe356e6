//! Pixels to draw on.

use palmtop::image::RgbImage;

/// Red, green and blue.
pub(super) type Color = [u8; 3];

/// Borrowed 8-bit RGB pixels: rows from the top, without padding, `3 * width * height` bytes. A side may be zero.
pub struct Canvas<'a> {
    width: u32,
    height: u32,
    data: &'a mut [u8],
}

/// The pixels are fewer than the size says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are too few for {width} × {height} RGB pixels")]
pub struct CanvasError {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes that there are.
    pub bytes: usize,
}

impl<'a> Canvas<'a> {
    /// Draws on `data`, whose first `3 * width * height` bytes are the pixels.
    ///
    /// # Errors
    /// If there are fewer bytes.
    pub fn new(width: u32, height: u32, data: &'a mut [u8]) -> Result<Self, CanvasError> {
        let bytes = (width as usize).checked_mul(height as usize).and_then(|pixels| pixels.checked_mul(3));
        match bytes {
            Some(bytes) if bytes <= data.len() => Ok(Self { width, height, data }),
            _ => Err(CanvasError { width, height, bytes: data.len() }),
        }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixel at column `x` and row `y`, which must be on the canvas.
    pub(super) fn pixel_mut(&mut self, x: u32, y: u32) -> &mut Color {
        let pixel = y as usize * self.width as usize + x as usize;
        self.data[3 * pixel..].first_chunk_mut().expect("a pixel of the canvas has three bytes")
    }
}

impl<'a> From<&'a mut RgbImage> for Canvas<'a> {
    fn from(picture: &'a mut RgbImage) -> Self {
        Self { width: picture.width(), height: picture.height(), data: picture.data_mut() }
    }
}

/// Mixes `color` into a pixel; `opacity` 0 leaves the pixel, 1 replaces it.
pub(super) fn blend(pixel: &mut Color, color: Color, opacity: f32) {
    for (value, target) in pixel.iter_mut().zip(color) {
        *value = (f32::from(*value) + (f32::from(target) - f32::from(*value)) * opacity).round() as u8;
    }
}
