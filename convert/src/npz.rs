//! Reading NumPy's `.npz` files, in which the weights of the mask decoder (`vae-oid.npz`) are published.
//!
//! A `.npz` is a zip archive of `.npy` arrays. This module reads what `numpy.savez` and `numpy.savez_compressed` write
//! for such weights: stored or deflated entries, files below 4 GiB, arrays of little-endian f32 in C order. It refuses
//! everything else with an error that names it. The file is untrusted: every offset and length is checked against the
//! file, and no entry may unpack to more than [`ENTRY_BYTES_MAX`].
//!
//! Formats: PKWARE's APPNOTE.TXT 4.3 (zip) and `numpy.lib.format` (npy).

use std::borrow::Cow;
use std::ops::Range;

/// The largest array read, unpacked: 256 MiB. The largest of the mask decoder has 1 MiB.
pub const ENTRY_BYTES_MAX: usize = 256 << 20;

/// An open `.npz` file: its table of contents, and the bytes it lies in.
#[derive(Clone, Debug)]
pub struct Npz<'a> {
    file: &'a [u8],
    entries: Vec<Entry>,
}

/// An array of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// The sizes, outermost first; empty for a single value.
    pub shape: Vec<usize>,
    /// The values in C order; their number is the product of the sizes.
    pub data: Vec<f32>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Without `.npy`.
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    packed_bytes: usize,
    bytes: usize,
    header_offset: usize,
}

impl<'a> Npz<'a> {
    /// Reads the table of contents of a whole file.
    pub fn parse(file: &'a [u8]) -> Result<Self, NpzError> {
        let directory = find_directory(file)?;
        let mut rest =
            file.get(directory.range.clone()).ok_or(NpzError::Truncated("the table of contents"))?;
        let mut entries = Vec::new();
        for _ in 0..directory.entry_count {
            let (entry, length) = parse_entry(rest)?;
            entries.push(entry);
            rest = &rest[length..];
        }
        Ok(Self { file, entries })
    }

    /// The names of the arrays, without `.npy`, in the order of the file.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Unpacks, checks and reads an array.
    pub fn read_f32(&self, name: &str) -> Result<NpyArray, NpzError> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| NpzError::Missing { name: name.to_owned() })?;
        let in_entry = |fault| NpzError::Entry { name: name.to_owned(), fault };
        let packed = self.packed_bytes(entry).map_err(in_entry)?;
        let unpacked = unpack(entry, packed).map_err(in_entry)?;
        parse_npy(&unpacked).map_err(in_entry)
    }

    /// The bytes of an entry as they lie in the file.
    fn packed_bytes(&self, entry: &Entry) -> Result<&'a [u8], EntryFault> {
        let header = self.file.get(entry.header_offset..).ok_or(EntryFault::OutOfBounds)?;
        if header.len() < LOCAL_HEADER_BYTES || !header.starts_with(b"PK\x03\x04") {
            return Err(EntryFault::OutOfBounds);
        }
        let start = LOCAL_HEADER_BYTES + usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        let end = start.checked_add(entry.packed_bytes).ok_or(EntryFault::OutOfBounds)?;
        header.get(start..end).ok_or(EntryFault::OutOfBounds)
    }
}

const END_RECORD_BYTES: usize = 22;
const CENTRAL_HEADER_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: usize = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ENCRYPTED_FLAG: u16 = 1;

struct Directory {
    range: Range<usize>,
    entry_count: usize,
}

/// Finds the central directory by the record at the end of the file, which a comment of up to 65535 bytes may follow.
fn find_directory(file: &[u8]) -> Result<Directory, NpzError> {
    let last = file.len().checked_sub(END_RECORD_BYTES).ok_or(NpzError::NotZip)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let record = (first..=last)
        .rev()
        .map(|at| &file[at..])
        .find(|record| {
            record.starts_with(b"PK\x05\x06")
                && usize::from(u16_at(record, 20)) == record.len() - END_RECORD_BYTES
        })
        .ok_or(NpzError::NotZip)?;
    let (entry_count, size, offset) = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16));
    if entry_count == u16::MAX || size == u32::MAX || offset == u32::MAX {
        return Err(NpzError::Zip64);
    }
    let (start, size) = (offset as usize, size as usize);
    let end = start.checked_add(size).ok_or(NpzError::Truncated("the table of contents"))?;
    Ok(Directory { range: start..end, entry_count: usize::from(entry_count) })
}

/// Reads the header of an entry in the central directory: the entry, and the length of the header.
fn parse_entry(bytes: &[u8]) -> Result<(Entry, usize), NpzError> {
    let truncated = NpzError::Truncated("the table of contents");
    if bytes.len() < CENTRAL_HEADER_BYTES || !bytes.starts_with(b"PK\x01\x02") {
        return Err(truncated);
    }
    let name_end = CENTRAL_HEADER_BYTES + usize::from(u16_at(bytes, 28));
    let length = name_end + usize::from(u16_at(bytes, 30)) + usize::from(u16_at(bytes, 32));
    if bytes.len() < length {
        return Err(truncated);
    }
    let [packed_bytes, unpacked_bytes, header_offset] = [20, 24, 42].map(|at| u32_at(bytes, at));
    if [packed_bytes, unpacked_bytes, header_offset].contains(&u32::MAX) {
        return Err(NpzError::Zip64);
    }
    let name = String::from_utf8_lossy(&bytes[CENTRAL_HEADER_BYTES..name_end]);
    let entry = Entry {
        name: name.strip_suffix(".npy").unwrap_or(&name).to_owned(),
        flags: u16_at(bytes, 8),
        method: u16_at(bytes, 10),
        crc32: u32_at(bytes, 16),
        packed_bytes: packed_bytes as usize,
        bytes: unpacked_bytes as usize,
        header_offset: header_offset as usize,
    };
    Ok((entry, length))
}

fn unpack<'a>(entry: &Entry, packed: &'a [u8]) -> Result<Cow<'a, [u8]>, EntryFault> {
    if entry.flags & ENCRYPTED_FLAG != 0 {
        return Err(EntryFault::Encrypted);
    }
    if entry.bytes > ENTRY_BYTES_MAX {
        return Err(EntryFault::TooLarge { bytes: entry.bytes });
    }
    let unpacked: Cow<[u8]> = match entry.method {
        STORED => packed.into(),
        DEFLATED => miniz_oxide::inflate::decompress_to_vec_with_limit(packed, entry.bytes)
            .map_err(|_| EntryFault::Deflate)?
            .into(),
        method => return Err(EntryFault::Method(method)),
    };
    if unpacked.len() != entry.bytes || crc32fast::hash(&unpacked) != entry.crc32 {
        return Err(EntryFault::Checksum);
    }
    Ok(unpacked)
}

fn parse_npy(bytes: &[u8]) -> Result<NpyArray, EntryFault> {
    let header_start = match bytes.get(..8) {
        Some(b"\x93NUMPY\x01\x00") => 10,
        Some(b"\x93NUMPY\x02\x00" | b"\x93NUMPY\x03\x00") => 12,
        _ => return Err(EntryFault::NotNpy),
    };
    if bytes.len() < header_start {
        return Err(EntryFault::NotNpy);
    }
    let header_bytes = if header_start == 10 { u32::from(u16_at(bytes, 8)) } else { u32_at(bytes, 8) };
    let header_end = header_start.checked_add(header_bytes as usize).ok_or(EntryFault::NotNpy)?;
    let header = bytes.get(header_start..header_end).ok_or(EntryFault::NotNpy)?;
    let header = std::str::from_utf8(header).map_err(|_| EntryFault::Header)?;
    let header = NpyHeader::parse(header).ok_or(EntryFault::Header)?;
    if header.descr != "<f4" {
        return Err(EntryFault::Type(header.descr));
    }
    // A single column or row is the same in both orders, and NumPy may write either.
    if header.fortran_order && header.shape.iter().filter(|&&size| size > 1).count() > 1 {
        return Err(EntryFault::FortranOrder);
    }

    let data = &bytes[header_end..];
    let bytes_expected = header.shape.iter().try_fold(4usize, |bytes, &size| bytes.checked_mul(size));
    if bytes_expected != Some(data.len()) {
        return Err(EntryFault::Size { shape: header.shape, bytes: data.len() });
    }
    let values =
        data.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
    Ok(NpyArray { shape: header.shape, data: values.collect() })
}

/// The dictionary at the head of an array: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
#[derive(Debug, PartialEq)]
struct NpyHeader {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl NpyHeader {
    /// Reads a dictionary of exactly these three keys, in any order.
    fn parse(text: &str) -> Option<Self> {
        let mut literal = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        literal.expect("{")?;
        while literal.expect("}").is_none() {
            let key = literal.string()?;
            literal.expect(":")?;
            match key {
                "descr" => descr = Some(literal.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(literal.boolean()?),
                "shape" => shape = Some(literal.tuple()?),
                _ => return None,
            }
            if literal.expect(",").is_none() {
                literal.expect("}")?;
                break;
            }
        }
        if !literal.rest.trim().is_empty() {
            return None;
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// What is left of a Python literal.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    /// Takes `token` and the white space before it, if it is next.
    fn expect(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|character| matches!(character, '\'' | '"'))?;
        let (string, rest) = rest[1..].split_once(quote)?;
        self.rest = rest;
        Some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.expect("True") {
            Some(()) => Some(true),
            None => self.expect("False").map(|()| false),
        }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        self.expect("(")?;
        let (inside, rest) = self.rest.split_once(')')?;
        self.rest = rest;
        let inside = inside.trim();
        let inside = inside.strip_suffix(',').unwrap_or(inside);
        if inside.is_empty() {
            return Some(Vec::new());
        }
        inside.split(',').map(|size| size.trim().parse().ok()).collect()
    }
}

/// The little-endian number at `at`, which the caller has checked to lie in `bytes`.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`, which the caller has checked to lie in `bytes`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Why a `.npz` file cannot be read. The file's fault, or that of who named it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// There is no end-of-archive record.
    #[error("this is not a .npz file, or its end is missing")]
    NotZip,
    /// The archive uses 64-bit sizes.
    #[error(
        "the .npz file is an archive with 64-bit sizes, which are not read; it must be smaller than 4 GiB"
    )]
    Zip64,
    /// A part lies outside of the file or is cut short.
    #[error("the .npz file is broken: {0} is cut short or not where it should be")]
    Truncated(&'static str),
    /// There is no array of this name.
    #[error("the .npz file has no array {name:?}")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// An array cannot be read.
    #[error("the array {name:?} of the .npz file cannot be read: {fault}")]
    Entry {
        /// Its name.
        name: String,
        /// Why.
        fault: EntryFault,
    },
}

/// Why an array of a `.npz` file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its bytes lie outside of the file.
    #[error("its bytes are not where they should be")]
    OutOfBounds,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It is larger than [`ENTRY_BYTES_MAX`].
    #[error("it has {bytes} bytes, more than the {ENTRY_BYTES_MAX} that are read")]
    TooLarge {
        /// Its size, unpacked.
        bytes: usize,
    },
    /// It is packed in another way than stored or deflated.
    #[error("it is packed by method {0}; only stored (0) and deflated (8) arrays are read")]
    Method(u16),
    /// The packed bytes are broken, or unpack to more than they should.
    #[error("its packed bytes are broken")]
    Deflate,
    /// The bytes are not those that were written.
    #[error("its size or checksum is wrong")]
    Checksum,
    /// It does not begin as a `.npy` array does.
    #[error("it is not a .npy array of version 1, 2 or 3")]
    NotNpy,
    /// Its header is not a dictionary of type, order and shape.
    #[error("its header is broken")]
    Header,
    /// It is not of little-endian f32.
    #[error("its values are of type {0:?}; only little-endian f32 (\"<f4\") is read")]
    Type(String),
    /// It is in Fortran's order.
    #[error("it is in fortran order; save it in C order")]
    FortranOrder,
    /// Its shape does not fit its bytes.
    #[error("its {bytes} bytes of values do not make the shape {shape:?}")]
    Size {
        /// The shape that the header gives.
        shape: Vec<usize>,
        /// The bytes that follow.
        bytes: usize,
    },
}

#[cfg(test)]
#[path = "npz_tests.rs"]
mod tests;
