//! The common form of a tokenizer that both kinds of file describe.

use std::collections::{BTreeMap, HashMap};

use palmtop::tokenizer::format;

use super::BuildError;

/// Pieces, merges and added tokens, whichever file they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// The text of every piece; its index is its id.
    pub pieces: Vec<String>,
    /// Which two parts may become which piece, and in what order; sorted by piece and left part, each split once.
    pub merges: Vec<Merge>,
    /// The pieces that are cut out of a text before BPE, by id.
    pub added: BTreeMap<u32, AddedToken>,
    /// The piece for characters that nothing else can spell.
    pub unk_id: u32,
    /// Adjacent unknown characters become one unknown token.
    pub fuse_unk: bool,
    /// Characters without a piece are spelled by their bytes.
    pub byte_fallback: bool,
    /// The pre-tokenizer is a split at blanks instead of none; neither has an effect.
    pub splits_at_space: bool,
}

/// One way to make a piece of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Merge {
    /// The piece that is made.
    pub piece: u32,
    /// Bytes of its left part.
    pub left_bytes: u16,
    /// The merge of lowest rank is done first.
    pub rank: u32,
}

/// How an added token behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddedToken {
    /// Dropped when special tokens are skipped.
    pub special: bool,
    /// Looked for in the normalised text instead of the raw one.
    pub normalized: bool,
    /// Takes the white space before it along.
    pub strips_left: bool,
    /// Takes the white space behind it along.
    pub strips_right: bool,
}

impl Vocabulary {
    /// Puts the pieces of a file in the order of their ids.
    ///
    /// # Errors
    /// A piece or an id that occurs twice, a missing id, more pieces than a table holds, or a piece that is empty
    /// or too long.
    pub fn order_pieces(pieces: Vec<(String, u32)>) -> Result<Vec<String>, BuildError> {
        check_count("pieces", pieces.len(), format::PIECES_MAX)?;
        let mut ordered = vec![None; pieces.len()];
        for (piece, id) in pieces {
            check_piece(&piece)?;
            // An id beyond the end means that a smaller one is missing, which is found below.
            if let Some(slot) = ordered.get_mut(id as usize)
                && slot.is_some()
            {
                return Err(BuildError::ConflictingId { id, piece });
            } else if let Some(slot) = ordered.get_mut(id as usize) {
                *slot = Some(piece);
            }
        }
        (0..).zip(ordered).map(|(id, piece)| piece.ok_or(BuildError::MissingId { id })).collect()
    }

    /// Adds tokens (id, text, behaviour) to the vocabulary: new ones at its end, others to the pieces they are.
    ///
    /// # Errors
    /// An id that contradicts the vocabulary, or a hole between its end and a new token.
    pub fn add_tokens(
        &mut self,
        mut tokens: Vec<(u32, String, AddedToken)>,
        mut keep: impl FnMut(u32, AddedToken, Option<AddedToken>) -> AddedToken,
    ) -> Result<(), BuildError> {
        tokens.sort_by_key(|(id, ..)| *id);
        for (id, text, token) in tokens {
            check_piece(&text)?;
            match self.pieces.get(id as usize) {
                Some(piece) if *piece == text => {}
                Some(_) => return Err(BuildError::ConflictingId { id, piece: text }),
                None if id as usize == self.pieces.len() => {
                    check_count("pieces", self.pieces.len() + 1, format::PIECES_MAX)?;
                    self.pieces.push(text);
                }
                None => return Err(BuildError::MissingId { id: self.pieces.len() as u32 }),
            }
            let token = keep(id, token, self.added.get(&id).copied());
            self.added.insert(id, token);
        }
        Ok(())
    }

    /// Keeps one merge for each split of a piece, the last in the file, as Hugging Face's tokenizers do.
    pub(super) fn set_merges(&mut self, mut merges: Vec<Merge>) {
        merges.sort_unstable();
        merges.dedup_by(|later, earlier| {
            let same = (later.piece, later.left_bytes) == (earlier.piece, earlier.left_bytes);
            if same {
                earlier.rank = later.rank;
            }
            same
        });
        self.merges = merges;
    }

    /// Finds pieces by text.
    ///
    /// # Errors
    /// A text that occurs twice.
    pub fn ids_by_text(&self) -> Result<HashMap<&str, u32>, BuildError> {
        let mut ids = HashMap::with_capacity(self.pieces.len());
        for (id, piece) in (0..).zip(&self.pieces) {
            if ids.insert(piece.as_str(), id).is_some() {
                return Err(BuildError::DuplicatePiece { piece: piece.clone() });
            }
        }
        Ok(ids)
    }
}

fn check_piece(piece: &str) -> Result<(), BuildError> {
    let why = match piece.len() {
        0 => "it is empty",
        1..=format::PIECE_BYTES_MAX => return Ok(()),
        _ => "it is longer than 1024 bytes",
    };
    Err(BuildError::BadPiece { piece: piece.chars().take(40).collect(), why })
}

pub(super) fn check_count(what: &'static str, found: usize, max: usize) -> Result<(), BuildError> {
    if found > max {
        return Err(BuildError::TooLarge { what, found: found as u64, max: max as u64 });
    }
    Ok(())
}
