//! Every command on models of odd sizes: none fails, and what is traced is there.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use common::{Ran, assert_says, data, run, scene, succeed, text};
use palmtop_tests::odd::{Odd, odd_models, write_checkpoint};
use safetensors::SafeTensors;
use serde_json::json;

/// Converts the checkpoint to all weight formats, plainly and by examples; the f32 model is the first.
fn convert(odd: &Odd, checkpoint: &Path, folder: &Path, examples: &Path) -> Vec<String> {
    let codec = data("vectors/seg/vae-random.npz");
    let calibrated = ["--calibrate", text(examples)];
    let auto = [&calibrated[..], &["--recipe", "auto", "--target-bits", "16"]].concat();
    let ways: [(&str, &str, &[&str]); 6] = [
        ("f32", "f32", &[]),
        ("f16", "f16", &["--mask-codec", text(&codec)]),
        ("int8", "int8", &[]),
        ("int4", "int4", &[]),
        ("calibrated", "int4", &calibrated),
        ("auto", "int4", &auto),
    ];
    let mut models = Vec::new();
    for (name, weights, more) in ways {
        let target = folder.join(name).with_extension("palm");
        let args = ["convert", text(checkpoint), "-o", text(&target), "--weights", weights, "--threads", "2"];
        let ran = run([&args[..], more].concat());
        // What fills up matrices of few inputs takes more bits than any recipe may.
        let too_narrow = odd.config.text.hidden == 1 && name == "auto";
        assert_eq!(ran.code, Some(i32::from(too_narrow)), "{}, {name}: {}", odd.name, ran.stderr);
        match too_narrow {
            true => assert_says(&ran.stderr, &["bits a weight cannot be reached"]),
            false => models.push(text(&target).to_owned()),
        }
    }
    models
}

/// Runs a command on a model, with two threads and keys and values in the format that is next.
fn on(model: &str, kv: &str, args: &[&str]) -> Ran {
    let args = args.iter().map(OsString::from);
    succeed(args.chain(["-m", model, "--kv", kv, "--threads", "2"].map(OsString::from)))
}

/// Runs all commands that take a model.
fn run_all(
    odd: &Odd,
    model: &str,
    folder: &Path,
    examples: &Path,
    kvs: &mut impl Iterator<Item = &'static str>,
) {
    let mut on = |args: &[&str]| on(model, kvs.next().expect("an endless iterator"), args);
    let scene = scene();
    let scene = text(&scene);
    let few = ["--max-new-tokens", "3", "--json"];
    let answers: [&[&str]; 6] = [
        &["caption", scene],
        &["ask", scene, "-q", "what is it?", "-q", "which colour has it?", "--choose", "red;blue;no colour"],
        &["ocr", scene],
        &["detect", scene, "-l", "cat ; dog"],
        &["segment", scene, "-l", "cat"],
        &["run", scene, "--prompt", "free", "--prompt", "detect cat", "--prompt", "ocr"],
    ];
    for args in answers {
        let answers = on(&[args, &few].concat()).json();
        let prompts = args.iter().filter(|a| ["-q", "--prompt"].contains(*a)).count().max(1);
        assert_eq!(answers.len(), prompts, "{}: {args:?}", odd.name);
    }
    let traced = folder.join("trace.safetensors");
    on(&["trace", scene, "--prompt", "caption en", "-o", text(&traced), "--tokens", "2"]);
    let bytes = fs::read(&traced).expect("a trace");
    let names = SafeTensors::deserialize(&bytes).expect("a readable trace").len();
    assert_eq!(names, 10 + odd.config.vision.layers + odd.config.text.layers, "{}", odd.name);
    fs::remove_file(&traced).expect("a trace");

    let lists = on(&["eval", text(examples), "--max-new-tokens", "2", "--json"]).json();
    assert_eq!(lists[0]["answered"], 2, "{}", odd.name);
    succeed(["verify", model]);
    succeed(["inspect", model, "--all"]);
    let inspected = succeed(["inspect", model, "--json"]).json();
    assert_eq!(
        inspected[0]["tensors"].as_array().map(Vec::len),
        Some(odd.config.tensors().len() + 1),
        "{}",
        odd.name
    );
    for kv in ["f32", "int8"] {
        let plan = succeed(["plan", model, "--kv", kv, "--batch", "3", "--json"]).json();
        assert!(plan[0]["session_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{}", odd.name);
    }
}

#[test]
fn every_command_takes_models_of_odd_sizes() {
    let mut kvs = ["auto", "int8", "f32", "f16"].into_iter().cycle();
    for odd in odd_models() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let (checkpoint, examples) = (folder.path().join("checkpoint"), folder.path().join("examples.jsonl"));
        write_checkpoint(&odd.config, 3, &checkpoint);
        let line =
            |prompt: &str, expected: &str| json!({"image": scene(), "prompt": prompt, "expected": expected});
        let lines =
            [line("caption en", "a car"), line("detect cat", "<loc0100><loc0200><loc0300><loc0400> cat")];
        fs::write(&examples, lines.map(|l| l.to_string()).join("\n")).expect("writing examples");
        let models = convert(&odd, &checkpoint, folder.path(), &examples);
        for model in [&models[0], &models[4]] {
            run_all(&odd, model, folder.path(), &examples, &mut kvs);
        }
        for model in &models {
            let kv = kvs.next().expect("an endless iterator");
            on(model, kv, &["caption", text(&scene()), "--max-new-tokens", "3"]);
        }
        succeed([
            "eval",
            text(&examples),
            "-m",
            &models[0],
            "-m",
            &models[4],
            "--max-new-tokens",
            "2",
            "--threads",
            "2",
        ]);
    }
}

#[test]
fn odd_sizes_are_measured() {
    for odd in odd_models().iter().take(3).step_by(2) {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let (checkpoint, model) = (folder.path().join("checkpoint"), folder.path().join("model.palm"));
        write_checkpoint(&odd.config, 3, &checkpoint);
        succeed(["convert", text(&checkpoint), "-o", text(&model), "--weights", "int4"]);
        let args =
            ["bench", "-m", text(&model), "--rounds", "1", "--tokens", "2", "--threads", "2", "--json"];
        assert_eq!(succeed(args).json()[0]["new_tokens"], 2, "{}", odd.name);
    }
}
