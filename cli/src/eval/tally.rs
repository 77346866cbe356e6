//! Scores each answer and sums the scores of a task.

use palmtop::model::Model;
use palmtop::session::Answer;
use palmtop::tasks::{self, BoxRounding, Detection, MASK_SIDE, Mask, MaskCodec, MaskScratch};
use palmtop_convert::examples::TaskKind;

use super::boxes::{BoxScores, BoxTally, Guess, Truth};
use super::items::{Item, Right};
use super::masks::Pixels;
use super::words;

/// What an answer is worth.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Whether the text is the expected one; none where no text was expected.
    pub is_exact: Option<bool>,
    pub overlap: Option<f64>,
    /// Boxes that are there and boxes of the answer, if it is about boxes.
    pub boxes: Option<(Vec<Truth>, Vec<Guess>)>,
    pub mask_iou: Option<f64>,
}

/// Reads answers, with the decoder of masks if there is one.
pub struct Judge<'a> {
    masks: Option<(MaskCodec<'a>, Box<MaskScratch>)>,
}

impl<'a> Judge<'a> {
    pub fn of(model: &'a Model) -> anyhow::Result<Self> {
        Ok(Self { masks: model.mask_codec()?.map(|codec| (codec, Box::new(MaskScratch::new()))) })
    }

    /// Whether masks can be compared.
    pub fn has_masks(&self) -> bool {
        self.masks.is_some()
    }

    /// Compares an answer about a picture of this width and height with what would be right. `mask` is the right mask,
    /// if the item names one.
    pub fn judge(
        &mut self,
        item: &Item,
        (width, height): (u32, u32),
        mask: Option<&Pixels>,
        answer: &Answer,
    ) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        if let Right::Text(expected) = &item.right {
            verdict.is_exact = Some(words::is_exact(&answer.text, expected));
            verdict.overlap = Some(words::overlap(&answer.text, expected));
        }
        if !matches!(item.task, TaskKind::Detect | TaskKind::Segment) {
            return Ok(verdict);
        }
        let mut read = tasks::Answer::read_tokens(&answer.text, &answer.token_ends, width, height);
        read.set_scores(&answer.probabilities);
        let expected = match &item.right {
            Right::Text(text) => Some(tasks::Answer::read(text, width, height).detections),
            Right::Boxes(_) | Right::Unknown => None,
        };
        let truths = match (&item.right, &expected) {
            (Right::Boxes(truths), _) => Some(truths.clone()),
            (_, Some(expected)) => Some(expected.iter().map(truth).collect()),
            _ => None,
        };
        if let Some(truths) = truths {
            verdict.boxes = Some((truths, read.detections.iter().map(guess).collect()));
        }
        if item.task == TaskKind::Segment {
            verdict.mask_iou = match (mask, &expected) {
                (Some(mask), _) => self
                    .union(read.detections.iter(), width, height)?
                    .filter(|union| union.size() == mask.size())
                    .map(|union| union.iou(mask)),
                (None, Some(expected)) => self.iou_over_labels(&read.detections, expected, width, height)?,
                _ => None,
            };
        }
        Ok(verdict)
    }

    /// The mean over all labels of either side of how well the union of its masks fits; 1 if there is no label at all.
    fn iou_over_labels(
        &mut self,
        found: &[Detection],
        expected: &[Detection],
        width: u32,
        height: u32,
    ) -> anyhow::Result<Option<f64>> {
        let key = |d: &Detection| d.label.to_lowercase();
        let mut labels: Vec<String> = found.iter().chain(expected).map(key).collect();
        labels.sort();
        labels.dedup();
        let mut sum = 0.0;
        for label in &labels {
            let mut of_label =
                |all: &[Detection]| self.union(all.iter().filter(|d| key(d) == *label), width, height);
            let (Some(found), Some(expected)) = (of_label(found)?, of_label(expected)?) else {
                return Ok(None);
            };
            sum += found.iou(&expected);
        }
        Ok(self.has_masks().then(|| if labels.is_empty() { 1.0 } else { sum / labels.len() as f64 }))
    }

    /// The pixels of any of these objects; none if no masks can be decoded.
    fn union<'d>(
        &mut self,
        objects: impl Iterator<Item = &'d Detection>,
        width: u32,
        height: u32,
    ) -> anyhow::Result<Option<Pixels>> {
        let Some((codec, scratch)) = &mut self.masks else { return Ok(None) };
        let mut union = Pixels::none(width, height);
        for object in objects {
            let Some(codes) = &object.mask_codes else { continue };
            let mut logits = [0.0; MASK_SIDE * MASK_SIDE];
            codec.decode(codes, scratch, &mut logits);
            union.add(&Mask::paste(&logits, object.locations, width, height, BoxRounding::default())?);
        }
        Ok(Some(union))
    }
}

fn truth(d: &Detection) -> Truth {
    Truth { label: d.label.clone(), bounding_box: d.bounding_box, crowd: false }
}

/// Boxes are ranked by the likelihood of their labels, those without one last.
fn guess(d: &Detection) -> Guess {
    Guess { label: d.label.clone(), bounding_box: d.bounding_box, score: d.score.unwrap_or(0.0) }
}

/// Sums over the items of a task.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub items: usize,
    exact: Mean,
    overlap: Mean,
    mask_iou: Mean,
    boxes: BoxTally,
}

/// A mean of what has been added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    pub fn add_all(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// None of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

/// The figures of a task; shares from 0 to 1. None where there is nothing to measure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub items: usize,
    /// The one figure that stands for the task.
    pub score: Option<f64>,
    pub exact_match: Option<f64>,
    pub word_overlap: Option<f64>,
    pub boxes: BoxScores,
    pub mask_iou: Option<f64>,
}

impl Tally {
    pub fn add(&mut self, verdict: Verdict) {
        self.items += 1;
        verdict.is_exact.into_iter().for_each(|yes| self.exact.add(f64::from(u8::from(yes))));
        verdict.overlap.into_iter().for_each(|v| self.overlap.add(v));
        verdict.mask_iou.into_iter().for_each(|v| self.mask_iou.add(v));
        verdict.boxes.into_iter().for_each(|(truths, guesses)| self.boxes.add(truths, guesses));
    }

    /// `score` is the exact match of words, the mAP at 0.5 of boxes, and the mean overlap of masks.
    pub fn figures(&self, task: TaskKind) -> Figures {
        let boxes = self.boxes.scores();
        let (exact_match, mask_iou) = (self.exact.value(), self.mask_iou.value());
        Figures {
            items: self.items,
            score: match task {
                TaskKind::Caption | TaskKind::Answer | TaskKind::Ocr => exact_match,
                TaskKind::Detect => boxes.map50,
                TaskKind::Segment => mask_iou,
            },
            exact_match,
            word_overlap: self.overlap.value(),
            boxes,
            mask_iou,
        }
    }
}
