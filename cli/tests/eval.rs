//! `palmtop eval`: figures from answers, two models side by side, and data that is not as it should be.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    assert_says, data, fail, interrupt, lay_out_checkpoint, model, run, scene, succeed, text,
    wait_until_it_says,
};
use serde_json::{Value, json};

/// A folder with a file of examples. The picture is named by its full path.
struct Data {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn examples(lines: &[Value]) -> Data {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    Data { folder, path }
}

/// What the model says to a prompt about the picture.
fn answer(prompt: &str) -> String {
    let scene = scene();
    let ran =
        succeed(["run", text(&scene), "--prompt", prompt, "-m", model(), "--json", "--max-new-tokens", "12"]);
    ran.json()[0]["text"].as_str().unwrap().to_owned()
}

fn evaluate(data: &Path, more: &[&str]) -> Value {
    let args = ["eval", text(data), "-m", model(), "--json", "--max-new-tokens", "12"];
    let ran = succeed([&args[..], more].concat());
    let [report] = &ran.json()[..] else { panic!("one line, not {}", ran.stdout) };
    report.clone()
}

/// Another model with the same tokens, of int4 weights.
fn other_model(folder: &Path) -> PathBuf {
    let checkpoint = folder.join("tiny1");
    lay_out_checkpoint("tiny1", &checkpoint);
    let target = folder.join("other.palm");
    succeed(["convert", text(&checkpoint), "-o", text(&target), "--weights", "int4"]);
    target
}

#[test]
fn answers_that_were_given_before_are_right_and_others_wrong() {
    let (scene, prompts) = (scene(), ["caption en", "answer en what is it?", "ocr", "describe en"]);
    let mut lines: Vec<Value> = prompts
        .iter()
        .map(|p| json!({"image": text(&scene), "prompt": p, "expected": answer(p), "more": 1}))
        .collect();
    lines[3]["expected"] = json!("nothing of the kind");
    lines.push(json!({"image": text(&scene), "prompt": "free", "task": "ocr", "expected": answer("free")}));
    lines.push(json!({"image": text(&scene), "prompt": "answer en what?"}));
    let report = evaluate(&examples(&lines).path, &[]);
    let tasks = &report["tasks"];
    assert_eq!((&tasks["caption"]["items"], &tasks["caption"]["score"]), (&json!(2), &json!(0.5)));
    assert_eq!((&tasks["ocr"]["items"], &tasks["ocr"]["exact_match"]), (&json!(2), &json!(1.0)));
    // One of the two has nothing to be compared with.
    assert_eq!((&tasks["answer"]["items"], &tasks["answer"]["score"]), (&json!(2), &json!(1.0)));
    assert_eq!((&tasks["detect"]["items"], &tasks["detect"]["score"]), (&json!(0), &Value::Null));
    assert_eq!((&report["items"], &report["answered"]), (&json!(6), &json!(6)));
    assert!(report["timings"]["ms_per_item"].as_f64().unwrap() > 0.0);
    assert_eq!(report["other"], Value::Null);
    let tokens = report["timings"]["tokens_per_item"].as_f64().unwrap();
    assert!((1.0..=12.0).contains(&tokens), "{tokens}");
}

#[test]
fn every_documented_key_is_there() {
    let scene = scene();
    let report =
        evaluate(&examples(&[json!({"image": text(&scene), "prompt": "ocr", "expected": "x"})]).path, &[]);
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let page = include_str!("../../docs/json.md");
    let documented = page.split("## Evaluation").nth(1).expect("a chapter").split("\n## ").next().unwrap();
    for value in [&report, &report["model"], &report["tasks"]["ocr"], &report["timings"]] {
        for key in keys(value) {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not documented");
        }
    }
}

#[test]
fn two_models_are_compared_along_the_answers_of_the_first() {
    let scene = scene();
    let line = |prompt| json!({"image": text(&scene), "prompt": prompt, "expected": "a cat"});
    let data = examples(&[line("caption en"), line("ocr"), line("detect cat ; dog")]);
    let same = evaluate(&data.path, &["-m", model()]);
    let agreement = &same["agreement"];
    assert_eq!((&agreement["same_answers"], &agreement["same_tokens"]), (&json!(1.0), &json!(1.0)));
    assert!(agreement["kl"].as_f64().unwrap() < 1e-9 && agreement["differing"] == json!([]));
    assert_eq!(same["other"]["tasks"], same["tasks"]);

    let other = other_model(data.folder.path());
    let answers = data.folder.path().join("answers.jsonl");
    let report = evaluate(&data.path, &["-m", text(&other), "--answers", text(&answers)]);
    let agreement = &report["agreement"];
    assert!(agreement["kl"].as_f64().unwrap() > 1e-4, "{agreement}");
    // Every token of an answer and what ends it is a position.
    let lines: Vec<Value> =
        fs::read_to_string(&answers).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let tokens: u64 = lines.iter().map(|l| l["answers"][0]["tokens"].as_u64().unwrap()).sum();
    assert_eq!(agreement["positions"].as_u64(), Some(tokens + 3));
    let differing = agreement["differing"].as_array().unwrap();
    let different = lines.iter().filter(|l| l["answers"][0]["text"] != l["answers"][1]["text"]).count();
    assert!(differing.len() == different && different > 0);
    assert_eq!(agreement["same_answers"].as_f64(), Some((3 - different) as f64 / 3.0));
    let d = &differing[0];
    assert!(d["text"].is_string() && d["other_text"] != d["text"] && d["expected"] == json!("a cat"));

    let table =
        succeed(["eval", text(&data.path), "-m", model(), "-m", text(&other), "--max-new-tokens", "12"]);
    assert_says(
        &table.stdout,
        &["a: ", "b: ", "other.palm", "task", "caption", "KL, nats", "all", "answers differ"],
    );
}

#[test]
fn a_model_is_calibrated_with_the_data_that_it_can_be_evaluated_with() {
    let scene = scene();
    let data = examples(&[json!({"image": text(&scene), "prompt": "caption en", "expected": "a cat"})]);
    let checkpoint = data.folder.path().join("tiny1");
    lay_out_checkpoint("tiny1", &checkpoint);
    let target = data.folder.path().join("calibrated.palm");
    let convert = ["convert", text(&checkpoint), "-o", text(&target), "--report", "json"];
    let with = |more: &[&str]| succeed([&convert[..], more, &["--calibrate", text(&data.path)]].concat());
    let report = &with(&["--weights", "int4"]).json()[0];
    let tensors = report["tensors"].as_array().unwrap();
    assert!(tensors.iter().filter(|t| t["output_error"].is_number()).count() > 5, "{report}");
    let report = &with(&["--recipe", "auto,head=int8", "--target-bits", "7.5"]).json()[0];
    assert!(report["matrix_bits"].as_f64().unwrap() <= 7.5);
    assert!(report["recipe"].as_str().unwrap().contains("head=int8"));
    // The recipe that was chosen can be given.
    let again = succeed([&convert[..], &["--recipe", report["recipe"].as_str().unwrap()]].concat());
    assert_eq!(again.json()[0]["recipe"], report["recipe"]);
    assert_says(
        &succeed(["eval", text(&data.path), "-m", text(&target), "--max-new-tokens", "4"]).stdout,
        &["calibrated.palm", "caption", "1 items answered, 0 failed"],
    );
    for (more, says) in [
        (&["--recipe", "auto"][..], "--recipe auto needs --calibrate"),
        (&["--recipe", "int4", "--target-bits", "5"], "--target-bits goes with --recipe auto"),
        (&["--recipe", "int4,text.layer.0=int8x"], "unknown weight format"),
    ] {
        assert_says(&fail(2, [&convert[..], more].concat()), &[says]);
    }
    let missing = [&convert[..], &["--recipe", "text.layer.9.mlp.down.weight=int8"]].concat();
    assert_says(&fail(1, missing), &["has no matrix 'text.layer.9.mlp.down.weight'"]);
    let wrong = data.folder.path().join("wrong.jsonl");
    fs::write(&wrong, "{}").unwrap();
    let wrong = [&convert[..], &["--weights", "int4", "--calibrate", text(&wrong)]].concat();
    assert_says(&fail(1, wrong), &["wrong.jsonl, line 1", "hint: --calibrate takes lines"]);
}

/// Boxes and masks that the model of random weights gives are no use; what it gives is taken for the truth.
#[test]
fn boxes_and_masks_are_read_from_text_and_from_pictures() {
    let (scene, folder) = (scene(), tempfile::tempdir().unwrap());
    let segment = "<loc0100><loc0100><loc0600><loc0900>".to_owned()
        + &(0..16).map(|i| format!("<seg{:03}>", i * 7)).collect::<String>()
        + " cat";
    let mask = folder.path().join("mask.png");
    image::GrayImage::from_pixel(640, 361, image::Luma([255])).save(&mask).unwrap();
    let small = folder.path().join("small.png");
    image::GrayImage::from_pixel(64, 64, image::Luma([255])).save(&small).unwrap();
    let line = |prompt: &str, expected: &str, mask: Option<&Path>| json!({"image": text(&scene), "prompt": prompt, "expected": expected, "mask": mask.map(text)});
    let data = examples(&[
        line("detect cat", "<loc0100><loc0100><loc0600><loc0900> cat", None),
        line("segment cat", &segment, None),
        line("segment dog", "", Some(&mask)),
    ]);
    let report = evaluate(&data.path, &[]);
    let (detect, segment_report) = (&report["tasks"]["detect"], &report["tasks"]["segment"]);
    for figure in [&detect["score"], &detect["map50"], &detect["box_recall"], &segment_report["score"]] {
        let value = figure.as_f64().unwrap_or_else(|| panic!("{report}"));
        assert!((0.0..=1.0).contains(&value), "{report}");
    }
    assert_eq!(segment_report["score"], segment_report["mask_iou"]);
    // A mask of another size is that item's fault.
    let data = examples(&[line("ocr", "", None), line("segment dog", "", Some(&small))]);
    let ran = run(["eval", text(&data.path), "-m", model(), "--json", "--max-new-tokens", "4"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_says(&ran.stderr, &["not answered: line 2", "64 × 64 pixels and its picture 640 × 361"]);
    assert_eq!(ran.json()[0]["answered"], json!(1));
}

#[test]
fn coco_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let coco = json!({
        "images": [{"id": 1, "file_name": "scene_640x361.png"}, {"id": 2, "file_name": "missing.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [10.0, 20.0, 30.0, 40.0]},
            {"image_id": 2, "category_id": 1, "bbox": [10.0, 20.0, 30.0, 40.0]}
        ]
    });
    let path = folder.path().join("instances.json");
    fs::write(&path, serde_json::to_string_pretty(&coco).unwrap()).unwrap();
    let images = data("images");
    let args = ["eval", text(&path), "--images", text(&images), "-m", model(), "--max-new-tokens", "4"];
    let ran = run([&args[..], &["--json"]].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let report = &ran.json()[0];
    assert_eq!(report["tasks"]["detect"]["items"], json!(1));
    assert_eq!(report["tasks"]["detect"]["exact_match"], Value::Null);
    assert_eq!(report["failed"][0]["image"], json!("missing.png"));
    let limited = succeed([&args[..], &["--limit", "1"]].concat());
    assert_says(&limited.stdout, &["detect", "1 items answered, 0 failed"]);
}

#[test]
fn annotations_of_another_size_are_scaled_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("instances.json");
    let images = data("images");
    let report = |width: u32, height: u32| {
        let coco = json!({
            "images": [{"id": 1, "file_name": "scene_640x361.png", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{
                "image_id": 1, "category_id": 1, "iscrowd": false,
                "bbox": [0, 0, width, height],
            }]
        });
        fs::write(&path, coco.to_string()).unwrap();
        run([
            "eval",
            text(&path),
            "--images",
            text(&images),
            "-m",
            model(),
            "--max-new-tokens",
            "4",
            "--json",
        ])
    };
    let [same, half, thrice] = [(640, 361), (320, 180), (1920, 1083)].map(|(w, h)| report(w, h));
    for ran in [&same, &half, &thrice] {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.json()[0]["tasks"]["detect"], same.json()[0]["tasks"]["detect"]);
    }
    // A picture of 9 x 6 pixels that is to be turned by a quarter: drawn on it as it is stored, or upright.
    let turned = [env!("CARGO_MANIFEST_DIR"), "../fuzz/seeds/image"].iter().collect::<std::path::PathBuf>();
    for (width, height, code) in [(9, 6, 0), (6, 9, 0), (18, 12, 0), (9, 9, 1)] {
        let coco = json!({
            "images": [{"id": 1, "file_name": "turned.jpg", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}]
        });
        fs::write(&path, coco.to_string()).unwrap();
        let ran =
            run(["eval", text(&path), "--images", text(&turned), "-m", model(), "--max-new-tokens", "4"]);
        assert_eq!(ran.code, Some(code), "{width} x {height}: {}", ran.stderr);
    }
    for (width, height) in [(361, 640), (640, 480)] {
        let ran = report(width, height);
        assert_eq!(ran.code, Some(1));
        assert_says(
            &ran.stderr,
            &["not answered", &format!("for {width} × {height} pixels"), "has 640 × 361"],
        );
    }
}

#[test]
fn what_cannot_be_evaluated_is_said_with_its_line() {
    let scene = scene();
    let good = json!({"image": text(&scene), "prompt": "ocr", "expected": "x"});
    let broken = examples(&[good.clone(), json!({"image": "a.png"})]);
    assert_says(
        &fail(1, ["eval", text(&broken.path), "-m", model()]),
        &["error", "line 2", "missing field `prompt`"],
    );
    assert_says(
        &fail(1, ["eval", "/nowhere.jsonl", "-m", model()]),
        &["error: cannot read", "/nowhere.jsonl"],
    );
    let data = examples(std::slice::from_ref(&good));
    let image_args = ["eval", text(&data.path), "-m", model(), "--images", "x"];
    assert_says(&fail(1, image_args), &["is not a COCO file", "hint: --images"]);
    assert_says(
        &fail(2, ["eval", text(&data.path), "-m", model(), "-m", model(), "-m", model()]),
        &["-m takes one model, or two"],
    );
    let target = data.folder.path().join("missing/answers.jsonl");
    assert_says(
        &fail(1, ["eval", text(&data.path), "-m", model(), "--answers", text(&target)]),
        &["there is no folder"],
    );

    // A prompt that is too long fails alone.
    let long = json!({"image": text(&scene), "prompt": "long ".repeat(20_000)});
    let data = examples(&[good.clone(), long, json!({"image": "gone.png", "prompt": "ocr"}), good]);
    let ran = run(["eval", text(&data.path), "-m", model(), "--json", "--max-new-tokens", "4"]);
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["not answered: line 2", "shorten it", "not answered: line 3, gone.png"]);
    let report = &ran.json()[0];
    assert_eq!((&report["items"], &report["answered"]), (&json!(4), &json!(2)));
    assert_eq!(report["failed"][1]["line"], json!(3));
}

#[cfg(unix)]
#[test]
fn ctrl_c_reports_what_is_done_so_far() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    // Many names, since items of one picture are taken together; more than can be answered before the signal comes.
    // It is large, so that the signal mostly comes while it is decoded.
    let picture = folder.path().join("picture.png");
    image::GrayImage::new(900, 700).save(&picture).unwrap();
    let lines: Vec<Value> = (0..3000)
        .map(|i| {
            let name = format!("{i}.png");
            fs::hard_link(&picture, folder.path().join(&name)).unwrap();
            json!({"image": name, "prompt": "ocr", "expected": "x"})
        })
        .collect();
    let path = folder.path().join("data.jsonl");
    fs::write(&path, lines.iter().map(|l| l.to_string() + "\n").collect::<String>()).unwrap();
    let mut child = common::palmtop(["eval", text(&path), "-m", model(), "--json", "--max-new-tokens", "64"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress comes after a second.
    let _stderr = wait_until_it_says(&mut child, "answering: ");
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answered = report["answered"].as_u64().unwrap();
    assert!(answered > 0 && answered < 3000 && report["interrupted"] == json!(true), "{report}");
}

#[test]
fn prompts_about_several_pictures_are_evaluated() {
    const END: f64 = 1.0;
    let mut lines = Vec::new();
    for vector in palmtop_tests::several("tiny1") {
        let tokens = &vector.tensors["gen.tokens"].values;
        // Answers that the model does not end before: the vector's go on.
        if tokens.contains(&END) || tokens.len() < 4 {
            continue;
        }
        lines.push(json!({"images": vector.images, "prompt": vector.prompt, "expected": vector.text}));
        let swapped: Vec<_> = vector.images.iter().rev().collect();
        lines.push(json!({"images": swapped, "prompt": vector.prompt, "expected": "in another order"}));
    }
    assert!(!lines.is_empty());
    let data = examples(&lines);
    let tokens = palmtop_tests::several("tiny1")[0].tensors["gen.tokens"].values.len().to_string();
    let args =
        ["eval", text(&data.path), "-m", model(), "-m", model(), "--json", "--max-new-tokens", &tokens];
    let report = succeed(args).json().remove(0);
    let right: f64 = report["tasks"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|task| Some(task["exact_match"].as_f64()? * task["items"].as_f64()?))
        .sum();
    assert_eq!((right, report["agreement"]["same_answers"].as_f64()), (lines.len() as f64 / 2.0, Some(1.0)));
    let calibrated = data.folder.path().join("calibrated.palm");
    let checkpoint = data.folder.path().join("checkpoint");
    lay_out_checkpoint("tiny1", &checkpoint);
    let with = ["--weights", "int4", "--calibrate", text(&data.path)];
    succeed([&["convert", text(&checkpoint), "-o", text(&calibrated)], &with[..]].concat());
}
