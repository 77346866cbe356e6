//! The Python package over the native module that cargo has built: the same bits as from the Rust library. `PYTHON` names another
//! Python than `python3`, such as one that has Pillow and supervision.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_convert::Options;
use palmtop_tests::{checkpoint, data};

#[test]
fn python_hears_what_the_rust_library_says() {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let has_numpy =
        Command::new(&python).args(["-c", "import sys, numpy; assert sys.version_info >= (3, 9)"]).output();
    if !has_numpy.is_ok_and(|output| output.status.success()) {
        // Straight to the terminal, since the output of a test that passes is not shown.
        let _ = std::fs::write(
            "/dev/stderr",
            "SKIPPED: the Python package, since there is no python3 with numpy\n",
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("palmtop");
    std::fs::create_dir(&package).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(here.join("palmtop/__init__.py"), package.join("__init__.py")).unwrap();
    let name = format!("{}palmtop_python{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = std::env::current_exe().unwrap().with_file_name(name);
    std::fs::copy(&built, package.join("_palmtop.abi3.so")).unwrap();

    let model = folder.path().join("model.palm");
    let mask_codec = Some(data().join("vectors/seg/vae-random.npz"));
    let options = Options { mask_codec, ..Options::default() };
    palmtop_convert::convert(checkpoint("tiny1").path(), &model, &options, &()).unwrap();
    let picture = data().join("images/scene_640x361.png");
    let mut python = Command::new(python);
    python.env("PYTHONPATH", folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.arg(here.join("tests/test_palmtop.py")).arg(&model).arg(&picture).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    let skipped: String =
        complained.lines().filter(|l| l.starts_with("SKIPPED")).map(|l| format!("{l}\n")).collect();
    let _ = std::fs::write("/dev/stderr", skipped);

    let mut limits = Limits::default();
    limits.new_tokens = 40;
    let mut session = Session::new(&Model::open(&model).unwrap(), &limits).unwrap();
    let (mut features, options) = (session.new_features().unwrap(), GenerateOptions::default());
    let picture = decode_file(picture, &ImageLimits::default()).unwrap();
    session.encode(picture.view(), &mut features, &options).unwrap();
    let answers =
        session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let pairs = answers[0].tokens.iter().zip(&answers[0].probabilities);
    let bits: String = pairs.map(|(t, p)| format!("{t}:{:08x} ", p.to_bits())).collect();
    assert_eq!(said, format!("{bits}{}\n", answers[0].text));
}
