//! `tokenizer.model`, the file of sentencepiece, when a checkpoint has no `tokenizer.json`.
//!
//! The result is that of transformers' `GemmaConverter`: scores become merges, the byte piece `<0x09>` becomes a
//! tab character, control pieces become special tokens, user-defined pieces become added tokens.

use std::collections::HashMap;

use palmtop::tokenizer::format;

use super::added::{AddedFiles, usual_behaviour};
use super::vocabulary::check_count;
use super::{AddedToken, BuildError, Merge, Vocabulary};

/// Reads a `tokenizer.model`, and lays the folder's other files over it.
///
/// If neither has `<image>`, it is added behind the last piece, as transformers' `PaliGemmaProcessor` does.
///
/// # Errors
/// A broken file, contradictions in the vocabulary, or anything that a table cannot express.
pub fn parse(bytes: &[u8], files: &AddedFiles) -> Result<Vocabulary, BuildError> {
    let model = ModelProto::read(bytes)?;
    model.check_kind()?;
    let scores: Vec<f32> = model.pieces.iter().map(|piece| piece.score).collect();
    let mut unk_id = None;
    let mut added = Vec::new();
    for (id, piece) in (0..).zip(&model.pieces) {
        let special = match piece.kind {
            PieceKind::Unknown => {
                unk_id = unk_id.or(Some(id));
                true
            }
            PieceKind::Control => true,
            // These delimit a dialogue; GemmaConverter makes them special though the model does not say so.
            PieceKind::UserDefined => ["<start_of_turn>", "<end_of_turn>"].contains(&piece.text.as_str()),
            PieceKind::Other => continue,
        };
        added.push((id, piece.text.clone(), AddedToken { special, ..AddedToken::default() }));
    }
    let Some(unk_id) = unk_id else {
        return Err(BuildError::Unsupported { what: "the unknown token", found: "missing".into() });
    };
    let texts = model.pieces.into_iter().map(|piece| match piece.text.as_str() {
        "<0x09>" => "\t".to_owned(),
        _ => piece.text,
    });
    let mut vocabulary = Vocabulary {
        pieces: Vocabulary::order_pieces(texts.zip(0..).collect())?,
        unk_id,
        fuse_unk: true,
        byte_fallback: true,
        splits_at_space: true,
        ..Vocabulary::default()
    };
    let merges = merges_by_score(&vocabulary, &scores)?;
    vocabulary.set_merges(merges);
    vocabulary.add_tokens(added, |_, token, _| token)?;
    files.overlay(&mut vocabulary)?;

    let has = |vocabulary: &Vocabulary, text: &str| vocabulary.pieces.iter().any(|piece| piece == text);
    if has(&vocabulary, "<loc0000>") && !has(&vocabulary, "<image>") {
        let token = (vocabulary.pieces.len() as u32, "<image>".to_owned(), usual_behaviour("<image>"));
        vocabulary.add_tokens(vec![token], |_, token, _| token)?;
    }
    Ok(vocabulary)
}

/// Every way to make a piece of two others, ranked as transformers' `generate_merges` ranks them: by falling
/// score of the piece, then falling numbers of characters of the left and of the right part, then in the order
/// of the pieces and, within one, of the parts' ids.
fn merges_by_score(vocabulary: &Vocabulary, scores: &[f32]) -> Result<Vec<Merge>, BuildError> {
    let ids: HashMap<&str, u32> = vocabulary.ids_by_text()?;
    let mut splits = Vec::new();
    for (piece, text) in (0..).zip(&vocabulary.pieces) {
        let chars = text.chars().count();
        for (left_chars, (left_bytes, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(left_bytes);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                let merge = Merge { piece, left_bytes: left_bytes as u16, rank: 0 };
                splits.push((scores[piece as usize], left_chars, chars - left_chars, left, right, merge));
            }
        }
        check_count("merges", splits.len(), format::MERGES_MAX)?;
    }
    splits.sort_by(|a, b| {
        (b.0.total_cmp(&a.0))
            .then(b.1.cmp(&a.1))
            .then(b.2.cmp(&a.2))
            .then(a.5.piece.cmp(&b.5.piece))
            .then((a.3, a.4).cmp(&(b.3, b.4)))
    });
    Ok((0..).zip(splits).map(|(rank, split)| Merge { rank, ..split.5 }).collect())
}

/// The parts of sentencepiece's `ModelProto` that matter here.
struct ModelProto {
    pieces: Vec<Piece>,
    model_type: u64,
    byte_fallback: bool,
    blank_as_suffix: bool,
    charsmap: bool,
    dummy_prefix: bool,
    remove_extra_blanks: bool,
    escape_blanks: bool,
}

struct Piece {
    text: String,
    score: f32,
    kind: PieceKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Unknown,
    Control,
    UserDefined,
    /// Normal, unused and byte pieces are treated alike; a byte piece is known by its text.
    Other,
}

impl ModelProto {
    fn read(bytes: &[u8]) -> Result<Self, BuildError> {
        // The defaults of sentencepiece_model.proto.
        let mut model = Self {
            pieces: Vec::new(),
            model_type: 1,
            byte_fallback: false,
            blank_as_suffix: false,
            charsmap: false,
            dummy_prefix: true,
            remove_extra_blanks: true,
            escape_blanks: true,
        };
        let mut fields = Fields { bytes, at: 0, base: 0 };
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    check_count("pieces", model.pieces.len() + 1, format::PIECES_MAX)?;
                    model.pieces.push(Piece::read(fields.message(value)?)?);
                }
                2 => model.read_trainer(fields.message(value)?)?,
                3 => model.read_normalizer(fields.message(value)?)?,
                _ => {}
            }
        }
        Ok(model)
    }

    fn read_trainer(&mut self, mut fields: Fields<'_>) -> Result<(), BuildError> {
        while let Some((number, value)) = fields.next()? {
            match number {
                3 => self.model_type = fields.varint(value)?,
                24 => self.blank_as_suffix = fields.varint(value)? != 0,
                35 => self.byte_fallback = fields.varint(value)? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, mut fields: Fields<'_>) -> Result<(), BuildError> {
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => self.charsmap = !fields.message(value)?.bytes.is_empty(),
                3 => self.dummy_prefix = fields.varint(value)? != 0,
                4 => self.remove_extra_blanks = fields.varint(value)? != 0,
                5 => self.escape_blanks = fields.varint(value)? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_kind(&self) -> Result<(), BuildError> {
        let unsupported = |what, found: &str| Err(BuildError::Unsupported { what, found: found.into() });
        match self.model_type {
            2 => {}
            1 => return unsupported("the model", "Unigram"),
            3 => return unsupported("the model", "Word"),
            4 => return unsupported("the model", "Char"),
            _ => return unsupported("the model", "of an unknown type"),
        }
        if !self.byte_fallback {
            return unsupported("the model", "BPE without byte fallback");
        }
        if self.charsmap {
            return unsupported("the normalizer", "one that maps characters");
        }
        if self.dummy_prefix || self.remove_extra_blanks || self.blank_as_suffix || !self.escape_blanks {
            return unsupported("the normalizer", "one that adds, removes or moves blanks");
        }
        Ok(())
    }
}

impl Piece {
    fn read(mut fields: Fields<'_>) -> Result<Self, BuildError> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Other };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, value) => {
                    let text = fields.message(value)?;
                    piece.text = std::str::from_utf8(text.bytes)
                        .map_err(|_| fields.error("a piece is not valid UTF-8"))?
                        .to_owned();
                }
                (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (2, _) => return Err(fields.error("a score is not a number")),
                (3, value) => {
                    piece.kind = match fields.varint(value)? {
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        _ => PieceKind::Other,
                    }
                }
                _ => {}
            }
        }
        if piece.score.is_nan() {
            return Err(fields.error("a score is not a number"));
        }
        Ok(piece)
    }
}

/// The fields of one protobuf message, one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` starts in the file.
    base: usize,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    /// With where it starts in the message.
    Bytes(&'a [u8], usize),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, BuildError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let key = self.read_varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.read_varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.read_varint()?).unwrap_or(usize::MAX);
                let start = self.at;
                Value::Bytes(self.take(length)?, start)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err(self.error("a field has an unknown wire type")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn message(&self, value: Value<'a>) -> Result<Fields<'a>, BuildError> {
        match value {
            Value::Bytes(bytes, start) => Ok(Fields { bytes, at: 0, base: self.base + start }),
            _ => Err(self.error("a field that should be a string or a message is a number")),
        }
    }

    fn varint(&self, value: Value<'a>) -> Result<u64, BuildError> {
        match value {
            Value::Varint(number) => Ok(number),
            _ => Err(self.error("a field that should be a whole number is something else")),
        }
    }

    fn read_varint(&mut self) -> Result<u64, BuildError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.error("a number has more than 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BuildError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("it ends in the middle of a field"))?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn error(&self, what: &'static str) -> BuildError {
        BuildError::Protobuf { offset: self.base + self.at, what }
    }
}
