//! The clients themselves, as PyPI and npm have them, against a server on loopback. `tests/setup.sh` brings them.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Running, demo, options, right_answers};
use palmtop_serve::access::{Access, ApiKey};
use serde_json::{Value, json};

#[path = "../../tests/common/skip.rs"]
mod skip;

const KEY: &str = "secret-key";
const PROMPTS: [&str; 5] =
    ["caption en", "describe en", "ocr", "detect panda ; bus", "answer en what is it?"];

fn path(parts: &[&str]) -> PathBuf {
    std::iter::once(env!("CARGO_MANIFEST_DIR")).chain(parts.iter().copied()).collect()
}

/// Where `tests/setup.sh` puts them.
fn clients(part: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(part)
}

/// Runs a script that asks a server, and fails if it does.
fn run(program: &Path, script: &str) {
    let mut options = options();
    options.access = Access { key: Some(ApiKey::new(KEY).unwrap()), ..Access::default() };
    let running = Running::start(options);
    let answers = right_answers(&demo("day.png"), &PROMPTS);
    let right: serde_json::Map<String, Value> = PROMPTS
        .iter()
        .zip(&answers)
        .map(|(prompt, answer)| ((*prompt).to_owned(), answer.text.clone().into()))
        .collect();
    let given = json!({
        "url": running.url(""),
        "key": KEY,
        "picture": path(&["..", "demo", "day.png"]),
        "right": right,
        "modules": clients("node_modules"),
    });
    let mut child = Command::new(program)
        .arg(path(&["tests", "clients", script]))
        // What an environment of the tests may have, and no client shall ask.
        .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1"), ("PYTHONDONTWRITEBYTECODE", "1")])
        .env_remove("OLLAMA_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}{said}", String::from_utf8_lossy(&output.stdout));
}

/// Runs a script in Python, if the package is here.
fn python(package: &str, script: &str) {
    let python = clients("bin/python3");
    let is_here = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if !is_here.is_ok_and(|output| output.status.success()) {
        return skip::missing(format!("PyPI's {package}"), "it is not here");
    }
    run(&python, script);
}

#[test]
fn openai_in_python() {
    python("openai", "openai_client.py");
}

#[test]
fn ollama_in_python() {
    python("ollama", "ollama_client.py");
}

#[test]
fn moondream_in_python() {
    python("moondream", "moondream_client.py");
}

#[test]
fn openai_in_node() {
    if !clients("node_modules/openai").exists() {
        return skip::missing("npm's openai", "it is not here");
    }
    run(Path::new("node"), "openai_client.mjs");
}
