//! The built-in model: what it says about scenes that it was not trained on.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Ran, assert_says, palmtop, succeed, text};
use serde_json::Value;

/// A file of the demo: `DATA.jsonl`, or a picture that it asks about.
fn demo(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../demo", name].iter().collect()
}

#[test]
fn without_a_model_the_built_in_one_answers_and_nothing_is_left_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output =
        palmtop(["caption", text(&demo("scene.png"))]).env("TMPDIR", temporary.path()).output().unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "a strawberry, a burger, a banana and a tree\n");
    assert_says(&ran.stderr, &["no model was named", "small world", "palmtop pull"]);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn it_answers_questions_and_reads() {
    let questions = [
        "how many doughnuts are there?",
        "is the bus left of the panda?",
        "what color is the text?",
        "is there a cat?",
    ];
    let day = demo("day.png");
    let mut ask = vec!["ask", text(&day), "--json"];
    ask.extend(questions.iter().flat_map(|question| ["-q", question]));
    let ran = succeed(ask);
    let answers: Vec<Value> = ran.json().iter().map(|line| line["text"].clone()).collect();
    assert_eq!(answers, ["2", "yes", "red", "no"]);
    assert_eq!(succeed(["ocr", text(&day)]).stdout, "DAY\n");
}

/// `true` is what the renderer of the scenes knows: words, boxes, and pixels of masks.
#[test]
fn its_answers_boxes_and_masks_are_true() {
    let report = succeed(["eval", text(&demo("DATA.jsonl")), "--json"]).json().remove(0);
    for (task, least) in [("caption", 1.0), ("answer", 1.0), ("ocr", 1.0), ("detect", 1.0), ("segment", 0.8)]
    {
        let score = report["tasks"][task]["score"].as_f64().unwrap();
        assert!(score >= least, "{task}: {score}, {report}");
    }
}

#[test]
fn its_masks_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (overlay, masks) = (folder.path().join("cut.png"), folder.path().join("masks"));
    let day = demo("day.png");
    let ran = succeed([
        "segment",
        text(&day),
        "-l",
        "doughnut",
        "--save",
        text(&overlay),
        "--save-masks",
        text(&masks),
        "--json",
    ]);
    let objects = ran.json()[0]["objects"].as_array().unwrap().len();
    assert_eq!((objects, fs::read_dir(&masks).unwrap().count()), (2, 2));
    let (before, after) = (image::open(&day).unwrap().to_rgb8(), image::open(&overlay).unwrap().to_rgb8());
    assert_eq!(before.dimensions(), after.dimensions());
    // In the middle of the upper doughnut, and in a corner where there is nothing.
    assert_ne!(before.get_pixel(260, 150), after.get_pixel(260, 150));
    assert_eq!(before.get_pixel(5, 5), after.get_pixel(5, 5));
}
