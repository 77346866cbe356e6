//! The first directory of a TIFF file, which is also what Exif is: a list of tags with values.

/// A value of a directory, in the file's byte order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    kind: u16,
    /// Where in the file the value's bytes begin.
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
    is_big_endian: bool,
}

/// The first directory of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    file: &'a [u8],
    /// Where the first entry is.
    at: usize,
    entries: u64,
    is_big_endian: bool,
    /// Offsets of 64 bits instead of 32.
    is_big: bool,
}

impl<'a> Directory<'a> {
    /// Finds the first directory. `None` if these are not the first bytes of a TIFF file, or there is none.
    pub(super) fn first(file: &'a [u8]) -> Option<Self> {
        // Two programs swap the bytes of the number that follows.
        let (is_big_endian, is_big) = match *file.first_chunk::<4>()? {
            [b'M', b'M', 0, 42] | [b'M', b'M', 42, 0] => (true, false),
            [b'I', b'I', 42, 0] | [b'I', b'I', 0, 42] => (false, false),
            [b'M', b'M', 0, 43] => (true, true),
            [b'I', b'I', 43, 0] => (false, true),
            _ => return None,
        };
        let mut directory = Self { file, at: 0, entries: 0, is_big_endian, is_big };
        let (offset, count_bytes) =
            if is_big { (directory.number(8, 8)?, 8) } else { (directory.number(4, 4)?, 2) };
        let at = usize::try_from(offset).ok()?;
        directory.entries = directory.number(at, count_bytes)?;
        directory.at = at + count_bytes;
        Some(directory)
    }

    /// Numbers of the entry with this tag; none if there is no such entry.
    pub(super) fn numbers(&self, tag: u16) -> Vec<u64> {
        self.find(tag).map(|value| value.numbers().collect()).unwrap_or_default()
    }

    /// The first number of the entry with this tag.
    pub(super) fn first_number(&self, tag: u16) -> Option<u64> {
        self.find(tag)?.numbers().next()
    }

    /// The value of the first entry with this tag whose value is within the file.
    pub(super) fn find(&self, tag: u16) -> Option<Value<'a>> {
        let entry_bytes = if self.is_big { 20 } else { 12 };
        let entries = self.file.get(self.at..)?.chunks_exact(entry_bytes);
        let entries = entries.take(usize::try_from(self.entries).unwrap_or(usize::MAX));
        (0..entries.len()).find_map(|i| {
            let at = self.at + i * entry_bytes;
            (self.number(at, 2)? == u64::from(tag)).then(|| self.value(at))?
        })
    }

    /// The value of the entry at `at`.
    fn value(&self, at: usize) -> Option<Value<'a>> {
        let kind = self.number(at + 2, 2)? as u16;
        let unit: u64 = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => return None,
        };
        let width = if self.is_big { 8 } else { 4 };
        let len = usize::try_from(unit.checked_mul(self.number(at + 4, width)?)?).ok()?;
        let inline = at + 4 + width;
        let at = if len <= width { inline } else { usize::try_from(self.number(inline, width)?).ok()? };
        let bytes = self.file.get(at..at.checked_add(len)?)?;
        (len > 0).then_some(Value { kind, at, bytes, is_big_endian: self.is_big_endian })
    }

    fn number(&self, at: usize, width: usize) -> Option<u64> {
        let bytes = self.file.get(at..at.checked_add(width)?)?;
        Some(number(bytes, self.is_big_endian))
    }
}

impl Value<'_> {
    /// The first of its numbers; `None` for texts and plain bytes.
    pub(super) fn number(&self) -> Option<f64> {
        let part = |from: usize, len: usize| {
            self.bytes.get(from..from + len).map(|bytes| number(bytes, self.is_big_endian))
        };
        Some(match self.kind {
            3 => part(0, 2)? as f64,
            4 | 13 => part(0, 4)? as f64,
            5 => part(0, 4)? as f64 / part(4, 4)? as f64,
            6 => f64::from(part(0, 1)? as i8),
            8 => f64::from(part(0, 2)? as i16),
            9 => f64::from(part(0, 4)? as i32),
            10 => f64::from(part(0, 4)? as i32) / f64::from(part(4, 4)? as i32),
            11 => f32::from_bits(part(0, 4)? as u32).into(),
            12 => f64::from_bits(part(0, 8)?),
            16 => part(0, 8)? as f64,
            _ => return None,
        })
    }

    /// All of its whole numbers without a sign; none if it has other values.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let width = match self.kind {
            1 => 1,
            3 => 2,
            4 | 13 => 4,
            16 => 8,
            // Wider than there are bytes.
            _ => self.bytes.len() + 1,
        };
        self.bytes.chunks_exact(width).map(|bytes| number(bytes, self.is_big_endian))
    }
}

/// A number of up to 8 bytes.
fn number(bytes: &[u8], is_big_endian: bool) -> u64 {
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if is_big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
}
