//! Vectors for retrieval: those of a page, which is a picture, and those of a question about many pages.

use std::time::Instant;

use super::answering::FIRST_ANGLE;
use super::prompts::{Prompts, Wording};
use super::{GenerateOptions, Session, check_there_is};
use crate::engine::features::ImageFeatures;
use crate::engine::span::{Batch, Pictures, Sees, Span};
use crate::engine::trace::Trace;
use crate::engine::wanted::Wanted;
use crate::error::{Error, Result, UsageError};
use crate::model::Model;
use crate::model::retrieval::{QueryMask, Retrieval};
use crate::system::memory::{Purpose, Reserve};

/// Vectors of a page or of a question, in memory that is made once: one for each row that went through the decoder, of
/// length 1.
///
/// How well a page fits a question is the sum, over the question's vectors, of the largest dot product with any of the
/// page's.
pub struct Embedding {
    values: Vec<f32>,
    dim: usize,
    rows: usize,
    image_rows: usize,
    /// [`Model::fingerprint`]
    model: u64,
}

impl Embedding {
    /// Vectors; 0 before the first call, and after one that failed.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a vector: [`Retrieval::dim`].
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// `[rows, dim]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.dim]
    }

    /// How many of the vectors, the first ones, are of the picture's own rows; those of the prompt follow. None are of
    /// a question's.
    pub fn image_rows(&self) -> usize {
        self.image_rows
    }

    /// Vectors that there is room for.
    pub fn rows_max(&self) -> usize {
        self.values.len() / self.dim
    }
}

impl Model {
    /// The bytes of an [`Embedding`] with room for so many vectors, which come on top of a session's plan.
    ///
    /// # Errors
    /// [`UsageError::NoRetrieval`]; [`Error::OutOfMemory`] for more than this machine could address.
    pub fn plan_embedding(&self, rows_max: usize) -> Result<usize> {
        let dim = self.retrieves()?.dim;
        match rows_max.saturating_mul(dim * size_of::<f32>()) {
            bytes if bytes > isize::MAX as usize => Err(Error::OutOfMemory { bytes }),
            bytes => Ok(bytes),
        }
    }

    /// Memory for so many vectors, for any session of this model.
    ///
    /// # Errors
    /// As [`plan_embedding`](Self::plan_embedding).
    pub fn new_embedding(&self, rows_max: usize) -> Result<Embedding> {
        check_there_is(self.plan_embedding(rows_max)?)?;
        let dim = self.retrieves()?.dim;
        let mut reserve = Reserve::taking(true);
        let values = reserve.for_purpose(Purpose::Features).filled(rows_max * dim, 0.0)?;
        Ok(Embedding { values, dim, rows: 0, image_rows: 0, model: self.fingerprint() })
    }

    /// Vectors of a page: one for each row of its picture, and of the prompt behind them.
    ///
    /// # Errors
    /// [`UsageError::NoRetrieval`]; what the tokenizer says of the prompt.
    pub fn page_rows(&self) -> Result<usize> {
        let wording = document(self.retrieves()?);
        // A text gives at most a token a byte.
        let tokens_max = wording.bos + wording.text.len();
        let tokens = Prompts::new(&mut Reserve::taking(false), tokens_max)?.word(self, wording)?.len();
        Ok(self.config().image_rows() + tokens)
    }

    fn retrieves(&self) -> Result<&Retrieval, UsageError> {
        self.retrieval().ok_or(UsageError::NoRetrieval)
    }
}

fn document(retrieval: &Retrieval) -> Wording<'_> {
    Wording { bos: retrieval.document_bos, before: "", text: &retrieval.document_prompt, pads: 0, end: "" }
}

impl Session {
    /// Memory for the vectors of a page, or of a question of as many tokens as the session has room for.
    ///
    /// # Errors
    /// As [`Model::plan_embedding`].
    pub fn new_embedding(&self) -> Result<Embedding> {
        self.model.new_embedding(self.model.config().image_rows() + self.limits.prompt_tokens)
    }

    /// Makes the vectors of a page: of all rows of its picture, and of the prompt behind them. Nothing is allocated.
    ///
    /// It needs one of the session's sequences to be free, and leaves those that run as they are. Of `options` only the
    /// cancellation and the deadline are looked at.
    ///
    /// # Errors
    /// [`Error::Usage`], before anything is computed: for a model that makes no vectors, features that hold no picture
    /// or are another model's, too little room, and sequences that are all taken. [`Error::Cancelled`] and
    /// [`Error::DeadlinePassed`]. `out` then has no vectors.
    pub fn embed_picture(
        &mut self,
        features: &ImageFeatures,
        options: &GenerateOptions,
        out: &mut Embedding,
    ) -> Result<()> {
        self.embed(Some(features), "", options, out)
    }

    /// Makes the vectors of a question: of all its rows, in the wording that the model was taught. As
    /// [`embed_picture`](Self::embed_picture).
    ///
    /// # Errors
    /// As [`embed_picture`](Self::embed_picture); for a question that is longer than
    /// [`Limits::prompt_tokens`](crate::Limits::prompt_tokens), its wording included.
    pub fn embed_query(
        &mut self,
        question: &str,
        options: &GenerateOptions,
        out: &mut Embedding,
    ) -> Result<()> {
        self.embed(None, question, options, out)
    }

    /// The vectors of a page, if there is a picture, or of a question.
    fn embed(
        &mut self,
        picture: Option<&ImageFeatures>,
        question: &str,
        options: &GenerateOptions,
        out: &mut Embedding,
    ) -> Result<()> {
        let start = Instant::now();
        (out.rows, out.image_rows) = (0, 0);
        let model = &self.model;
        let retrieval = model.retrieves()?;
        if out.model != model.fingerprint() {
            return Err(UsageError::EmbeddingOfAnotherModel.into());
        }
        picture.map_or(Ok(()), |picture| picture.check_encoded(model))?;
        let sequence = self.free_sequence()?;
        let of_question = Wording {
            bos: 1,
            before: &retrieval.query_prefix,
            text: question,
            pads: retrieval.query_pads,
            end: &retrieval.query_end,
        };
        let (wording, sees) = match (picture, retrieval.query_mask) {
            (Some(_), _) => (document(retrieval), Sees::Whole),
            (None, QueryMask::Whole) => (of_question, Sees::Whole),
            (None, QueryMask::Causal) => (of_question, Sees::Causal),
        };
        let tokens = self.prompts.word(model, wording)?;
        let image_rows = picture.map_or(0, |_| model.config().image_rows());
        let (rows, most) = (image_rows + tokens.len(), out.rows_max());
        if rows > most {
            return Err(UsageError::EmbeddingRows { rows, most }.into());
        }
        let pictures = usize::from(picture.is_some());
        let span = Span { sequence, position: 0, pictures, tokens: tokens.len(), sees, logits: 0 };
        let given = [picture];
        let batch =
            Batch { spans: &[span], pictures: Pictures::Present(&given), tokens, first_angle: FIRST_ANGLE };
        let vectors = &mut out.values[..rows * out.dim];
        self.engine.forward(batch, Wanted::Vectors(vectors), &options.control(), &mut Trace::off())?;
        (out.rows, out.image_rows) = (rows, image_rows);
        self.timings.rows = start.elapsed();
        Ok(())
    }
}
