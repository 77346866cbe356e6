//! The tokenizer table as it lies in the file: constants shared by the reader and by the converter.
//!
//! `docs/tokenizer-table.md` is the specification. All integers are little-endian; sections follow the header
//! in the order of [`Section`], each starting at the next multiple of [`SECTION_ALIGN`].

/// The first eight bytes of a table.
pub const MAGIC: [u8; 8] = *b"palmtok\0";
/// The version that this library reads and writes.
pub const VERSION: u32 = 1;
/// Size of the header.
pub const HEADER_BYTES: usize = 256;
/// Every section starts at a multiple of this, relative to the start of the table.
pub const SECTION_ALIGN: usize = 8;
/// Stands for "no such id".
pub const NO_ID: u32 = u32::MAX;

/// Most pieces a table can hold: ids plus one must fit in the 20 low bits of a hash slot.
pub const PIECES_MAX: usize = (1 << SLOT_ID_BITS) - 1;
/// Longest piece. It bounds the work for one candidate merge.
pub const PIECE_BYTES_MAX: usize = 1024;
/// Longest added token. It bounds the work at one place of a text.
pub const ADDED_BYTES_MAX: usize = 256;
/// Most merges a table can hold.
pub const MERGES_MAX: usize = 1 << 24;
/// Largest hash, as a power of two.
pub const HASH_BITS_MAX: u32 = 24;
/// Longest run of slots that a look-up may have to visit.
pub const PROBE_MAX: u32 = 256;
/// Low bits of a hash slot that hold the id plus one; the bits above hold [`fingerprint`].
pub const SLOT_ID_BITS: u32 = 20;

/// U+2581, which stands for a blank inside pieces.
pub const BLANK: char = '\u{2581}';

/// Positions of the header's fields; u32 unless said.
pub mod header {
    /// u64: length of the whole table.
    pub const TOTAL_BYTES: usize = 16;
    /// Number of pieces.
    pub const PIECE_COUNT: usize = 24;
    /// Number of merges.
    pub const MERGE_COUNT: usize = 28;
    /// Binary logarithm of the number of hash slots.
    pub const HASH_BITS: usize = 32;
    /// Most slots visited by a look-up.
    pub const PROBE_MAX: usize = 36;
    /// Length of the longest piece.
    pub const PIECE_BYTES_MAX: usize = 40;
    /// Bit set of `FLAG_*`.
    pub const FLAGS: usize = 44;
    /// One of `NORMALIZER_*`.
    pub const NORMALIZER: usize = 48;
    /// One of `PRE_TOKENIZER_*`.
    pub const PRE_TOKENIZER: usize = 52;
    /// One of `DECODER_*`.
    pub const DECODER: usize = 56;
    /// Zero.
    pub const RESERVED: usize = 60;
    /// Ids or `NO_ID`: pad, eos, bos, unk, image, newline.
    pub const SPECIAL_IDS: usize = 64;
    /// First id and number of the `<locNNNN>` pieces.
    pub const LOC: usize = 88;
    /// First id and number of the `<segNNN>` pieces.
    pub const SEG: usize = 96;
    /// Number of added tokens matched in the raw text, then of those matched in the normalised text.
    pub const ADDED_COUNTS: usize = 104;
    /// Offset and length (u64 each) of every section.
    pub const SECTIONS: usize = 112;
}

/// Adjacent unknown characters become one unknown token.
pub const FLAG_FUSE_UNK: u32 = 1;
/// The normaliser replaces U+0020 by U+2581 and changes nothing else.
pub const NORMALIZER_BLANK: u32 = 1;
/// Nothing is split before BPE.
pub const PRE_TOKENIZER_NONE: u32 = 0;
/// Split after U+0020, which the normaliser has removed: it has no effect, and is recorded for completeness.
pub const PRE_TOKENIZER_SPLIT_SPACE: u32 = 1;
/// U+2581 becomes U+0020, runs of byte pieces become characters, everything is joined.
pub const DECODER_BLANK_BYTES_FUSE: u32 = 1;

/// The piece is dropped when special tokens are skipped.
pub const PIECE_SPECIAL: u8 = 1;
/// The piece is an added token: cut out of the text before BPE.
pub const PIECE_ADDED: u8 = 2;
/// An added token that is looked for after the normaliser instead of before it.
pub const PIECE_ADDED_NORMALIZED: u8 = 4;
/// The text of the piece is spelled `<0xNN>` and stands for one byte when decoding.
pub const PIECE_BYTE: u8 = 8;
/// An added token that takes the white space before it along.
pub const PIECE_STRIPS_LEFT: u8 = 16;
/// An added token that takes the white space behind it along.
pub const PIECE_STRIPS_RIGHT: u8 = 32;
/// All flags of a piece that this version knows.
pub const PIECE_FLAGS: u8 = PIECE_SPECIAL
    | PIECE_ADDED
    | PIECE_ADDED_NORMALIZED
    | PIECE_BYTE
    | PIECE_STRIPS_LEFT
    | PIECE_STRIPS_RIGHT;

/// The sections, in the order in which they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// u32 per piece and one more: where its text starts in [`Section::Text`].
    TextStarts = 0,
    /// The texts of the pieces, UTF-8, in the order of their ids.
    Text,
    /// u8 per piece: its `PIECE_*` flags.
    Flags,
    /// u32 per piece and one more: where its merges start in the next two sections.
    MergeStarts,
    /// u32 per merge: its rank.
    MergeRanks,
    /// u16 per merge: bytes of the left part, ascending within a piece.
    MergeLefts,
    /// u32 per slot: zero, or fingerprint and id plus one.
    Hash,
    /// u32 for each of 256 bytes: the piece it falls back to, or `NO_ID`.
    ByteIds,
    /// u32 per added token: ids sorted by text, those of the raw text first.
    Added,
}

impl Section {
    /// Number of sections.
    pub const COUNT: usize = 9;
}

/// Hash of a piece's text: FNV-1a of 64 bits, then the finaliser of MurmurHash3.
///
/// The low bits choose the slot, the twelve highest are the [`fingerprint`].
pub fn hash(text: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in text {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// The twelve bits of a hash that are kept in its slot.
pub fn fingerprint(hash: u64) -> u32 {
    (hash >> 52) as u32
}

/// The byte that a piece spelled `<0xNN>` stands for.
///
/// Lower-case digits count, and so does a sign before a single digit: Hugging Face's decoder reads both.
pub fn byte_of_piece(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The length of every section, in the order of [`Section`]; `None` where it does not fit in memory.
pub fn section_bytes(
    piece_count: usize,
    text_bytes: usize,
    merge_count: usize,
    hash_bits: u32,
    added_count: usize,
) -> Option<[usize; Section::COUNT]> {
    let starts = piece_count.checked_add(1)?.checked_mul(4)?;
    Some([
        starts,
        text_bytes,
        piece_count,
        starts,
        merge_count.checked_mul(4)?,
        merge_count.checked_mul(2)?,
        1_usize.checked_shl(hash_bits)?.checked_mul(4)?,
        256 * 4,
        added_count.checked_mul(4)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of an independent implementation of the page in `docs`.
    #[test]
    fn hash_is_the_documented_one() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(hash(b"a"), 0x82a2_a958_a9be_ce5b);
        assert_eq!(hash("\u{2581}cat".as_bytes()), 0xa9ad_ff6e_0765_5d11);
        assert_eq!(fingerprint(hash(b"a")), 0x82a);
    }

    #[test]
    fn byte_pieces_are_known_by_their_spelling() {
        let cases = [
            ("<0x41>", Some(0x41)),
            ("<0xff>", Some(0xff)),
            ("<0x+5>", Some(5)),
            ("<0x-5>", None),
            ("<0x4>", None),
            ("<0x041>", None),
            ("<0x\u{e9}>", None),
            ("0x41", None),
            ("<0x41> ", None),
        ];
        for (text, byte) in cases {
            assert_eq!(byte_of_piece(text), byte, "{text}");
        }
    }
}
