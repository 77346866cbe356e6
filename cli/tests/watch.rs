//! `palmtop watch` as a user or a service has it: films, pipes, configuration files, signals, receivers.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Ran, palmtop, run, succeed, text};
use serde_json::Value;

/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(60);

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(name)
}

fn jpeg(name: &str) -> Vec<u8> {
    let picture = image::open(demo(name)).unwrap().to_rgb8();
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90).encode_image(&picture).unwrap();
    out
}

/// Motion JPEG: so many times each of these pictures.
fn film(parts: &[(&str, usize)]) -> Vec<u8> {
    parts.iter().flat_map(|(name, times)| jpeg(name).repeat(*times)).collect()
}

/// A loop that reads a pipe, and what it prints.
struct Running {
    child: Child,
    records: Receiver<Value>,
    pipe: fs::File,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let pipe = dir.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut child = palmtop(["watch", "--json"].iter().chain(args))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, records) = channel();
        std::thread::spawn(move || {
            for line in lines {
                let line = line.unwrap();
                let record = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
                if sender.send(record).is_err() {
                    break;
                }
            }
        });
        // Opened for both, so that nobody waits for the other end.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(pipe).unwrap();
        Self { child, records, pipe }
    }

    /// Shows a picture again and again, as a camera would, until a record has this value for this key.
    fn show_until(&mut self, name: &str, key: &str, value: impl Into<Value>) -> Value {
        let (picture, value) = (jpeg(name), value.into());
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            self.pipe.write_all(&picture).unwrap();
            while let Ok(record) = self.records.recv_timeout(Duration::from_millis(50)) {
                if record[key] == value {
                    return record;
                }
            }
        }
        panic!("{name}: no record with {key} {value}")
    }

    fn show(&mut self, name: &str) {
        self.pipe.write_all(&jpeg(name)).unwrap();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end; gives the exit code, what was printed since, and the notes.
    fn end(&mut self) -> (Option<i32>, Vec<Value>, String) {
        let until = Instant::now() + LONG;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut notes = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
        (self.child.wait().unwrap().code(), self.records.iter().collect(), notes)
    }
}

impl Drop for Running {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_film_is_told_line_by_line_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.mjpeg");
    fs::write(&path, film(&[("day.png", 15), ("menu.png", 15)])).unwrap();
    let run = |more: &[&str]| -> Ran {
        let mut args = vec!["watch", text(&path), "--detect", "bus"];
        args.extend(more);
        succeed(args)
    };
    let plain = run(&[]);
    let stdout = plain.stdout;
    let shown: Vec<&str> = stdout.lines().map(str::trim).collect();
    let [begin, end] = shown[..] else { panic!("two lines: {stdout}") };
    assert!(begin.starts_with("0.0 s  + detect bus: bus 1"), "{stdout}");
    assert!(end.contains("- detect bus: bus 1, after "), "{stdout}");
    let notes = plain.stderr;
    assert!(notes.contains("memory: ") && notes.contains("30 pictures"), "{notes}");

    let json = run(&["--json", "--quiet"]);
    assert_eq!(json.stderr, "");
    let records = json.json();
    let events: Vec<&Value> = records.iter().filter(|r| r["record"] == "event").collect();
    assert_eq!(events.len(), 2, "{records:?}");
    assert_eq!((&events[0]["phase"], &events[1]["phase"]), (&"begin".into(), &"end".into()));
    assert_eq!(events[0]["id"], events[1]["id"]);
    let event = events[0].as_object().unwrap();
    for (key, value) in [
        ("version", Value::from(1)),
        ("camera", "film".into()),
        ("question", "detect bus".into()),
        ("rule", "detect bus".into()),
        ("track", 1.into()),
        ("label", "bus".into()),
        ("lasted_ms", Value::Null),
    ] {
        assert_eq!(event[key], value, "{key}");
    }
    assert!(events[0]["objects"][0]["box"]["x_min"].is_number());
    assert!(events[0]["time"].as_str().unwrap().ends_with('Z'));
    let changes = records.iter().filter(|r| r["record"] == "answer").count();
    assert_eq!(changes, 2, "{records:?}");
    assert_eq!(records.last().unwrap()["status"], "ended");
    // Every answer, if that is wanted.
    let all = run(&["--json", "--all", "--no-pixel-gate", "--no-feature-gate"]);
    assert_eq!(all.json().iter().filter(|r| r["record"] == "answer").count(), 30);
}

#[test]
fn a_pipe_is_watched_until_sigterm_ends_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &["pipe", "--detect", "bus"]);
    running.show_until("day.png", "phase", "begin");
    let start = Instant::now();
    running.signal("TERM");
    let (code, rest, notes) = running.end();
    // It ends within a second; a loaded machine is given more.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(code, Some(0), "{notes}");
    let ends = rest.iter().filter(|r| r["phase"] == "end").count();
    assert_eq!(ends, 1, "{rest:?}");
    assert!(notes.contains(", 1 events"), "{notes}");
}

#[test]
fn lines_and_signals_ask_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &["pipe", "--ocr", "--all", "--every", "1h"]);
    let first = running.show_until("menu.png", "record", "answer");
    assert_eq!(first["changed"], true);
    // Another hour would go by.
    (0..5).for_each(|_| running.show("menu.png"));
    while let Ok(record) = running.records.recv_timeout(Duration::from_millis(500)) {
        assert_eq!(record["record"], "camera");
    }
    running.child.stdin.as_mut().unwrap().write_all(b"ask ocr\n").unwrap();
    let second = running.show_until("menu.png", "record", "answer");
    assert_eq!((&second["changed"], &second["text"]), (&false.into(), &first["text"]));
    running.signal("USR1");
    assert_eq!(running.show_until("menu.png", "record", "answer")["text"], first["text"]);
    running.child.stdin.as_mut().unwrap().write_all(b"pause\n").unwrap();
    running.signal("INT");
    assert_eq!(running.end().0, Some(130));
}

#[test]
fn sighup_reads_the_file_anew_and_a_bad_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("watch.toml");
    let camera = "[[camera]]\nsource = \"pipe\"\n";
    fs::write(&config, format!("{camera}[[question]]\nname = \"first\"\ndetect = \"bus\"")).unwrap();
    let mut running = Running::start(dir.path(), &["--config", "watch.toml"]);
    assert_eq!(running.show_until("day.png", "phase", "begin")["question"], "first");
    fs::write(&config, "[[camera]]\nsource = 5").unwrap();
    running.signal("HUP");
    // The old one goes on: what was there goes.
    assert_eq!(running.show_until("menu.png", "phase", "end")["question"], "first");
    fs::write(&config, format!("{camera}[[question]]\nname = \"second\"\ndetect = \"bus\"")).unwrap();
    running.signal("HUP");
    assert_eq!(running.show_until("day.png", "question", "second")["camera"], "pipe");
    running.signal("TERM");
    let (code, _, notes) = running.end();
    assert_eq!(code, Some(0));
    assert!(
        notes.contains("not reloaded, the loop goes on as it was: ") && notes.contains("line 2"),
        "{notes}"
    );
}

#[test]
fn a_model_that_is_replaced_is_taken_up_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("a.palm");
    let replace = |bytes: &[u8]| {
        let new = dir.path().join("new.palm");
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, &model).unwrap();
    };
    let whole = fs::read(demo("demo.palm")).unwrap();
    replace(&whole);
    let mut running = Running::start(dir.path(), &["pipe", "--detect", "bus", "-m", "a.palm", "-v"]);
    running.show_until("day.png", "phase", "begin");
    replace(b"no model");
    running.signal("HUP");
    running.show_until("menu.png", "phase", "end");
    replace(&whole);
    running.signal("HUP");
    // The old loop may see the bus once more before it hears of the signal; a new one counts anew.
    let after = running.show_until("day.png", "track", 1);
    assert_eq!(after["phase"], "begin");
    running.signal("TERM");
    let (code, _, notes) = running.end();
    assert_eq!(code, Some(0));
    assert!(notes.contains("not reloaded") && notes.matches("memory: ").count() == 2, "{notes}");
}

#[test]
fn receivers_get_events_and_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let (film_path, shots, seen) =
        (dir.path().join("f.mjpeg"), dir.path().join("shots"), dir.path().join("seen"));
    fs::write(&film_path, film(&[("day.png", 6)])).unwrap();
    let program = dir.path().join("program");
    fs::write(&program, format!("#!/bin/sh\ncat >> {0}; echo >> {0}\n", text(&seen))).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let args =
        ["watch", text(&film_path), "--detect", "bus", "--snapshots", text(&shots), "--run", text(&program)];
    succeed(args);
    let pictures: Vec<PathBuf> = fs::read_dir(&shots).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!pictures.is_empty());
    let picture = image::open(&pictures[0]).unwrap();
    assert_eq!(picture.width(), image::open(demo("day.png")).unwrap().width());
    let seen = fs::read_to_string(&seen).unwrap();
    let first: Value = serde_json::from_str(seen.lines().next().unwrap()).unwrap();
    assert_eq!(first["phase"], "begin");
}

/// A receiver of webhooks that answers nobody until it is told to: its address, what tells it, and the records.
fn slow_webhook() -> (String, std::sync::mpsc::Sender<()>, Receiver<Value>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (answer, may_answer) = channel::<()>();
    let (sender, records) = channel();
    std::thread::spawn(move || {
        let mut is_waiting = true;
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            loop {
                let (mut bytes, mut line) = (0, String::new());
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    let length = line.to_ascii_lowercase();
                    if let Some(length) = length.strip_prefix("content-length:") {
                        bytes = length.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; bytes];
                if bytes == 0 || reader.read_exact(&mut body).is_err() {
                    break;
                }
                // Whoever forgets the sender lets it answer, too.
                if std::mem::take(&mut is_waiting) && may_answer.recv().is_err() {
                    return;
                }
                let _ = sender.send(serde_json::from_slice(&body).unwrap());
                let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    (address, answer, records)
}

/// Watches a film with two events for this receiver, until the film is over.
fn film_is_over(dir: &Path, webhook: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let film_path = dir.join("f.mjpeg");
    fs::write(&film_path, film(&[("day.png", 6), ("menu.png", 6)])).unwrap();
    let mut child = palmtop(["watch", text(&film_path), "--detect", "bus", "--webhook", webhook])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(notes.any(|note| note.contains(" pictures (")));
    (child, notes)
}

#[test]
fn a_slow_receiver_gets_all_events_of_a_film_that_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (address, answer, records) = slow_webhook();
    let (mut child, mut notes) = film_is_over(dir.path(), &address);
    // Longer than an end takes that somebody asked for.
    std::thread::sleep(Duration::from_millis(1500));
    answer.send(()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(notes.next(), None);
    let phase = |record: Value| record["phase"].as_str().unwrap().to_owned();
    let phases: Vec<String> = records.try_iter().map(phase).collect();
    assert_eq!(phases, ["begin", "end"]);
}

#[test]
fn sigterm_ends_the_wait_for_a_slow_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _never, _) = slow_webhook();
    let (mut child, mut notes) = film_is_over(dir.path(), &address);
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(notes.any(|note| note.contains("2 records were lost")));
}

#[test]
fn the_file_names_the_reader_of_compressed_video_and_its_flags() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("reader");
    fs::write(&program, "#!/bin/sh\necho \"$@\" > flags\necho no such stream >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!(
        "[ffmpeg]\nprogram = {:?}\ninput = [\"-hwaccel\", \"drm\"]\n[[camera]]\nsource = \"film.mp4\"\n[[question]]\nocr = true",
        text(&program)
    );
    fs::write(dir.path().join("watch.toml"), config).unwrap();
    // As MP4 begins.
    fs::write(dir.path().join("film.mp4"), b"\0\0\0\x18ftypisom\0\0\0\0isomiso2").unwrap();
    let ran: Ran =
        palmtop(["watch", "--config", "watch.toml"]).current_dir(dir.path()).output().unwrap().into();
    assert!(ran.stderr.contains("no such stream"), "{}", ran.stderr);
    let flags = fs::read_to_string(dir.path().join("flags")).unwrap();
    assert!(flags.contains(" -hwaccel drm -i "), "{flags}");
}

#[test]
fn what_cannot_be_watched_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    fs::write(&bad, "[[camera]]\nsource = \"x\"\nspeed = 3\n").unwrap();
    for (args, says) in [
        (vec!["watch"], "there is no source"),
        (vec!["watch", "/no/such/film.mjpeg"], "No such file"),
        (vec!["watch", "ftp://x"], "is no kind of source"),
        (vec!["watch", "--config", text(&bad)], "speed"),
        (vec!["watch", "--config", "/no/such/file.toml"], "cannot read /no/such/file.toml"),
        (vec!["watch", "x", "--every", "soon"], "is no length of time"),
        (vec!["watch", "x", "--for", "5 of 3"], "is no number of looks"),
        (vec!["watch", "x", "--choose", "yes"], "--ask"),
        (vec!["watch", "x", "--detect", "bus", "--snapshots", "/proc/none/x"], "/proc/none"),
    ] {
        let ran = run(&args);
        assert!(ran.code != Some(0) && ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn systemd_hears_that_it_is_ready_alive_and_stopping() {
    use std::os::unix::net::UnixDatagram;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut heard = String::new();
    let mut hear_until = |word: &str| {
        let mut buffer = [0; 4096];
        while !heard.contains(word) {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{word} in {heard}: {e}"));
            heard += std::str::from_utf8(&buffer[..n]).unwrap();
            heard.push('\n');
        }
    };
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = palmtop(["watch", text(&pipe), "--detect", "bus"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .env_remove("WATCHDOG_PID")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hear_until("READY=1");
    hear_until("WATCHDOG=1");
    let kill = |name: &str| {
        let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
        assert!(status.unwrap().success());
    };
    kill("HUP");
    hear_until("RELOADING=1");
    hear_until("MONOTONIC_USEC=");
    kill("TERM");
    hear_until("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn several_cameras_are_watched_by_one_engine() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.mjpeg"), dir.path().join("two.mjpeg"));
    fs::write(&one, film(&[("day.png", 6)])).unwrap();
    fs::write(&two, film(&[("menu.png", 6)])).unwrap();
    let gone = dir.path().join("gone.mjpeg");
    // One that is not there does not keep the others from being watched; it would be waited for without end.
    let config = dir.path().join("watch.toml");
    let question = "[[question]]\nname = \"bus\"\ndetect = \"bus\"\n[[question]]\nname = \"text\"\nocr = true\ncamera = \"two\"";
    fs::write(&config, question).unwrap();
    let both = succeed(["watch", text(&one), text(&two), "--config", text(&config), "--json"]).json();
    let of = |camera: &str, record: &str| {
        let is_it = |r: &&Value| r["camera"] == camera && r["record"] == record;
        both.iter().filter(is_it).map(|r| r["question"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(of("one", "event"), ["bus", "bus"]);
    assert!(of("two", "event").is_empty());
    assert!(of("two", "answer").contains(&"text") && !of("one", "answer").contains(&"text"));
    let mut waiting = palmtop(["watch", text(&one), text(&gone), "--detect", "bus", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let mut statuses: Vec<(String, String)> = Vec::new();
    for line in lines {
        let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if record["record"] == "camera" {
            statuses
                .push((record["camera"].as_str().unwrap().into(), record["status"].as_str().unwrap().into()));
        }
        let has = |camera: &str, status: &str| statuses.contains(&(camera.into(), status.into()));
        if has("one", "ended") && has("gone", "waiting") {
            break;
        }
    }
    // The other one is still waited for.
    assert!(waiting.try_wait().unwrap().is_none());
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}
