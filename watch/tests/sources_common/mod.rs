//! What the tests of sources share.
#![allow(dead_code, reason = "not every test program needs all of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use palmtop_watch::source::{Capture, OpenOptions, SourceError, Status, Taken};

#[path = "../../../tests/common/skip.rs"]
pub mod skip;

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(5);

pub fn start(address: &str) -> Result<Capture, SourceError> {
    Capture::start(address.parse().unwrap(), OpenOptions::default())
}

/// With pauses that a test can wait for.
pub fn quick() -> OpenOptions {
    OpenOptions { pause: Duration::from_millis(100), ..OpenOptions::default() }
}

pub fn start_with(address: &str, options: OpenOptions) -> Capture {
    Capture::start(address.parse().unwrap(), options).unwrap()
}

/// Waits until something is true.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < end, "it never happens: {what}");
        std::thread::sleep(MOMENT);
    }
}

/// Waits until a capture waits, and gives its reason.
pub fn why_it_waits(capture: &Capture) -> String {
    let mut reason = None;
    until("it waits", || {
        if let Status::Waiting { why } = capture.status() {
            reason = Some(why);
        }
        reason.is_some()
    });
    reason.unwrap()
}

/// The next picture.
pub fn next(capture: &Capture) -> Vec<u8> {
    match capture.take(None, LONG) {
        Taken::Shot(shot) => shot.bytes,
        other => panic!("no picture came: {other:?}, {:?}", capture.status()),
    }
}

/// The next picture that is this one.
pub fn until_picture(capture: &Capture, wanted: &[u8]) {
    until("the picture comes", || match capture.take(None, MOMENT) {
        Taken::Shot(shot) => shot.bytes == wanted,
        _ => false,
    });
}

/// A JPEG in form only: enough to be cut out of a stream.
pub fn jpeg(n: u8) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, n, 0xff, 0xda, 0, 4, 1, 2];
    file.extend([n, 0xff, 0x00, b'\n', b'-', b'-', 0xff, 0xd0].repeat(40));
    file.extend([0xff, 0xd9]);
    file
}

/// YUV4MPEG2 of grey pictures of 8 × 4 pixels, each of one level.
pub fn film(levels: &[u8]) -> Vec<u8> {
    let mut out = b"YUV4MPEG2 W8 H4 F10:1 Ip C420jpeg\n".to_vec();
    for &level in levels {
        out.extend_from_slice(b"FRAME\n");
        out.extend(std::iter::repeat_n(level, 32));
        out.extend([128; 16]);
    }
    out
}

/// A program in a folder.
pub fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub fn has_ffmpeg() -> bool {
    let has = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !has {
        skip::missing("compressed video", "there is no ffmpeg");
    }
    has
}

/// A server on this machine.
pub struct Server {
    /// `127.0.0.1:port`
    pub host: String,
    /// What it was asked: whole heads of requests.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request by `answer`, which is told its number and its head. The connection stays open as long as
    /// the answer says true.
    pub fn new(answer: impl Fn(usize, &str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heads, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heads, answer) = (heads.clone(), answer.clone());
                std::thread::spawn(move || connection(stream, &heads, &*answer));
            }
        });
        Self { host, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn connection(
    mut stream: TcpStream,
    asked: &Mutex<Vec<String>>,
    answer: &(dyn Fn(usize, &str, &mut TcpStream) -> bool + Send + Sync),
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let number = {
            let mut asked = asked.lock().unwrap();
            asked.push(head.clone());
            asked.len() - 1
        };
        if !answer(number, &head, &mut stream) {
            return;
        }
    }
}

/// Answers with a body of known length.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).is_ok()
}
