//! Checkpoints of models for retrieval, such as ColPali: a PaliGemma, and a matrix behind its decoder.
//!
//! Two programs save them. colpali-engine writes `custom_text_proj` beside a PaliGemma within `model.`, and a
//! `config.json` that is PaliGemma's; transformers writes `embedding_proj_layer` beside `vlm.`, and a `config.json`
//! with PaliGemma's in `vlm_config`. Names come out as one ([`classic`](palmtop::model::tensors::classic)). What
//! neither says is how questions are to be worded, so a conversion can be told.

use std::path::Path;
use std::str::FromStr;

use palmtop::model::retrieval::{QueryMask, Retrieval};
use palmtop::model::tensors::RETRIEVAL;

use super::Checkpoint;
use crate::ConvertError;
use crate::json::{self, Section};

/// How questions are worded, where a checkpoint should be read otherwise than transformers' `ColPaliProcessor` reads
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// What stands around a question.
    pub form: Option<QueryForm>,
    /// Which rows of a question see which.
    pub mask: Option<QueryMask>,
    /// Begin-of-sequence tokens behind a page's picture, 1 or 2.
    pub document_bos: Option<usize>,
}

/// What stands around a question: what programs have done at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryForm {
    /// `Question: …`, ten pads, newline: transformers, and colpali-engine up to 0.3.3.
    Question,
    /// `Query: …`, ten pads, newline: colpali-engine 0.3.4 to 0.3.10.
    Query,
    /// The question itself and ten pads: colpali-engine from 0.3.11 on.
    Plain,
}

impl QueryForm {
    const ALL: [(&'static str, Self); 3] =
        [("question", Self::Question), ("query", Self::Query), ("plain", Self::Plain)];

    fn apply(self, retrieval: &mut Retrieval) {
        let (prefix, end) = match self {
            Self::Question => ("Question: ", "\n"),
            Self::Query => ("Query: ", "\n"),
            Self::Plain => ("", ""),
        };
        (retrieval.query_prefix, retrieval.query_end) = (prefix.to_owned(), end.to_owned());
        retrieval.query_pads = 10;
    }
}

impl FromStr for QueryForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, form)| *form).ok_or_else(|| {
            format!("unknown form of questions '{text}': use question, query or plain (docs/retrieval.md)")
        })
    }
}

/// What a checkpoint is for retrieval, if it is a model for it: `stated` is the size of vectors that its configuration
/// has, for a configuration of such a model.
pub(crate) fn read(
    folder: &Path,
    weights: &Checkpoint,
    stated: Option<usize>,
    asking: &Asking,
) -> Result<Option<Retrieval>, ConvertError> {
    let found = weights.shape(RETRIEVAL).and_then(|shape| shape.first().copied());
    let Some(dim) = stated.or(found) else {
        return match *asking == Asking::default() {
            true => Ok(None),
            false => Err(ConvertError::NotForRetrieval { path: folder.to_owned() }),
        };
    };
    let mut retrieval = Retrieval::new(dim);
    let path = folder.join("processor_config.json");
    let value = json::read_if_there(&path)?;
    let processor = Section::new(&path, value.as_ref());
    if let Some(prompt) = processor.text("visual_prompt_prefix")? {
        retrieval.document_prompt = format!("{prompt}\n");
    }
    if let Some(prefix) = processor.text("query_prefix")? {
        retrieval.query_prefix = prefix.to_owned();
    }
    asking.form.iter().for_each(|form| form.apply(&mut retrieval));
    retrieval.query_mask = asking.mask.unwrap_or(retrieval.query_mask);
    retrieval.document_bos = asking.document_bos.unwrap_or(retrieval.document_bos);
    Ok(Some(retrieval))
}

/// What is worth knowing of how such a model will be asked.
pub(crate) fn note(retrieval: &Retrieval) -> String {
    let Retrieval { query_prefix, query_pads, query_end, query_mask, .. } = retrieval;
    format!(
        "it makes vectors for retrieval: a question becomes {:?}, and its rows see {}; --query-form and --query-mask \
         change it. What it answers in words is of no use",
        format!("<bos>{query_prefix}…{}{query_end}", "<pad>".repeat(*query_pads)),
        match query_mask {
            QueryMask::Whole => "each other",
            QueryMask::Causal => "those before them",
        }
    )
}
