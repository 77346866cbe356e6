use palmtop::tasks::BoundingBox;
use serde::Deserialize;

use super::*;

fn bounds([x_min, y_min, x_max, y_max]: [f32; 4]) -> Rect {
    BoundingBox { x_min, y_min, x_max, y_max }.into()
}

fn truth(label: &str, edges: [f32; 4]) -> GroundTruth {
    let rect = bounds(edges);
    GroundTruth { label: label.into(), rect, area: rect.area(), crowd: false }
}

fn prediction(label: &str, edges: [f32; 4], score: f32) -> Prediction {
    Prediction { label: label.into(), rect: bounds(edges), score }
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

/// Items and what pycocotools finds in them: `tests/data/coco/make.py` makes the file.
#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    items: Vec<CaseItem>,
    /// mAP, at 0.5, and of small, medium and large boxes; -1 without a box.
    stats: [f64; 5],
}

#[derive(Deserialize)]
struct CaseItem {
    /// Label, box, area, crowd.
    truths: Vec<(String, [f64; 4], f64, u8)>,
    /// Label, box, score.
    found: Vec<(String, [f64; 4], f32)>,
}

#[test]
fn scores_are_those_of_pycocotools() {
    let path = [env!("CARGO_MANIFEST_DIR"), "../tests/data/coco/pycocotools.json"];
    let text = std::fs::read(path.iter().collect::<std::path::PathBuf>()).unwrap();
    let reference: Reference = serde_json::from_slice(&text).unwrap();
    assert!(reference.cases.len() >= 8);
    let rect = |[x, y, width, height]: [f64; 4]| Rect { x, y, width, height };
    for case in reference.cases {
        let mut tally = BoxTally::default();
        for item in case.items {
            let truth = |(label, edges, area, crowd)| GroundTruth {
                label,
                rect: rect(edges),
                area,
                crowd: crowd != 0,
            };
            let found = |(label, edges, score)| Prediction { label, rect: rect(edges), score };
            tally.add(
                item.truths.into_iter().map(truth).collect(),
                item.found.into_iter().map(found).collect(),
            );
        }
        let got = tally.scores();
        for (got, want) in
            [got.map, got.map50, got.map_small, got.map_medium, got.map_large].into_iter().zip(case.stats)
        {
            match got {
                None => assert_eq!(want, -1.0, "{}", case.name),
                Some(_) => close(got, want),
            }
        }
    }
}
