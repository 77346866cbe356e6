//! Pictures of one size without anything between them.

use super::{Layout, Splitter, StreamError, Taken};

/// Cuts a stream of plain pixels into pictures.
#[derive(Debug)]
pub struct Raw {
    layout: Layout,
    bytes: usize,
    is_complete: bool,
}

impl Raw {
    /// Pictures that lie so, of at most `bytes_max` bytes each.
    ///
    /// # Errors
    /// [`StreamError::TooLarge`] if they have more, or if the layout does not say how many they have.
    pub fn new(layout: Layout, bytes_max: usize) -> Result<Self, StreamError> {
        let bytes = layout.bytes().unwrap_or(usize::MAX);
        match (1..=bytes_max).contains(&bytes) {
            true => Ok(Self { layout, bytes, is_complete: true }),
            false => Err(StreamError::TooLarge { bytes, bytes_max }),
        }
    }
}

impl Splitter for Raw {
    fn take(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> Result<Taken, StreamError> {
        if std::mem::take(&mut self.is_complete) {
            picture.clear();
        }
        let n = bytes.len().min(self.bytes - picture.len());
        picture.extend_from_slice(&bytes[..n]);
        self.is_complete = picture.len() == self.bytes;
        Ok(Taken { bytes: n, is_complete: self.is_complete })
    }

    fn layout(&self) -> Option<Layout> {
        Some(self.layout)
    }

    fn broken(&self) -> u64 {
        0
    }

    fn bytes_max(&self) -> usize {
        self.bytes
    }
}
