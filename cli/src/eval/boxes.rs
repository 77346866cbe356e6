//! Scores boxes: average precision as COCO defines it.
//!
//! An item is one prompt about one picture. For each label and item, the boxes of the answer are matched from the most
//! likely to the least likely: each takes the true box that it overlaps most, if the overlap reaches the threshold and
//! no earlier box has taken it. All boxes of all items, ranked by score, give precision and recall after each box. The
//! average precision is the mean over the recalls 0, 0.01, …, 1 of the best precision at that recall or above. mAP is
//! the mean of the average precision over the labels of the truth.

use std::collections::BTreeMap;

use palmtop::tasks::BoundingBox;

/// Boxes of an item and label beyond these, the least likely ones, do not count, as in COCO.
const BOXES_MAX: usize = 100;
/// Recalls at which precision is read: 0 to 1 in hundredths.
const RECALLS: usize = 101;
/// The thresholds of [`BoxScores::map`]; one is not quite 0.9, as in pycocotools.
const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95];
/// COCO's bounds of areas in square pixels, both included: any, small, medium and large.
const ANY: [f64; 2] = [0.0, f64::INFINITY];
const SMALL: [f64; 2] = [0.0, 32.0 * 32.0];
const MEDIUM: [f64; 2] = [32.0 * 32.0, 96.0 * 96.0];
const LARGE: [f64; 2] = [96.0 * 96.0, f64::INFINITY];

/// A box in pixels, as COCO writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn area(&self) -> f64 {
        self.width * self.height
    }
}

impl From<BoundingBox> for Rect {
    fn from(b: BoundingBox) -> Self {
        let side = |min: f32, max: f32| (f64::from(max) - f64::from(min)).max(0.0);
        let (width, height) = (side(b.x_min, b.x_max), side(b.y_min, b.y_max));
        Self { x: b.x_min.into(), y: b.y_min.into(), width, height }
    }
}

/// A box that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundTruth {
    pub label: String,
    pub rect: Rect,
    /// Square pixels of the object, which may fill only some of its box. It says whether it is small or large.
    pub area: f64,
    /// A group of objects: whatever lies in it neither gains nor loses.
    pub crowd: bool,
}

/// A box of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub label: String,
    pub rect: Rect,
    /// What ranks it among all boxes of its label.
    pub score: f32,
}

/// What is there in an item, and what an answer says.
type BoxesOfItem = (Vec<GroundTruth>, Vec<Prediction>);

/// The boxes of many items.
#[derive(Clone, Debug, Default)]
pub struct BoxTally {
    /// Per label its items with boxes of either kind.
    labels: BTreeMap<String, Vec<BoxesOfItem>>,
}

/// What [`BoxTally::scores`] finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoxScores {
    /// Mean average precision at an overlap of 0.5; none if the truth has no box.
    pub map50: Option<f64>,
    /// The mean of the same over overlaps of 0.5, 0.55, …, 0.95.
    pub map: Option<f64>,
    /// [`map`](Self::map) of objects of up to 32² pixels; what is larger neither gains nor loses.
    pub map_small: Option<f64>,
    /// The same of objects of 32² to 96² pixels.
    pub map_medium: Option<f64>,
    /// The same of objects from 96² pixels on.
    pub map_large: Option<f64>,
    /// Mean overlap of the boxes that are right at 0.5; none if there is none.
    pub mean_iou: Option<f64>,
    /// Share of the answers' boxes that are right at 0.5; none without a box. Labels that the truth never has count
    /// too.
    pub precision: Option<f64>,
    /// Share of the true boxes that are found at 0.5.
    pub recall: Option<f64>,
}

impl BoxTally {
    /// Counts the boxes of an item. Labels are compared in lower case, without white space at the ends.
    pub fn add(&mut self, truths: Vec<GroundTruth>, predictions: Vec<Prediction>) {
        let mut of_item: BTreeMap<String, BoxesOfItem> = BTreeMap::new();
        for truth in truths {
            of_item.entry(key(&truth.label)).or_default().0.push(truth);
        }
        for prediction in predictions {
            of_item.entry(key(&prediction.label)).or_default().1.push(prediction);
        }
        for (label, (truths, mut predictions)) in of_item {
            predictions.sort_by(|a, b| b.score.total_cmp(&a.score));
            predictions.truncate(BOXES_MAX);
            self.labels.entry(label).or_default().push((truths, predictions));
        }
    }

    /// All measures over what was counted.
    pub fn scores(&self) -> BoxScores {
        let (mut found, mut overlaps, mut counted, mut truths) = (0usize, 0.0, 0usize, 0);
        for items in self.labels.values() {
            let at_half = RankedBoxes::of(items, THRESHOLDS[0], ANY);
            found += at_half.ranked.iter().filter(|r| r.overlap.is_some()).count();
            overlaps += at_half.ranked.iter().filter_map(|r| r.overlap).sum::<f64>();
            counted += at_half.ranked.len();
            truths += at_half.truths;
        }
        let share = |part: f64, of: usize| (of > 0).then(|| part / of as f64);
        BoxScores {
            map50: self.mean_average_precision(&THRESHOLDS[..1], ANY),
            map: self.mean_average_precision(&THRESHOLDS, ANY),
            map_small: self.mean_average_precision(&THRESHOLDS, SMALL),
            map_medium: self.mean_average_precision(&THRESHOLDS, MEDIUM),
            map_large: self.mean_average_precision(&THRESHOLDS, LARGE),
            mean_iou: share(overlaps, found),
            precision: share(found as f64, counted),
            recall: share(found as f64, truths),
        }
    }

    /// The mean over thresholds and over the labels that have an object of such an area; none without one.
    fn mean_average_precision(&self, thresholds: &[f64], area: [f64; 2]) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0usize);
        for items in self.labels.values() {
            for &threshold in thresholds {
                let mut ranked = RankedBoxes::of(items, threshold, area);
                if ranked.truths > 0 {
                    sum += ranked.average_precision();
                    count += 1;
                }
            }
        }
        (count > 0).then(|| sum / count as f64)
    }
}

fn key(label: &str) -> String {
    label.trim().to_lowercase()
}

/// A box of an answer that counts.
struct Ranked {
    score: f32,
    /// With the box of the truth that it took, if it took one.
    overlap: Option<f64>,
}

/// The boxes of a label over all items.
struct RankedBoxes {
    ranked: Vec<Ranked>,
    truths: usize,
}

impl RankedBoxes {
    /// Of objects within bounds of their areas. Other objects are like groups: what takes them does not count.
    fn of(items: &[BoxesOfItem], threshold: f64, [least, most]: [f64; 2]) -> Self {
        let within = |area: f64| (least..=most).contains(&area);
        let counts = |truth: &GroundTruth| !truth.crowd && within(truth.area);
        let mut ranked = Vec::new();
        let mut total = 0;
        for (truths, predictions) in items {
            total += truths.iter().filter(|t| counts(t)).count();
            let mut taken = vec![false; truths.len()];
            for prediction in predictions {
                let mut best: Option<(usize, f64)> = None;
                for counting in [true, false] {
                    // What does not count is only taken by what fits no object that does.
                    if best.is_some() {
                        break;
                    }
                    let free =
                        |&(i, t): &(usize, &GroundTruth)| counts(t) == counting && (t.crowd || !taken[i]);
                    for (i, truth) in truths.iter().enumerate().filter(free) {
                        let overlap = iou(&prediction.rect, &truth.rect, truth.crowd);
                        // Of equal ones the last, as pycocotools has it.
                        if overlap >= best.map_or(threshold, |b| b.1) {
                            best = Some((i, overlap));
                        }
                    }
                }
                let overlap = match best {
                    Some((i, overlap)) => {
                        taken[i] = true;
                        if !counts(&truths[i]) {
                            continue;
                        }
                        Some(overlap)
                    }
                    None if within(prediction.rect.area()) => None,
                    None => continue,
                };
                ranked.push(Ranked { score: prediction.score, overlap });
            }
        }
        Self { ranked, truths: total }
    }

    fn average_precision(&mut self) -> f64 {
        // Stable: equal scores stay in the order of the items.
        self.ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut right = 0usize;
        let mut curve: Vec<(f64, f64)> = Vec::with_capacity(self.ranked.len());
        for (n, ranked) in self.ranked.iter().enumerate() {
            right += usize::from(ranked.overlap.is_some());
            curve.push((right as f64 / self.truths as f64, right as f64 / (n + 1) as f64));
        }
        for n in (1..curve.len()).rev() {
            curve[n - 1].1 = curve[n - 1].1.max(curve[n].1);
        }
        let at = |recall: f64| curve.get(curve.partition_point(|p| p.0 < recall)).map_or(0.0, |p| p.1);
        // As pycocotools rounds them: 35 · 0.01 is a little more than 0.35.
        (0..RECALLS).map(|i| at(i as f64 * 0.01)).sum::<f64>() / RECALLS as f64
    }
}

/// The common area of two boxes over that of both; for a group of objects over that of the first.
fn iou(prediction: &Rect, truth: &Rect, crowd: bool) -> f64 {
    let (a, b) = (prediction, truth);
    let width = (a.x + a.width).min(b.x + b.width) - a.x.max(b.x);
    let height = (a.y + a.height).min(b.y + b.height) - a.y.max(b.y);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let common = width * height;
    common / if crowd { a.area() } else { a.area() + b.area() - common }
}

#[cfg(test)]
#[path = "boxes_tests.rs"]
mod tests;
