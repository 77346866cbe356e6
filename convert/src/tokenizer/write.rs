//! Writes a vocabulary as the bytes of a table; `docs/tokenizer-table.md` is the specification.

use std::collections::HashMap;

use palmtop::tokenizer::TokenizerLayout;
use palmtop::tokenizer::format::{self, NO_ID, Section, header};

use super::vocabulary::check_count;
use super::{BuildError, Vocabulary};

/// Slots that a look-up in a new table may visit; the hash is doubled until it holds.
const PROBE_GOAL: usize = 64;

impl Vocabulary {
    /// Writes the table, and checks it as a reader would.
    ///
    /// # Errors
    /// Whatever a table cannot express; see the variants of [`BuildError`].
    pub fn to_table(&self) -> Result<Vec<u8>, BuildError> {
        check_count("pieces", self.pieces.len(), format::PIECES_MAX)?;
        check_count("merges", self.merges.len(), format::MERGES_MAX)?;
        let ids = self.ids_by_text()?;
        self.check_merges(&ids)?;
        let blank = format::BLANK.to_string();
        if !ids.contains_key(blank.as_str()) {
            return Err(BuildError::BadPiece { piece: blank, why: "the vocabulary lacks it" });
        }
        let (added_raw, added_normalized) = self.sorted_added()?;
        let (slots, probe_max) = self.hash_slots()?;

        let mut text_starts = vec![0_u32];
        let mut text = Vec::new();
        for piece in &self.pieces {
            text.extend_from_slice(piece.as_bytes());
            // At most 2^20 pieces of 1024 bytes.
            text_starts.push(text.len() as u32);
        }
        let byte_ids = (0..=255_u8).map(|byte| {
            let spelled = format!("<0x{byte:02X}>");
            ids.get(spelled.as_str()).copied().filter(|_| self.byte_fallback).unwrap_or(NO_ID)
        });
        let sections: [Vec<u8>; Section::COUNT] = [
            le_bytes(text_starts),
            text,
            (0..).zip(&self.pieces).map(|(id, piece)| self.flags(id, piece)).collect(),
            le_bytes(self.merge_starts()),
            le_bytes(self.merges.iter().map(|merge| merge.rank)),
            self.merges.iter().flat_map(|merge| merge.left_bytes.to_le_bytes()).collect(),
            le_bytes(slots.iter().copied()),
            le_bytes(byte_ids),
            le_bytes(added_raw.iter().chain(&added_normalized).copied()),
        ];

        let mut table = vec![0; format::HEADER_BYTES];
        let put = |table: &mut Vec<u8>, at: usize, value: u64| {
            table[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        };
        for (i, section) in sections.iter().enumerate() {
            table.resize(table.len().next_multiple_of(format::SECTION_ALIGN), 0);
            let at = header::SECTIONS + 16 * i;
            let start = table.len() as u64;
            table[at..at + 8].copy_from_slice(&start.to_le_bytes());
            table[at + 8..at + 16].copy_from_slice(&(section.len() as u64).to_le_bytes());
            table.extend_from_slice(section);
        }
        table[..8].copy_from_slice(&format::MAGIC);
        let total_bytes = table.len() as u64;
        table[header::TOTAL_BYTES..header::TOTAL_BYTES + 8].copy_from_slice(&total_bytes.to_le_bytes());
        let (loc, seg) = (self.numbered(&ids, "loc", 4), self.numbered(&ids, "seg", 3));
        let pieces_bytes_max = self.pieces.iter().map(String::len).max().unwrap_or(0);
        for (at, value) in [
            (8, u64::from(format::VERSION)),
            (12, format::HEADER_BYTES as u64),
            (header::PIECE_COUNT, self.pieces.len() as u64),
            (header::MERGE_COUNT, self.merges.len() as u64),
            (header::HASH_BITS, u64::from(slots.len().ilog2())),
            (header::PROBE_MAX, probe_max as u64),
            (header::PIECE_BYTES_MAX, pieces_bytes_max as u64),
            (header::FLAGS, if self.fuse_unk { u64::from(format::FLAG_FUSE_UNK) } else { 0 }),
            (header::NORMALIZER, u64::from(format::NORMALIZER_BLANK)),
            (header::PRE_TOKENIZER, u64::from(self.splits_at_space)),
            (header::DECODER, u64::from(format::DECODER_BLANK_BYTES_FUSE)),
            (header::LOC, u64::from(loc.0)),
            (header::LOC + 4, u64::from(loc.1)),
            (header::SEG, u64::from(seg.0)),
            (header::SEG + 4, u64::from(seg.1)),
            (header::ADDED_COUNTS, added_raw.len() as u64),
            (header::ADDED_COUNTS + 4, added_normalized.len() as u64),
        ] {
            put(&mut table, at, value);
        }
        let of = |text: &str| ids.get(text).copied().unwrap_or(NO_ID);
        let special_ids = [of("<pad>"), of("<eos>"), of("<bos>"), self.unk_id, of("<image>"), of("\n")];
        for (i, id) in special_ids.into_iter().enumerate() {
            put(&mut table, header::SPECIAL_IDS + 4 * i, u64::from(id));
        }
        TokenizerLayout::parse(&table)?.bind(&table).verify()?;
        Ok(table)
    }

    /// Every merge must make its piece of two other pieces that can stand side by side in a text.
    fn check_merges(&self, ids: &HashMap<&str, u32>) -> Result<(), BuildError> {
        for merge in &self.merges {
            let piece = self.pieces.get(merge.piece as usize).map(String::as_str).unwrap_or_default();
            let bad = |why| Err(BuildError::BadMerge { merge: piece.to_owned(), why });
            let Some((left, right)) = piece.split_at_checked(usize::from(merge.left_bytes)) else {
                return bad("it cuts a character");
            };
            for part in [left, right] {
                match ids.get(part) {
                    None => return bad("one of its parts is not a piece"),
                    // The bytes of a character, and unknown characters, have no text of their own to be merged by.
                    Some(&id) if id == self.unk_id || format::byte_of_piece(part).is_some() => {
                        return bad("one of its parts is a byte or the unknown token");
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn flags(&self, id: u32, piece: &str) -> u8 {
        let mut flags = 0;
        if let Some(token) = self.added.get(&id) {
            flags |= format::PIECE_ADDED;
            flags |= if token.special { format::PIECE_SPECIAL } else { 0 };
            flags |= if token.normalized { format::PIECE_ADDED_NORMALIZED } else { 0 };
            flags |= if token.strips_left { format::PIECE_STRIPS_LEFT } else { 0 };
            flags |= if token.strips_right { format::PIECE_STRIPS_RIGHT } else { 0 };
        }
        flags | if format::byte_of_piece(piece).is_some() { format::PIECE_BYTE } else { 0 }
    }

    fn merge_starts(&self) -> Vec<u32> {
        let mut starts = vec![0_u32; self.pieces.len() + 1];
        for merge in &self.merges {
            starts[merge.piece as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        starts
    }

    /// Ids of the added tokens sorted by text: those of the raw text, and those of the normalised text.
    fn sorted_added(&self) -> Result<(Vec<u32>, Vec<u32>), BuildError> {
        let text = |id: &u32| self.pieces[*id as usize].as_str();
        for (id, token) in &self.added {
            let why = if text(id).len() > format::ADDED_BYTES_MAX {
                "it is an added token of more than 256 bytes"
            } else if token.normalized && text(id).contains(' ') {
                "it is an added token that the normaliser changes"
            } else {
                continue;
            };
            return Err(BuildError::BadPiece { piece: text(id).to_owned(), why });
        }
        let (mut normalized, mut raw): (Vec<u32>, Vec<u32>) =
            self.added.keys().partition(|id| self.added[id].normalized);
        raw.sort_unstable_by_key(text);
        normalized.sort_unstable_by_key(text);
        Ok((raw, normalized))
    }

    /// The open-addressing hash, at most half full, and the most slots that a look-up visits.
    fn hash_slots(&self) -> Result<(Vec<u32>, usize), BuildError> {
        let mut bits = (2 * self.pieces.len()).next_power_of_two().ilog2();
        while bits <= format::HASH_BITS_MAX {
            let mask = (1 << bits) - 1;
            let mut slots = vec![0_u32; mask + 1];
            let mut longest = 0;
            for (id, piece) in (0_u32..).zip(&self.pieces) {
                let hash = format::hash(piece.as_bytes());
                let mut step = 0;
                while slots[(hash as usize).wrapping_add(step) & mask] != 0 {
                    step += 1;
                }
                slots[(hash as usize).wrapping_add(step) & mask] =
                    format::fingerprint(hash) << format::SLOT_ID_BITS | (id + 1);
                longest = longest.max(step + 1);
                if longest > PROBE_GOAL {
                    break;
                }
            }
            // A look-up that finds nothing ends at an empty slot or after the longest run that a piece needed.
            if longest <= PROBE_GOAL {
                return Ok((slots, longest));
            }
            bits += 1;
        }
        Err(BuildError::Unsupported {
            what: "the vocabulary",
            found: "one whose texts collide in the hash".into(),
        })
    }

    /// First id and number of the pieces `<NAME0…0>`, `<NAME0…1>`, … that follow each other.
    fn numbered(&self, ids: &HashMap<&str, u32>, name: &str, digits: usize) -> (u32, u32) {
        let spelled = |index: usize| format!("<{name}{index:0digits$}>");
        let Some(&first) = ids.get(spelled(0).as_str()) else { return (0, 0) };
        let pieces = &self.pieces[first as usize..];
        let count = pieces.iter().enumerate().take_while(|(index, piece)| **piece == spelled(*index)).count();
        (first, count as u32)
    }
}

fn le_bytes(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}
