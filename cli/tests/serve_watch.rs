//! `palmtop serve --watch`: a server and the loop of cameras in one process.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use common::palmtop;
use serde_json::Value;

/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(60);

fn demo(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(name)).unwrap()
}

fn jpeg(name: &str) -> Vec<u8> {
    let picture = image::load_from_memory(&demo(name)).unwrap().to_rgb8();
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90).encode_image(&picture).unwrap();
    out
}

struct Serving {
    child: Child,
    stderr: BufReader<ChildStderr>,
    notes: String,
    address: String,
    pipe: fs::File,
}

impl Serving {
    fn start(dir: &Path) -> Self {
        let pipe = dir.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut child = palmtop(["serve", "--listen", "127.0.0.1:0", "--watch", "watch.toml"])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut notes = String::new();
        let address = loop {
            let start = notes.len();
            assert!(stderr.read_line(&mut notes).unwrap() > 0, "it ended: {notes}");
            if let Some((_, address)) = notes[start..].split_once(" listens on http://") {
                break address.trim().to_owned();
            }
        };
        // Opened for both, so that nobody waits for the other end.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(pipe).unwrap();
        Self { child, stderr, notes, address, pipe }
    }

    fn connect(&self, request: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let head =
            format!("{request} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    /// Status line and body of an answer that has a length.
    fn ask(&self, request: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut answer = Vec::new();
        self.connect(request, body).read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap().to_owned();
        (status, answer[end + 4..].to_vec())
    }

    fn json(&self, request: &str, body: &[u8]) -> Value {
        let (status, body) = self.ask(request, body);
        serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{status}: {e}"))
    }

    /// A number of `/metrics`.
    fn metric(&self, name: &str) -> u64 {
        let (_, body) = self.ask("GET /metrics", b"");
        let body = String::from_utf8(body).unwrap();
        let number = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        number.unwrap_or_else(|| panic!("no {name}: {body}")).parse().unwrap()
    }

    /// Shows a picture again and again, as a camera would, until the list of cameras is so.
    fn show_until(&mut self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let picture = jpeg(name);
        let until = Instant::now() + LONG;
        loop {
            self.pipe.write_all(&picture).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            let list = self.json("GET /v1/cameras", b"");
            if is_so(&list["cameras"][0]) {
                return list;
            }
            assert!(Instant::now() < until, "{what}: {list}");
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    fn end(&mut self) -> (Option<i32>, String, String) {
        let until = Instant::now() + LONG;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut lines = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
        self.stderr.read_to_string(&mut self.notes).unwrap();
        (self.child.wait().unwrap().code(), lines, std::mem::take(&mut self.notes))
    }
}

impl Drop for Serving {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn cameras_and_requests_are_answered_by_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let camera = "every = \"50ms\"\n[[camera]]\nname = \"street\"\nsource = \"pipe\"\n";
    let file = dir.path().join("watch.toml");
    fs::write(&file, format!("{camera}[[question]]\nname = \"first\"\ndetect = \"bus\"")).unwrap();
    let mut serving = Serving::start(dir.path());
    let mut events = serving.connect("GET /v1/events", b"");
    let list = serving.show_until("day.png", "a bus is seen", |camera| {
        camera["questions"][0]["events"].as_array().is_some_and(|events| !events.is_empty())
    });
    let camera_now = &list["cameras"][0];
    assert_eq!((&camera_now["name"], &camera_now["status"]), (&"street".into(), &"running".into()));
    assert_eq!(camera_now["questions"][0]["answer"]["objects"][0]["label"], "bus");
    let size = image::load_from_memory(&demo("day.png")).unwrap();
    assert_eq!((&camera_now["width"], &camera_now["height"]), (&size.width().into(), &size.height().into()));
    // The loop computes all the while.
    let looked = serving.json("POST /v1/looks?prompt=detect+bus", &demo("day.png"));
    assert!(looked["answers"][0]["text"].as_str().unwrap().ends_with(" bus"), "{looked}");
    let (status, picture) = serving.ask("GET /v1/cameras/street/picture", b"");
    assert!(status.contains(" 200 "), "{status}");
    assert_eq!(image::load_from_memory(&picture).unwrap().width(), size.width());
    let mut live = serving.connect("GET /v1/cameras/street/stream?fps=30", b"");
    serving.pipe.write_all(&jpeg("day.png")).unwrap();
    let mut some = [0; 4096];
    live.read_exact(&mut some).unwrap();
    assert!(String::from_utf8_lossy(&some).contains("--picture\r\ncontent-type: image/jpeg"));
    // What stays as it is opens no gate.
    let until = Instant::now() + LONG;
    while serving.metric("palmtop_loop_pictures_still_total") == 0 {
        assert!(Instant::now() < until);
        serving.pipe.write_all(&jpeg("day.png")).unwrap();
    }
    assert!(serving.metric("palmtop_loop_pictures_total") > serving.metric("palmtop_loop_answers_total"));
    assert!(serving.metric("palmtop_loop_events_total") > 0);
    // Commands, and another file.
    assert!(serving.ask("POST /v1/commands", b"ask first").0.contains(" 202 "));
    assert!(serving.ask("POST /v1/commands", b"ask second").0.contains(" 404 "));
    fs::write(&file, "[[camera]]\nsource = 5").unwrap();
    serving.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    fs::write(&file, format!("{camera}[[question]]\nname = \"second\"\ndetect = \"bus\"")).unwrap();
    serving.signal("HUP");
    serving.show_until("day.png", "the new question is answered", |camera| {
        camera["questions"][0]["name"] == "second" && camera["questions"][0]["answer"]["text"].is_string()
    });
    serving.signal("TERM");
    let mut told = String::new();
    events.read_to_string(&mut told).unwrap();
    for record in
        ["\"phase\":\"begin\"", "\"phase\":\"end\"", "\"question\":\"second\"", "\"status\":\"running\""]
    {
        assert!(told.contains(record), "{record}: {told}");
    }
    let (code, lines, notes) = serving.end();
    assert_eq!(code, Some(0), "{notes}");
    assert!(lines.contains("+ second: bus"), "{lines}");
    assert!(notes.contains("for the loop of cameras") && notes.contains("not reloaded"), "{notes}");
}

#[test]
fn what_cannot_be_watched_ends_it_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("watch.toml");
    for (text, word) in [("speed = 1", "speed"), ("[[camera]]\nsource = \"no.mjpeg\"", "no.mjpeg")] {
        fs::write(&file, text).unwrap();
        let out = palmtop(["serve", "--listen", "127.0.0.1:0", "--watch", "watch.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && error.contains(word), "{error}");
    }
}
