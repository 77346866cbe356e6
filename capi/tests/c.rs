//! The C library as C programs use it: the examples and the programs in `c`, built by every compiler that is here, run
//! as they are, under AddressSanitizer and under valgrind.

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Compiler, SANITIZE, compilers, crate_dir, exists, libraries, run};
use palmtop::image::{Filter, Frame, ImageLimits, PixelFormat, Plane, Rotation, decode_file};
use palmtop::{
    Answer, CancelToken, GenerateOptions, ImageFeatures, Limits, Model, Prefix, PrefixLimits, PrefixText,
    Request, Session, ThreadHints,
};
use palmtop_convert::Options;
use palmtop_tests::skip::{missing, skipped};
use palmtop_tests::{bits, checkpoint, data, listing};
use palmtop_watch::frames::{FrameOptions, FrameWatch, PreparedFrames};
use palmtop_watch::record::Line;
use tempfile::TempDir;

/// A tiny model with a mask decoder, made once.
fn model() -> &'static Path {
    static MODEL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.palm");
        let mask_codec = Some(data().join("vectors/seg/vae-random.npz"));
        let options = Options { mask_codec, ..Options::default() };
        palmtop_convert::convert(checkpoint("tiny1").path(), &path, &options, &()).unwrap();
        (folder, path)
    });
    path
}

/// How a program is built and run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// With the shared library.
    Shared,
    /// With the static library.
    Static,
    /// With the static library, addresses and undefined behaviour of the C side and all memory checked, leaks included.
    Sanitized,
    /// With the static library, every access of the whole program checked, leaks included.
    Valgrind,
}

/// A built program.
struct Program {
    way: Way,
    path: PathBuf,
    _folder: TempDir,
}

fn build(compiler: Compiler, way: Way, source: &Path) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let mut command = compiler.c();
    command
        .args(["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(crate_dir());
    command.arg(source).arg("-o").arg(&path);
    match way {
        Way::Shared => {
            let to_library = format!("-Wl,-rpath,{}", libraries().display());
            command.arg("-L").arg(libraries()).args(["-lpalmtop_capi", &to_library]);
        }
        _ => {
            command.arg(libraries().join("libpalmtop_capi.a"));
        }
    }
    if way == Way::Sanitized {
        command.args(SANITIZE);
    }
    command.args(["-lpthread", "-ldl", "-lm"]);
    run(&mut command);
    Program { way, path, _folder: folder }
}

impl Program {
    /// Runs it; any error or leak that is found fails.
    fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.way {
            Way::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--fair-sched=yes"]);
                // It knows no newer instructions.
                command.args(["--errors-for-leak-kinds=definite,indirect,possible"]).arg(&self.path);
                command.env("PALMTOP_ISA", if cfg!(target_arch = "x86_64") { "avx2" } else { "scalar" });
                command
            }
            _ => Command::new(&self.path),
        };
        command.args(arguments);
        command
    }
}

fn example(name: &str) -> PathBuf {
    crate_dir().join("../examples/c").join(name)
}

fn test_program(name: &str) -> PathBuf {
    crate_dir().join("tests/c").join(name)
}

/// All ways with all compilers, as far as they are here.
fn everywhere(source: &Path, ways: &[Way], test: impl Fn(&Program)) {
    for (index, compiler) in compilers().into_iter().enumerate() {
        for &way in ways {
            // What valgrind looks at is the library, which is the same.
            if way == Way::Valgrind && index > 0 {
                continue;
            }
            if way == Way::Valgrind && !exists("valgrind") {
                missing("C programs under valgrind", "it is not here");
                continue;
            }
            if way == Way::Sanitized && !compiler.sanitizes() {
                missing("C programs under sanitizers", format_args!("{} lacks their libraries", compiler.c));
                continue;
            }
            test(&build(compiler, way, source));
        }
    }
}

fn scene() -> PathBuf {
    data().join("images/scene_640x361.png")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What the Rust library answers.
fn answers<'a>(picture: impl Into<Frame<'a>>, prompts: &[&str], new_tokens: usize) -> Vec<Answer> {
    let model = Model::open(model()).unwrap();
    let mut limits = Limits::default();
    (limits.batch, limits.new_tokens) = (prompts.len(), new_tokens);
    let mut session = Session::new(&model, &limits).unwrap();
    let (mut features, options) = (session.new_features().unwrap(), GenerateOptions::default());
    session.encode(picture, &mut features, &options).unwrap();
    let answers = session.answer(&features, prompts, &options, &mut |_| ControlFlow::Continue(()));
    answers.unwrap().to_vec()
}

#[test]
fn a_caption_is_the_one_of_the_rust_library() {
    let picture = decode_file(scene(), &ImageLimits::default()).unwrap();
    let caption = format!("{}\n", answers(picture.view(), &["caption en"], 256)[0].text);
    everywhere(&example("caption.c"), &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        assert_eq!(program.run(&[text(model()), text(&scene())]), caption, "{:?}", program.way);
        let refused = program.command(&["/no/model", text(&scene())]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("/no/model"));
    });
}

#[test]
fn a_camera_is_watched_until_a_button_is_pressed() {
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames.nv12");
    let (width, height, count) = (64, 48, 3);
    let bytes: Vec<u8> = (0..count * width * height * 3 / 2).map(|i| (i * 7 % 253) as u8).collect();
    std::fs::write(&frames, &bytes).unwrap();
    let arguments =
        |frame_ms, all_ms| [text(model()), text(&frames), "64", "48", frame_ms, all_ms, "cat", "dog"];
    everywhere(&example("camera.c"), &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        let said = program.run(&arguments("3600000", "3600000"));
        assert!(said.ends_with("3 frames answered, 0 late\n"), "{said}");
        let said = program.run(&arguments("0", "3600000"));
        assert!(said.ends_with("0 frames answered, 3 late\n"), "{said}");
    });
    // A camera that never ends, but for the button.
    let endless = build(compilers()[0], Way::Shared, &example("camera.c"));
    let mut endless = endless.command(&[text(model()), "/dev/zero", "64", "48", "3600000", "300", "cat"]);
    let said = run(&mut endless);
    assert!(said.contains(" frames answered, 0 late"), "{said}");
}

/// RGB frames, all unlike each other, one behind the other.
fn noisy_film(frames: usize, width: u32, height: u32) -> Vec<u8> {
    let bytes = frames * 3 * (width * height) as usize;
    (0..bytes).map(|i| (i * i / 11 % 241 + i / 5000) as u8).collect()
}

/// The features of frames, each encoded anew.
fn encoded(session: &mut Session, frames: &[Frame<'_>]) -> Vec<ImageFeatures> {
    let encode = |frame: &Frame<'_>| {
        let mut features = session.new_features().unwrap();
        session.encode(*frame, &mut features, &GenerateOptions::default()).unwrap();
        features
    };
    frames.iter().map(encode).collect()
}

fn rgb_frames(film: &[u8], width: u32, height: u32) -> Vec<Frame<'_>> {
    let bytes = 3 * (width * height) as usize;
    let frame = |pixels| Frame::packed(PixelFormat::Rgb, width, height, 3 * width as usize, pixels).unwrap();
    film.chunks_exact(bytes).map(frame).collect()
}

#[test]
fn a_film_is_asked_about_in_a_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.rgb");
    let (width, height, count) = (64, 48, 3);
    let film = noisy_film(6, width, height);
    std::fs::write(&path, &film).unwrap();
    let mut limits = Limits::default();
    (limits.pictures, limits.draft_tokens, limits.new_tokens) = (count, 8, 64);
    let mut session = Session::new(&Model::open(model()).unwrap(), &limits).unwrap();
    let (mut expected, mut tokens, mut right) = (String::new(), 0, 0);
    let mut last = Answer::default();
    let frames = rgb_frames(&film, width, height);
    for newest in 0..frames.len() {
        let oldest = (newest + 1).saturating_sub(count);
        // Here every frame of the window is encoded each time.
        let features = encoded(&mut session, &frames[oldest..=newest]);
        let pictures: Vec<&ImageFeatures> = features.iter().collect();
        let mut ask = |draft: &[u32]| {
            let request = Request { pictures: &pictures, prompt: "caption en", draft };
            let (options, hear) =
                (GenerateOptions::default(), &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(()));
            session.answer_requests(&[request], &options, hear).unwrap()[0].clone()
        };
        let answer = ask(&[]);
        right += ask(&last.tokens).accepted_draft_tokens;
        tokens += answer.tokens.len();
        expected += &format!("frames {oldest} to {newest}: {}\n", answer.text);
        last = answer;
    }
    expected += &format!("6 frames, {tokens} tokens, {right} of them from drafts\n");
    let arguments = [text(model()), text(&path), "64", "48", "3"];
    everywhere(&example("film.c"), &[Way::Shared, Way::Sanitized], |program| {
        assert_eq!(program.run(&arguments), expected, "{:?}", program.way);
        let mut piped = program.command(&[text(model()), "-", "64", "48", "3"]);
        assert_eq!(run(piped.stdin(std::fs::File::open(&path).unwrap())), expected, "through a pipe");
        let refused = program.command(&[text(model()), text(&path), "64", "48", "5000"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("pictures of a prompt"));
    });
}

/// The model that is part of the program, and a film for it: a bus, which then is not there any more.
fn film(folder: &Path, day: usize, after: usize) -> (PathBuf, Vec<u8>, String, String) {
    let demo = crate_dir().join("../demo");
    let picture = |name: &str| decode_file(demo.join(name), &ImageLimits::default()).unwrap();
    let (bus, none) = (picture("day.png"), picture("menu.png"));
    let mut bytes = bus.data().repeat(day);
    bytes.extend(none.data().repeat(after));
    let path = folder.join("frames.rgb");
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes, bus.width().to_string(), bus.height().to_string())
}

fn demo_model() -> PathBuf {
    crate_dir().join("../demo/demo.palm")
}

#[test]
fn a_robot_sees_a_bus_come_and_go_within_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, _, width, height) = film(folder.path(), 2, 4);
    let model = demo_model();
    let arguments = |budget| [text(&model), text(&frames), &width, &height, budget, "bus"];
    // Under valgrind it would be the calls of `watch.c` again, and a minute more.
    everywhere(&example("robot.c"), &[Way::Shared, Way::Sanitized], |program| {
        let said = program.run(&arguments("3600000"));
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("frame 0: bus comes at "), "{said}");
        assert!(lines[1].starts_with("frame 4: bus goes"), "{said}");
        assert!(lines[2].starts_with("6 frames, ") && lines[2].ends_with(" answers, 0 late"), "{said}");
        let said = program.run(&arguments("0"));
        assert!(said.starts_with("frame 0: late, the robot stops\nframe 1: late"), "{said}");
        assert!(said.ends_with("6 frames, 0 answers, 6 late\n"), "{said}");
        let refused = program.command(&["/no/model", text(&frames), &width, &height, "300", "bus"]).output();
        let refused = refused.unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("/no/model"));
    });
}

/// A record's line without what is another one in every run: the time of day and the run's number in the event's name.
fn comparable(line: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = value.as_object_mut().unwrap();
    for key in ["time", "latency_ms", "id"] {
        fields.remove(key);
    }
    value
}

#[test]
fn a_watch_tells_what_the_rust_library_tells() {
    const QUESTIONS: &str = "[[question]]\nname = \"traffic\"\ndetect = [\"bus\", \"tree\"]\nat_least_every = \"1s\"\n\
        [[question]]\ncaption = \"en\"\n[[question]]\nname = \"panda\"\nask = \"is there a panda?\"\n\
        choose = [\"yes\", \"no\"]\n[[question.rule]]\nis = \"no\"\n";
    let folder = tempfile::tempdir().unwrap();
    let (frames, bytes, width, height) = film(folder.path(), 1, 4);
    let model = Model::open(&demo_model()).unwrap();
    let how = FrameOptions { recording: true, ..FrameOptions::default() };
    let prepared = PreparedFrames::new(&model, QUESTIONS, &Limits::default(), how).unwrap();
    let mut watch =
        FrameWatch::new(&model, prepared, &ThreadHints::default(), &CancelToken::default()).unwrap();
    let (w, h): (u32, u32) = (width.parse().unwrap(), height.parse().unwrap());
    let mut expected = Vec::new();
    let start = Instant::now();
    let mut tell = |record: &palmtop_watch::record::Record| {
        expected.push(comparable(&serde_json::to_string(&Line::from(record)).unwrap()));
    };
    for (number, picture) in bytes.chunks_exact(3 * (w * h) as usize).enumerate() {
        let frame = Frame::packed(PixelFormat::Rgb, w, h, 3 * w as usize, picture).unwrap();
        let taken = start + Duration::from_millis(200) * number as u32;
        watch.frame(0, &frame, Some(taken), &mut |record, _| tell(&record)).unwrap();
    }
    watch.end(&mut |record, _| tell(&record));
    let kinds = |kind: &str| expected.iter().filter(|record| record["record"] == kind).count();
    assert!(kinds("answer") >= 4 && kinds("event") >= 4, "{expected:?}");
    let demo = demo_model();
    everywhere(&test_program("watch.c"), &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        let said = program.run(&[text(&demo), QUESTIONS, text(&frames), &width, &height, "200"]);
        let said: Vec<serde_json::Value> = said.lines().map(comparable).collect();
        assert_eq!(said, expected, "{:?}", program.way);
    });
}

#[test]
fn whatever_is_handed_in_wrongly_gives_an_error() {
    let no_model = scene();
    everywhere(&test_program("arguments.c"), &[Way::Static, Way::Sanitized, Way::Valgrind], |program| {
        assert_eq!(program.run(&[text(model()), text(&scene()), text(&no_model)]), "ok\n");
    });
}

#[test]
fn threads_share_a_model_and_fight_for_a_session() {
    everywhere(&test_program("threads.c"), &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        let rounds = if program.way == Way::Valgrind { "2" } else { "20" };
        let said = program.run(&[text(model()), rounds]);
        assert!(said.starts_with("ok: "), "{said}");
    });
}

#[test]
fn watches_share_a_model_and_one_is_fought_for() {
    // Not under valgrind, which runs one thread at a time: the same calls run there one after the other (`watch.c`).
    everywhere(&test_program("watch_threads.c"), &[Way::Shared, Way::Sanitized], |program| {
        let said = program.run(&[text(model()), "20"]);
        assert!(said.starts_with("ok: "), "{said}");
    });
}

#[test]
fn nothing_is_allocated_between_session_and_last_token() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        skipped("the allocations of C programs", "counting them takes glibc");
        return;
    }
    everywhere(&test_program("allocations.c"), &[Way::Shared, Way::Static], |program| {
        assert_eq!(program.run(&[text(model())]), "ok\n");
    });
}

/// Not under valgrind, which rounds in its own way.
#[test]
fn answers_have_the_same_bits_in_any_mode_of_floating_point() {
    everywhere(&test_program("float_mode.c"), &[Way::Shared, Way::Sanitized], |program| {
        assert_eq!(program.run(&[text(model())]), "ok\n");
    });
}

#[test]
fn answers_about_raw_pixels_are_those_of_the_rust_library_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let (width, height, stride) = (96, 70, 400);
    let pixels: Vec<u8> = (0..stride * height * 3 / 2).map(|i| (i * i / 7 % 251) as u8).collect();
    std::fs::write(&raw, &pixels).unwrap();
    let (luma, chroma) = pixels.split_at(stride * height);
    let (luma, chroma) = (Plane::new(luma, stride), Plane::new(chroma, stride));
    let packed = |format| Frame::packed(format, width, height as u32, stride, &pixels).unwrap();
    let frames = [
        ("1", packed(PixelFormat::Rgb)),
        ("2", packed(PixelFormat::Bgr)),
        ("3", packed(PixelFormat::Rgba)),
        ("4", packed(PixelFormat::Bgra)),
        ("5", packed(PixelFormat::Grey)),
        ("6", Frame::nv12(width, height as u32, luma, chroma).unwrap()),
        ("7", Frame::nv21(width, height as u32, luma, chroma).unwrap()),
        ("8", Frame::yuv420(width, height as u32, luma, chroma, chroma).unwrap()),
    ];
    let turns = ["0", "90", "180", "270"]
        .map(|degrees| (degrees, Rotation::from_degrees(degrees.parse().unwrap()).unwrap()));
    let prompts = ["caption en", "detect cat"];
    let program = build(compilers()[0], Way::Shared, &test_program("answers.c"));
    for (index, (format, frame)) in frames.into_iter().enumerate() {
        let (degrees, rotation) = turns[index % 4];
        let arguments =
            [text(model()), text(&raw), format, "96", "70", "400", degrees, prompts[0], prompts[1]];
        let said = program.run(&arguments);
        let expected: String = answers(frame.turned(rotation), &prompts, 12).iter().map(bits).collect();
        assert_eq!(said, expected, "format {format}, {degrees} degrees");
    }
}

#[test]
fn answers_about_several_pictures_are_those_of_the_rust_library_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.rgb");
    let (width, height) = (90, 70);
    let film = noisy_film(3, width, height);
    std::fs::write(&path, &film).unwrap();
    let model = Model::open(model()).unwrap();
    let mut limits = Limits::default();
    (limits.batch, limits.pictures, limits.draft_tokens, limits.new_tokens) = (3, 3, 4, 12);
    let mut session = Session::new(&model, &limits).unwrap();
    let mut frames = rgb_frames(&film, width, height);
    frames[2] = frames[2].turned(Rotation::from_degrees(90).unwrap());
    let features = encoded(&mut session, &frames);
    let [a, b, c] = [&features[0], &features[1], &features[2]];
    let pictures: [&[&ImageFeatures]; 3] = [&[a, b, c], &[c, a], &[b, b]];
    let prompts = ["caption en", "detect cat", "caption en"];
    let request = |i: usize| Request { pictures: pictures[i], prompt: prompts[i], draft: &[] };
    let mut ask = |requests: &[Request<'_>]| {
        let (options, hear) =
            (GenerateOptions::default(), &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(()));
        session.answer_requests(requests, &options, hear).unwrap().to_vec()
    };
    let plain = ask(&[request(0), request(1), request(2)]);
    let drafts: [&[u32]; 3] = [&plain[0].tokens, &[1, 2, 3, u32::MAX], &plain[2].tokens[..3]];
    let drafted = ask(&[0, 1, 2].map(|i| Request { draft: drafts[i], ..request(i) }));
    let right = [0, 1, 2].map(|i| drafted[i].accepted_draft_tokens);
    assert!(right[0] > 5 && right[1] == 0 && right[2] > 0 && right[2] <= 3, "{right:?}");
    let single = bits(&ask(&[Request { pictures: &[c], ..request(1) }])[0]);
    let all: String = plain.iter().map(bits).collect();
    let expected = format!(
        "{}\n{all}{all}{}\n{}\n{}\n{single}{single}ok\n",
        model.plan(&limits).unwrap().session_bytes(),
        right[0],
        right[1],
        right[2]
    );
    let source = test_program("several.c");
    everywhere(&source, &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        let said = program.run(&[text(self::model()), text(&path), "90", "70"]);
        assert_eq!(said, expected, "{:?}", program.way);
    });
}

/// Shapes as `prefix.c` prints them, and arrays as it writes them.
fn shapes_and_bytes(prefix: &Prefix, arrays: &mut Vec<u8>) -> String {
    for array in [prefix.keys(), prefix.values(), prefix.hidden()] {
        arrays.extend(array.iter().flat_map(|number| number.to_ne_bytes()));
    }
    arrays.extend(prefix.mask().iter().map(|&is_there| u8::from(is_there)));
    arrays.extend(prefix.positions().iter().flat_map(|position| position.to_ne_bytes()));
    let [layers, rows, heads, head_dim] = prefix.shape();
    let (width, next) = (prefix.hidden_shape()[1], prefix.next_position());
    format!("{layers} {rows} {heads} {head_dim} {width} {next}\n")
}

#[test]
fn prefixes_are_those_of_the_rust_library_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("frames.rgb"), folder.path().join("arrays"));
    let (width, height) = (90, 70);
    let film = noisy_film(2, width, height);
    std::fs::write(&path, &film).unwrap();
    let model = Model::open(model()).unwrap();
    let mut limits = Limits::default();
    (limits.pictures, limits.new_tokens) = (3, 0);
    limits.filter = Some(Filter::BilinearAliased);
    let mut session = Session::new(&model, &limits).unwrap();
    let features = encoded(&mut session, &rgb_frames(&film, width, height));
    let mut room = PrefixLimits::default();
    (room.pictures, room.tokens) = (3, 40);
    let mut expected = format!("{}\n", model.plan_prefix(&room).unwrap());
    let mut prefix = model.new_prefix(&room).unwrap();
    let mut arrays = Vec::new();
    let mut compute = |pictures: &[Option<&ImageFeatures>], text: PrefixText<'_>, prefix: &mut Prefix| {
        session.prefix(pictures, text, &GenerateOptions::default(), prefix).unwrap();
        shapes_and_bytes(prefix, &mut arrays)
    };
    let cameras = [Some(&features[0]), None, Some(&features[1])];
    expected += &compute(&cameras, PrefixText::Prompt("fold the shirt"), &mut prefix);
    room.hidden = false;
    let mut keys_only = model.new_prefix(&room).unwrap();
    expected += &compute(&cameras, PrefixText::Open("fold the shirt"), &mut keys_only);
    expected += &compute(&cameras[..1], PrefixText::Tokens(&[2, 7, 9]), &mut prefix);
    expected += "ok\n";
    everywhere(&test_program("prefix.c"), &[Way::Shared, Way::Sanitized, Way::Valgrind], |program| {
        let said = program.run(&[text(self::model()), text(&path), "90", "70", text(&out)]);
        assert_eq!(said, expected, "{:?}", program.way);
        assert!(std::fs::read(&out).unwrap() == arrays, "{:?}: other numbers", program.way);
    });
}

/// The program `palmtop` beside this test, if the workspace has been built as a whole.
#[test]
fn the_program_says_the_same_to_the_bit() {
    let program = libraries().parent().unwrap().join("palmtop");
    if !program.exists() {
        skipped("the C library beside the program palmtop", "it is not built (cargo test --workspace does)");
        return;
    }
    let picture = decode_file(scene(), &ImageLimits::default()).unwrap();
    let raw = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&raw, picture.data()).unwrap();
    let ours = build(compilers()[0], Way::Shared, &test_program("answers.c"));
    let ours = ours.run(&[text(model()), text(raw.path()), "1", "640", "361", "1920", "0", "caption en"]);
    let mut palmtop = Command::new(program);
    palmtop.arg("caption").arg(scene()).arg("-m").arg(model());
    let said = run(palmtop.args(["--quiet", "--json", "--max-new-tokens", "12"]));
    let line: serde_json::Value = serde_json::from_str(&said).unwrap();
    let list = |key: &str| line[key].as_array().unwrap().iter();
    let tokens = list("tokens").map(|token| token.as_u64().unwrap() as u32);
    let probabilities = list("probabilities").map(|p| p.as_f64().unwrap() as f32);
    assert_eq!(ours, listing(tokens.zip(probabilities), line["text"].as_str().unwrap()));
}
