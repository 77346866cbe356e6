//! Sources that need no hardware: files, pipes and programs, whole and broken.
#![cfg(unix)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use palmtop_watch::source::{Capture, OpenOptions, SourceError, Status, Taken};

const LONG: Duration = Duration::from_secs(30);

fn start(address: &str) -> Result<Capture, SourceError> {
    Capture::start(address.parse().unwrap(), OpenOptions::default())
}

/// The first byte of luma, and the number, of each picture up to the end.
fn all(capture: &Capture) -> Vec<(u64, u8)> {
    let (mut out, mut spare) = (Vec::new(), None);
    loop {
        match capture.take(spare.take(), LONG) {
            Taken::Shot(shot) => {
                assert!(shot.layout.frame(&shot.bytes).unwrap().is_ok());
                out.push((shot.number, shot.bytes[0]));
                spare = Some(shot.bytes);
            }
            Taken::End => return out,
            Taken::Nothing => panic!("nothing came in {LONG:?}"),
        }
    }
}

/// YUV4MPEG2 of grey pictures, each of one level.
fn film(levels: &[u8]) -> Vec<u8> {
    let mut out = b"YUV4MPEG2 W8 H4 F10:1 Ip C420jpeg\n".to_vec();
    for &level in levels {
        out.extend_from_slice(b"FRAME\n");
        out.extend(std::iter::repeat_n(level, 32));
        out.extend([128; 16]);
    }
    out
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_film_is_read_picture_by_picture_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.y4m");
    let levels: Vec<u8> = (0..50).collect();
    std::fs::write(&path, film(&levels)).unwrap();
    let capture = start(path.to_str().unwrap()).unwrap();
    let want: Vec<(u64, u8)> = (0..50).map(|n| (n, n as u8)).collect();
    assert_eq!(all(&capture), want);
    assert_eq!((capture.counts(), capture.status()), ((50, 0), Status::Ended));
    let raw = dir.path().join("film.raw");
    std::fs::write(&raw, [[7u8; 48], [9; 48]].concat()).unwrap();
    let capture = start(&format!("{}?format=nv12&size=8x4", raw.display())).unwrap();
    assert_eq!(all(&capture), [(0, 7), (1, 9)]);
}

#[test]
fn a_pipe_whose_writer_goes_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fifo(&path);
    let write = |levels: [u8; 2]| {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            pipe.write_all(&film(&levels)).unwrap();
            // Half a picture is no picture.
            pipe.write_all(b"FRAME\n\x63\x63").unwrap();
        })
    };
    let writer = write([1, 2]);
    let capture = start(path.to_str().unwrap()).unwrap();
    writer.join().unwrap();
    let until = Instant::now() + LONG;
    let mut last = 0;
    let mut look = |last_wanted| {
        assert!(Instant::now() < until, "{:?}", capture.status());
        if let Taken::Shot(shot) = capture.take(None, Duration::from_millis(10)) {
            assert!(shot.bytes[0] > last && shot.bytes[0] <= last_wanted, "{} behind {last}", shot.bytes[0]);
            last = shot.bytes[0];
        }
        last == last_wanted
    };
    while !look(2) {}
    // Before the next one writes, the end has been seen.
    while !matches!(capture.status(), Status::Waiting { .. }) {
        assert!(!look(3));
    }
    let writer = write([3, 4]);
    while !look(4) {}
    writer.join().unwrap();
}

#[test]
fn what_cannot_be_opened_says_why() {
    let error = start("/no/such/film.y4m").unwrap_err().to_string();
    assert!(error.starts_with("/no/such/film.y4m: No such file"), "{error}");
    let options = OpenOptions { ffmpeg: "/no/such/ffmpeg".into(), ..OpenOptions::default() };
    let error = Capture::start("rtsp://me:secret@127.0.0.1:1/x".parse().unwrap(), options).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("install it") && text.contains("rtsp://127.0.0.1:1/x"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn compressed_video_is_read_by_ffmpeg() {
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        println!("SKIPPED: compressed video: there is no ffmpeg");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (plain, video) = (dir.path().join("film.y4m"), dir.path().join("film.mkv"));
    std::fs::write(&plain, film(&[20, 90, 160, 230])).unwrap();
    let mut make = Command::new("ffmpeg");
    make.args(["-loglevel", "error", "-i"]).arg(&plain).args(["-c:v", "ffv1"]).arg(&video);
    assert!(make.status().unwrap().success());
    let levels: Vec<u8> =
        all(&start(video.to_str().unwrap()).unwrap()).iter().map(|&(_, level)| level).collect();
    assert_eq!(levels, [20, 90, 160, 230]);
}
