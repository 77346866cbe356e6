//! Cameras over HTTP: a pretend one that does what cameras do, well and badly.
#![cfg(unix)]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palmtop_watch::source::{Capture, OpenOptions, SourceError, Status, Taken};
use palmtop_watch::stream::Layout;

mod sources_common;
use sources_common::{
    LONG, Server, film, has_ffmpeg, jpeg, next, quick, reply, start, start_with, until, until_picture,
    why_it_waits,
};

const PARTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n";

/// Waits until a stream has ended, and gives the last picture, and how many there were and were broken.
fn of_stream(body: Vec<u8>, head: &'static str) -> (Vec<u8>, u64, u64) {
    let server = Server::new(move |number, _, stream| {
        if number == 0 {
            stream.write_all(head.as_bytes()).unwrap();
            // In pieces that know nothing of pictures.
            for piece in body.chunks(97) {
                stream.write_all(piece).unwrap();
            }
        }
        false
    });
    let capture = start(&format!("http://{}/mjpg", server.host)).unwrap();
    why_it_waits(&capture);
    let (came, _) = capture.counts();
    (next(&capture), came, capture.broken())
}

#[test]
fn streams_of_parts_are_read_however_they_are_made() {
    let part = |n: u8, length: Option<usize>, end: &str| {
        let length = length.map_or(String::new(), |length| format!("Content-Length: {length}{end}"));
        let head = format!("--frame{end}Content-Type: image/jpeg{end}{length}{end}");
        [head.as_bytes(), &jpeg(n), end.as_bytes()].concat()
    };
    let real = jpeg(1).len();
    for (length, end) in [
        (Some(real), "\r\n"),
        (None, "\r\n"),
        (Some(real), "\n"),
        (None, "\n"),
        (Some(real - 30), "\r\n"),
        (Some(real + 3000), "\r\n"),
        (Some(0), "\r\n"),
    ] {
        let body: Vec<u8> = (1..=9).flat_map(|n| part(n, length, end)).collect();
        assert_eq!(of_stream(body, PARTS), (jpeg(9), 9, 0), "{length:?} {end:?}");
    }
    // Without any boundary, as some give them.
    let plain: Vec<u8> = (1..=9).flat_map(jpeg).collect();
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: video/x-motion-jpeg\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        assert_eq!(of_stream(plain.clone(), head), (jpeg(9), 9, 0), "{head}");
    }
    // In chunks of their own.
    let mut chunked = Vec::new();
    for piece in plain.chunks(50) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(&[piece, b"\r\n"].concat());
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of_stream(chunked, head), (jpeg(9), 9, 0));
    // Half a picture before a whole one, and at the end.
    let half = &jpeg(2)[..jpeg(2).len() / 2];
    let halves =
        [&jpeg(1)[..], b"\r\n--frame\r\n\r\n", half, b"\r\n--frame\r\n\r\n", &jpeg(3), half].concat();
    assert_eq!(of_stream(halves, PARTS), (jpeg(3), 2, 1));
    let film = of_stream(film(&[1, 2, 3]), "HTTP/1.0 200 OK\r\n\r\n");
    assert_eq!((film.0[0], film.1), (3, 3));
}

#[test]
fn a_stream_that_ends_is_opened_again_and_sizes_may_change() {
    let server = Server::new(|number, _, stream| {
        let picture = [jpeg(number as u8), vec![0; number * 100]].concat();
        stream.write_all(&[PARTS.as_bytes(), &picture].concat()).is_err()
    });
    let capture = start_with(&format!("http://{}/mjpg", server.host), quick());
    for n in 1..5 {
        until_picture(&capture, &jpeg(n));
    }
    assert!(why_it_waits(&capture).contains("ended"));
}

#[test]
fn a_stream_that_falls_silent_is_opened_again() {
    let server = Server::new(|number, _, stream| {
        stream.write_all(&[PARTS.as_bytes(), &jpeg(number as u8)].concat()).unwrap();
        // Until the other side has enough.
        let _ = stream.read(&mut [0]);
        false
    });
    let options = OpenOptions { silence: Some(Duration::from_millis(100)), ..quick() };
    let capture = start_with(&format!("http://{}/mjpg", server.host), options);
    let why = why_it_waits(&capture);
    assert!(why.contains("the server sent nothing for 0.1 s"), "{why}");
    until_picture(&capture, &jpeg(2));
}

#[test]
fn dropping_a_capture_closes_its_connection_though_nothing_comes() {
    let closed = Arc::new(AtomicUsize::new(0));
    let of_server = closed.clone();
    let server = Server::new(move |_, _, stream| {
        stream.write_all(&[PARTS.as_bytes(), &jpeg(1)].concat()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // Nothing more comes from the other side; an error would be that the time is over.
        of_server.fetch_add(usize::from(matches!(stream.read(&mut [0]), Ok(0))), Ordering::SeqCst);
        false
    });
    let options = OpenOptions { silence: None, ..OpenOptions::default() };
    let capture = start_with(&format!("http://{}/mjpg", server.host), options);
    next(&capture);
    drop(capture);
    until("the connection is closed", || closed.load(Ordering::SeqCst) == 1);
}

#[test]
fn stills_are_fetched_again_and_given_only_if_they_changed() {
    let shown = Arc::new(Mutex::new((1u8, true)));
    let of_server = shown.clone();
    let server = Server::new(move |_, head, stream| {
        let (n, has_tags) = *of_server.lock().unwrap();
        let tag = format!("\"{n}\"");
        if head.to_ascii_lowercase().contains(&format!("if-none-match: {tag}")) {
            return stream.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").is_ok();
        }
        let tags =
            if has_tags { format!("ETag: {tag}\r\nLast-Modified: long ago\r\n") } else { String::new() };
        reply(stream, "200 OK", &format!("Content-Type: image/jpeg\r\n{tags}"), &jpeg(n))
    });
    let capture = start_with(&format!("http://{}/still.jpg?a=b#fps=100", server.host), quick());
    assert_eq!(next(&capture), jpeg(1));
    for (n, has_tags) in [(2, true), (3, false), (4, true)] {
        *shown.lock().unwrap() = (n, has_tags);
        assert_eq!(next(&capture), jpeg(n));
        // The same again is no picture.
        let asked = server.asked().len();
        until("it is asked again", || server.asked().len() > asked + 3);
        assert!(matches!(capture.take(None, Duration::ZERO), Taken::Nothing));
    }
    assert_eq!(capture.counts(), (4, 0));
    let asked = server.asked();
    assert!(asked.iter().all(|head| head.starts_with("GET /still.jpg?a=b HTTP/1.1\r\n")));
    assert!(asked.iter().any(|head| head.to_ascii_lowercase().contains("if-modified-since: long ago")));
}

#[test]
fn a_server_of_stills_that_fails_for_a_while_is_waited_for() {
    let fails = Arc::new(AtomicBool::new(false));
    let of_server = fails.clone();
    let server = Server::new(move |_, _, stream| match of_server.load(Ordering::SeqCst) {
        true => reply(stream, "503 Busy", "", b"too many"),
        false => reply(stream, "200 OK", "Content-Type: image/png\r\n", &jpeg(1)),
    });
    let capture = start_with(&format!("http://{}/still#fps=100", server.host), quick());
    next(&capture);
    fails.store(true, Ordering::SeqCst);
    let why = why_it_waits(&capture);
    assert!(why.contains("the server answers 503: it has too much to do"), "{why}");
    fails.store(false, Ordering::SeqCst);
    until("it runs again", || capture.status() == Status::Running);
    // The still is as it was before.
    assert_eq!(capture.counts().0, 1);
}

#[test]
fn passwords_are_given_as_the_server_asks_for_them_and_never_told() {
    for (asks, answers) in [
        ("Basic realm=\"cam\"", "Basic bWU6c2UgY3JldA=="),
        // RFC 2069, as old cameras have it: MD5 of MD5("me:cam:se cret"), the nonce and MD5("GET:/mjpg?x=1").
        ("Digest realm=\"cam\", nonce=\"abc123\"", "response=\"DIGEST\""),
        // Of both the better one.
        (
            "Basic realm=\"cam\", Digest realm=\"cam\", nonce=\"abc123\", qop=\"auth\", algorithm=MD5",
            "nc=00000001",
        ),
        ("Digest realm=\"cam\", nonce=\"abc123\", qop=\"auth\", algorithm=SHA-256", "algorithm=SHA-256"),
    ] {
        let answers = answers.replace("DIGEST", DIGEST);
        let wanted = answers.clone();
        let server = Server::new(move |_, head, stream| {
            let is_known = head.lines().any(|line| {
                line.to_ascii_lowercase().starts_with("authorization: ") && line.contains(&wanted)
            });
            match is_known {
                true => stream.write_all(&[PARTS.as_bytes(), &jpeg(1)].concat()).is_err(),
                false => reply(stream, "401 No", &format!("WWW-Authenticate: {asks}\r\n"), b"who are you"),
            }
        });
        let capture = start(&format!("http://me:se%20cret@{}/mjpg?x=1", server.host)).unwrap();
        assert_eq!(next(&capture), jpeg(1));
        let asked = server.asked();
        assert!(
            !asked[0].to_ascii_lowercase().contains("authorization"),
            "nothing is told before it is asked"
        );
        assert!(asked[1].contains(&answers), "{}", asked[1]);
        assert!(asked.iter().all(|head| head.starts_with("GET /mjpg?x=1 ")));
        assert!(asked.iter().all(|head| !head.contains("se%20cret") && !head.contains("se cret")));
    }
    let server =
        Server::new(|_, _, stream| reply(stream, "401 No", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""));
    let wrong =
        start(&format!("http://me:hunter2@{}/mjpg?pwd=hunter3", server.host)).unwrap_err().to_string();
    assert!(wrong.contains("401: user or password are wrong") && !wrong.contains("hunter"), "{wrong}");
    let none = start(&format!("http://{}/mjpg", server.host)).unwrap_err().to_string();
    assert!(none.contains("http://user:password@host"), "{none}");
    let server = Server::new(|_, _, stream| reply(stream, "401 No", "WWW-Authenticate: Negotiate\r\n", b""));
    let other = start(&format!("http://me:pass@{}/", server.host)).unwrap_err().to_string();
    assert!(other.contains("in a way that is not known: Negotiate"), "{other}");
}

/// Computed by Python's hashlib.
const DIGEST: &str = "270388e4da8a4f31537aab7a35344d13";

#[test]
fn redirects_are_followed_for_a_while_and_passwords_stay_with_their_host() {
    let other =
        Server::new(|_, _, stream| reply(stream, "401 No", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""));
    let to_other = format!("Location: http://{}/x\r\n", other.host);
    let server = Server::new(move |_, head, stream| {
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/a" => reply(stream, "302 There", "Location: /b?c=1\r\n", b""),
            "/b?c=1" if head.to_ascii_lowercase().contains("authorization: basic") => {
                stream.write_all(&[PARTS.as_bytes(), &jpeg(1)].concat()).is_err()
            }
            "/b?c=1" => reply(stream, "401 No", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
            "/other" => reply(stream, "302 There", &to_other, b""),
            _ => reply(stream, "302 There", "Location: /round\r\n", b""),
        }
    });
    let capture = start(&format!("http://me:word@{}/a", server.host)).unwrap();
    assert_eq!(next(&capture), jpeg(1));
    let round = start(&format!("http://{}/round", server.host)).unwrap_err().to_string();
    assert!(round.contains("redirects"), "{round}");
    let error = start(&format!("http://me:word@{}/other", server.host)).unwrap_err().to_string();
    assert!(error.contains("another server"), "{error}");
    assert!(other.asked().iter().all(|head| !head.to_ascii_lowercase().contains("authorization")));
}

#[test]
fn what_is_no_picture_is_refused_or_left_to_ffmpeg() {
    let page = Server::new(|_, _, stream| {
        reply(stream, "200 OK", "Content-Type: text/html; charset=utf-8\r\n", b"<html>log in</html>")
    });
    let error = start(&format!("http://{}/", page.host)).unwrap_err();
    assert!(matches!(error, SourceError::Http { .. }));
    assert!(error.to_string().contains("the server gives text/html"), "{error}");
    let missing = Server::new(|_, _, stream| reply(stream, "404 No", "", b""));
    let error = start(&format!("http://{}/", missing.host)).unwrap_err().to_string();
    assert!(error.contains("404: there is nothing at this address"), "{error}");
    let garbage = Server::new(|_, _, stream| stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    assert!(matches!(start(&format!("http://{}/", garbage.host)), Err(SourceError::Http { .. })));
    // Without TLS at the other end.
    let options = OpenOptions { silence: Some(Duration::from_millis(200)), ..OpenOptions::default() };
    let tls = Capture::start(format!("https://{}/", garbage.host).parse().unwrap(), options);
    assert!(matches!(tls, Err(SourceError::Http { .. })));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = start(&format!("http://me:hunter2@{nobody}/")).unwrap_err().to_string();
    assert!(error.contains("refused") && !error.contains("hunter2"), "{error}");
    let large =
        Server::new(|_, _, stream| reply(stream, "200 OK", "Content-Type: image/jpeg\r\n", &[9; 5000]));
    let options = OpenOptions { picture_bytes_max: 4999, ..OpenOptions::default() };
    let error = Capture::start(format!("http://{}/", large.host).parse().unwrap(), options).unwrap_err();
    assert!(error.to_string().contains("limit of 4999"), "{error}");

    let video = Server::new(|_, _, stream| reply(stream, "200 OK", "Content-Type: video/mp4\r\n", b""));
    let options = OpenOptions { ffmpeg: "/no/such/ffmpeg".into(), ..OpenOptions::default() };
    let error = Capture::start(format!("http://{}/", video.host).parse().unwrap(), options).unwrap_err();
    assert!(matches!(error, SourceError::NoProgram { .. }), "{error}");
}

#[test]
fn video_over_http_is_read_by_ffmpeg() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (plain, video) = (dir.path().join("film.y4m"), dir.path().join("film.mkv"));
    std::fs::write(&plain, film(&[20, 90, 160])).unwrap();
    let mut make = std::process::Command::new("ffmpeg");
    make.args(["-loglevel", "error", "-i"]).arg(&plain).args(["-c:v", "ffv1"]).arg(&video);
    assert!(make.status().unwrap().success());
    let bytes = std::fs::read(video).unwrap();
    let server = Server::new(move |_, _, stream| {
        reply(stream, "200 OK", "Content-Type: video/x-matroska\r\nConnection: close\r\n", &bytes);
        false
    });
    let capture = start(&format!("http://{}/film", server.host)).unwrap();
    until("the last picture comes", || match capture.take(None, Duration::from_millis(5)) {
        Taken::Shot(shot) => {
            assert!(matches!(shot.layout, Layout::I420 { width: 8, height: 4, .. }));
            shot.bytes[0] == 160
        }
        _ => false,
    });
}
