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
/// The thresholds of [`BoxScores::map`].
const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// A box that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundTruth {
    pub label: String,
    pub bounding_box: BoundingBox,
    /// A group of objects: whatever lies in it neither gains nor loses.
    pub crowd: bool,
}

/// A box of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub label: String,
    pub bounding_box: BoundingBox,
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
        let mut at_half = 0.0;
        let mut at_all = 0.0;
        let (mut labels, mut found, mut overlaps, mut counted, mut truths) = (0usize, 0usize, 0.0, 0usize, 0);
        for items in self.labels.values() {
            let mut at_50 = RankedBoxes::of(items, THRESHOLDS[0]);
            found += at_50.ranked.iter().filter(|r| r.overlap.is_some()).count();
            overlaps += at_50.ranked.iter().filter_map(|r| r.overlap).sum::<f64>();
            counted += at_50.ranked.len();
            truths += at_50.truths;
            if at_50.truths == 0 {
                continue;
            }
            labels += 1;
            let first = at_50.average_precision();
            at_half += first;
            let rest = THRESHOLDS[1..].iter().map(|&t| RankedBoxes::of(items, t).average_precision());
            at_all += (first + rest.sum::<f64>()) / THRESHOLDS.len() as f64;
        }
        let share = |part: f64, of: usize| (of > 0).then(|| part / of as f64);
        BoxScores {
            map50: share(at_half, labels),
            map: share(at_all, labels),
            mean_iou: share(overlaps, found),
            precision: share(found as f64, counted),
            recall: share(found as f64, truths),
        }
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
    fn of(items: &[BoxesOfItem], threshold: f64) -> Self {
        let mut ranked = Vec::new();
        let mut total = 0;
        for (truths, predictions) in items {
            total += truths.iter().filter(|t| !t.crowd).count();
            let mut taken = vec![false; truths.len()];
            for prediction in predictions {
                let mut best: Option<(usize, f64)> = None;
                for crowd in [false, true] {
                    // A group is only taken by what fits no single object.
                    if best.is_some() {
                        break;
                    }
                    let free = |&(i, t): &(usize, &GroundTruth)| t.crowd == crowd && (crowd || !taken[i]);
                    for (i, truth) in truths.iter().enumerate().filter(free) {
                        let overlap = iou(&prediction.bounding_box, &truth.bounding_box, crowd);
                        // Of equal ones the last, as pycocotools has it.
                        if overlap >= best.map_or(threshold, |b| b.1) {
                            best = Some((i, overlap));
                        }
                    }
                }
                match best {
                    Some((i, _)) if truths[i].crowd => {}
                    Some((i, overlap)) => {
                        taken[i] = true;
                        ranked.push(Ranked { score: prediction.score, overlap: Some(overlap) });
                    }
                    None => ranked.push(Ranked { score: prediction.score, overlap: None }),
                }
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
        (0..RECALLS).map(|i| at(i as f64 / (RECALLS - 1) as f64)).sum::<f64>() / RECALLS as f64
    }
}

/// The common area of two boxes over that of both; for a group of objects over that of the first.
fn iou(prediction: &BoundingBox, truth: &BoundingBox, crowd: bool) -> f64 {
    let side = |min: f32, max: f32| (f64::from(max) - f64::from(min)).max(0.0);
    let area = |b: &BoundingBox| side(b.x_min, b.x_max) * side(b.y_min, b.y_max);
    let common = side(prediction.x_min.max(truth.x_min), prediction.x_max.min(truth.x_max))
        * side(prediction.y_min.max(truth.y_min), prediction.y_max.min(truth.y_max));
    let all = if crowd { area(prediction) } else { area(prediction) + area(truth) - common };
    if all > 0.0 { common / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds([x_min, y_min, x_max, y_max]: [f32; 4]) -> BoundingBox {
        BoundingBox { x_min, y_min, x_max, y_max }
    }

    fn truth(label: &str, edges: [f32; 4]) -> GroundTruth {
        GroundTruth { label: label.into(), bounding_box: bounds(edges), crowd: false }
    }

    fn prediction(label: &str, edges: [f32; 4], score: f32) -> Prediction {
        Prediction { label: label.into(), bounding_box: bounds(edges), score }
    }

    const A: [f32; 4] = [0.0, 0.0, 10.0, 10.0];
    const B: [f32; 4] = [20.0, 0.0, 30.0, 10.0];
    /// Overlaps A by 8 · 10 of 10 · 10 + 10 · 10 - 80: two thirds.
    const NEAR_A: [f32; 4] = [2.0, 0.0, 12.0, 10.0];
    const FAR: [f32; 4] = [90.0, 90.0, 99.0, 99.0];

    fn scores(items: &[BoxesOfItem]) -> BoxScores {
        let mut tally = BoxTally::default();
        items.iter().for_each(|(t, g)| tally.add(t.clone(), g.clone()));
        tally.scores()
    }

    fn close(got: Option<f64>, want: f64) {
        assert!(got.is_some_and(|got| (got - want).abs() < 1e-9), "{got:?} is not {want}");
    }

    #[test]
    fn overlap_is_the_common_part_of_all() {
        for (a, b, want) in [
            (A, A, 1.0),
            (A, NEAR_A, 2.0 / 3.0),
            (A, B, 0.0),
            (A, [10.0, 0.0, 20.0, 10.0], 0.0),
            (A, [0.0, 0.0, 5.0, 5.0], 0.25),
            ([3.0, 3.0, 3.0, 9.0], [3.0, 3.0, 3.0, 9.0], 0.0),
        ] {
            assert!((iou(&bounds(a), &bounds(b), false) - want).abs() < 1e-12);
            assert_eq!(iou(&bounds(a), &bounds(b), false), iou(&bounds(b), &bounds(a), false));
        }
        assert_eq!(iou(&bounds([0.0, 0.0, 5.0, 5.0]), &bounds(A), true), 1.0);
    }

    #[test]
    fn right_answers_have_all_points_and_no_answer_none() {
        let truths = vec![truth("cat", A), truth("dog", B)];
        let right = vec![prediction("dog", B, 0.1), prediction(" Cat", A, 0.2)];
        let all = scores(&[(truths.clone(), right)]);
        for got in [all.map50, all.map, all.mean_iou, all.precision, all.recall] {
            close(got, 1.0);
        }
        let none = scores(&[(truths, vec![])]);
        close(none.map50, 0.0);
        close(none.recall, 0.0);
        assert_eq!((none.mean_iou, none.precision), (None, None));
        assert_eq!(scores(&[]), BoxScores::default());
        // Nothing to find: there is no precision at any recall, but what is found is wrong.
        let wrong = scores(&[(vec![], vec![prediction("cat", A, 0.9)])]);
        assert_eq!((wrong.map50, wrong.recall), (None, None));
        close(wrong.precision, 0.0);
    }

    #[test]
    fn average_precision_by_hand() {
        // Ranked: right, wrong, right. Precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: the best at a recall up to 0.5 is
        // 1, above it 2/3; 51 of the 101 points are up to 0.5.
        let item = (
            vec![truth("cat", A), truth("cat", B)],
            vec![prediction("cat", A, 0.9), prediction("cat", FAR, 0.8), prediction("cat", B, 0.7)],
        );
        let got = scores(std::slice::from_ref(&item));
        close(got.map50, (51.0 + 50.0 * 2.0 / 3.0) / 101.0);
        close(got.precision, 2.0 / 3.0);
        close(got.recall, 1.0);
        // A wrong label of another class has a class of its own, which has no truth.
        let mut other = item.clone();
        other.1[1].label = "dog".into();
        close(scores(&[other]).map50, 1.0);
        // Ranked last, the wrong one costs nothing; first, everything is shifted: 1/2 and 2/3 become 2/3 everywhere.
        let mut last = item.clone();
        last.1[1].score = 0.1;
        close(scores(&[last]).map50, 1.0);
        let mut first = item;
        first.1[1].score = 0.95;
        close(scores(&[first]).map50, 2.0 / 3.0);
    }

    #[test]
    fn a_box_is_found_once_by_the_likeliest() {
        let twice = vec![prediction("cat", NEAR_A, 0.9), prediction("cat", A, 0.8)];
        let got = scores(&[(vec![truth("cat", A)], twice)]);
        close(got.map50, 1.0);
        close(got.precision, 0.5);
        // The likelier one took it, so the overlap is its own.
        close(got.mean_iou, 2.0 / 3.0);
        // At 0.7 and more it no longer fits, and the other one takes the box at rank two.
        close(got.map, (4.0 + 6.0 * 0.5) / 10.0);
    }

    #[test]
    fn items_are_matched_alone_and_ranked_together() {
        let swapped = [
            (vec![truth("cat", A)], vec![prediction("cat", B, 0.9)]),
            (vec![truth("cat", B)], vec![prediction("cat", A, 0.8)]),
        ];
        close(scores(&swapped).map50, 0.0);
        // A confident mistake in the second picture comes before the right box of the first: precision 1/2 at recall
        // 1/2.
        let ranked = [
            (vec![truth("cat", A)], vec![prediction("cat", A, 0.5)]),
            (vec![truth("cat", A)], vec![prediction("cat", B, 0.9)]),
        ];
        close(scores(&ranked).map50, 51.0 * 0.5 / 101.0);
    }

    #[test]
    fn labels_count_alike_however_many_boxes_they_have() {
        let truths = vec![truth("cat", A), truth("dog", A), truth("dog", B)];
        let got = scores(&[(truths, vec![prediction("cat", A, 0.9)])]);
        close(got.map50, 0.5);
        close(got.recall, 1.0 / 3.0);
    }

    #[test]
    fn groups_neither_gain_nor_lose() {
        let mut crowd = truth("cat", [0.0, 0.0, 50.0, 50.0]);
        crowd.crowd = true;
        let inside = [40.0, 40.0, 50.0, 50.0];
        let predictions =
            vec![prediction("cat", inside, 0.9), prediction("cat", A, 0.8), prediction("cat", inside, 0.7)];
        let got = scores(&[(vec![crowd, truth("cat", A)], predictions)]);
        close(got.map50, 1.0);
        close(got.precision, 1.0);
        close(got.recall, 1.0);
    }

    #[test]
    fn only_the_likeliest_hundred_count() {
        let mut predictions: Vec<Prediction> =
            (0..150).map(|i| prediction("cat", FAR, 0.5 + i as f32 * 1e-3)).collect();
        predictions.push(prediction("cat", A, 0.1));
        close(scores(&[(vec![truth("cat", A)], predictions)]).map50, 0.0);
    }

    /// Scores are not trusted to be numbers.
    #[test]
    fn scores_that_are_no_numbers_still_rank() {
        let predictions = vec![prediction("cat", A, f32::NAN), prediction("cat", B, f32::INFINITY)];
        close(scores(&[(vec![truth("cat", A), truth("cat", B)], predictions)]).map50, 1.0);
    }
}
