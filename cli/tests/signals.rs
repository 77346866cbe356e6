//! Ctrl-C and readers that have seen enough.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use common::{data, interrupt, lay_out_checkpoint, model, palmtop, scene, text, wait_until_it_says};
use serde_json::{Value, json};

#[test]
fn ctrl_c_stops_between_answers_and_leaves_whole_lines() {
    let temporary = tempfile::tempdir().unwrap();
    let scene = scene();
    // More pictures than can be answered before the signal comes.
    let mut args = vec!["caption", "--json", "--max-new-tokens", "64"];
    args.extend(std::iter::repeat_n(text(&scene), 3000));
    let mut child = palmtop(args)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    interrupt(&child);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.len() < 2999);
    for line in std::iter::once(&first).chain(&rest) {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn ctrl_c_while_waiting_for_a_picture_ends_the_program() {
    let mut child = palmtop(["caption", "-", "-m", model(), "-v"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The kernels are named once the program listens for Ctrl-C, before the picture is waited for.
    let _stderr = wait_until_it_says(&mut child, "kernels");
    // A signal in between is taken too: the picture is then not waited for, or waiting is ended by the second.
    for _ in 0..500 {
        interrupt(&child);
        std::thread::sleep(std::time::Duration::from_millis(20));
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(130));
            return;
        }
    }
    child.kill().unwrap();
    panic!("the program goes on waiting");
}

/// A checkpoint whose embedding has so many rows that converting it takes seconds. The rows are a hole in the file.
fn lay_out_large_checkpoint(folder: &Path) {
    const ROWS: usize = 4_000_000;
    const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
    lay_out_checkpoint("tiny1", folder);
    let config = folder.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"vocab_size\": 2176", &format!("\"vocab_size\": {ROWS}"))).unwrap();

    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (data_at, head) = {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        (8 + length, serde_json::from_slice::<Value>(&bytes[8..8 + length]).unwrap())
    };
    let mut head = head.as_object().unwrap().clone();
    let mut data = Vec::new();
    let names: Vec<String> =
        head.keys().filter(|n| !["__metadata__", EMBEDDING].contains(&n.as_str())).cloned().collect();
    for name in names {
        let [from, to] = [0, 1].map(|i| head[&name]["data_offsets"][i].as_u64().unwrap() as usize);
        let start = data.len();
        data.extend_from_slice(&bytes[data_at + from..data_at + to]);
        head[&name]["data_offsets"] = json!([start, data.len()]);
    }
    let width = head[EMBEDDING]["shape"][1].as_u64().unwrap() as usize;
    let end = data.len() + ROWS * width * 2;
    head[EMBEDDING]["shape"] = json!([ROWS, width]);
    head[EMBEDDING]["data_offsets"] = json!([data.len(), end]);
    let head = serde_json::to_vec(&head).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&(head.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&head).unwrap();
    file.write_all(&data).unwrap();
    file.set_len((8 + head.len() + end) as u64).unwrap();
}

#[test]
fn ctrl_c_during_a_conversion_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, models) = (folder.path().join("large"), folder.path().join("models"));
    lay_out_large_checkpoint(&checkpoint);
    fs::create_dir(&models).unwrap();
    let target = models.join("m.palm");
    let mut child = palmtop(["convert", text(&checkpoint), "-o", text(&target)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let files = || fs::read_dir(&models).unwrap().count();
    while files() == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "the program ended early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(), 0);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "interrupted; nothing was written\n");
}

#[test]
fn ctrl_c_during_a_bench_takes_its_model_away() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = palmtop(["bench", "--synthetic", "tiny", "--rounds", "1000", "--tokens", "1000"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _stderr = wait_until_it_says(&mut child, "round 1 of 1000");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// A copy of the model that may be spoilt.
fn copy_of_model(folder: &Path) -> std::path::PathBuf {
    let copy = folder.join("copy.palm");
    fs::copy(model(), &copy).unwrap();
    copy
}

#[test]
fn a_model_that_was_written_before_the_next_picture_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene();
    for load in ["map", "read"] {
        let copy = copy_of_model(folder.path());
        let args = ["caption", "--json", text(&scene), "-", "-m", text(&copy), "--load", load];
        let mut child = palmtop(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        // The first picture is answered, and the second is waited for.
        fs::OpenOptions::new().append(true).open(&copy).unwrap().write_all(b"!").unwrap();
        child.stdin.take().unwrap().write_all(&fs::read(&scene).unwrap()).unwrap();
        let rest = lines.count();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if load == "map" {
            assert_eq!((output.status.code(), rest), (Some(1), 0), "{said}");
            assert!(said.contains("error: ") && said.contains("was changed while it was open"), "{said}");
        } else {
            assert_eq!((output.status.code(), rest), (Some(0), 1), "{said}");
        }
    }
}

/// While a picture is looked at, nobody can look at the file too: the system ends the program, which has the last word.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_model_that_is_cut_short_while_it_is_in_use_ends_the_program_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_model(folder.path());
    let scene = scene();
    // More pictures than can be answered before the file is cut.
    let mut args = vec!["caption", "--json", "--max-new-tokens", "64", "-m", text(&copy)];
    args.extend(std::iter::repeat_n(text(&scene), 3000));
    let mut child = palmtop(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(0).unwrap();
    let rest = lines.count();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
    assert!(rest < 2999);
    // If it was cut right between two pictures, that was seen.
    let cut = "error: a file that is mapped was shortened";
    assert!(stderr.contains(cut) || stderr.contains("was changed while it was open"), "{stderr}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let noise = data("images/noise_97x61.png");
    for args in [
        &["inspect", model(), "--all"][..],
        &["completions", "bash"],
        &["caption", text(&noise), text(&noise), "-m", model(), "--max-new-tokens", "2"],
    ] {
        let mut child = palmtop(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(output.status.code(), Some(0));
    }
}
