//! The Python package over the native module that cargo has built: the same bits as from the Rust library. `PYTHON`
//! names another Python than `python3`. What `pip install` makes of it is tested when asked: `cargo test -p
//! palmtop-python -- --ignored`.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use palmtop::image::{Filter, Frame, ImageLimits, PixelFormat, decode_file};
use palmtop::{
    Answer, CancelToken, GenerateOptions, ImageFeatures, Limits, Model, PrefixLimits, PrefixText, Request,
    Session, ThreadHints,
};
use palmtop_convert::Options;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::colpali::{Layout, colpali};
use palmtop_tests::hub::Hub;
use palmtop_tests::skip::{missing, skipped};
use palmtop_tests::{bits, caption, checkpoint, converted, data, uniform};
use palmtop_watch::frames::{FrameOptions, FrameWatch, PreparedFrames};
use palmtop_watch::record::{Line, Record};

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

/// `test_palmtop.py`, which does not skip anything if `all`, and then the captions that it prints against the Rust
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
    skips(&output, all);
    assert_eq!(said, bits(&caption(&model, &picture, 40)) + &bits(&caption_of_two(&model, &picture)));
}

/// What the Rust library says about a picture and the array of `test_palmtop.py` together.
fn caption_of_two(model: &Path, picture: &Path) -> Answer {
    let mut limits = Limits::default();
    (limits.pictures, limits.new_tokens) = (2, 40);
    let mut session = Session::new(&Model::open(model).unwrap(), &limits).unwrap();
    let [first, second] = picture_and_array(&mut session, picture);
    let request = Request { pictures: &[&first, &second], prompt: "caption en", draft: &[] };
    let options = GenerateOptions::default();
    let answers = session.answer_requests(&[request], &options, &mut |_| ControlFlow::Continue(()));
    answers.unwrap()[0].clone()
}

/// The features of a picture, and of the array of the tests in Python.
fn picture_and_array(session: &mut Session, picture: &Path) -> [ImageFeatures; 2] {
    let picture = decode_file(picture, &ImageLimits::default()).unwrap();
    let array: Vec<u8> = (0..70 * 96 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let array = Frame::packed(PixelFormat::Rgb, 96, 70, 3 * 96, &array).unwrap();
    [picture.view().into(), array].map(|frame: Frame<'_>| {
        let mut features = session.new_features().unwrap();
        session.encode(frame, &mut features, &GenerateOptions::default()).unwrap();
        features
    })
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
    for source in std::fs::read_dir(here().join("palmtop")).unwrap() {
        let source = source.unwrap().path();
        if source.extension().is_some_and(|extension| extension == "py") {
            std::fs::copy(&source, package.join(source.file_name().unwrap())).unwrap();
        }
    }
    let name = format!("{}palmtop_python{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = std::env::current_exe().unwrap().with_file_name(name);
    std::fs::copy(&built, package.join("_palmtop.abi3.so")).unwrap();
    let from_here = || {
        let mut python = python();
        python.env("PYTHONPATH", folder.path());
        python
    };
    test_stubs(from_here());
    test_pull(from_here());
    test(from_here(), false);
    test_rows(from_here());
    test_watch(from_here(), folder.path(), false);
}

/// `test_rows.py`, and then the prefix and the vectors that it has written against the Rust library's.
fn test_rows(mut python: Command) {
    let (model, folder) = (converted("tiny1", uniform(WeightFormat::Int8)), tempfile::tempdir().unwrap());
    let (picture, arrays) = (data().join("images/scene_640x361.png"), folder.path().join("arrays"));
    let retrieval = folder.path().join("retrieval.palm");
    palmtop_convert::convert(colpali(Layout::Engine).path(), &retrieval, &Options::default(), &()).unwrap();
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(here().join("tests/test_rows.py"));
    check(&python.args([&model.path, &retrieval, &picture, &arrays]).output().unwrap());

    let mut limits = Limits::default();
    (limits.pictures, limits.new_tokens, limits.filter) = (3, 0, Some(Filter::BilinearAliased));
    let mut session = Session::new(&model.open(), &limits).unwrap();
    let [first, second] = picture_and_array(&mut session, &picture);
    let (mut room, text) = (PrefixLimits::default(), PrefixText::Prompt("fold the shirt"));
    room.pictures = 3;
    let mut prefix = session.model().new_prefix(&room).unwrap();
    let options = GenerateOptions::default();
    session.prefix(&[Some(&first), None, Some(&second)], text, &options, &mut prefix).unwrap();
    let mut expected = Vec::new();
    for array in [prefix.keys(), prefix.values(), prefix.hidden()] {
        expected.extend(array.iter().flat_map(|number| number.to_ne_bytes()));
    }
    expected.extend(prefix.mask().iter().map(|&is_there| u8::from(is_there)));
    expected.extend(prefix.positions().iter().flat_map(|position| position.to_ne_bytes()));

    limits = Limits::default();
    limits.new_tokens = 0;
    session = Session::new(&Model::open(&retrieval).unwrap(), &limits).unwrap();
    let [page, _] = picture_and_array(&mut session, &picture);
    let mut vectors = session.new_embedding().unwrap();
    session.embed_picture(&page, &options, &mut vectors).unwrap();
    expected.extend(vectors.values().iter().flat_map(|number| number.to_ne_bytes()));
    session.embed_query("when does the bus leave?", &options, &mut vectors).unwrap();
    expected.extend(vectors.values().iter().flat_map(|number| number.to_ne_bytes()));
    assert!(std::fs::read(&arrays).unwrap() == expected, "other numbers");
}

/// What `palmtop.pull` gets of a hub of our own is what a conversion of the whole checkpoint gives.
fn test_pull(mut python: Command) {
    let (hub, whole, models) = (Hub::new(), checkpoint("tiny1"), tempfile::tempdir().unwrap());
    hub.add("google/paligemma-test", whole.path(), 'a');
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(here().join("tests/test_pull.py"));
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        python.env_remove(variable);
    }
    python.env("HF_ENDPOINT", &hub.endpoint).env("PALMTOP_MODELS", models.path());
    let pulled = check(&python.env("HF_HOME", models.path().join("home")).output().unwrap());
    let wanted = models.path().join("wanted");
    let options = Options {
        recipe: "int4".parse().unwrap(),
        name: Some("google/paligemma-test".into()),
        revision: Some("a".repeat(40)),
        ..Options::default()
    };
    palmtop_convert::convert(whole.path(), &wanted, &options, &()).unwrap();
    assert!(std::fs::read(pulled).unwrap() == std::fs::read(wanted).unwrap(), "the bytes are others");
}

fn test_stubs(mut python: Command) {
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(here().join("tests/test_stubs.py"));
    check(&python.arg(here().join("palmtop/_palmtop.pyi")).output().unwrap());
}

fn skips(output: &Output, all: bool) {
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if let Some((what, why)) = line.strip_prefix("SKIPPED: ").and_then(|line| line.split_once(": ")) {
            assert!(!all, "{what}: {why}");
            skipped(what, why);
        }
    }
}

/// `test_watch.py` on the model that is part of the program, whose records it prints against the Rust library's, and
/// the example of a robot.
fn test_watch(mut python: Command, folder: &Path, all: bool) {
    let demo = here().join("../demo");
    let (model, bus) = (demo.join("demo.palm"), demo.join("day.png"));
    let empty = demo.join("menu.png");
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    let drive = |budget: &str, frames: &Path, python: &Command| {
        let mut robot = Command::new(python.get_program());
        robot.envs(python.get_envs().filter_map(|(name, value)| Some((name, value?))));
        robot.arg(here().join("examples/robot.py")).arg(&model).arg(frames).args([budget, "bus"]);
        check(&robot.output().unwrap())
    };
    let output =
        python.arg(here().join("tests/test_watch.py")).args([&model, &bus, &empty]).output().unwrap();
    let said = check(&output);
    skips(&output, all);
    let said: Vec<serde_json::Value> = said.lines().map(comparable).collect();
    assert_eq!(said, records(&model, &bus, &empty));

    let frames = folder.join("frames");
    std::fs::create_dir(&frames).unwrap();
    for number in 0..8 {
        let picture = if number < 3 { &bus } else { &empty };
        std::fs::copy(picture, frames.join(format!("{number}.png"))).unwrap();
    }
    let said = drive("3600000", &frames, &python);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("frame 0: bus comes at "), "{said}");
    assert!(lines[1].starts_with("frame 5: bus goes"), "{said}");
    assert!(lines[2].starts_with("8 frames, ") && lines[2].ends_with(" answers, 0 late"), "{said}");
    let said = drive("0", &frames, &python);
    assert!(said.starts_with("frame 0: late, the robot stops\nframe 1: late"), "{said}");
    assert!(said.ends_with("8 frames, 0 answers, 8 late\n"), "{said}");
}

/// What the Rust library tells of the film of `test_watch.py`.
fn records(model: &Path, bus: &Path, empty: &Path) -> Vec<serde_json::Value> {
    const QUESTIONS: &str = "[[question]]\nname = \"traffic\"\ndetect = [\"bus\", \"tree\"]\nat_least_every = \"1s\"\n\
        [[question]]\ncaption = \"en\"\n[[question]]\nname = \"panda\"\nask = \"is there a panda?\"\n\
        choose = [\"yes\", \"no\"]\n[[question.rule]]\nis = \"no\"\n";
    let model = Model::open(model).unwrap();
    let how = FrameOptions { recording: true, ..FrameOptions::default() };
    let prepared = PreparedFrames::new(&model, QUESTIONS, &Limits::default(), how).unwrap();
    let mut watch =
        FrameWatch::new(&model, prepared, &ThreadHints::default(), &CancelToken::default()).unwrap();
    let [bus, empty] = [bus, empty].map(|path| decode_file(path, &ImageLimits::default()).unwrap());
    let mut told = Vec::new();
    let mut tell =
        |record: &Record| told.push(comparable(&serde_json::to_string(&Line::from(record)).unwrap()));
    let start = Instant::now();
    for number in 0..20 {
        let picture = if number < 6 { &bus } else { &empty };
        let taken = start + Duration::from_millis(200) * number;
        watch.frame(0, &picture.view().into(), Some(taken), &mut |record, _| tell(&record)).unwrap();
    }
    watch.end(&mut |record, _| tell(&record));
    assert!(told.len() >= 8, "{told:?}");
    told
}

/// A record's line without what is another one in every run: the time of day and the run's number in the event's name.
fn comparable(line: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    for key in ["time", "latency_ms", "id"] {
        value.as_object_mut().unwrap().remove(key);
    }
    value
}

#[test]
#[ignore = "downloads from PyPI, and takes two minutes"]
fn pip_installs_it_beside_pillow_and_supervision() {
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    check(&python().args(["-m", "venv"]).arg(&venv).output().unwrap());
    let package = format!("{}[pictures,supervision]", here().display());
    check(&Command::new(venv.join("bin/pip")).args(["install", &package]).output().unwrap());
    test_stubs(Command::new(venv.join("bin/python")));
    test(Command::new(venv.join("bin/python")), true);
    test_rows(Command::new(venv.join("bin/python")));
    test_watch(Command::new(venv.join("bin/python")), folder.path(), true);
}
