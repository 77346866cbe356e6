//! Ctrl-C and readers that have seen enough.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::{data, model, palmtop, scene, text};

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
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.len() < 2999);
    for line in std::iter::once(&first).chain(&rest) {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn ctrl_c_while_waiting_for_a_picture_ends_the_program() {
    let mut child = palmtop(["caption", "-", "-m", model(), "-v"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The kernels are named when the session is made, right before the picture is waited for.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("kernels") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the program ended early");
    }
    // A signal in between is taken too: the picture is then not waited for, or waiting is ended by the second.
    for _ in 0..500 {
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).stderr(Stdio::null()).status();
        std::thread::sleep(std::time::Duration::from_millis(20));
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(130));
            return;
        }
    }
    child.kill().unwrap();
    panic!("the program goes on waiting");
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
