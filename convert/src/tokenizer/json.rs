//! `tokenizer.json`, the file of Hugging Face's tokenizers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use palmtop::tokenizer::format;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::vocabulary::check_count;
use super::{AddedToken, BuildError, Merge, Vocabulary};

/// Reads a `tokenizer.json`.
///
/// # Errors
/// Broken JSON, contradictions in the vocabulary, or anything that a table cannot express.
pub fn parse(bytes: &[u8]) -> Result<Vocabulary, BuildError> {
    let file: File<'_> = serde_json::from_slice(bytes)
        .map_err(|source| BuildError::Json { file: "tokenizer.json", source })?;
    let splits_at_space = file.check_pipeline()?;
    let unk_token = file.model.check_kind()?.to_owned();

    let pairs = file.model.vocab.0.into_iter().map(|(text, id)| (text.0.into_owned(), id)).collect();
    let mut vocabulary = Vocabulary {
        pieces: Vocabulary::order_pieces(pairs)?,
        fuse_unk: file.model.fuse_unk,
        byte_fallback: file.model.byte_fallback,
        splits_at_space,
        ..Vocabulary::default()
    };
    let ids = vocabulary.ids_by_text()?;
    let unk_id = *ids.get(unk_token.as_str()).ok_or(BuildError::BadPiece {
        piece: unk_token,
        why: "it is named as the unknown token, but is not in the vocabulary",
    })?;
    let merges = ranked_merges(&file.model.merges.0, &ids)?;
    vocabulary.unk_id = unk_id;
    vocabulary.set_merges(merges);

    let tokens = file.added_tokens.into_iter().map(AddedEntry::check).collect::<Result<_, _>>()?;
    vocabulary.add_tokens(tokens, |_, token, _| token)?;
    Ok(vocabulary)
}

/// An added token as `tokenizer.json` and `tokenizer_config.json` describe it.
#[derive(Debug, Deserialize)]
pub(super) struct AddedEntry {
    /// Absent from `tokenizer_config.json`, where it is the key.
    #[serde(default)]
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl AddedEntry {
    pub(super) fn with_id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    pub(super) fn check(self) -> Result<(u32, String, AddedToken), BuildError> {
        if self.single_word {
            let found = format!(
                "{:?}, which stands for whole words only; set its 'single_word' to false if prompts have it between \
                 blanks",
                self.content
            );
            return Err(BuildError::Unsupported { what: "an added token", found });
        }
        let token = AddedToken {
            special: self.special,
            normalized: self.normalized.unwrap_or(!self.special),
            strips_left: self.lstrip,
            strips_right: self.rstrip,
        };
        Ok((self.id, self.content, token))
    }
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(borrow, default)]
    vocab: Vocab<'a>,
    #[serde(borrow, default)]
    merges: Merges<'a>,
}

impl File<'_> {
    /// Refuses a pipeline that the table cannot express; tells whether the pre-tokenizer splits at blanks.
    fn check_pipeline(&self) -> Result<bool, BuildError> {
        let unsupported = |what, found: &Value| {
            let found = found.to_string().chars().take(300).collect();
            Err(BuildError::Unsupported { what, found })
        };
        let mut normalizers = Vec::new();
        flatten(&self.normalizer, &mut normalizers);
        let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        if normalizers != [&blanks] {
            let found: String = self.normalizer.to_string().chars().take(300).collect();
            let what = "palmtop applies only the one that turns blanks into U+2581: if the others change nothing in \
                        your prompts, save the tokenizer without the others";
            let found = format!("{found} ({what})");
            return Err(BuildError::Unsupported { what: "the normalizer", found });
        }
        let split = json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false
        });
        if !self.pre_tokenizer.is_null() && self.pre_tokenizer != split {
            return unsupported("the pre-tokenizer", &self.pre_tokenizer);
        }
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]});
        if self.decoder != decoder {
            return unsupported("the decoder", &self.decoder);
        }
        Ok(!self.pre_tokenizer.is_null())
    }
}

/// The steps of a normalizer, without the sequences that they stand in.
fn flatten<'a>(normalizer: &'a Value, out: &mut Vec<&'a Value>) {
    match normalizer["normalizers"].as_array() {
        Some(steps) if normalizer["type"] == "Sequence" => steps.iter().for_each(|step| flatten(step, out)),
        _ => out.push(normalizer),
    }
}

impl Model<'_> {
    /// Refuses other models than plain BPE; gives the text of the unknown token.
    fn check_kind(&self) -> Result<&str, BuildError> {
        let unsupported = |what, found: &str| Err(BuildError::Unsupported { what, found: found.into() });
        match self.kind.as_deref() {
            Some("BPE") => {}
            Some(kind) => return unsupported("the model", kind),
            None => return unsupported("the model", "of no named type"),
        }
        // Hugging Face's tokenizers take an empty affix for none.
        let affixes = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return unsupported("the model", "BPE with a prefix or suffix for parts of words");
        }
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return unsupported("the model", "BPE with dropout");
        }
        if self.ignore_merges {
            return unsupported("the model", "BPE that prefers whole words to merges");
        }
        match self.unk_token.as_deref() {
            Some(token) => Ok(token),
            None => unsupported("the unknown token", "missing"),
        }
    }
}

fn ranked_merges(merges: &[MergeText<'_>], ids: &HashMap<&str, u32>) -> Result<Vec<Merge>, BuildError> {
    check_count("merges", merges.len(), format::MERGES_MAX)?;
    let mut joined = String::new();
    let mut ranked = Vec::with_capacity(merges.len());
    for (rank, merge) in (0..).zip(merges) {
        let bad = |why| {
            let merge = match merge {
                MergeText::Line(line) => line.0.to_string(),
                MergeText::Pair(left, right) => format!("{} {}", left.0, right.0),
            };
            BuildError::BadMerge { merge, why }
        };
        let (left, right) = match merge {
            MergeText::Pair(left, right) => (&*left.0, &*right.0),
            MergeText::Line(line) => line
                .0
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .ok_or_else(|| bad("it is not two pieces with a blank between them"))?,
        };
        if !ids.contains_key(left) || !ids.contains_key(right) {
            return Err(bad("one of its parts is not in the vocabulary"));
        }
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let piece = *ids.get(joined.as_str()).ok_or_else(|| bad("what it makes is not in the vocabulary"))?;
        // Pieces are at most 1024 bytes long.
        ranked.push(Merge { piece, left_bytes: left.len() as u16, rank });
    }
    Ok(ranked)
}

/// A string that borrows from the file where it has no escapes.
struct Text<'a>(Cow<'a, str>);

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The vocabulary as it stands in the file, so that what occurs twice is noticed.
#[derive(Default)]
struct Vocab<'a>(Vec<(Text<'a>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VocabVisitor;
        impl<'a> Visitor<'a> for VocabVisitor {
            type Value = Vocab<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from pieces to ids")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Vocab<'a>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() == format::PIECES_MAX {
                        return Err(A::Error::custom("the vocabulary has more than 1048575 pieces"));
                    }
                    pairs.push(pair);
                }
                Ok(Vocab(pairs))
            }
        }
        deserializer.deserialize_map(VocabVisitor)
    }
}

#[derive(Default)]
struct Merges<'a>(Vec<MergeText<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Merges<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Merges)
    }
}

/// A merge in either of the forms that files have.
enum MergeText<'a> {
    /// `"left right"`.
    Line(Text<'a>),
    /// `["left", "right"]`.
    Pair(Text<'a>, Text<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for MergeText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'a> Visitor<'a> for MergeVisitor {
            type Value = MergeText<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two pieces in a string or in a list")
            }

            fn visit_borrowed_str<E>(self, line: &'a str) -> Result<MergeText<'a>, E> {
                Ok(MergeText::Line(Text(Cow::Borrowed(line))))
            }

            fn visit_str<E>(self, line: &str) -> Result<MergeText<'a>, E> {
                Ok(MergeText::Line(Text(Cow::Owned(line.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut parts: A) -> Result<MergeText<'a>, A::Error> {
                match (parts.next_element()?, parts.next_element()?, parts.next_element::<Text<'a>>()?) {
                    (Some(left), Some(right), None) => Ok(MergeText::Pair(left, right)),
                    _ => Err(A::Error::custom("a merge needs two pieces")),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}
