//! Several pictures in one prompt, and frames of videos.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{assert_says, data, fail, model, palmtop, scene, succeed, text};
use palmtop::image::DecodeOptions;
use palmtop_watch::film::Film;
use palmtop_watch::source::OpenOptions;
use serde_json::Value;

const PROMPT: &str = "caption en";

/// A film of frames with slopes that differ, at 10 frames a second.
fn film(folder: &Path, frames: u8) -> PathBuf {
    let (width, height) = (48u8, 32u8);
    let mut film = format!("YUV4MPEG2 W{width} H{height} F10:1 C420\n").into_bytes();
    for n in 0..frames {
        film.extend(b"FRAME\n");
        for y in 0..height {
            film.extend((0..width).map(|x| 16u8.wrapping_add(x.wrapping_mul(n + 1)).wrapping_add(y * 3)));
        }
        film.extend((0..24 * 16).map(|i| (i % 200) as u8 + n));
        film.extend([100u8.wrapping_add(n.wrapping_mul(20)); 24 * 16]);
    }
    let path = folder.join("film.y4m");
    fs::write(&path, film).unwrap();
    path
}

/// Frames of a film as pictures.
fn pictures(film: &Path, folder: &Path, numbers: &[u64]) -> Vec<PathBuf> {
    let address = text(film).parse().unwrap();
    let mut film = Film::open(&address, &OpenOptions::default(), &DecodeOptions::default()).unwrap();
    let mut save = |number: &u64| {
        let frame = film.frame(*number, &mut || true).unwrap().expect("such a frame");
        let path = folder.join(format!("{number}.png"));
        let (width, height) = (frame.image.width(), frame.image.height());
        image::RgbImage::from_raw(width, height, frame.image.data().to_vec()).unwrap().save(&path).unwrap();
        path
    };
    numbers.iter().map(&mut save).collect()
}

/// What the program answers, one JSON object an answer.
fn answers(args: &[&str]) -> Vec<Value> {
    succeed([&["run", "-p", PROMPT, "-m", model(), "--max-new-tokens", "12", "--json"], args].concat()).json()
}

/// The tokens of the one answer about pictures that belong together.
fn together(pictures: &[PathBuf], more: &[&str]) -> Value {
    let paths: Vec<&str> = pictures.iter().map(|path| text(path)).collect();
    let mut answers = answers(&[&["--together"], &paths[..], more].concat());
    assert_eq!(answers.len(), 1);
    answers.remove(0)["tokens"].take()
}

/// Which frames an answer is about.
fn frames(answer: &Value) -> Vec<u64> {
    answer["together"].as_array().unwrap().iter().map(|part| part["frame"].as_u64().unwrap()).collect()
}

#[test]
fn pictures_that_belong_together_are_answered_as_transformers_does() {
    let mut compared = 0;
    for vector in palmtop_tests::several("tiny1") {
        let want: Vec<u64> = vector.tensors["gen.tokens"].values.iter().map(|&token| token as u64).collect();
        let images: Vec<&str> = vector.images.iter().map(|path| text(path)).collect();
        let length = want.len().to_string();
        let args = ["run", "--together", "-p", &vector.prompt, "-m", model(), "--json", "--max-new-tokens"];
        let ran = succeed([&args[..], &[&length], &images[..]].concat());
        let [answer] = &ran.json()[..] else { panic!("one answer: {}", ran.stdout) };
        let got: Vec<u64> =
            answer["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
        assert!(!got.is_empty() && want.starts_with(&got), "{}: {got:?}, not {want:?}", vector.name);
        assert!(got.len() == want.len() || answer["stop"] == "eos", "{}", vector.name);
        let parts = answer["together"].as_array().unwrap();
        assert_eq!(parts.len(), images.len());
        for (part, image) in parts.iter().zip(&images) {
            assert_eq!((&part["source"], &part["frame"]), (&Value::from(*image), &Value::Null));
        }
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn frames_of_a_film_are_pictures_that_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path(), 7);
    for (options, numbers) in [
        (&["--frames", "3", "--stride", "2"][..], &[0, 2, 4][..]),
        (&["--frames", "3"], &[1, 3, 5]),
        // One that ends before there are so many begins again.
        (&["--frames", "5", "--stride", "3"], &[0, 3, 6, 0, 3]),
        (&["--frames", "9"], &[0, 1, 2, 3, 4, 5, 6, 0, 1]),
        // No option at all: what is a video is treated as one.
        (&[], &[0, 1, 2, 3, 4, 5, 6, 0]),
    ] {
        let answers = answers(&[&[text(&film)], options].concat());
        assert_eq!(answers.len(), 1);
        assert_eq!(frames(&answers[0]), numbers, "{options:?}");
        let mut each = numbers.to_vec();
        each.sort_unstable();
        each.dedup();
        let saved = pictures(&film, folder.path(), &each);
        let place = |number: &u64| saved[each.binary_search(number).unwrap()].clone();
        let pictures: Vec<PathBuf> = numbers.iter().map(place).collect();
        assert_eq!(answers[0]["tokens"], together(&pictures, &[]), "{options:?}");
        assert_eq!(answers[0]["together"][1]["seconds"], numbers[1] as f64 / 10.0);
    }
}

#[test]
fn a_window_slides_over_a_film() {
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path(), 8);
    let saved = pictures(&film, folder.path(), &[0, 1, 2, 3, 4, 5, 6, 7]);
    let options = ["--frames", "3", "--stride", "1", "--slide", "2"];
    let answers = answers(&[&[text(&film)], &options[..]].concat());
    // The last frames are not left out.
    let windows = [[0, 1, 2], [2, 3, 4], [4, 5, 6], [5, 6, 7]];
    assert_eq!(answers.iter().map(frames).collect::<Vec<_>>(), windows.map(|w| w.to_vec()));
    for (answer, window) in answers.iter().zip(windows) {
        let pictures = window.map(|number| saved[number as usize].clone());
        assert_eq!(answer["tokens"], together(&pictures, &[]), "{window:?}");
    }
    let text_answers = succeed([&["run", "-p", PROMPT, "-m", model(), text(&film)], &options[..]].concat());
    assert_says(&text_answers.stdout, &["film.y4m from 0.0 to 0.2 s", "film.y4m from 0.5 to 0.7 s"]);
}

#[test]
fn a_preset_takes_frames_and_resizes_as_its_fine_tune_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path(), 30);
    let args = ["ask", "-q", "what?", "-m", model(), "--max-new-tokens", "12", "--json", text(&film)];
    let of = |options: &[&str]| succeed([&args[..], options].concat()).json().remove(0);
    let preset = of(&["--preset", "msvd"]);
    assert_eq!(frames(&preset), [0, 26, 0, 26, 0, 26, 0, 26]);
    assert_eq!(preset["prompt"], "answer en what?");
    let likewise = ["--frames", "8", "--stride", "26"];
    let aliased = of(&[&likewise[..], &["--resize", "bilinear-aliased"]].concat());
    let plain = of(&likewise);
    assert_eq!(preset["probabilities"], aliased["probabilities"]);
    assert_ne!(preset["probabilities"], plain["probabilities"]);
}

/// What the program makes of what comes through a pipe.
fn piped(bytes: &[u8], options: &[&str]) -> common::Ran {
    let args = ["run", "-", "-p", PROMPT, "-m", model(), "--max-new-tokens", "3", "--json"];
    let mut command = palmtop([&args[..], options].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read all.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes);
    common::Ran::from(child.wait_with_output().unwrap())
}

#[test]
fn motion_jpeg_is_a_film_if_it_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let picture = fs::read(data("encoded/subsampled.jpg")).unwrap();
    let save = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, picture.repeat(3)).unwrap();
        path
    };
    let (film, photo) = (save("film.mjpeg"), save("photo.jpg"));
    assert_eq!(frames(&answers(&[text(&film)])[0]), [0, 1, 2, 0, 1, 2, 0, 1]);
    // A photo with others behind it, as cameras write them, is the first one.
    assert!(answers(&[text(&photo)])[0].get("together").is_none());
    let ran = succeed(["run", "-p", PROMPT, "-m", model(), "--max-new-tokens", "3", text(&film)]);
    assert_says(&ran.stderr, &["film.mjpeg: 3 frames are in it, shown again", "until there are 8"]);
    // Boxes are of one picture.
    let ran = succeed(["detect", "-l", "cat", "-m", model(), "--max-new-tokens", "3", text(&film)]);
    assert!(!ran.stderr.contains("frames"), "{}", ran.stderr);
}

#[test]
fn what_has_no_frames_is_said_once_and_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let (notes, empty) = (save("notes.txt", b"no film"), save("empty.y4m", b""));
    let mp4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42";
    let film = film(folder.path(), 2);
    let address = format!("{}?fps=2", text(&film));
    for (source, options, says) in [
        (text(&scene()), &["--frames", "2"][..], ["no frame", "hint: it is a picture"]),
        (text(&notes), &["--frames", "2"], ["no frame", "hint: videos are Motion JPEG"]),
        (text(&empty), &["--frames", "2"], ["no frame", "hint: it has no bytes"]),
        (text(&folder.path().join("*.y4m")), &["--frames", "2"], ["there is no file", "hint: patterns"]),
        (&address, &[], ["no file matches", "hint: settings behind a name are for videos: add --frames"]),
        ("rtsp://camera/1", &[], ["there is no file", "hint: of a camera or a stream"]),
        (text(&film), &["--together"], ["looks like a video", "hint: palmtop caption, ask and run"]),
    ] {
        let said = fail(1, [&["run", "-p", PROMPT, "-m", model(), source], options].concat());
        assert_says(&said, &says);
        assert!(!said.contains("warn:"), "{said}");
    }
    for (bytes, options, says) in [
        (
            &mp4[..],
            &["--frames", "2", "--stride", "2"][..],
            ["no frame", "hint: through a pipe", "ffmpeg -i"],
        ),
        (&fs::read(&film).unwrap(), &[], ["looks like a video", "hint: palmtop caption", "--stride 15"]),
    ] {
        let ran = piped(bytes, options);
        assert_eq!(ran.code, Some(1));
        assert_says(&ran.stderr, &says);
    }
}

#[test]
fn a_pipe_is_a_film_too() {
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path(), 5);
    let film = fs::read(&film).unwrap();
    let ask = |options: &[&str]| piped(&film, options);
    let ran = ask(&["--frames", "2", "--stride", "3"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(frames(&ran.json()[0]), [0, 3]);
    let ran = ask(&["--frames", "2"]);
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["can be read only once", "hint: say how far apart", "--stride"]);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene();
    let (picture, film) = (text(&scene), film(folder.path(), 2));
    let film = text(&film);
    let refused = |code, args: &[&str], says: &[&str]| assert_says(&fail(code, args), says);
    let ask = ["ask", "-q", "what?", "-m", model()];
    let with = |rest: &[&'static str], sources: &[&str]| -> Vec<String> {
        ask.iter().chain(rest).chain(sources).map(|&arg| arg.to_owned()).collect()
    };
    for (options, sources, says) in [
        (&["--preset", "vatex"][..], &[film][..], "--preset vatex: this fine-tune is not for `palmtop ask`"),
        (&["--preset", "nlvr2"], &[picture], "the preset takes 2 pictures, and not 1"),
        (&["--preset", "nlvr2", "--frames", "2"], &[picture], "takes two pictures"),
        (&["--preset", "msvd", "--together"], &[picture], "takes frames of a video"),
        (&["--slide", "2"], &[film], "say with --stride"),
        (&["--together", "--frames", "2"], &[picture], "cannot be used with"),
    ] {
        let args = with(options, sources);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refused(2, &args, &[says]);
    }
    refused(
        1,
        &["ask", "-q", "x", "-m", model(), "--frames", "2", "gone.mp4"],
        &["there is no file gone.mp4"],
    );
    let folder_name = text(folder.path());
    let says = ["is a folder; --together takes"];
    refused(2, &["caption", "-m", model(), "--frames", "2", folder_name], &says);
    let save = ["run", "-p", "detect cat", "-m", model(), "--save", "x.png", "--together", picture, picture];
    refused(2, &save, &["--save", "several"]);
    // Boxes and masks are of one picture.
    refused(2, &["detect", "-l", "cat", "--together", picture, picture], &["--together"]);
    let gone = folder.path().join("gone.png");
    let ran = fail(1, ["caption", "-m", model(), "--together", picture, text(&gone)]);
    assert_says(&ran, &["there is no file or folder", "gone.png"]);
    let broken = folder.path().join("broken.png");
    fs::write(&broken, b"\x89PNG\r\n\x1a\n").unwrap();
    let ran = fail(1, ["caption", "-m", model(), "--together", picture, text(&broken)]);
    assert_says(&ran, &["cannot use picture", "broken.png"]);
}

#[test]
fn compressed_video_takes_ffmpeg_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    fs::write(&clip, b"\0\0\0\x18ftypisom\0\0\0\0isommp42").unwrap();
    let mut command = palmtop(["caption", "-m", model(), text(&clip)]);
    let ran = common::Ran::from(command.env("PATH", folder.path()).output().unwrap());
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["clip.mp4", "the program 'ffmpeg'", "apt install ffmpeg"]);
}

#[test]
fn memory_for_many_pictures_is_planned() {
    let plan = |pictures: &str| {
        let ran = succeed(["plan", model(), "--pictures", pictures, "--json"]);
        ran.json().remove(0)["kv_bytes"].as_u64().unwrap()
    };
    assert!(plan("16") > plan("1"));
    // The features of the others are beside the session.
    let bytes = |text: &str| text.parse::<u64>().unwrap();
    let said = succeed(["plan", model(), "--pictures", "16"]).stdout;
    let session = said.lines().find_map(|line| line.strip_prefix("session")).unwrap();
    let session = bytes(session.split_whitespace().next().unwrap());
    let last: Vec<&str> = said.lines().last().unwrap().split(' ').collect();
    let features = succeed(["plan", model(), "--json"]).json()[0]["features_bytes"].as_u64().unwrap();
    assert_eq!((last[0], bytes(last[1]), last[7]), ("and", 15 * features, "15"));
    assert_eq!(bytes(last[last.len() - 4]), session + 15 * features);
}
