//! The table: checked once, then read in place.

use std::ops::Range;

use super::TokenizerError;
use super::added::FirstBytes;
use super::format::{self, NO_ID, Section, header};

/// Where everything lies in a checked table; plain data without the bytes.
#[derive(Debug, Clone)]
pub struct TokenizerLayout {
    pub(super) sections: [Range<usize>; Section::COUNT],
    pub(super) piece_count: u32,
    pub(super) piece_bytes_max: usize,
    pub(super) hash_mask: usize,
    pub(super) probe_max: u32,
    pub(super) fuse_unk: bool,
    pub(super) special_ids: [u32; 6],
    pub(super) loc: Range<u32>,
    pub(super) seg: Range<u32>,
    /// Number of added tokens matched in the raw text; the rest of the section belongs to the normalised text.
    pub(super) added_raw_count: usize,
    pub(super) first_bytes_raw: FirstBytes,
    pub(super) first_bytes_normalized: FirstBytes,
}

impl TokenizerLayout {
    /// Checks the header, the bounds of every section, and the two small sections.
    ///
    /// The time does not depend on the number of pieces. [`Tokenizer::verify`] checks the rest.
    ///
    /// # Errors
    /// Whatever makes the table unusable; [`TokenizerError::WrongLength`] unless `bytes` is exactly the table.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        use TokenizerError::BadHeader;
        if !bytes.starts_with(&format::MAGIC) {
            return Err(TokenizerError::NotATable);
        }
        let (found, expected) = (bytes.len() as u64, format::HEADER_BYTES as u64);
        let head =
            bytes.get(..format::HEADER_BYTES).ok_or(TokenizerError::WrongLength { found, expected })?;
        let field = |at: usize| u32_at(head, at / 4).unwrap_or(NO_ID);
        let long_field = |at: usize| u64::from(field(at)) | u64::from(field(at + 4)) << 32;

        let version = field(8);
        if version != format::VERSION {
            return Err(TokenizerError::UnsupportedVersion { found: version, supported: format::VERSION });
        }
        let expected = long_field(header::TOTAL_BYTES);
        if found != expected {
            return Err(TokenizerError::WrongLength { found, expected });
        }
        if field(12) as usize != format::HEADER_BYTES {
            return Err(BadHeader("the header has another size than version 1"));
        }
        let piece_count = field(header::PIECE_COUNT);
        if piece_count == 0 || piece_count as usize > format::PIECES_MAX {
            return Err(BadHeader("the number of pieces is out of range"));
        }
        let merge_count = field(header::MERGE_COUNT) as usize;
        if merge_count > format::MERGES_MAX {
            return Err(BadHeader("there are too many merges"));
        }
        let hash_bits = field(header::HASH_BITS);
        if hash_bits > format::HASH_BITS_MAX {
            return Err(BadHeader("the hash is too large"));
        }
        let probe_max = field(header::PROBE_MAX);
        if probe_max > format::PROBE_MAX {
            return Err(BadHeader("look-ups would visit too many slots"));
        }
        let piece_bytes_max = field(header::PIECE_BYTES_MAX) as usize;
        if piece_bytes_max > format::PIECE_BYTES_MAX {
            return Err(BadHeader("pieces are too long"));
        }
        let flags = field(header::FLAGS);
        if flags & !format::FLAG_FUSE_UNK != 0 || field(header::RESERVED) != 0 {
            return Err(BadHeader("it sets flags that version 1 does not have"));
        }
        if field(header::NORMALIZER) != format::NORMALIZER_BLANK
            || field(header::PRE_TOKENIZER) > format::PRE_TOKENIZER_SPLIT_SPACE
            || field(header::DECODER) != format::DECODER_BLANK_BYTES_FUSE
        {
            return Err(BadHeader("its normaliser, pre-tokenizer or decoder is not known"));
        }
        let special_ids = std::array::from_fn(|i| field(header::SPECIAL_IDS + 4 * i));
        if special_ids.iter().any(|&id| id != NO_ID && id >= piece_count) {
            return Err(BadHeader("a special id is not the id of a piece"));
        }
        let run = |at: usize| -> Result<Range<u32>, TokenizerError> {
            let (first, count) = (field(at), field(at + 4));
            match first.checked_add(count) {
                Some(end) if end <= piece_count => Ok(first..end),
                _ => Err(BadHeader("the location or segment pieces are out of range")),
            }
        };
        let (loc, seg) = (run(header::LOC)?, run(header::SEG)?);
        let added_raw_count = field(header::ADDED_COUNTS) as usize;
        let added_count = added_raw_count.saturating_add(field(header::ADDED_COUNTS + 4) as usize);
        if added_count > piece_count as usize {
            return Err(BadHeader("there are more added tokens than pieces"));
        }

        let text_bytes = usize::try_from(long_field(header::SECTIONS + 16 * Section::Text as usize + 8))
            .map_err(|_| BadHeader("a section is too long"))?;
        let lengths =
            format::section_bytes(piece_count as usize, text_bytes, merge_count, hash_bits, added_count)
                .ok_or(BadHeader("a section is too long"))?;
        let mut sections = [const { 0..0 }; Section::COUNT];
        let mut end = format::HEADER_BYTES;
        for (i, (section, length)) in sections.iter_mut().zip(lengths).enumerate() {
            let start = end.next_multiple_of(format::SECTION_ALIGN);
            end = start.checked_add(length).ok_or(BadHeader("a section is too long"))?;
            if end > bytes.len() {
                return Err(BadHeader("a section reaches beyond the end"));
            }
            let at = header::SECTIONS + 16 * i;
            if long_field(at) != start as u64 || long_field(at + 8) != length as u64 {
                return Err(BadHeader("a section is not where its size says"));
            }
            *section = start..end;
        }
        if end != bytes.len() {
            return Err(BadHeader("there are extra bytes after the last section"));
        }

        let mut layout = Self {
            sections,
            piece_count,
            piece_bytes_max,
            hash_mask: (1 << hash_bits) - 1,
            probe_max,
            fuse_unk: flags & format::FLAG_FUSE_UNK != 0,
            special_ids,
            loc,
            seg,
            added_raw_count,
            first_bytes_raw: FirstBytes::default(),
            first_bytes_normalized: FirstBytes::default(),
        };
        let tokenizer = layout.bind(bytes);
        tokenizer.check_small_sections()?;
        let (raw, normalized) = (tokenizer.added_raw(), tokenizer.added_normalized());
        let first_bytes = (FirstBytes::of(&tokenizer, raw), FirstBytes::of(&tokenizer, normalized));
        (layout.first_bytes_raw, layout.first_bytes_normalized) = first_bytes;
        Ok(layout)
    }

    /// Pairs the layout with the bytes it was made from.
    ///
    /// Cheap enough to do for every call. With other bytes the tokenizer gives wrong ids, or none.
    pub fn bind<'a>(&'a self, bytes: &'a [u8]) -> Tokenizer<'a> {
        let section = |section: Section| {
            let range = &self.sections[section as usize];
            bytes.get(range.clone()).unwrap_or_default()
        };
        Tokenizer {
            layout: self,
            text_starts: section(Section::TextStarts),
            text: section(Section::Text),
            flags: section(Section::Flags),
            merge_starts: section(Section::MergeStarts),
            merge_ranks: section(Section::MergeRanks),
            merge_lefts: section(Section::MergeLefts),
            hash: section(Section::Hash),
            byte_ids: section(Section::ByteIds),
            added: section(Section::Added),
        }
    }
}

/// A vocabulary in place: text to ids, and ids to text with [`Detokenizer`](super::Detokenizer).
#[derive(Debug, Clone, Copy)]
pub struct Tokenizer<'a> {
    pub(super) layout: &'a TokenizerLayout,
    pub(super) text_starts: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) flags: &'a [u8],
    pub(super) merge_starts: &'a [u8],
    pub(super) merge_ranks: &'a [u8],
    pub(super) merge_lefts: &'a [u8],
    pub(super) hash: &'a [u8],
    pub(super) byte_ids: &'a [u8],
    pub(super) added: &'a [u8],
}

impl<'a> Tokenizer<'a> {
    /// Number of pieces; their ids are `0..piece_count()`. The model's embedding may have more rows.
    pub fn piece_count(&self) -> u32 {
        self.layout.piece_count
    }

    /// Length in bytes of the longest piece.
    pub fn piece_bytes_max(&self) -> usize {
        self.layout.piece_bytes_max
    }

    /// The id whose piece is spelled exactly so (with U+2581 for a blank).
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.find(piece.as_bytes())
    }

    /// The piece as the vocabulary spells it (with U+2581 for a blank), or `None` for an id without one.
    pub fn piece(&self, id: u32) -> Option<&'a str> {
        std::str::from_utf8(self.piece_bytes(id)?).ok()
    }

    /// Whether the piece is dropped when special tokens are skipped.
    pub fn is_special(&self, id: u32) -> bool {
        self.piece_flags(id) & format::PIECE_SPECIAL != 0
    }

    /// The id of `<pad>`.
    pub fn pad_id(&self) -> Option<u32> {
        self.special_id(0)
    }

    /// The id of `<eos>`, at which an answer ends.
    pub fn eos_id(&self) -> Option<u32> {
        self.special_id(1)
    }

    /// The id of `<bos>`, which stands before the prompt.
    pub fn bos_id(&self) -> Option<u32> {
        self.special_id(2)
    }

    /// The id of the unknown token.
    pub fn unk_id(&self) -> Option<u32> {
        self.special_id(3)
    }

    /// The id of `<image>`, which stands for one row of image features.
    pub fn image_id(&self) -> Option<u32> {
        self.special_id(4)
    }

    /// The id of a single line feed, which ends the prompt.
    pub fn newline_id(&self) -> Option<u32> {
        self.special_id(5)
    }

    /// The ids of `<loc0000>`, `<loc0001>`, … in order.
    pub fn loc_ids(&self) -> Option<Range<u32>> {
        Some(self.layout.loc.clone()).filter(|ids| !ids.is_empty())
    }

    /// The ids of `<seg000>`, `<seg001>`, … in order.
    pub fn seg_ids(&self) -> Option<Range<u32>> {
        Some(self.layout.seg.clone()).filter(|ids| !ids.is_empty())
    }

    fn special_id(&self, index: usize) -> Option<u32> {
        Some(self.layout.special_ids[index]).filter(|&id| id != NO_ID)
    }

    pub(super) fn piece_flags(&self, id: u32) -> u8 {
        self.flags.get(id as usize).copied().unwrap_or(0)
    }

    pub(super) fn piece_bytes(&self, id: u32) -> Option<&'a [u8]> {
        if id >= self.layout.piece_count {
            return None;
        }
        let (start, end) = range_at(self.text_starts, id as usize)?;
        if end.checked_sub(start)? > self.layout.piece_bytes_max {
            return None;
        }
        self.text.get(start..end)
    }

    /// The piece spelled so, by the hash.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.layout.piece_bytes_max {
            return None;
        }
        let hash = format::hash(text);
        let fingerprint = format::fingerprint(hash);
        let home = hash as usize;
        for step in 0..self.layout.probe_max as usize {
            let slot = u32_at(self.hash, home.wrapping_add(step) & self.layout.hash_mask)?;
            if slot == 0 {
                return None;
            }
            if slot >> format::SLOT_ID_BITS == fingerprint {
                // A broken slot may hold zero here; the id is then out of range and has no text.
                let id = (slot & ((1 << format::SLOT_ID_BITS) - 1)).wrapping_sub(1);
                if self.piece_bytes(id) == Some(text) {
                    return Some(id);
                }
            }
        }
        None
    }

    /// The rank at which the first `left_bytes` of the piece and the rest of it are merged.
    pub(super) fn merge_rank(&self, piece: u32, left_bytes: usize) -> Option<u32> {
        let (start, end) = range_at(self.merge_starts, piece as usize)?;
        // A piece has fewer splits than bytes; more would be a broken table, and slow.
        let end = end.min(start.saturating_add(format::PIECE_BYTES_MAX));
        let lefts = self.merge_lefts.get(start.checked_mul(2)?..end.checked_mul(2)?)?;
        let index = lefts
            .chunks_exact(2)
            .position(|left| usize::from(u16::from_le_bytes([left[0], left[1]])) == left_bytes)?;
        u32_at(self.merge_ranks, start + index)
    }

    /// The piece that stands for a byte of a character without a piece.
    pub(super) fn byte_id(&self, byte: u8) -> Option<u32> {
        u32_at(self.byte_ids, usize::from(byte)).filter(|&id| id != NO_ID)
    }

    fn check_small_sections(&self) -> Result<(), TokenizerError> {
        let known = |id: u32| id < self.layout.piece_count;
        if !(0..256).all(|i| u32_at(self.byte_ids, i).is_some_and(|id| id == NO_ID || known(id))) {
            return Err(TokenizerError::BadHeader("a byte falls back to an id without a piece"));
        }
        if !self.added.chunks_exact(4).enumerate().all(|(i, _)| u32_at(self.added, i).is_some_and(known)) {
            return Err(TokenizerError::BadHeader("an added token has an id without a piece"));
        }
        if self.find(format::BLANK.encode_utf8(&mut [0; 4]).as_bytes()).is_none() {
            return Err(TokenizerError::BadHeader("there is no piece for a blank"));
        }
        if self.unk_id().is_none() {
            return Err(TokenizerError::BadHeader("there is no unknown token"));
        }
        Ok(())
    }
}

/// The `index`-th little-endian u32.
pub(super) fn u32_at(bytes: &[u8], index: usize) -> Option<u32> {
    let start = index.checked_mul(4)?;
    let bytes = bytes.get(start..start.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The `index`-th u32 and the one after it: a start and an end.
pub(super) fn range_at(starts: &[u8], index: usize) -> Option<(usize, usize)> {
    Some((u32_at(starts, index)? as usize, u32_at(starts, index.checked_add(1)?)? as usize))
}
