//! Ids to text, one id at a time.

use super::table::Tokenizer;
use super::{TokenizerError, format};
use crate::error::Result;
use crate::system::memory::Reserve;

/// Turns ids into text as they come.
///
/// What [`Detokenizer::push`] and [`Detokenizer::finish`] append is together exactly what Hugging Face's
/// `decode` gives for the whole list. For that a run of byte pieces is held back until it ends: `decode` spells
/// the whole run as U+FFFD, one for each byte, if any part of it is not UTF-8.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    skip_special_tokens: bool,
    /// Bytes of the run of byte pieces that has not ended yet.
    run: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer that allocates nothing for lists of up to `ids_max` ids.
    ///
    /// `skip_special_tokens` drops `<image>`, `<bos>`, `<eos>`, `<pad>` and `<unk>`; location and segment
    /// tokens are not special and stay.
    pub fn with_capacity(ids_max: usize, skip_special_tokens: bool) -> Self {
        Self { skip_special_tokens, run: Vec::with_capacity(ids_max) }
    }

    /// The same for up to `ids_max` ids without special tokens, from a reserve.
    pub(crate) fn reserved(reserve: &mut Reserve, ids_max: usize) -> Result<Self> {
        Ok(Self { skip_special_tokens: true, run: reserve.list(ids_max)? })
    }

    /// Forgets what was held back, ready for another list.
    pub fn reset(&mut self, skip_special_tokens: bool) {
        self.skip_special_tokens = skip_special_tokens;
        self.run.clear();
    }

    /// Appends the text that has become certain with this id. An id without a piece is passed over.
    ///
    /// [`Tokenizer::decoded_bytes_max`] says how much room in `out` a whole list can need.
    ///
    /// # Errors
    /// [`TokenizerError::BadPiece`] if the table is damaged there.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer<'_>,
        id: u32,
        out: &mut String,
    ) -> Result<(), TokenizerError> {
        if id >= tokenizer.piece_count() {
            return Ok(());
        }
        let flags = tokenizer.piece_flags(id);
        if self.skip_special_tokens && flags & format::PIECE_SPECIAL != 0 {
            return Ok(());
        }
        let piece =
            tokenizer.piece(id).ok_or(TokenizerError::BadPiece { id, what: "it is not valid UTF-8" })?;
        if flags & format::PIECE_BYTE != 0
            && let Some(byte) = format::byte_of_piece(piece)
        {
            self.run.push(byte);
            return Ok(());
        }
        self.finish(out);
        out.extend(piece.chars().map(|c| if c == format::BLANK { ' ' } else { c }));
        Ok(())
    }

    /// Appends what is still held back, at the end of a list.
    pub fn finish(&mut self, out: &mut String) {
        match std::str::from_utf8(&self.run) {
            Ok(text) => out.push_str(text),
            Err(_) => out.extend(self.run.iter().map(|_| char::REPLACEMENT_CHARACTER)),
        }
        self.run.clear();
    }
}

impl Tokenizer<'_> {
    /// The most bytes that a list of `id_count` ids can decode to.
    pub fn decoded_bytes_max(&self, id_count: usize) -> usize {
        let per_id = self.piece_bytes_max().max(char::REPLACEMENT_CHARACTER.len_utf8());
        id_count.saturating_mul(per_id)
    }

    /// Appends the text of a whole list of ids.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn decode(
        &self,
        ids: &[u32],
        skip_special_tokens: bool,
        out: &mut String,
    ) -> Result<(), TokenizerError> {
        let mut detokenizer = Detokenizer::with_capacity(0, skip_special_tokens);
        for &id in ids {
            detokenizer.push(self, id, out)?;
        }
        detokenizer.finish(out);
        Ok(())
    }
}
