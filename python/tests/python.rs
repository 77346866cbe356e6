//! The Python package over the native module that cargo has built: the same bits as from the Rust library. `PYTHON`
//! names another Python than `python3`. What `pip install` makes of it is tested when asked: `cargo test -p
//! palmtop-python -- --ignored`.

use std::path::Path;
use std::process::{Command, Output};

use palmtop_convert::Options;
use palmtop_tests::skip::{missing, skipped};
use palmtop_tests::{bits, caption, checkpoint, data};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `PYTHON` if it is set, else `python3`, or the system's where that is another one and lacks numpy.
fn python() -> Command {
    if let Some(python) = std::env::var_os("PYTHON") {
        return Command::new(python);
    }
    let has_numpy = has_numpy(Command::new("python3")) || !has_numpy(Command::new("/usr/bin/python3"));
    Command::new(if has_numpy { "python3" } else { "/usr/bin/python3" })
}

fn has_numpy(mut python: Command) -> bool {
    let ran = python.args(["-c", "import sys, numpy; assert sys.version_info >= (3, 9)"]).output();
    ran.is_ok_and(|output| output.status.success())
}

fn check(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said.into_owned()
}

/// `test_palmtop.py`, which does not skip anything if `all`, and then the caption that it prints against the Rust
/// library's.
fn test(mut python: Command, all: bool) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.palm");
    let mask_codec = Some(data().join("vectors/seg/vae-random.npz"));
    let options = Options { mask_codec, ..Options::default() };
    palmtop_convert::convert(checkpoint("tiny1").path(), &model, &options, &()).unwrap();
    let picture = data().join("images/scene_640x361.png");
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(here().join("tests/test_palmtop.py"));
    let output = python.arg(&model).arg(&picture).output().unwrap();
    let said = check(&output);
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if let Some((what, why)) = line.strip_prefix("SKIPPED: ").and_then(|line| line.split_once(": ")) {
            assert!(!all, "{what}: {why}");
            skipped(what, why);
        }
    }
    assert_eq!(said, bits(&caption(&model, &picture, 40)));
}

#[test]
fn python_hears_what_the_rust_library_says() {
    if !has_numpy(python()) {
        missing("the Python package", "there is no python3 of 3.9 or newer with numpy");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("palmtop");
    std::fs::create_dir(&package).unwrap();
    std::fs::copy(here().join("palmtop/__init__.py"), package.join("__init__.py")).unwrap();
    let name = format!("{}palmtop_python{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = std::env::current_exe().unwrap().with_file_name(name);
    std::fs::copy(&built, package.join("_palmtop.abi3.so")).unwrap();
    let mut python = python();
    python.env("PYTHONPATH", folder.path());
    test(python, false);
}

#[test]
#[ignore = "downloads from PyPI, and takes two minutes"]
fn pip_installs_it_beside_pillow_and_supervision() {
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    check(&python().args(["-m", "venv"]).arg(&venv).output().unwrap());
    let package = format!("{}[pictures,supervision]", here().display());
    check(&Command::new(venv.join("bin/pip")).args(["install", &package]).output().unwrap());
    test(Command::new(venv.join("bin/python")), true);
}
