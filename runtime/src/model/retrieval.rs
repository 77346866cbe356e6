//! Retrieval: what a model that makes vectors of pictures and questions, such as ColPali, has beside a PaliGemma.
//!
//! The rows of the decoder behind its last norm go through one more matrix, to a few numbers each, and every row is
//! then divided by its length. A page is all of its rows; so is a question. How both are worded is part of the model:
//! another wording gives other vectors.

use std::str::FromStr;

use crate::format::{FormatError, Metadata, Value};

/// The retrieval head of a model, and how it was taught to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retrieval {
    /// Numbers of a vector; ColPali's have 128.
    pub dim: usize,
    /// How many begin-of-sequence tokens stand between a picture's rows and its prompt: 1, or 2 as some releases of
    /// colpali-engine have it.
    pub document_bos: usize,
    /// What stands behind them.
    pub document_prompt: String,
    /// What stands between begin-of-sequence and a question.
    pub query_prefix: String,
    /// How many padding tokens stand behind a question. They are seen, and each gives a vector: room to think of words
    /// that the question does not have.
    pub query_pads: usize,
    /// What stands behind them.
    pub query_end: String,
    /// Which rows of a question see which.
    pub query_mask: QueryMask,
}

/// Which rows of a question see which; those of a picture and its prompt all see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QueryMask {
    /// All see each other.
    #[default]
    Whole,
    /// Each sees itself and those before it.
    Causal,
}

impl QueryMask {
    const ALL: [Self; 2] = [Self::Whole, Self::Causal];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Causal => "causal",
        }
    }
}

impl FromStr for QueryMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mask| mask.name() == text);
        found.ok_or_else(|| format!("unknown mask of questions '{text}': use whole or causal"))
    }
}

/// No vector is wider.
const DIM_MAX: usize = 4096;
const BOS_MAX: usize = 2;
const PADS_MAX: usize = 256;
const TEXT_BYTES_MAX: usize = 1024;

const DIM: &str = "retrieval.dim";
const DOCUMENT_BOS: &str = "retrieval.document_bos";
const DOCUMENT_PROMPT: &str = "retrieval.document_prompt";
const QUERY_PREFIX: &str = "retrieval.query_prefix";
const QUERY_PADS: &str = "retrieval.query_pads";
const QUERY_END: &str = "retrieval.query_end";
const QUERY_MASK: &str = "retrieval.query_mask";

impl Retrieval {
    /// As transformers' `ColPaliProcessor` words pages and questions.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            document_bos: 1,
            document_prompt: "Describe the image.\n".to_owned(),
            query_prefix: "Question: ".to_owned(),
            query_pads: 10,
            query_end: "\n".to_owned(),
            query_mask: QueryMask::Whole,
        }
    }

    pub(super) fn to_metadata(&self, m: &mut Metadata) {
        m.set(DIM, self.dim);
        m.set(DOCUMENT_BOS, self.document_bos);
        m.set(DOCUMENT_PROMPT, self.document_prompt.as_str());
        m.set(QUERY_PREFIX, self.query_prefix.as_str());
        m.set(QUERY_PADS, self.query_pads);
        m.set(QUERY_END, self.query_end.as_str());
        m.set(QUERY_MASK, self.query_mask.name());
    }

    /// Whether a file's metadata is that of a model for retrieval, sound or not.
    pub fn is_named_in(m: &Metadata) -> bool {
        m.get(DIM).is_some()
    }

    /// The retrieval of a file that has one.
    pub(super) fn from_metadata(m: &Metadata) -> Result<Option<Self>, FormatError> {
        if !Self::is_named_in(m) {
            return Ok(None);
        }
        let wrong = |key, what: String| Metadata::wrong(key, &what);
        let retrieval = Self {
            dim: m.usize_in(DIM, 1..=DIM_MAX)?,
            document_bos: m.usize_in(DOCUMENT_BOS, 1..=BOS_MAX)?,
            document_prompt: m.text(DOCUMENT_PROMPT)?,
            query_prefix: m.text(QUERY_PREFIX)?,
            query_pads: m.usize_in(QUERY_PADS, 0..=PADS_MAX)?,
            query_end: m.text(QUERY_END)?,
            query_mask: match m.get(QUERY_MASK) {
                Some(Value::Text(name)) => name.parse().map_err(|what| wrong(QUERY_MASK, what))?,
                _ => return Err(wrong(QUERY_MASK, "is not a text".to_owned())),
            },
        };
        retrieval.check().map_err(|(key, what)| wrong(key, what))?;
        Ok(Some(retrieval))
    }

    /// Checks the values; gives the key at fault and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, value, least, most) in [
            (DIM, self.dim, 1, DIM_MAX),
            (DOCUMENT_BOS, self.document_bos, 1, BOS_MAX),
            (QUERY_PADS, self.query_pads, 0, PADS_MAX),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("is {value}, outside {least}..={most}")));
            }
        }
        for (key, text) in [
            (DOCUMENT_PROMPT, &self.document_prompt),
            (QUERY_PREFIX, &self.query_prefix),
            (QUERY_END, &self.query_end),
        ] {
            if text.len() > TEXT_BYTES_MAX {
                return Err((key, format!("has {} bytes, and may have {TEXT_BYTES_MAX}", text.len())));
            }
        }
        Ok(())
    }
}
