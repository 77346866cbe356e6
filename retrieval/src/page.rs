//! A page: what an index knows of it, and what it is made of.

use std::ops::Range;

/// A page of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// What it was called when it was added, such as the path of a picture. It may hold anything, control characters
    /// too, but is UTF-8 and not empty.
    pub name: Box<str>,
    /// Width and height of its picture in pixels.
    pub size: (u32, u32),
    /// Tells whether a picture has changed: a hash of its file, such as [`content_hash`].
    pub content: [u8; 16],
    /// Its vectors.
    pub rows: usize,
    /// Where they lie in the file.
    pub(crate) vectors: Range<u64>,
    /// Their checksum, as the file states it.
    pub(crate) checksum: u64,
    /// Bytes of its whole record, which ends behind the vectors.
    pub(crate) record: Range<u64>,
}

/// What is to become a page.
#[derive(Clone, Copy, Debug)]
pub struct NewPage<'a> {
    /// Its name; a page of this name is replaced.
    pub name: &'a str,
    /// Width and height of its picture in pixels.
    pub size: (u32, u32),
    /// Tells whether a picture has changed: a hash of its file, such as [`content_hash`].
    pub content: [u8; 16],
    /// Its vectors, one behind the other: as many numbers each as the index says.
    pub rows: &'a [f32],
}

/// Tells whether a picture's file has changed: the 128-bit XXH3 of its bytes. It sees changes, and is no proof against
/// somebody who wants none to be seen.
pub fn content_hash(file: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(file).to_le_bytes()
}
