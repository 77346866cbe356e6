//! Reads CDR, version 1, from bytes that nobody vouches for.

/// What is left of a message. Every function gives `None` at its end.
#[derive(Clone, Debug)]
pub(crate) struct Cdr<'a> {
    bytes: &'a [u8],
    at: usize,
    is_little: bool,
}

impl<'a> Cdr<'a> {
    /// A message behind its four bytes of encapsulation.
    pub fn new(bytes: &'a [u8], is_little: bool) -> Self {
        Self { bytes, at: 0, is_little }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A sequence of bytes.
    pub fn octets(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(usize::try_from(count).ok()?)
    }

    /// A string, without the zero that ends it; it may be no UTF-8.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let text = self.octets()?;
        Some(text.strip_suffix(&[0]).unwrap_or(text))
    }
}
