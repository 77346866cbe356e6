//! Sources that need no hardware: files, pipes and folders, whole and broken.
#![cfg(unix)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use palmtop_watch::source::{Capture, OpenOptions, Status, Taken};
use palmtop_watch::stream::Layout;

mod sources_common;
use sources_common::{
    LONG, film, has_ffmpeg, jpeg, next, quick, start, start_with, until, until_picture, why_it_waits,
};

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
    if !has_ffmpeg() {
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

#[test]
fn a_film_has_the_times_that_it_says_or_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.y4m");
    let text = String::from_utf8_lossy(&film(&[])).replace("F10:1", "F5:1").into_bytes();
    std::fs::write(&path, [text, film(&[1, 2, 3])[film(&[]).len()..].to_vec()].concat()).unwrap();
    for (settings, milliseconds) in [("", 200), ("?fps=50", 20)] {
        let capture = start(&format!("{}{settings}", path.display())).unwrap();
        let mut times = Vec::new();
        while let Taken::Shot(shot) = capture.take(None, LONG) {
            times.push(shot.taken);
        }
        let steps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(steps, [Duration::from_millis(milliseconds); 2]);
    }
}

#[test]
fn a_pipe_may_change_its_size_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fifo(&path);
    // Nobody has to write for it to be opened.
    let capture = start(path.to_str().unwrap()).unwrap();
    assert_eq!(capture.status(), Status::Opening);
    let large = [&b"YUV4MPEG2 W16 H2\nFRAME\n"[..], &[5; 48]].concat();
    for (bytes, size) in [(film(&[1]), (8, 4)), (large, (16, 2)), (jpeg(3).repeat(2), (0, 0))] {
        let path = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(path, bytes).unwrap());
        let Taken::Shot(shot) = capture.take(None, LONG) else { panic!("a picture comes") };
        let found = match shot.layout {
            Layout::I420 { width, height, .. } => (width, height),
            _ => (0, 0),
        };
        assert_eq!(found, size);
        writer.join().unwrap();
        // Before the next one writes, the end has been seen.
        why_it_waits(&capture);
    }
}

#[test]
fn all_pictures_of_a_pipe_are_given_if_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fifo(&path);
    let capture = start_with(&format!("{}?all=true", path.display()), quick());
    let writer =
        std::thread::spawn(move || std::fs::write(path, film(&(0..100).collect::<Vec<_>>())).unwrap());
    for level in 0..100 {
        assert_eq!(next(&capture)[0], level);
    }
    writer.join().unwrap();
    assert_eq!(capture.counts(), (100, 0));
}

#[test]
fn pixels_without_a_header_are_read_as_they_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    std::fs::write(&path, (0..48).collect::<Vec<u8>>()).unwrap();
    let bytes = |settings: &str| next(&start(&format!("{}?{settings}", path.display())).unwrap());
    for (settings, len) in
        [("format=yuyv&size=4x2", 16), ("format=uyvy&size=3x2", 16), ("format=grey&size=3x2", 6)]
    {
        assert_eq!(bytes(settings), (0..len).collect::<Vec<u8>>(), "{settings}");
    }
    std::fs::write(&path, jpeg(4)).unwrap();
    assert_eq!(bytes("format=mjpg"), jpeg(4));
}

#[test]
fn a_folder_gives_each_new_picture_once_and_only_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("old.jpg"), jpeg(100)).unwrap();
    let capture = start_with(dir.path().to_str().unwrap(), quick());
    std::fs::write(path("note.txt"), "no picture").unwrap();
    std::fs::write(path("empty.jpg"), "").unwrap();
    std::fs::write(path(".hidden.jpg"), jpeg(101)).unwrap();
    std::fs::create_dir(path("folder.jpg")).unwrap();
    fifo(&path("pipe.jpg"));
    std::os::unix::fs::symlink("/no/such/file", path("link.jpg")).unwrap();
    std::fs::write(path("gone.jpg"), jpeg(102)).unwrap();
    std::fs::remove_file(path("gone.jpg")).unwrap();
    std::fs::write(path("b.jpg"), jpeg(1)).unwrap();
    assert_eq!(next(&capture), jpeg(1));
    // One that is put in the place of another is another.
    std::fs::write(path(".new"), jpeg(3)).unwrap();
    std::fs::rename(path(".new"), path("b.jpg")).unwrap();
    assert_eq!(next(&capture), jpeg(3));
    // Several, by their times and then by their names.
    let time = std::time::SystemTime::now();
    for (n, name) in [(7, "z.jpg"), (6, "c.jpg"), (5, "d.jpg"), (4, "e.jpg")] {
        std::fs::write(path(&format!(".{name}")), jpeg(n)).unwrap();
        let file = std::fs::File::options().append(true).open(path(&format!(".{name}"))).unwrap();
        // The first two at the same time.
        file.set_modified(time - Duration::from_secs(if n < 6 { 60 } else { 30 - u64::from(n) })).unwrap();
    }
    for name in ["z.jpg", "c.jpg", "d.jpg", "e.jpg"] {
        std::fs::rename(path(&format!(".{name}")), path(&format!("new-{name}"))).unwrap();
    }
    let mut four: Vec<Vec<u8>> = (0..4).map(|_| next(&capture)).collect();
    // Between the renames it may have looked.
    four.sort();
    assert_eq!(four, [jpeg(4), jpeg(5), jpeg(6), jpeg(7)]);
    assert_eq!((capture.counts(), capture.broken()), ((6, 0), 0));
}

#[test]
fn what_is_in_a_folder_already_is_given_in_order_if_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now();
    for (n, name, age) in [(3, "a.jpg", 10), (1, "b.jpg", 30), (2, "c.jpg", 30), (4, "0.jpg", 5)] {
        let path = dir.path().join(name);
        std::fs::write(&path, jpeg(n)).unwrap();
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    let large = [jpeg(9), vec![0; 10_000]].concat();
    std::fs::write(dir.path().join("large.jpg"), large).unwrap();
    let options = OpenOptions { picture_bytes_max: 5000, ..quick() };
    let capture = start_with(&format!("{}?all=true", dir.path().display()), options);
    for n in 1..=4 {
        assert_eq!(next(&capture), jpeg(n));
    }
    until("the large one is passed over", || capture.broken() == 1);
}

#[test]
fn a_folder_that_goes_and_comes_back_is_watched_on() {
    let dir = tempfile::tempdir().unwrap();
    let (there, away) = (dir.path().join("shots"), dir.path().join("away"));
    std::fs::create_dir(&there).unwrap();
    std::fs::write(there.join("0.jpg"), jpeg(100)).unwrap();
    let capture = start_with(there.to_str().unwrap(), quick());
    std::fs::write(there.join("1.jpg"), jpeg(1)).unwrap();
    assert_eq!(next(&capture), jpeg(1));
    std::fs::rename(&there, &away).unwrap();
    let why = why_it_waits(&capture);
    assert!(why.contains("the folder cannot be read: No such file"), "{why}");
    std::fs::write(away.join("2.jpg"), jpeg(2)).unwrap();
    std::fs::rename(&away, &there).unwrap();
    // Neither what was there at first nor what was given comes again.
    assert_eq!(next(&capture), jpeg(2));
    std::fs::write(there.join("3.jpg"), jpeg(3)).unwrap();
    until_picture(&capture, &jpeg(3));
    assert_eq!(capture.counts(), (3, 0));
}
