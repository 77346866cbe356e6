//! Runs the real program as a user would.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::OnceLock;

/// A file of the reference data.
pub fn data(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/data", path].iter().collect()
}

/// A picture of 640 x 361 pixels.
pub fn scene() -> PathBuf {
    data("images/scene_640x361.png")
}

/// The program, with nothing of the user's environment that changes what it does.
pub fn palmtop<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palmtop"));
    command.args(args).stdin(Stdio::null());
    // Nobody has pulled a model.
    command.env("PALMTOP_MODELS", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-models"));
    for name in ["PALMTOP_MODEL", "PALMTOP_THREADS"] {
        command.env_remove(name);
    }
    command
}

/// What a terminal sends for Ctrl-C. The shell has this built in; not every system has it as a program.
pub fn interrupt(child: &Child) {
    let command = format!("kill -INT {} 2>/dev/null", child.id());
    Command::new("sh").args(["-c", &command]).status().unwrap();
}

/// Reads stderr until a line has `words`; gives the rest of it.
pub fn wait_until_it_says(child: &mut Child, words: &str) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the program ended early");
    }
    stderr
}

/// What a run of the program gave.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).expect("stderr is UTF-8");
        assert!(!stderr.contains("panicked"), "the program panicked:\n{stderr}");
        let stdout = String::from_utf8(output.stdout).expect("stdout is UTF-8");
        Self { code: output.status.code(), stdout, stderr }
    }
}

impl Ran {
    /// The lines of stdout as JSON.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs the program to its end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    palmtop(args).output().expect("the program starts").into()
}

/// Runs the program to its end, which must be a success.
pub fn succeed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let ran = run(args);
    assert_eq!(ran.code, Some(0), "stderr:\n{}", ran.stderr);
    ran
}

/// Runs the program to its end, which must be a failure with this exit code; gives stderr.
pub fn fail<S: AsRef<OsStr>>(code: i32, args: impl IntoIterator<Item = S>) -> String {
    let ran = run(args);
    assert_eq!(ran.code, Some(code), "stdout:\n{}\nstderr:\n{}", ran.stdout, ran.stderr);
    ran.stderr
}

/// Asserts that a text has all of these in it, in this order.
pub fn assert_says(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => panic!("does not say {part:?} (here) in:\n{text}"),
        }
    }
}

/// Copies a checkpoint of the reference data and the tokenizer into `folder`.
pub fn lay_out_checkpoint(name: &str, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for from in [format!("checkpoints/{name}"), "tokenizer".into()] {
        for entry in std::fs::read_dir(data(&from)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// A model file of f32 weights with a mask decoder, converted by the program once for each test program.
pub fn model() -> &'static str {
    static MODEL: OnceLock<String> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
        let checkpoint = folder.join("tiny1");
        lay_out_checkpoint("tiny1", &checkpoint);
        let target = folder.join("tiny1.palm");
        let codec = data("vectors/seg/vae-random.npz");
        let args: [&OsStr; 8] = [
            "convert".as_ref(),
            checkpoint.as_ref(),
            "-o".as_ref(),
            target.as_ref(),
            "--weights".as_ref(),
            "f32".as_ref(),
            "--mask-codec".as_ref(),
            codec.as_ref(),
        ];
        succeed(args);
        target.into_os_string().into_string().unwrap()
    })
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
