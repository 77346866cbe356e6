//! Sources that programs read: `ffmpeg`, well, badly, killed and hanging.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use palmtop_watch::source::{Capture, OpenOptions, Status, Taken};
use palmtop_watch::stream::Layout;

mod sources_common;
use sources_common::{LONG, film, has_ffmpeg, next, quick, script, start, start_with, until, why_it_waits};

fn runs(pid: &str) -> bool {
    // One that has ended and was not waited for still has its folder.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

/// Lines that programs wrote into a file.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn with_ffmpeg(program: &Path) -> OpenOptions {
    OpenOptions { ffmpeg: program.to_str().unwrap().into(), ..quick() }
}

/// A program that ends with the test.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ffmpeg(arguments: &str) -> Helper {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error"]).args(arguments.split(' ')).stdin(Stdio::null());
    Helper(command.spawn().unwrap())
}

/// A port that nobody has just now.
fn free_port(is_udp: bool) -> u16 {
    match is_udp {
        true => std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        false => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
    }
}

#[test]
fn a_program_that_fails_says_why_without_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let body = "for a in \"$@\"; do url=$a; case $a in rtsp*) said=$a;; esac; done\n\
                echo noise >&2; echo \"[tcp] first line\" >&2; echo \"$said: Connection refused\" >&2; exit 1";
    let program = script(dir.path(), "ffmpeg", body);
    let capture = start_with("rtsp://me:hunter2@127.0.0.1:9/live?token=hunter3", with_ffmpeg(&program));
    let why = why_it_waits(&capture);
    assert!(why.contains("exit status: 1"), "{why}");
    assert!(why.contains("first line; rtsp://127.0.0.1:9/live?token=***: Connection refused"), "{why}");
    assert!(!why.contains("hunter") && !why.contains("noise"), "{why}");
}

#[test]
fn a_program_that_talks_without_end_is_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let frames = dir.path().join("film.y4m");
    std::fs::write(&frames, film(&[1, 2, 3])).unwrap();
    // More than a pipe holds, before anything is written.
    let body =
        format!("head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; cat {}; exec sleep 1000", frames.display());
    let program = script(dir.path(), "ffmpeg", &body);
    let capture = start_with("rtsp://127.0.0.1/x", with_ffmpeg(&program));
    until(
        "the last picture comes",
        || matches!(capture.take(None, Duration::from_millis(5)), Taken::Shot(shot) if shot.bytes[0] == 3),
    );
}

#[test]
fn a_program_that_hangs_is_ended_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let (frames, pids) = (dir.path().join("film.y4m"), dir.path().join("pids"));
    std::fs::write(&frames, film(&[1])).unwrap();
    // It does not listen to interrupts, and has a child of its own.
    let body = format!(
        "trap '' INT; sleep 1000 & echo $! >> {1}; echo $$ >> {1}; cat {0}; wait",
        frames.display(),
        pids.display()
    );
    let program = script(dir.path(), "ffmpeg", &body);
    let options = OpenOptions { silence: Some(Duration::from_millis(200)), ..with_ffmpeg(&program) };
    let capture = start_with("rtsp://127.0.0.1/x", options);
    next(&capture);
    let why = why_it_waits(&capture);
    assert!(why.contains("nothing came for 0.2 s") && why.contains("is silent"), "{why}");
    until("it is started again", || lines(&pids).len() >= 4);
    drop(capture);
    until("all have ended", || lines(&pids).iter().all(|pid| !runs(pid)));
}

#[test]
fn dropping_a_capture_ends_its_program_and_its_thread() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let program = script(dir.path(), "ffmpeg", &format!("echo $$ >> {}; exec sleep 1000", pids.display()));
    let options = OpenOptions { silence: None, ..with_ffmpeg(&program) };
    let capture = start_with("rtsp://127.0.0.1/x", options);
    until("it runs", || lines(&pids).len() == 1);
    assert_eq!(capture.status(), Status::Opening);
    drop(capture);
    // By then it has been waited for.
    assert!(!Path::new("/proc").join(&lines(&pids)[0]).exists());
}

#[test]
fn bytes_without_pictures_are_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "ffmpeg", "while :; do echo YUV4MPEG2 W99 H99; sleep 0.01; done");
    let options = OpenOptions { silence: Some(Duration::from_secs(1)), ..with_ffmpeg(&program) };
    // On a busy machine it may be silent at first: another attempt is made.
    let ends_with = |says: &str| {
        let capture = start_with("rtsp://127.0.0.1/x", options.clone());
        until(says, || matches!(capture.status(), Status::Waiting { why } if why.contains(says)));
    };
    ends_with("at the start of a frame");
    let slow = "printf 'YUV4MPEG2 W999 H999\\nFRAME\\n'; while :; do printf x; sleep 0.01; done";
    script(dir.path(), "ffmpeg", slow);
    ends_with("but no picture in them");
}

#[test]
fn films_of_all_kinds_are_read_by_ffmpeg() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, codec) in [
        ("a.mp4", "-c:v mpeg4"),
        ("-b.mkv", "-c:v mjpeg -pix_fmt yuvj420p"),
        ("c?d.avi", "-c:v mpeg4"),
        ("d.ts", "-c:v mpeg2video"),
    ] {
        let path = dir.path().join(name);
        let source = "testsrc=size=64x48:rate=25:duration=1";
        let mut make = Command::new("ffmpeg");
        make.args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", source]).args(codec.split(' '));
        assert!(make.arg(format!("file:{}", path.display())).status().unwrap().success(), "{name}");
        let count = |settings: &str| {
            let capture = start(&format!("{}{settings}", path.display())).unwrap();
            let (mut count, mut layout) = (0, None);
            while let Taken::Shot(shot) = capture.take(None, LONG) {
                (count, layout) = (count + 1, Some(shot.layout));
            }
            assert_eq!(capture.status(), Status::Ended);
            (count, layout)
        };
        let (all, layout) = count("");
        assert_eq!(all, 25, "{name}");
        assert!(matches!(layout, Some(Layout::I420 { width: 64, height: 48, .. })), "{name}: {layout:?}");
        if name == "a.mp4" {
            let (few, layout) = count("?fps=5&size=32x24");
            assert_eq!(few, 5);
            assert!(matches!(layout, Some(Layout::I420 { width: 32, height: 24, .. })));
        }
    }
}

#[test]
fn a_stream_of_the_network_is_read_and_a_killed_ffmpeg_is_started_again() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let program = script(dir.path(), "ffmpeg", &format!("echo $$ >> {}; exec ffmpeg \"$@\"", pids.display()));
    let port = free_port(true);
    let _sender = ffmpeg(&format!(
        "-re -f lavfi -i testsrc=size=64x48:rate=10 -c:v mpeg2video -g 5 -f mpegts udp://127.0.0.1:{port}"
    ));
    // That the format is looked at for less long: there is only one.
    let input = ["-probesize", "50000", "-analyzeduration", "500000"].map(str::to_owned);
    let pause = Duration::from_secs(2);
    let options = OpenOptions { ffmpeg_input: input.into(), pause, ..with_ffmpeg(&program) };
    let capture = start_with(&format!("udp://127.0.0.1:{port}"), options);
    next(&capture);
    assert_eq!(capture.status(), Status::Running);
    let pid = lines(&pids)[0].clone();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let why = why_it_waits(&capture);
    assert!(why.contains("signal: 9"), "{why}");
    let before = capture.counts().0;
    until("pictures come again", || capture.counts().0 > before);
    assert!(lines(&pids).len() >= 2);
    drop(capture);
    until("it has ended", || lines(&pids).iter().all(|pid| !runs(pid)));
}

#[test]
fn a_camera_of_rtsp_is_read() {
    if !has_ffmpeg() {
        return;
    }
    // ffmpeg is no server; but it lets another one send to it, by the same protocol.
    let port = free_port(false);
    let options = OpenOptions { ffmpeg_input: vec!["-rtsp_flags".into(), "listen".into()], ..quick() };
    let address = format!("rtsp://127.0.0.1:{port}/live");
    let capture = Capture::start(address.parse().unwrap(), options).unwrap();
    let send = format!(
        "-re -f lavfi -i testsrc=size=64x48:rate=10 -c:v mpeg4 -g 5 -f rtsp -rtsp_transport tcp {address}"
    );
    // The first may come before anybody listens.
    let mut sender = ffmpeg(&send);
    until("a picture comes", || {
        if sender.0.try_wait().unwrap().is_some() {
            sender = ffmpeg(&send);
        }
        matches!(capture.take(None, Duration::from_millis(50)), Taken::Shot(_))
    });
}
