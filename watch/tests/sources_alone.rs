//! What belongs to the whole process: its path of programs, descriptors, threads and allocations. A single test, since
//! others beside it would change what is counted.
#![cfg(target_os = "linux")]

#[path = "../../tests/common/counting.rs"]
mod counting;
mod sources_common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use counting::{Asked, by_all_threads};
use palmtop::image::{DecodeOptions, RgbImage, decode_into};
use palmtop_watch::source::{Capture, OpenOptions, SourceError, Taken};

use sources_common::{Server, film, jpeg, next, quick, script, start_with, until};

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_belongs_to_the_process() {
    pictures_of_a_pipe_take_no_allocation();
    decoding_takes_the_memory_of_the_decoder_only();
    neither_descriptors_nor_threads_grow();
    programs_of_boards_are_found_on_the_path();
}

/// From the pipe to the loop and back.
fn pictures_of_a_pipe_take_no_allocation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    for one in [film(&[7])[film(&[]).len()..].to_vec(), jpeg(3)] {
        let capture = start_with(&format!("{}?all=true", path.display()), quick());
        let mut pipe = std::fs::File::options().write(true).open(&path).unwrap();
        if one.starts_with(b"FRAME") {
            std::io::Write::write_all(&mut pipe, &film(&[])).unwrap();
        }
        let mut spare = None;
        let mut pictures = |count: usize| {
            for _ in 0..count {
                std::io::Write::write_all(&mut pipe, &one).unwrap();
                let Taken::Shot(shot) = capture.take(spare.take(), sources_common::LONG) else {
                    panic!("a picture comes")
                };
                spare = Some(shot.bytes);
            }
        };
        // There are three buffers at most, and each grows once; when that is depends on who comes first.
        let rounds: Vec<Asked> = (0..5).map(|_| by_all_threads(|| pictures(100)).1).collect();
        assert!(rounds.contains(&Asked::NOTHING), "{rounds:?}");
    }
}

/// A picture as a camera gives it, 640 × 480 in colour, of which the pixels alone are 900 KiB.
fn decoding_takes_the_memory_of_the_decoder_only() {
    let (width, height) = (640u32, 480u32);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i / 7 % 251) as u8 ^ (i / 1920) as u8).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 80)
        .encode(&pixels, width, height, image::ExtendedColorType::Rgb8)
        .unwrap();
    let file = file.into_inner();
    let options = DecodeOptions::default();
    let mut picture = RgbImage::new(1, 1, vec![0; 3]).unwrap();
    decode_into(&file, &options, &mut picture).unwrap();
    let mut again = || by_all_threads(|| assert!(!decode_into(&file, &options, &mut picture).unwrap())).1;
    let (each, same) = (again(), again());
    assert_eq!(each, same, "each picture takes what the one before it took");
    let Asked { calls: allocations, bytes } = each;
    println!("a JPEG of {width}x{height}: {allocations} allocations, {bytes} bytes");
    assert!(allocations <= ALLOCATIONS_MAX && bytes <= BYTES_MAX, "{allocations} allocations, {bytes} bytes");
    let (_, fresh) = by_all_threads(|| drop(palmtop::image::decode_with(&file, &options).unwrap()));
    assert!(fresh.bytes >= bytes + (width * height * 3) as usize, "{fresh:?}");
}

/// Of zune-jpeg 0.5 and of the walk over the file before it, for such a picture.
const ALLOCATIONS_MAX: usize = 24;
const BYTES_MAX: usize = 50 << 10;

fn neither_descriptors_nor_threads_grow() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(dir.path().join("shots")).unwrap();
    std::fs::write(dir.path().join("film.y4m"), film(&[1, 2])).unwrap();
    let frames = dir.path().join("film.y4m");
    let hangs = script(dir.path(), "hangs", &format!("cat {}; exec sleep 1000", frames.display()));
    let ends = script(dir.path(), "ends", &format!("exec cat {}", frames.display()));
    let server = Server::new(|_, _, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n";
        let _ = std::io::Write::write_all(stream, &[head.as_bytes(), &jpeg(1)].concat());
        let _ = std::io::Read::read(stream, &mut [0]);
        false
    });
    let with = |program: &Path| OpenOptions {
        ffmpeg: program.to_str().unwrap().into(),
        pause: Duration::from_millis(1),
        ..OpenOptions::default()
    };
    let http = format!("http://{}/x", server.host);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let once = || {
        drop(start_with(&at("pipe"), quick()));
        drop(start_with(&at("shots"), quick()));
        next(&start_with(&at("film.y4m"), quick()));
        next(&start_with(&http, quick()));
        next(&start_with("rtsp://127.0.0.1/x", with(&hangs)));
        assert!(Capture::start("/no/such/file".parse().unwrap(), quick()).is_err());
    };
    once();
    // The server's own are this process's too, and end a moment later.
    let settled = |what: &str, folder: &str, most: usize| until(what, || entries(folder) <= most);
    let (files, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    for _ in 0..40 {
        once();
    }
    settled("descriptors are closed", "/proc/self/fd", files);
    settled("threads have ended", "/proc/self/task", threads);
    // One that is opened again and again.
    let capture = start_with("rtsp://127.0.0.1/x", with(&ends));
    let rounds = |count: u64| {
        let before = capture.counts().0;
        until("it is opened again", || capture.counts().0 >= before + 2 * count);
    };
    rounds(1);
    // While it is open it has two more.
    let files = files + 8;
    rounds(200);
    assert!(entries("/proc/self/fd") <= files && entries("/proc/self/task") <= threads + 1);
    drop(capture);
}

fn programs_of_boards_are_found_on_the_path() {
    let path = std::env::var("PATH").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let set_path = |value: String| {
        // SAFETY: this test is the only one of its program, and no thread of it reads the environment just now.
        unsafe { std::env::set_var("PATH", value) }
    };
    let (pictures, frames) = (dir.path().join("pictures"), dir.path().join("frames"));
    std::fs::write(&pictures, [jpeg(1), jpeg(2)].concat()).unwrap();
    std::fs::write(&frames, film(&[9])).unwrap();
    let said = dir.path().join("said");
    let fake = |name: &str, gives: &Path| {
        let folder = dir.path().join(format!("of-{name}"));
        std::fs::create_dir(&folder).unwrap();
        let body =
            format!("echo \"$@\" > {}; /bin/cat {}; exec /bin/sleep 1000", said.display(), gives.display());
        script(&folder, name, &body);
        folder.to_str().unwrap().to_owned()
    };
    let open = |address: &str| Capture::start(address.parse().unwrap(), quick());
    let arguments = || std::fs::read_to_string(&said).unwrap();

    set_path("/no/such/folder".into());
    let error = open("csi://0").unwrap_err();
    assert!(matches!(error, SourceError::NoCsiProgram { .. }));
    let text = error.to_string();
    assert!(
        text.contains("csi://0") && text.contains("rpicam-apps") && text.contains("nvarguscamerasrc"),
        "{text}"
    );

    let jetson = fake("gst-launch-1.0", &frames);
    set_path(jetson.clone());
    let capture = open("csi://1?size=1280x720&fps=29.97").unwrap();
    assert_eq!(next(&capture)[0], 9);
    for part in ["sensor-id=1 ", "framerate=29970/1000", "width=1280,height=720", "y4menc ! fdsink"] {
        assert!(arguments().contains(part), "{part}: {}", arguments());
    }
    drop(capture);

    let old = fake("libcamera-vid", &pictures);
    set_path(format!("{old}:{jetson}"));
    let capture = open("csi://0").unwrap();
    sources_common::until_picture(&capture, &jpeg(2));
    assert!(arguments().contains("--camera 0 --width 640 --height 480"), "{}", arguments());
    drop(capture);

    let new = fake("rpicam-vid", &pictures);
    set_path(format!("{old}:{new}"));
    let capture = open("csi://0?fps=10").unwrap();
    sources_common::until_picture(&capture, &jpeg(2));
    assert!(arguments().contains("--framerate 10"), "{}", arguments());
    drop(capture);
    set_path(path);
}
