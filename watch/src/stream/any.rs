//! A stream that says by its first bytes whether it is YUV4MPEG2 or Motion JPEG.

use std::time::Duration;

use super::{Layout, Mjpeg, Splitter, StreamError, Taken, Y4m};

/// Enough to tell the two apart.
const MAGIC: &[u8; 4] = b"YUV4";

/// Cuts YUV4MPEG2 or Motion JPEG, whichever comes, into pictures.
pub struct Any {
    begun: Vec<u8>,
    bytes_max: usize,
    inner: Option<Box<dyn Splitter>>,
}

impl Any {
    /// For pictures of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { begun: Vec::with_capacity(MAGIC.len()), bytes_max, inner: None }
    }
}

impl Splitter for Any {
    fn take(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> Result<Taken, StreamError> {
        if let Some(inner) = &mut self.inner {
            return inner.take(bytes, picture);
        }
        let n = bytes.len().min(MAGIC.len() - self.begun.len());
        self.begun.extend_from_slice(&bytes[..n]);
        if self.begun.len() < MAGIC.len() {
            return Ok(Taken { bytes: n, is_complete: false });
        }
        let inner: Box<dyn Splitter> = match self.begun == MAGIC {
            true => Box::new(Y4m::new(self.bytes_max)),
            false => Box::new(Mjpeg::new(self.bytes_max)),
        };
        let inner = self.inner.insert(inner);
        // No picture of either kind is that short, except the two markers of a JPEG, which are none.
        let begun = inner.take(&self.begun, picture)?;
        if begun.is_complete {
            return Ok(Taken { bytes: n, is_complete: true });
        }
        let rest = inner.take(&bytes[n..], picture)?;
        Ok(Taken { bytes: n + rest.bytes, ..rest })
    }

    fn layout(&self) -> Option<Layout> {
        self.inner.as_ref()?.layout()
    }

    fn period(&self) -> Option<Duration> {
        self.inner.as_ref()?.period()
    }

    fn broken(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.broken())
    }

    fn bytes_max(&self) -> usize {
        self.inner.as_ref().map_or(self.bytes_max, |inner| inner.bytes_max())
    }
}
