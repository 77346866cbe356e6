//! RGB pixels, owned and borrowed.

use super::{ImageError, LayoutError};

/// Bytes of one RGB pixel.
pub(super) const CHANNELS: usize = 3;

/// A picture of 8-bit RGB pixels: rows from the top, without padding, `3 * width * height` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl RgbImage {
    /// Takes `data`, rows from the top, each of `width` pixels of three bytes R, G, B.
    ///
    /// # Errors
    /// If a side is zero or `data` is not exactly `3 * width * height` bytes.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Result<Self, ImageError> {
        let view = RgbView::packed(width, height, &data)?;
        let bytes = view.row_bytes() * height as usize;
        if data.len() != bytes {
            return Err(LayoutError::Length { needed: bytes, given: data.len() }.into());
        }
        Ok(Self { width, height, data })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The pixels, `[height, width, 3]`, to change.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The pixels, `[height, width, 3]`, given away.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Becomes a black picture of another size, in the same memory if it has room. `None`, and no change, if the size
    /// is none.
    pub(super) fn become_black(&mut self, width: u32, height: u32) -> Option<&mut [u8]> {
        let bytes =
            (width as usize).checked_mul(height as usize)?.checked_mul(CHANNELS).filter(|&n| n > 0)?;
        self.data.clear();
        self.data.resize(bytes, 0);
        (self.width, self.height) = (width, height);
        Some(&mut self.data)
    }

    /// The same pixels, borrowed.
    pub fn view(&self) -> RgbView<'_> {
        RgbView {
            width: self.width,
            height: self.height,
            stride_bytes: self.width as usize * CHANNELS,
            data: &self.data,
        }
    }
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// Borrowed 8-bit RGB pixels, whose rows may be apart (a camera's buffer, a part of a larger picture).
#[derive(Clone, Copy)]
pub struct RgbView<'a> {
    width: u32,
    height: u32,
    stride_bytes: usize,
    data: &'a [u8],
}

impl<'a> RgbView<'a> {
    /// Views `data`, in which row `y` begins at byte `y * stride_bytes` and has `width` pixels of three bytes.
    /// The last row need not be padded to the stride.
    ///
    /// # Errors
    /// If a side is zero, the rows overlap, or `data` is too short.
    pub fn new(width: u32, height: u32, stride_bytes: usize, data: &'a [u8]) -> Result<Self, ImageError> {
        const SAMPLES: &str = "RGB pixels";
        if width == 0 || height == 0 {
            return Err(LayoutError::NoPixels { width, height }.into());
        }
        let (columns, rows) = (width as usize, height as usize);
        let unaddressable = LayoutError::Unaddressable { width: columns, height: rows, samples: SAMPLES };
        let row_bytes = columns.checked_mul(CHANNELS).ok_or_else(|| unaddressable.clone())?;
        if stride_bytes < row_bytes {
            return Err(LayoutError::RowsOverlap {
                stride_bytes,
                width: columns,
                samples: SAMPLES,
                row_bytes,
            }
            .into());
        }
        let needed = stride_bytes.checked_mul(rows - 1).and_then(|bytes| bytes.checked_add(row_bytes));
        let needed_bytes = needed.ok_or(unaddressable)?;
        if data.len() < needed_bytes {
            let (given_bytes, width, height) = (data.len(), columns, rows);
            let samples = SAMPLES;
            return Err(LayoutError::TooShort {
                given_bytes,
                width,
                height,
                samples,
                stride_bytes,
                needed_bytes,
            }
            .into());
        }
        Ok(Self { width, height, stride_bytes, data })
    }

    /// Views `data` as rows without padding.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn packed(width: u32, height: u32, data: &'a [u8]) -> Result<Self, ImageError> {
        Self::new(width, height, (width as usize).saturating_mul(CHANNELS), data)
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes from the start of one row to the start of the next.
    pub fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }

    /// All bytes, those between the rows too.
    pub(super) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Row `y` from the top: `3 * width` bytes.
    ///
    /// # Panics
    /// If `y` is not below the height.
    pub fn row(&self, y: u32) -> &'a [u8] {
        assert!(y < self.height, "row {y} of an image of {} rows", self.height);
        let start = y as usize * self.stride_bytes;
        &self.data[start..start + self.row_bytes()]
    }

    /// Bytes of the pixels of one row. `new` has checked that this does not overflow.
    pub(super) fn row_bytes(&self) -> usize {
        self.width as usize * CHANNELS
    }
}

impl std::fmt::Debug for RgbView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbView({}x{}, stride {} bytes)", self.width, self.height, self.stride_bytes)
    }
}
