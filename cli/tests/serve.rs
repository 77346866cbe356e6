//! `palmtop serve` as a user or a service has it: addresses, keys, signals, sockets of systemd.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use common::{Ran, palmtop};

/// A server of the built-in model, and what it says.
struct Running {
    child: Child,
    address: String,
    notes: String,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.env_remove("PALMTOP_API_KEY").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, address: String::new(), notes: String::new(), stderr };
        while running.address.is_empty() {
            let start = running.notes.len();
            assert!(running.stderr.read_line(&mut running.notes).unwrap() > 0, "it ended: {}", running.notes);
            if let Some((_, address)) = running.notes[start..].split_once(" listens on http://") {
                running.address = address.trim().to_owned();
            }
        }
        running
    }

    fn new(args: &[&str]) -> Self {
        Self::start(palmtop(["serve", "--listen", "127.0.0.1:0"].iter().chain(args)))
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, more: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Sends a signal; gives the exit code, and all that was said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id();
        assert!(
            Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success()
        );
        self.stderr.read_to_string(&mut self.notes).unwrap();
        (self.child.wait().unwrap().code(), self.notes)
    }
}

#[test]
fn a_server_answers_says_what_it_takes_and_ends_in_order() {
    let running = Running::new(&[]);
    let picture = fs::read(common::scene()).unwrap();
    let (status, body) = running.ask("POST", "/v1/looks?prompt=caption+en", "", &picture);
    assert_eq!(status, 200, "{body}");
    let Ran { stdout, .. } = palmtop(["caption"]).arg(common::scene()).output().unwrap().into();
    let caption = stdout.trim();
    assert!(!caption.is_empty() && body.contains(&format!("{caption:?}")), "{body} has no {caption:?}");
    let (code, notes) = running.end("TERM");
    assert_eq!(code, Some(0), "{notes}");
    assert!(notes.contains("the built-in one answers") && notes.contains("memory: "), "{notes}");
    assert!(!notes.contains("other devices reach"), "{notes}");
    assert_eq!(Running::new(&[]).end("INT").0, Some(130));
}

#[test]
fn a_server_whose_model_was_changed_under_it_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.palm");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/demo.palm"), &file).unwrap();
    let mut running = Running::new(&["-m", file.to_str().unwrap()]);
    let picture = fs::read(common::scene()).unwrap();
    let look = |running: &Running| running.ask("POST", "/v1/looks?prompt=caption+en", "", &picture);
    assert_eq!(look(&running).0, 200);
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
    let (status, body) = look(&running);
    assert_eq!(status, 500, "{body}");
    assert!(!body.contains(folder.path().to_str().unwrap()), "{body}");
    running.stderr.read_to_string(&mut running.notes).unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(1), "{}", running.notes);
    for part in ["nothing can be answered any more", "was changed while it was open"] {
        assert!(running.notes.contains(part), "{}", running.notes);
    }
}

#[test]
fn keys_come_from_a_file_or_the_environment_and_are_not_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "file-secret\n").unwrap();
    let running = Running::new(&["-v", "--api-key-file", file.to_str().unwrap()]);
    assert_eq!(running.ask("GET", "/metrics", "", b"").0, 401);
    assert_eq!(running.ask("GET", "/metrics?key=file-secret", "", b"").0, 200);
    assert_eq!(running.ask("GET", "/metrics", "authorization: Bearer file-secret\r\n", b"").0, 200);
    assert_eq!(running.ask("GET", "/metrics", "host: evil.example\r\n", b"").0, 400, "one host only");
    let (_, notes) = running.end("TERM");
    assert!(notes.contains("method=GET path=/metrics status=401"), "{notes}");
    assert!(!notes.contains("secret"), "{notes}");
    let mut command = palmtop(["serve", "--listen", "127.0.0.1:0"]);
    command.env("PALMTOP_API_KEY", "short");
    let ran: Ran = command.output().unwrap().into();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("8 to 512") && !ran.stderr.contains("short"), "{}", ran.stderr);
}

#[test]
fn systemd_hands_its_socket_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new("sh");
    // As systemd does: the first one is number 3.
    let script = "exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve";
    command.args(["-c", script, env!("CARGO_BIN_EXE_palmtop")]).stdin(Stdio::from(OwnedFd::from(listener)));
    command.env_remove("PALMTOP_MODEL");
    let running = Running::start(command);
    assert_eq!(running.address, address.to_string());
    assert_eq!(running.ask("GET", "/ready", "", b"").0, 200);
    assert_eq!(running.end("TERM").0, Some(0));
}

#[test]
fn what_cannot_be_served_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["--listen", &address], "cannot listen on 127.0.0.1"),
        (&["--listen", "nonsense"], "give an address and a port"),
        (&["--cors", "house.example"], "an origin is like https://house.example"),
        (&["--tls-cert", "none.pem", "--tls-key", "none.pem"], "cannot read certificate none.pem"),
        (&["--api-key-file", "none.txt"], "cannot read the API key in none.txt"),
        (&["--tls-cert", "none.pem"], "--tls-key"),
    ];
    for (args, words) in cases {
        let listen: &[&str] = if args[0] == "--listen" { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut command = palmtop(["serve"].iter().chain(listen).chain(args));
        let ran: Ran = command.env_remove("PALMTOP_API_KEY").output().unwrap().into();
        assert_ne!(ran.code, Some(0));
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
}
