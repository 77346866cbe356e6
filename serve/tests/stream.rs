//! The WebSocket for streams of frames.

mod common;

use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use common::{LONG, Running, demo, options, right_answers};
use palmtop_serve::access::{Access, ApiKey};
use palmtop_serve::server::ServerOptions;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

const PROMPTS: [&str; 2] = ["caption en", "detect car ; bus ; tree"];

type Socket = WebSocket<TcpStream>;

fn try_connect(running: &Running, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{}{path}", running.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let stream = TcpStream::connect(running.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

fn connect(running: &Running) -> Socket {
    try_connect(running, "/v1/stream", &[]).unwrap()
}

/// Starts to ask these prompts.
fn prompts(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).unwrap();
    assert_eq!(next(socket)["event"], "ready");
}

fn send(socket: &mut Socket, frame: &[u8]) {
    socket.send(Message::binary(frame.to_vec())).unwrap();
}

/// The next text message.
fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// All events of a frame, the last one included.
fn frame(socket: &mut Socket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        events.push(next(socket));
        let last = events.last().unwrap();
        if last["event"] == "done" || last["event"] == "error" {
            return events;
        }
    }
}

/// The answers of a frame by prompt, and its number.
fn answers(socket: &mut Socket, prompts: usize) -> (u64, Vec<Value>) {
    let events = frame(socket);
    assert_eq!(events.last().unwrap()["event"], "done", "{:?}", events.last());
    let mut answers = vec![Value::Null; prompts];
    for event in events.iter().filter(|event| event["event"] == "answer") {
        answers[event["prompt"].as_u64().unwrap() as usize] = event["answer"].clone();
    }
    (events[0]["frame"].as_u64().unwrap(), answers)
}

/// How the server closes: code and reason.
fn close(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
            Ok(Message::Close(None)) => panic!("a close without a code"),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn jpeg_of(rgb: &image::RgbImage) -> Vec<u8> {
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90).encode_image(rgb).unwrap();
    out
}

/// Holds the engine from now on, until the sender is dropped.
fn hold(running: &Running) -> Sender<()> {
    let turn = running.server().app().engine.turn().clone();
    let (sender, receiver) = channel::<()>();
    let (began, begin) = channel();
    std::thread::spawn(move || {
        turn.take(|| {
            began.send(()).unwrap();
            let _ = receiver.recv();
        });
    });
    begin.recv().unwrap();
    sender
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn frames_are_answered_as_looks_are() {
    let running = Running::start(options());
    let mut socket = connect(&running);
    prompts(&mut socket, &json!({"prompts": PROMPTS}));
    let scene = demo("scene.png");
    let rgb = image::load_from_memory(&scene).unwrap().to_rgb8();
    let as_jpeg = jpeg_of(&rgb);
    for (number, picture) in [&scene, &as_jpeg].into_iter().enumerate() {
        send(&mut socket, picture);
        let right = right_answers(picture, &PROMPTS);
        let (frame, answers) = answers(&mut socket, PROMPTS.len());
        assert_eq!(frame, number as u64);
        for (answer, right) in answers.iter().zip(&right) {
            assert_eq!((&answer["text"], &answer["tokens"]), (&json!(right.text), &json!(right.tokens)));
        }
    }
    // Plain pixels are the picture without a file around them.
    let size = format!("{}x{}", rgb.width(), rgb.height());
    let bgr: Vec<u8> = rgb.pixels().flat_map(|pixel| [pixel.0[2], pixel.0[1], pixel.0[0]]).collect();
    for (format, pixels) in [("rgb", rgb.as_raw()), ("bgr", &bgr)] {
        prompts(&mut socket, &json!({"prompts": ["caption en"], "format": format, "size": size}));
        send(&mut socket, pixels);
        let (_, answers) = answers(&mut socket, 1);
        assert_eq!(answers[0]["text"], right_answers(&scene, &["caption en"])[0].text, "{format}");
        assert_eq!(answers[0]["image"]["width"], rgb.width());
    }
    // NV12: all grey.
    prompts(&mut socket, &json!({"prompts": ["caption en"], "format": "nv12", "size": "64x48"}));
    send(&mut socket, &[128; 64 * 48 * 3 / 2]);
    assert_eq!(answers(&mut socket, 1).1[0]["image"]["height"], 48);
    send(&mut socket, &[128; 64]);
    let wrong = frame(&mut socket);
    let message = wrong[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("4608 bytes, and 64 came"), "{message}");
    socket.close(None).unwrap();
    wait_for("its place is free", || running.server().app().engine.pending() == 0);
}

#[test]
fn the_newest_frame_wins_and_the_others_are_counted() {
    let running = Running::start(options());
    let engine = running.server().app().engine.clone();
    let mut socket = connect(&running);
    prompts(&mut socket, &json!({"prompts": ["caption en"]}));
    let held = hold(&running);
    let pictures: Vec<Vec<u8>> = (0..6u8)
        .map(|n| jpeg_of(&image::RgbImage::from_pixel(40, 40, image::Rgb([n * 40, 255 - n * 40, 90]))))
        .collect();
    send(&mut socket, &pictures[0]);
    wait_for("the first is with the engine", || engine.pending() == 1);
    for picture in &pictures[1..] {
        send(&mut socket, picture);
    }
    // What is behind the frames has been read when this is answered.
    prompts(&mut socket, &json!({"prompts": ["caption en"], "seed": 1}));
    drop(held);
    let first = frame(&mut socket);
    assert!(
        first.iter().all(|event| (event["frame"].as_u64(), event["dropped"].as_u64()) == (Some(0), Some(0)))
    );
    let last = frame(&mut socket);
    assert!(
        last.iter().all(|event| (event["frame"].as_u64(), event["dropped"].as_u64()) == (Some(5), Some(4))),
        "{last:?}"
    );
    let text = last.iter().find(|event| event["event"] == "answer").unwrap()["answer"]["text"].clone();
    assert_eq!(text, right_answers(&pictures[5], &["caption en"])[0].text);
    // Whoever goes away is not answered any more.
    let held = hold(&running);
    send(&mut socket, &pictures[1]);
    wait_for("it is with the engine", || engine.pending() == 1);
    let before = engine.counts().answered.get();
    drop(socket);
    // The server hears of it before the engine goes on.
    wait_for("its place is free", || connect_is_possible(&running, 8));
    drop(held);
    wait_for("the engine is free", || engine.pending() == 0);
    assert_eq!(engine.counts().answered.get(), before);
}

/// True if so many streams can be had at once.
fn connect_is_possible(running: &Running, streams: usize) -> bool {
    let sockets: Vec<_> = (0..streams).map(|_| try_connect(running, "/v1/stream", &[])).collect();
    sockets.iter().all(Result::is_ok)
}

#[test]
fn what_cannot_be_used_is_told_and_the_stream_goes_on() {
    let running = Running::start(options());
    let mut socket = connect(&running);
    send(&mut socket, b"frame");
    assert_eq!(next(&mut socket)["error"]["code"], "no_prompts");
    let wrong = [
        (json!({"prompts": []}), "0 prompts"),
        (json!({}), "0 prompts"),
        (json!([]), "no JSON object"),
        (json!({"prompts": ["ocr"], "picture": "aGVsbG8="}), "binary messages"),
        (json!({"prompts": ["ocr"], "format": "h264"}), "nv12"),
        (json!({"prompts": ["ocr"], "format": "nv12"}), "size"),
        (json!({"prompts": ["ocr"], "format": "nv12", "size": "0x4"}), "size"),
        (json!({"prompts": ["ocr"], "size": 4}), "text"),
        (json!({"prompts": ["ocr"], "pormpts": 1}), "pormpts"),
    ];
    for (message, word) in wrong {
        socket.send(Message::text(message.to_string())).unwrap();
        let told = next(&mut socket);
        let text = told["error"]["message"].as_str().unwrap_or_else(|| panic!("{message}: {told}"));
        assert!(text.contains(word), "{message}: {text}");
    }
    prompts(&mut socket, &json!({"prompts": ["ocr"]}));
    for bytes in [&b""[..], b"no picture", &demo("scene.png")[..1000]] {
        send(&mut socket, bytes);
        let told = frame(&mut socket);
        assert_eq!(told[0]["error"]["code"], "invalid_picture", "{told:?}");
    }
    prompts(&mut socket, &json!({"prompts": ["ocr ".repeat(300)]}));
    send(&mut socket, &demo("scene.png"));
    assert_eq!(next(&mut socket)["event"], "error");
    assert_eq!(next(&mut socket)["event"], "done");
    prompts(&mut socket, &json!({"prompts": ["ocr"]}));
    send(&mut socket, &demo("scene.png"));
    assert_eq!(answers(&mut socket, 1).1[0]["stop"], "eos");
}

#[test]
fn the_server_says_why_it_closes() {
    let mut options = options();
    options.app.body_bytes_max = 100_000;
    let mut running = Running::start(options);
    let mut socket = connect(&running);
    // The beginning of a message of 200,000 bytes: whoever sends all of it at once may not hear why it was too long.
    let head = [0x82, 0xff, 0, 0, 0, 0, 0, 3, 0x0d, 0x40, 0, 0, 0, 0];
    std::io::Write::write_all(socket.get_mut(), &head).unwrap();
    assert_eq!(close(&mut socket), (1009, "the message is too long".to_owned()));
    let mut socket = connect(&running);
    socket.send(Message::text("x".repeat(70_000))).unwrap();
    assert_eq!(close(&mut socket).0, 1009);
    let mut socket = connect(&running);
    // A frame that no client may send: without a mask.
    std::io::Write::write_all(socket.get_mut(), &[0x81, 1, b'a']).unwrap();
    assert_eq!(close(&mut socket).0, 1002);
    let mut socket = connect(&running);
    running.end();
    assert_eq!(close(&mut socket), (1001, "the server is ending".to_owned()));
}

#[test]
fn only_those_who_may_connect() {
    let with_key = || ServerOptions {
        access: Access {
            key: Some(ApiKey::new("0123456789").unwrap()),
            origins: vec!["https://house.example".to_owned()],
            hosts: vec!["127.0.0.1".to_owned()],
        },
        ..options()
    };
    let running = Running::start(with_key());
    let path = "/v1/stream?key=0123456789";
    let own = format!("http://{}", running.address);
    // As browsers connect: with their page's origin, and the key where they can put it.
    assert!(try_connect(&running, path, &[("origin", &own)]).is_ok());
    assert!(try_connect(&running, path, &[("origin", "https://house.example")]).is_ok());
    assert_eq!(try_connect(&running, path, &[("origin", "https://evil.example")]).err(), Some(403));
    assert_eq!(try_connect(&running, path, &[("origin", "null")]).err(), Some(403));
    assert_eq!(try_connect(&running, "/v1/stream", &[]).err(), Some(401));
    assert_eq!(try_connect(&running, path, &[("host", "evil.example")]).err(), Some(421));
    let places: Vec<_> = (0..20).map(|_| try_connect(&running, path, &[])).collect();
    assert_eq!(places.iter().filter(|place| place.is_ok()).count(), 8);
    assert!(places.iter().all(|place| place.is_ok() || *place.as_ref().err().unwrap() == 429));
    drop(places);
    let plain = running.get(path);
    assert!([400, 426].contains(&plain.status), "{}", plain.body);
    assert_eq!(plain.json()["error"]["code"], "no_websocket");
    wait_for("places come back", || try_connect(&running, path, &[]).is_ok());
}
