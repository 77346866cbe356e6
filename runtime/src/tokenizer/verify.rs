//! The full check of a table, for tools that inspect a file.

use super::TokenizerError;
use super::format::{self, NO_ID};
use super::table::{Tokenizer, range_at, u32_at};

impl Tokenizer<'_> {
    /// Checks every piece, merge and look-up of the table against the format.
    ///
    /// It reads the whole table. A table that passes gives the same ids as the vocabulary it was built from.
    ///
    /// # Errors
    /// The first inconsistency.
    pub fn verify(&self) -> Result<(), TokenizerError> {
        let mut bytes_max = 0;
        let (mut text_end, mut merge_end) = (0, 0);
        for id in 0..self.piece_count() {
            let bad = |what| Err(TokenizerError::BadPiece { id, what });
            let (Some(text), Some(merges)) =
                (range_at(self.text_starts, id as usize), range_at(self.merge_starts, id as usize))
            else {
                return bad("it has no entry");
            };
            if text.0 != text_end || text.1 <= text.0 {
                return bad("its text does not follow that of the piece before");
            }
            if merges.0 != merge_end || merges.1 < merges.0 {
                return bad("its merges do not follow those of the piece before");
            }
            (text_end, merge_end) = (text.1, merges.1);
            let Some(piece) = self.piece(id) else {
                return bad("its text is not valid UTF-8, or too long");
            };
            bytes_max = bytes_max.max(piece.len());
            if self.id_of(piece) != Some(id) {
                return bad("it is not found by its text");
            }
            self.verify_flags(id, piece)?;
            self.verify_merges(id, piece, merges)?;
        }
        if text_end != self.text.len() || merge_end * 4 != self.merge_ranks.len() {
            return Err(TokenizerError::BadHeader("there is text, or there are merges, without a piece"));
        }
        if bytes_max != self.piece_bytes_max() {
            return Err(TokenizerError::BadHeader("the length of the longest piece is wrong"));
        }
        self.verify_added(self.added_raw(), false)?;
        self.verify_added(self.added_normalized(), true)?;
        let added = |id: &u32| self.piece_flags(*id) & format::PIECE_ADDED != 0;
        if (0..self.piece_count()).filter(added).count() * 4 != self.added.len() {
            return Err(TokenizerError::BadHeader("the list of added tokens is not complete"));
        }
        self.verify_special_ids()
    }

    fn verify_flags(&self, id: u32, piece: &str) -> Result<(), TokenizerError> {
        let bad = |what| Err(TokenizerError::BadPiece { id, what });
        let flags = self.piece_flags(id);
        if flags & !format::PIECE_FLAGS != 0 {
            return bad("it has flags that version 1 does not have");
        }
        const OF_ADDED: u8 =
            format::PIECE_ADDED_NORMALIZED | format::PIECE_STRIPS_LEFT | format::PIECE_STRIPS_RIGHT;
        if flags & OF_ADDED != 0 && flags & format::PIECE_ADDED == 0 {
            return bad("it is matched as an added token but is none");
        }
        if (flags & format::PIECE_BYTE != 0) != format::byte_of_piece(piece).is_some() {
            return bad("its flags and its text do not agree on whether it is a byte");
        }
        Ok(())
    }

    fn verify_merges(&self, id: u32, piece: &str, merges: (usize, usize)) -> Result<(), TokenizerError> {
        let bad = |what| Err(TokenizerError::BadPiece { id, what });
        let mut before = 0;
        for index in merges.0..merges.1 {
            let Some(left) = self.merge_lefts.get(2 * index..2 * index + 2) else {
                return bad("its merges lie outside the table");
            };
            let left = usize::from(u16::from_le_bytes([left[0], left[1]]));
            if left <= before {
                return bad("its merges are not in order");
            }
            before = left;
            let Some((left, right)) = piece.split_at_checked(left) else {
                return bad("one of its merges cuts a character, or reaches beyond its text");
            };
            for part in [left, right] {
                let Some(part) = self.id_of(part) else {
                    return bad("one of its merges has a part that is not a piece");
                };
                if Some(part) == self.unk_id() || self.piece_flags(part) & format::PIECE_BYTE != 0 {
                    return bad("one of its merges has a part that cannot be merged");
                }
            }
        }
        Ok(())
    }

    fn verify_added(&self, ids: &[u8], normalized: bool) -> Result<(), TokenizerError> {
        let mut before: &[u8] = &[];
        for id in (0..ids.len() / 4).filter_map(|index| u32_at(ids, index)) {
            let bad = |what| Err(TokenizerError::BadPiece { id, what });
            let text = self.piece_bytes(id).unwrap_or_default();
            if text <= before || text.len() > format::ADDED_BYTES_MAX {
                return bad("it is not in its place among the added tokens, or too long for one");
            }
            before = text;
            let flags = self.piece_flags(id);
            if flags & format::PIECE_ADDED == 0 || (flags & format::PIECE_ADDED_NORMALIZED != 0) != normalized
            {
                return bad("its flags do not fit the list of added tokens that it is in");
            }
        }
        Ok(())
    }

    fn verify_special_ids(&self) -> Result<(), TokenizerError> {
        let spelled = |id: u32, text: &str| self.piece(id) == Some(text);
        let bad = |id, what| Err(TokenizerError::BadPiece { id, what });
        for byte in 0..=255_u8 {
            let id = u32_at(self.byte_ids, usize::from(byte)).unwrap_or(NO_ID);
            if id != NO_ID && !spelled(id, &format!("<0x{byte:02X}>")) {
                return bad(id, "a byte falls back to it, but it is spelled otherwise");
            }
        }
        for (index, id) in self.layout.loc.clone().enumerate() {
            if !spelled(id, &format!("<loc{index:04}>")) {
                return bad(id, "it is not the location token that the header says");
            }
        }
        for (index, id) in self.layout.seg.clone().enumerate() {
            if !spelled(id, &format!("<seg{index:03}>")) {
                return bad(id, "it is not the segment token that the header says");
            }
        }
        for (index, text) in [(4, "<image>"), (5, "\n")] {
            let id = self.layout.special_ids[index];
            if id != NO_ID && !spelled(id, text) {
                return bad(id, "it is not the special token that the header says");
            }
        }
        Ok(())
    }
}
