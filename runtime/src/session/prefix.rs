//! A prefix computed for somebody else: keys and values of every layer, and the rows that come out of the decoder, for
//! a model that attends to them, such as an action expert.

use std::time::Instant;

use super::prompts::Wording;
use super::sequence::Phase;
use super::{GenerateOptions, Session, check_there_is};
use crate::engine::features::ImageFeatures;
use crate::engine::span::{Batch, Pictures, Sees, Span};
use crate::engine::trace::Trace;
use crate::engine::wanted::{RowsOut, Wanted};
use crate::error::{Error, Result, UsageError};
use crate::model::Model;
use crate::system::memory::{Purpose, Reserve};

/// What a [`Prefix`] has room for, and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefixLimits {
    /// Pictures, missing ones included.
    pub pictures: usize,
    /// Tokens of the text, begin-of-sequence and newline included.
    pub tokens: usize,
    /// Keep keys and values.
    pub keys_values: bool,
    /// Keep the rows that come out of the decoder. Without them, the last layer ends with its keys and values.
    pub hidden: bool,
}

impl Default for PrefixLimits {
    fn default() -> Self {
        Self { pictures: 1, tokens: 256, keys_values: true, hidden: true }
    }
}

/// The text of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixText<'a> {
    /// As everywhere: `<bos>` stands before it, and a newline behind.
    Prompt(&'a str),
    /// `<bos>` stands before it, and nothing behind.
    Open(&'a str),
    /// Tokens as they are, none added; there may be none.
    Tokens(&'a [u32]),
}

/// Rows of pictures and a text that all see each other, computed by [`Session::prefix`], in memory that is made once.
///
/// Rows are those of all pictures, picture after picture, and then those of the text. Rows of a missing picture are
/// zeros, and the [mask](Self::mask) says that they are not there. All arrays are row-major, without gaps.
pub struct Prefix {
    limits: PrefixLimits,
    rows_max: usize,
    /// Layers, key-value heads, numbers of a head.
    layers: [usize; 3],
    width: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    hidden: Vec<f32>,
    mask: Vec<bool>,
    positions: Vec<i32>,
    /// Of the rows that are there: where they stand.
    places: Vec<u32>,
    /// [`Model::fingerprint`]
    model: u64,
}

impl Prefix {
    /// Takes the memory, or counts it.
    fn new(reserve: &mut Reserve, model: &Model, limits: &PrefixLimits) -> Result<Self> {
        let t = &model.config().text;
        let rows_max =
            limits.pictures.saturating_mul(model.config().image_rows()).saturating_add(limits.tokens);
        let kept = if limits.keys_values { t.layers * t.kv_heads * t.head_dim } else { 0 };
        let width = if limits.hidden { t.hidden } else { 0 };
        Ok(Self {
            limits: *limits,
            rows_max,
            layers: [t.layers, t.kv_heads, t.head_dim],
            width: t.hidden,
            keys: reserve.filled(rows_max.saturating_mul(kept), 0.0)?,
            values: reserve.filled(rows_max.saturating_mul(kept), 0.0)?,
            hidden: reserve.filled(rows_max.saturating_mul(width), 0.0)?,
            mask: reserve.list(rows_max)?,
            positions: reserve.list(rows_max)?,
            places: reserve.list(rows_max)?,
            model: model.fingerprint(),
        })
    }

    /// What it has room for.
    pub fn limits(&self) -> &PrefixLimits {
        &self.limits
    }

    /// Rows of all pictures and of the text; 0 before the first call, and after one that failed.
    pub fn rows(&self) -> usize {
        self.mask.len()
    }

    /// Shape of [`keys`](Self::keys) and [`values`](Self::values): layers, rows, key-value heads, numbers of a head.
    pub fn shape(&self) -> [usize; 4] {
        let [layers, kv_heads, head_dim] = self.layers;
        [layers, self.rows(), kv_heads, head_dim]
    }

    /// Keys behind the rotary embedding, `[layers, rows, kv_heads, head_dim]`. The key of a row at position p is turned
    /// by p steps: that of position 0 not at all. Empty if they are not kept.
    pub fn keys(&self) -> &[f32] {
        &self.keys[..if self.limits.keys_values { self.shape().iter().product() } else { 0 }]
    }

    /// Values, `[layers, rows, kv_heads, head_dim]`. Empty if they are not kept.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.keys().len()]
    }

    /// Shape of [`hidden`](Self::hidden): rows, decoder width.
    pub fn hidden_shape(&self) -> [usize; 2] {
        [self.rows(), self.width]
    }

    /// Rows behind the decoder's last norm, `[rows, decoder width]`. Empty if they are not kept.
    pub fn hidden(&self) -> &[f32] {
        &self.hidden[..if self.limits.hidden { self.rows() * self.width } else { 0 }]
    }

    /// Which rows are there, `[rows]`: not those of missing pictures.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Position of each row, `[rows]`: how many rows that are there stand before it. Rows of a missing picture have the
    /// position of the last row that is there, or -1 before all.
    pub fn positions(&self) -> &[i32] {
        &self.positions
    }

    /// The position of what comes behind: how many rows are there.
    pub fn next_position(&self) -> usize {
        self.places.len()
    }

    fn clear(&mut self) {
        self.mask.clear();
        self.positions.clear();
        self.places.clear();
    }

    /// Lays out pictures of `image_rows` rows each, and tokens.
    fn arrange(&mut self, pictures: &[Option<&ImageFeatures>], image_rows: usize, tokens: usize) {
        self.clear();
        let pictures = pictures.iter().map(|picture| (picture.is_some(), image_rows));
        for (is_there, rows) in pictures.chain([(true, tokens)]) {
            for _ in 0..rows {
                if is_there {
                    self.places.push(self.mask.len() as u32);
                }
                self.positions.push(self.places.len() as i32 - 1);
                self.mask.push(is_there);
            }
        }
    }

    /// Makes zeros of the rows of missing pictures.
    fn blank(&mut self, pictures: &[Option<&ImageFeatures>], image_rows: usize) {
        let [layers, kv_heads, head_dim] = self.layers;
        let (rows, width) = (self.rows(), self.width);
        for (picture, _) in pictures.iter().enumerate().filter(|(_, picture)| picture.is_none()) {
            let missing = picture * image_rows..(picture + 1) * image_rows;
            if self.limits.keys_values {
                let of_row = kv_heads * head_dim;
                for layer in 0..layers {
                    let at = (layer * rows + missing.start) * of_row..(layer * rows + missing.end) * of_row;
                    self.keys[at.clone()].fill(0.0);
                    self.values[at].fill(0.0);
                }
            }
            if self.limits.hidden {
                self.hidden[missing.start * width..missing.end * width].fill(0.0);
            }
        }
    }
}

impl Model {
    /// The bytes of a [`Prefix`] with these limits, which come on top of a session's plan.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for more than this machine could address.
    pub fn plan_prefix(&self, limits: &PrefixLimits) -> Result<usize> {
        let reserve = &mut Reserve::counting();
        Prefix::new(reserve.for_purpose(Purpose::Features), self, limits)?;
        match reserve.total() {
            bytes if bytes > isize::MAX as usize => Err(Error::OutOfMemory { bytes }),
            bytes => Ok(bytes),
        }
    }

    /// Memory for a prefix, for any session of this model.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]
    pub fn new_prefix(&self, limits: &PrefixLimits) -> Result<Prefix> {
        check_there_is(self.plan_prefix(limits)?)?;
        Prefix::new(&mut Reserve::taking(true), self, limits)
    }
}

impl Session {
    /// Runs pictures, any of which may be missing, and a text through the decoder, all rows seeing each other, and
    /// keeps in `out` what others need to attend to them: f32 as it was computed. A missing picture costs nothing.
    ///
    /// ```no_run
    /// # use palmtop::{GenerateOptions, Limits, Model, PrefixLimits, PrefixText, Session};
    /// # fn main() -> palmtop::Result<()> {
    /// # let model = Model::open("pi05-base.palm".as_ref())?;
    /// # let mut session = Session::new(&model, &Limits::default())?;
    /// # let (base, wrist) = (session.new_features()?, session.new_features()?);
    /// # let options = GenerateOptions::default();
    /// let mut room = PrefixLimits::default();
    /// (room.pictures, room.tokens) = (3, 200);
    /// let mut prefix = model.new_prefix(&room)?;
    /// let text = PrefixText::Open("Task: fold the shirt, State: 12 255 7;\nAction: ");
    /// session.prefix(&[Some(&base), Some(&wrist), None], text, &options, &mut prefix)?;
    /// let [layers, rows, kv_heads, head_dim] = prefix.shape();
    /// assert_eq!(prefix.keys().len(), layers * rows * kv_heads * head_dim);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The prefix needs one of the session's sequences to be free, and leaves those that run as they are. Of `options`
    /// only the cancellation and the deadline are looked at. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::Usage`], before anything is computed: for more pictures or tokens than the session or `out` has room
    /// for, nothing at all, features that hold no picture or are another model's, a `Prefix` of another model, and
    /// sequences that are all taken. [`Error::Cancelled`] and [`Error::DeadlinePassed`]. `out` then has no rows.
    pub fn prefix(
        &mut self,
        pictures: &[Option<&ImageFeatures>],
        text: PrefixText<'_>,
        options: &GenerateOptions,
        out: &mut Prefix,
    ) -> Result<()> {
        out.clear();
        let done = self.prefix_into(pictures, text, options, out);
        if done.is_err() {
            out.clear();
        }
        done
    }

    fn prefix_into(
        &mut self,
        pictures: &[Option<&ImageFeatures>],
        text: PrefixText<'_>,
        options: &GenerateOptions,
        out: &mut Prefix,
    ) -> Result<()> {
        let start = Instant::now();
        if out.model != self.model.fingerprint() {
            return Err(UsageError::PrefixOfAnotherModel.into());
        }
        self.check_pictures(pictures.len(), 0)?;
        pictures.iter().flatten().try_for_each(|picture| picture.check_encoded(&self.model))?;
        let sequence = self.free_sequence()?;
        let tokens = match text {
            PrefixText::Prompt(text) => self.prompts.tokenize(&self.model, text)?,
            PrefixText::Open(text) => {
                let wording = Wording { end: "", ..Wording::prompt(text) };
                self.prompts.word(&self.model, wording)?
            }
            PrefixText::Tokens(tokens) => {
                self.prompts.check(&self.model, tokens)?;
                tokens
            }
        };
        let image_rows = self.model.config().image_rows();
        let (rows, most) = (pictures.len() * image_rows + tokens.len(), out.rows_max);
        if !(1..=most).contains(&rows) {
            return Err(UsageError::PrefixRows { rows, most }.into());
        }
        out.arrange(pictures, image_rows, tokens.len());
        if out.places.is_empty() {
            return Err(UsageError::EmptyPrefix.into());
        }
        out.blank(pictures, image_rows);
        let present = pictures.iter().flatten().count();
        let span = Span {
            sequence,
            position: 0,
            pictures: present,
            tokens: tokens.len(),
            sees: Sees::Whole,
            logits: 0,
        };
        let [keys, hidden] = [out.keys().len(), out.hidden().len()];
        let wanted = Wanted::Rows(RowsOut {
            places: &out.places,
            rows,
            hidden: &mut out.hidden[..hidden],
            keys: &mut out.keys[..keys],
            values: &mut out.values[..keys],
        });
        // As openpi counts: the first row is at 0.
        let batch = Batch { spans: &[span], pictures: Pictures::Present(pictures), tokens, first_angle: 0 };
        self.engine.forward(batch, wanted, &options.control(), &mut Trace::off())?;
        self.timings.rows = start.elapsed();
        Ok(())
    }

    /// A sequence whose keys and values nobody needs.
    pub(super) fn free_sequence(&self) -> Result<usize, UsageError> {
        let free = self.sequences.iter().position(|s| s.phase == Phase::Free);
        free.ok_or(UsageError::NoFreeSequence { batch: self.limits.batch })
    }
}
