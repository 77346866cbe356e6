//! Compilers, and how programs are run.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use palmtop::Answer;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::missing;
use palmtop_tests::{Converted, caption, converted, data, uniform};

/// The folder of this crate, in which the header is.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A C compiler and the C++ compiler that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compiler {
    pub c: &'static str,
    pub cpp: &'static str,
}

impl Compiler {
    pub fn c(self) -> Command {
        Command::new(self.c)
    }

    pub fn cpp(self) -> Command {
        Command::new(self.cpp)
    }

    /// True if it can link with the sanitizers.
    pub fn sanitizes(self) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("main.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let mut command = self.c();
        command.args(SANITIZE).arg(source).arg("-o").arg(folder.path().join("main"));
        command.output().is_ok_and(|output| output.status.success())
    }
}

/// Addresses and undefined behaviour of the C side; memory of both, leaks included.
pub const SANITIZE: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// True if a program can be started.
pub fn exists(program: &str) -> bool {
    let started = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok_and(|status| status.success())
}

/// gcc and clang, as far as they are there; says so where one is not. One of them must be.
pub fn compilers() -> Vec<Compiler> {
    let all = [
        vec![Compiler { c: "gcc", cpp: "g++" }],
        ["", "-22", "-21", "-20", "-19", "-18", "-17", "-16", "-15", "-14"]
            .map(|version| {
                let name = |stem: &str| &*format!("{stem}{version}").leak();
                Compiler { c: name("clang"), cpp: name("clang++") }
            })
            .to_vec(),
    ];
    let found: Vec<Compiler> = all
        .iter()
        .filter_map(|same| {
            let found = same.iter().copied().find(|compiler| exists(compiler.c) && exists(compiler.cpp));
            if found.is_none() {
                missing(format_args!("the C library with {}", same[0].c), "it is not here");
            }
            found
        })
        .collect();
    assert!(!found.is_empty(), "the C library is tested with a C compiler: install gcc or clang");
    found
}

/// Runs a command that must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The folder in which cargo has put the libraries that this test was built with.
pub fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// A tiny model, a picture, and what the Rust library answers to "caption en" about it.
pub fn tiny_model_and_caption(new_tokens: usize) -> (Converted, PathBuf, Answer) {
    let model = converted("tiny1", uniform(WeightFormat::Int8));
    let path = data().join("images/scene_640x361.png");
    let caption = caption(&model.path, &path, new_tokens);
    (model, path, caption)
}
