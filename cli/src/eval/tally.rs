//! Scores each answer and sums the scores of a task.

use palmtop::model::Model;
use palmtop::session::Answer;
use palmtop::tasks::{BoxRounding, Detection, Detections, ReadOptions};
use palmtop_convert::examples::TaskKind;

use super::boxes::{BoxScores, BoxTally, GroundTruth, Prediction, Rect};
use super::items::{Expected, Item};
use super::masks::Pixels;
use super::text;

/// What an answer is worth.
#[derive(Debug, Default)]
pub struct ItemScores {
    /// Whether the text is the expected one; none where no text was expected.
    pub is_exact: Option<bool>,
    pub overlap: Option<f64>,
    /// Boxes that are there and boxes of the answer, if it is about boxes.
    pub boxes: Option<(Vec<GroundTruth>, Vec<Prediction>)>,
    pub mask_iou: Option<f64>,
}

/// Reads the answers of a model, with their masks if it has a decoder for them.
pub struct Scorer<'a> {
    model: &'a Model,
    has_masks: bool,
}

impl<'a> Scorer<'a> {
    pub fn of(model: &'a Model) -> anyhow::Result<Self> {
        Ok(Self { model, has_masks: model.mask_codec()?.is_some() })
    }

    /// Whether masks can be compared.
    pub fn has_masks(&self) -> bool {
        self.has_masks
    }

    /// Compares an answer about a picture of this width and height with what would be right. `mask` is the right mask,
    /// if the item names one.
    pub fn score(
        &self,
        item: &Item,
        (width, height): (u32, u32),
        mask: Option<&Pixels>,
        answer: &Answer,
    ) -> anyhow::Result<ItemScores> {
        let mut scores = ItemScores::default();
        if let Expected::Text(expected) = &item.expected {
            scores.is_exact = Some(text::is_exact(&answer.text, expected));
            scores.overlap = Some(text::overlap(&answer.text, expected));
        }
        if !matches!(item.task, TaskKind::Detect | TaskKind::Segment) {
            return Ok(scores);
        }
        let found = self.model.read_answer(answer, (width, height), &ReadOptions::default())?.objects;
        let expected = match &item.expected {
            Expected::Text(text) => Some(Detections::read(text, width, height).objects),
            Expected::Boxes(_) | Expected::Unknown => None,
        };
        let truths = match (&item.expected, &expected) {
            (Expected::Boxes(truths), _) => Some(truths.clone()),
            (_, Some(expected)) => Some(expected.iter().map(truth).collect()),
            _ => None,
        };
        if let Some(truths) = truths {
            scores.boxes = Some((truths, found.iter().map(prediction).collect()));
        }
        if item.task == TaskKind::Segment {
            scores.mask_iou = match (mask, &expected) {
                (Some(mask), _) => self
                    .union(found.iter(), width, height)?
                    .filter(|union| union.size() == mask.size())
                    .map(|union| union.iou(mask)),
                (None, Some(expected)) => self.iou_over_labels(&found, expected, width, height)?,
                _ => None,
            };
        }
        Ok(scores)
    }

    /// The mean over all labels of either side of how well the union of its masks fits; 1 if there is no label at all.
    fn iou_over_labels(
        &self,
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
            let of_label =
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
        &self,
        objects: impl Iterator<Item = &'d Detection>,
        width: u32,
        height: u32,
    ) -> anyhow::Result<Option<Pixels>> {
        if !self.has_masks {
            return Ok(None);
        }
        let mut union = Pixels::none(width, height);
        for object in objects {
            if let Some(mask) = self.model.mask(object, (width, height), BoxRounding::default())? {
                union.add(&mask);
            }
        }
        Ok(Some(union))
    }
}

fn truth(d: &Detection) -> GroundTruth {
    let rect = Rect::from(d.bounding_box);
    GroundTruth { label: d.label.clone(), rect, area: rect.area(), crowd: false }
}

/// Boxes are ranked by the likelihood of their labels, those without one last.
fn prediction(d: &Detection) -> Prediction {
    Prediction { label: d.label.clone(), rect: d.bounding_box.into(), score: d.score.unwrap_or(0.0) }
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
    pub fn add(&mut self, scores: ItemScores) {
        self.items += 1;
        scores.is_exact.into_iter().for_each(|yes| self.exact.add(f64::from(u8::from(yes))));
        scores.overlap.into_iter().for_each(|v| self.overlap.add(v));
        scores.mask_iou.into_iter().for_each(|v| self.mask_iou.add(v));
        scores.boxes.into_iter().for_each(|(truths, predictions)| self.boxes.add(truths, predictions));
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
