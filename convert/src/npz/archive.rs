//! The table of contents of a zip archive, with 32-bit or 64-bit sizes, read from its end.
//!
//! PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (records at
//! the end) and 4.5.3 (64-bit sizes).

use std::collections::HashMap;
use std::ops::Range;

use super::{ENTRY_BYTES_MAX, EntryFault, NpzError};

/// The entries of an archive, in its order, and where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Without `.npy`.
    pub name: String,
    flags: u16,
    method: u16,
    pub crc32: u32,
    packed_bytes: u64,
    pub bytes: u64,
    header_offset: u64,
}

/// An entry's bytes.
pub(crate) enum Content {
    /// They lie so in the file.
    Stored(Range<usize>),
    /// They had to be unpacked.
    Unpacked(Vec<u8>),
}

impl Archive {
    /// Reads the table of contents of a whole file. The work is bounded by the file's length.
    pub fn parse(file: &[u8]) -> Result<Self, NpzError> {
        let directory = Directory::find(file)?;
        let truncated = NpzError::Truncated("the table of contents");
        let mut rest = file.get(directory.range.clone()).ok_or(truncated)?;
        let (mut entries, mut by_name) = (Vec::new(), HashMap::new());
        for index in 0..directory.entry_count {
            let (entry, length) = Entry::parse(rest)?;
            // As Python reads it: of two entries of one name the later one counts.
            by_name.insert(entry.name.clone(), index as usize);
            entries.push(entry);
            rest = &rest[length..];
        }
        Ok(Self { entries, by_name })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }
}

const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const END_64_BYTES: usize = 56;
pub(crate) const CENTRAL_HEADER_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: usize = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ENCRYPTED_FLAG: u16 = 1;

struct Directory {
    range: Range<usize>,
    entry_count: u64,
}

impl Directory {
    /// Finds the central directory by the record at the end of the file, which a comment of up to 65535 bytes may
    /// follow.
    fn find(file: &[u8]) -> Result<Self, NpzError> {
        let last = file.len().checked_sub(END_BYTES).ok_or(NpzError::NotZip)?;
        let first = last.saturating_sub(usize::from(u16::MAX));
        let is_end = |at: &usize| {
            let record = &file[*at..];
            record.starts_with(b"PK\x05\x06") && usize::from(u16_at(record, 20)) == record.len() - END_BYTES
        };
        let at = (first..=last).rev().find(is_end).ok_or(NpzError::NotZip)?;
        let record = &file[at..];
        let short = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16));
        let (entry_count, size, offset) = match Self::find_64(file, at)? {
            Some(long) => long,
            None if short.0 == u16::MAX || short.1 == u32::MAX || short.2 == u32::MAX => {
                return Err(NpzError::Truncated("the record of 64-bit sizes"));
            }
            None => (short.0.into(), short.1.into(), short.2.into()),
        };
        let range = range(offset, size).ok_or(NpzError::Truncated("the table of contents"))?;
        Ok(Self { range, entry_count })
    }

    /// The numbers of the record of 64-bit sizes, if its locator stands before the last record.
    fn find_64(file: &[u8], end: usize) -> Result<Option<(u64, u64, u64)>, NpzError> {
        let locator = end.checked_sub(LOCATOR_BYTES).map(|at| &file[at..end]);
        let Some(locator) = locator.filter(|l| l.starts_with(b"PK\x06\x07")) else { return Ok(None) };
        let record = range(u64_at(locator, 8), END_64_BYTES as u64).and_then(|range| file.get(range));
        match record.filter(|r| r.starts_with(b"PK\x06\x06")) {
            Some(record) => Ok(Some((u64_at(record, 32), u64_at(record, 40), u64_at(record, 48)))),
            None => Err(NpzError::Truncated("the record of 64-bit sizes")),
        }
    }
}

impl Entry {
    /// Reads the header of an entry in the central directory: the entry, and the length of the header.
    fn parse(bytes: &[u8]) -> Result<(Self, usize), NpzError> {
        let truncated = NpzError::Truncated("the table of contents");
        if bytes.len() < CENTRAL_HEADER_BYTES || !bytes.starts_with(b"PK\x01\x02") {
            return Err(truncated);
        }
        let name_end = CENTRAL_HEADER_BYTES + usize::from(u16_at(bytes, 28));
        let extra_end = name_end + usize::from(u16_at(bytes, 30));
        let length = extra_end + usize::from(u16_at(bytes, 32));
        if bytes.len() < length {
            return Err(truncated);
        }
        // The 64-bit field has only those numbers that do not fit, in this order.
        let mut long = extra_of_64_bits(&bytes[name_end..extra_end]).unwrap_or_default().chunks_exact(8);
        let mut number = |at: usize| match u32_at(bytes, at) {
            u32::MAX => {
                let eight = long.next().ok_or(NpzError::Truncated("the table of contents"))?;
                Ok(u64_at(eight, 0))
            }
            short => Ok(u64::from(short)),
        };
        let (unpacked, packed, header_offset) = (number(24)?, number(20)?, number(42)?);
        let name = String::from_utf8_lossy(&bytes[CENTRAL_HEADER_BYTES..name_end]);
        let entry = Self {
            name: name.strip_suffix(".npy").unwrap_or(&name).to_owned(),
            flags: u16_at(bytes, 8),
            method: u16_at(bytes, 10),
            crc32: u32_at(bytes, 16),
            packed_bytes: packed,
            bytes: unpacked,
            header_offset,
        };
        Ok((entry, length))
    }

    /// The entry's bytes: where they lie in the file if they are stored, else unpacked, if they are at most
    /// [`ENTRY_BYTES_MAX`]. Their checksum has not been compared.
    pub fn content(&self, file: &[u8]) -> Result<Content, EntryFault> {
        if self.flags & ENCRYPTED_FLAG != 0 {
            return Err(EntryFault::Encrypted);
        }
        let packed = self.packed(file).ok_or(EntryFault::OutOfBounds)?;
        match self.method {
            STORED if packed.len() as u64 == self.bytes => Ok(Content::Stored(packed)),
            STORED => Err(EntryFault::Checksum),
            DEFLATED => {
                let bytes = usize::try_from(self.bytes).ok().filter(|&bytes| bytes <= ENTRY_BYTES_MAX);
                let bytes = bytes.ok_or(EntryFault::TooLarge { bytes: self.bytes })?;
                let unpacked = miniz_oxide::inflate::decompress_to_vec_with_limit(&file[packed], bytes)
                    .map_err(|_| EntryFault::Deflate)?;
                if unpacked.len() == bytes {
                    Ok(Content::Unpacked(unpacked))
                } else {
                    Err(EntryFault::Checksum)
                }
            }
            method => Err(EntryFault::Method(method)),
        }
    }

    /// Where the packed bytes lie in the file.
    fn packed(&self, file: &[u8]) -> Option<Range<usize>> {
        let at = usize::try_from(self.header_offset).ok()?;
        let header = file.get(at..at.checked_add(LOCAL_HEADER_BYTES)?)?;
        if !header.starts_with(b"PK\x03\x04") {
            return None;
        }
        let before = LOCAL_HEADER_BYTES + usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        let range = range(at.checked_add(before)? as u64, self.packed_bytes)?;
        file.get(range.clone()).map(|_| range)
    }
}

/// The extra field of 64-bit sizes among those of an entry.
fn extra_of_64_bits(mut extra: &[u8]) -> Option<&[u8]> {
    const ID: u16 = 1;
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length)?;
        if id == ID {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
    None
}

fn range(start: u64, length: u64) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    Some(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// The little-endian number at `at`, which the caller has checked to lie in `bytes`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`, which the caller has checked to lie in `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The little-endian number at `at`, which the caller has checked to lie in `bytes`.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
