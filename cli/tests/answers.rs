//! Asking about pictures: text, JSON, typed results, saved files.

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Ran, assert_says, data, fail, model, palmtop, run, scene, succeed, text};
use serde_json::Value;

/// Tokens and text that the reference implementation gave.
fn expected(vector: &str) -> (String, Vec<u64>, String) {
    let json = fs::read(data(&format!("vectors/{vector}.json"))).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let tokens = json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
    (json["prompt"].as_str().unwrap().to_owned(), tokens, json["decoded"].as_str().unwrap().to_owned())
}

#[test]
fn answers_are_those_of_the_reference() {
    for vector in ["tiny1/scene-cap", "tiny1/scene-vqa", "tiny1/scene-det"] {
        let (prompt, tokens, decoded) = expected(vector);
        // The reference goes on after the end of the answer.
        let ends = tokens.iter().position(|&t| t == 1);
        let limit = tokens.len().to_string();
        let scene = scene();
        let args = ["run", text(&scene), "-p", &prompt, "-m", model(), "--max-new-tokens", &limit, "--json"];
        let line = succeed(args).json().remove(0);
        let got: Vec<u64> = line["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
        assert_eq!(got, tokens[..ends.unwrap_or(tokens.len())], "{vector}");
        assert_eq!(line["stop"], if ends.is_some() { "eos" } else { "limit" });
        if ends.is_none() {
            assert_eq!(line["text"], decoded.as_str(), "{vector}");
        }
    }
}

#[test]
fn the_official_prompts_are_made() {
    let scene = scene();
    let cases: [(&[&str], &str); 8] = [
        (&["caption"], "caption en"),
        (&["caption", "--style", "cap", "--lang", "de"], "cap de"),
        (&["caption", "--style", "describe", "--lang", "zh-TW"], "describe zh-TW"),
        (&["ask", "-q", "what is it?", "--lang", "es"], "answer es what is it?"),
        (&["ocr"], "ocr"),
        (&["detect", "-l", "cat", "-l", "traffic light"], "detect cat ; traffic light"),
        (&["segment", "-l", "cat; dog"], "segment cat ; dog"),
        (&["run", "-p", " as it is "], " as it is "),
    ];
    for (args, prompt) in cases {
        let rest = [text(&scene), "-m", model(), "--json", "--max-new-tokens", "1"];
        let line = succeed([args, &rest].concat()).json().remove(0);
        assert_eq!(line["prompt"], prompt);
        assert_eq!(line["task"], args[0]);
    }
}

#[test]
fn json_has_its_documented_shape() {
    let scene = scene();
    let args = ["caption", text(&scene), "-m", model(), "--json", "--max-new-tokens", "4"];
    let ran = succeed(args);
    assert_eq!(ran.stderr, "");
    let [line] = &ran.json()[..] else { panic!("one line, not {}", ran.stdout) };
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    let mut documented = [
        "source",
        "task",
        "prompt",
        "text",
        "tokens",
        "probabilities",
        "stop",
        "score",
        "image",
        "timings",
        "objects",
    ];
    documented.sort();
    assert_eq!(keys, documented);
    assert_eq!(line["source"], text(&scene));
    assert_eq!(line["image"], serde_json::json!({"width": 640, "height": 361, "truncated": false}));
    let timings = &line["timings"];
    for key in ["decode_image_ms", "encode_ms", "prefill_ms", "decode_ms", "ms_per_token"] {
        assert!(timings[key].as_f64().is_some_and(|ms| ms > 0.0), "{key}: {timings}");
    }
    assert_eq!((&timings["tokens"], &timings["batch"]), (&4.into(), &1.into()));
}

#[test]
fn plain_output_is_the_answer_and_nothing_else() {
    let scene = scene();
    let args = ["caption", text(&scene), "-m", model(), "--max-new-tokens", "5"];
    let json = succeed([&args[..], &["--json"]].concat()).json().remove(0);
    let ran = succeed(args);
    assert_eq!(ran.stdout, format!("{}\n", json["text"].as_str().unwrap()));
    assert_eq!(ran.stderr, "");
}

#[test]
fn questions_asked_together_are_answered_as_alone() {
    let scene = scene();
    let questions = ["what is it?", "what colour is it?", "how many?"];
    let ask = |questions: &[&str], more: &[&str]| {
        let mut args = vec!["ask", text(&scene), "-m", model(), "--max-new-tokens", "6"];
        args.extend(questions.iter().flat_map(|q| ["-q", q]));
        succeed([&args[..], more].concat())
    };
    let alone: Vec<Value> = questions.iter().map(|q| ask(&[q], &["--json"]).json().remove(0)).collect();
    for more in [&["--json"][..], &["--json", "--batch", "2"]] {
        let together = ask(&questions, more).json();
        assert_eq!(together.len(), 3);
        for (a, b) in together.iter().zip(&alone) {
            assert_eq!((&a["tokens"], &a["text"], &a["prompt"]), (&b["tokens"], &b["text"], &b["prompt"]));
        }
    }
    assert_says(
        &ask(&questions, &[]).stdout,
        &["what is it?\n  ", "what colour is it?\n  ", "how many?\n  "],
    );
}

#[test]
fn answers_may_be_chosen_from_given_texts() {
    let scene = scene();
    let ask = |more: &[&str]| {
        let args = ["ask", text(&scene), "-m", model(), "-q", "is it red?", "-q", "how many?"];
        succeed([&args[..], more].concat())
    };
    let texts = ["yes", "no", "no idea", "don't know"];
    let choose = ["--choose", "yes; no ;no idea", "-c", "don't know", "--json"];
    let mut scores = std::collections::BTreeMap::new();
    for seed in 0..40 {
        let sampling = ["--temperature", "20", "--seed", &seed.to_string()];
        let how = if seed == 0 { &[][..] } else { &sampling };
        for (question, line) in ask(&[&choose, how].concat()).json().into_iter().enumerate() {
            let answer = line["text"].as_str().unwrap().to_owned();
            assert!(texts.contains(&answer.as_str()), "{line}");
            assert_eq!(line["stop"], "eos");
            scores.insert((question, answer), line["score"].as_f64().unwrap());
        }
    }
    assert_eq!(scores.len(), 2 * texts.len(), "every text is chosen some time");
    assert!((scores.values().sum::<f64>() - 2.0).abs() < 1e-5, "{scores:?}");

    let line = ask(&["-c", "maybe", "--json"]).json().remove(0);
    assert_eq!((&line["text"], &line["score"]), (&"maybe".into(), &1.0.into()));
    assert_eq!(ask(&["-c", "maybe"]).stdout, "is it red?\n  maybe\nhow many?\n  maybe\n");
    assert!(ask(&["--json", "--max-new-tokens", "1"]).json().iter().all(|line| line["score"].is_null()));

    // There is room for long ones too, with a model named or without.
    let long = "a choice of many tokens, since its vocabulary is small".repeat(2);
    let ran = succeed(["ask", text(&scene), "-q", "what?", "-c", &long]);
    assert_eq!(ran.stdout, format!("{long}\n"));
}

#[test]
fn folders_patterns_and_stdin_are_sources() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(scene(), folder.path().join("b.png")).unwrap();
    fs::copy(data("images/noise_97x61.png"), folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("notes.txt"), "not a picture").unwrap();
    let names = |source: &str| -> Vec<String> {
        let lines = succeed(["ocr", source, "-m", model(), "--json", "--max-new-tokens", "1"]).json();
        let name = |line: &Value| line["source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        lines.iter().map(name).collect()
    };
    assert_eq!(names(text(folder.path())), ["a.png", "b.png"]);
    assert_eq!(names(text(&folder.path().join("*.png"))), ["a.png", "b.png"]);

    let args = ["ocr", "-", "-m", model(), "--json", "--max-new-tokens", "1"];
    let mut child = palmtop(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(scene()).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["source"], &line["image"]["width"]), (&"-".into(), &640.into()));
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let scene = scene();
    let tokens = |seed: &str| {
        let sampling = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--seed", seed];
        let args =
            [&["caption", text(&scene), "-m", model(), "--json", "--max-new-tokens", "16"], &sampling[..]];
        succeed(args.concat()).json()[0]["tokens"].clone()
    };
    assert_eq!(tokens("1"), tokens("1"));
    assert_ne!(tokens("1"), tokens("2"));
}

#[test]
fn threads_and_instruction_sets_do_not_change_answers() {
    let scene = scene();
    let tokens = |more: &[&str]| {
        let args = ["caption", text(&scene), "-m", model(), "--json", "--max-new-tokens", "16"];
        succeed([&args[..], more].concat()).json()[0]["tokens"].clone()
    };
    let plain = tokens(&[]);
    assert_eq!(plain, tokens(&["--threads", "1"]));
    assert_eq!(plain, tokens(&["--threads", "3", "--isa", "scalar"]));
}

/// Sampling so wild that a random model now and then draws a box.
fn sample_wildly(seed: &str, more: &[&str]) -> Ran {
    let scene = scene();
    let args = ["run", text(&scene), "-p", "detect cat", "-m", model(), "--max-new-tokens", "64"];
    succeed([&args[..], &["--temperature", "3", "--seed", seed], more].concat())
}

/// A seed with which it does, and the answer.
fn seed_with_objects() -> (String, Value) {
    for seed in 0..200 {
        let seed = seed.to_string();
        let line = sample_wildly(&seed, &["--json"]).json().remove(0);
        if line["objects"].as_array().unwrap().iter().any(|o| o["score"].is_number()) {
            return (seed, line);
        }
    }
    panic!("no seed draws a box");
}

#[test]
fn boxes_have_labels_and_scores_and_are_drawn() {
    let (seed, line) = seed_with_objects();
    let objects = line["objects"].as_array().unwrap();
    let object = objects.iter().find(|o| o["score"].is_number()).unwrap();
    let score = object["score"].as_f64().unwrap();
    assert!(score > 0.0 && score <= 1.0 && !object["label"].as_str().unwrap().is_empty(), "{object}");
    let [y1, x1, y2, x2] = [0, 1, 2, 3].map(|i| object["locations"][i].as_f64().unwrap());
    let edge = |name: &str| object["box"][name].as_f64().unwrap();
    assert!((edge("x_min") - x1.min(x2) / 1024.0 * 640.0).abs() < 1e-3);
    assert!((edge("y_max") - y1.max(y2) / 1024.0 * 361.0).abs() < 1e-3);

    let folder = tempfile::tempdir().unwrap();
    let run = |save: &str| sample_wildly(&seed, &["--save", save]);
    let original = image::open(scene()).unwrap().into_rgb8();
    let file = folder.path().join("boxes.png");
    let ran = run(text(&file));
    assert_says(&ran.stdout, &["label", "score", "x_min"]);
    assert_says(&ran.stderr, &["saved", "boxes.png"]);
    let drawn = image::open(&file).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), original.dimensions());
    assert_ne!(drawn, original);
    run(text(&folder.path().join("new/folder/")));
    let in_folder = image::open(folder.path().join("new/folder/scene_640x361.run.png")).unwrap().into_rgb8();
    assert_eq!(in_folder, drawn);
}

#[test]
fn a_detection_that_is_cut_short_is_not_one_without_objects() {
    let scene = scene();
    for command in ["detect", "segment"] {
        let args = [command, text(&scene), "-l", "cat", "-m", model(), "--max-new-tokens", "2"];
        let says = "nothing found before the answer was cut off by the limit of 2 tokens\n";
        assert_eq!(succeed(args).stdout, says);
        let line = succeed([&args[..], &["--json"]].concat()).json().remove(0);
        assert_eq!((&line["stop"], &line["objects"]), (&"limit".into(), &Value::Array(Vec::new())));
    }
    // The built-in model comes to an end by itself.
    let ran = succeed(["detect", text(&data("images/gradient_400x300.png")), "-l", "bus"]);
    assert_eq!(ran.stdout, "nothing found\n");
}

#[test]
fn a_detection_that_is_cut_short_shows_what_is_whole() {
    let bus = data("../../demo/day.png");
    let labels = ["-l", "bus", "-l", "cat", "-l", "panda", "-l", "traffic light"];
    let detect = |more: &[&str]| succeed([&["detect", text(&bus)], &labels[..], more].concat());
    let whole = detect(&["--json"]).json().remove(0);
    assert!(whole["stop"] == "eos" && !whole["objects"].as_array().unwrap().is_empty(), "{whole}");
    let limit = (whole["tokens"].as_array().unwrap().len() - 1).to_string();
    let cut = detect(&["--json", "--max-new-tokens", &limit]).json().remove(0);
    assert_eq!((&cut["stop"], &cut["objects"][0]["box"]), (&"limit".into(), &whole["objects"][0]["box"]));
    let shown = detect(&["--max-new-tokens", &limit]).stdout;
    let says = format!("(the answer was cut off by the limit of {limit} tokens: there may be more)\n");
    assert!(shown.ends_with(&says), "{shown}");
}

#[test]
fn the_model_may_come_from_the_environment() {
    let scene = scene();
    let args = ["caption", text(&scene), "--max-new-tokens", "3"];
    let output = palmtop(args).env("PALMTOP_MODEL", model()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.stdout, run([&args[..], &["-m", model()]].concat()).stdout.into_bytes());
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let scene = scene();
    let mut command = palmtop(["caption", text(&scene), "--max-new-tokens", "3"]);
    command.envs(["PALMTOP_MODEL", "PALMTOP_THREADS", "PALMTOP_ISA"].map(|name| (name, "")));
    let ran = common::Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_says(&ran.stderr, &["no model was named"]);
    assert_says(
        &fail(2, ["caption", text(&scene), "-m", ""]),
        &["a value is required for '--model <MODEL>'"],
    );
}

#[test]
fn verbose_tells_the_timings() {
    let scene = scene();
    let ran = succeed(["caption", text(&scene), "-m", model(), "--max-new-tokens", "3", "-v"]);
    assert_says(&ran.stderr, &["picture", "ms, encoder", "ms, prefill", "ms a token"]);
}
