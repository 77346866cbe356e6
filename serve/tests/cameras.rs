//! The cameras of the loop, driven by a test in the loop's place.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use common::{LONG, Running, options};
use palmtop::image::{DecodeOptions, YuvColor};
use palmtop::tasks::Detections;
use palmtop_serve::cameras::Cameras;
use palmtop_watch::command::Command;
use palmtop_watch::record::{
    AnswerRecord, CameraRecord, CameraStatus, EventRecord, Moment, ObjectRecord, Phase, Record,
};
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::source::Tap;
use palmtop_watch::stream::Layout;
use serde_json::{Value, json};

const SIZE: (u32, u32) = (64, 48);

fn setup() -> Setup {
    let question = |name: &str, camera: &str, reading| QuestionSetup {
        name: name.into(),
        camera: camera.into(),
        prompt: format!("detect {name}"),
        reading,
        rules: vec!["rule".into()],
    };
    Setup {
        model: "demo".into(),
        cameras: vec!["door".into(), "../yard &?".into()],
        questions: vec![
            question("cat", "door", Reading::Objects),
            question("open", "door", Reading::Choice(vec!["yes".into(), "no".into()])),
            question("cat", "../yard &?", Reading::Objects),
        ],
    }
}

struct Loop {
    running: Running,
    cameras: Cameras,
    commands: Receiver<Command>,
}

fn start() -> Loop {
    let options = options();
    let cameras = options.cameras.clone();
    let (sender, commands) = channel();
    cameras.begin(&setup(), 32, DecodeOptions::default(), sender);
    Loop { running: Running::start(options), cameras, commands }
}

fn at() -> Moment {
    Moment { since_start: Duration::from_millis(1500), wall: SystemTime::UNIX_EPOCH }
}

fn cat() -> ObjectRecord {
    let read = Detections::read("<loc0171><loc0128><loc0853><loc0640> cat", SIZE.0, SIZE.1);
    let detection = read.objects[0].clone();
    ObjectRecord {
        track: Some(1),
        label: "cat".into(),
        score: Some(0.5),
        bounding_box: (&detection.bounding_box).into(),
        detection,
    }
}

fn answer(camera: &str, changed: bool, objects: Vec<ObjectRecord>) -> Record {
    Record::Answer(AnswerRecord {
        camera: camera.into(),
        question: "cat".into(),
        at: at(),
        picture: 7,
        changed,
        text: "cat".into(),
        is_about_objects: true,
        score: None,
        objects,
        latency: Duration::from_millis(3),
    })
}

fn event(id: &str, phase: Phase) -> Record {
    Record::Event(EventRecord {
        id: id.into(),
        phase,
        rule: "rule".into(),
        question: "cat".into(),
        camera: "door".into(),
        at: at(),
        lasted: None,
        picture: 7,
        text: "cat".into(),
        track: Some(1),
        label: Some("cat".into()),
        objects: vec![],
    })
}

fn status(status: CameraStatus) -> Record {
    Record::Camera(CameraRecord { camera: "door".into(), at: at(), status, why: None })
}

/// A grey picture, as a camera gives it.
fn show(tap: &Arc<dyn Tap>, grey: u8) {
    let layout = Layout::Nv12 { width: SIZE.0, height: SIZE.1, color: YuvColor::default() };
    let mut bytes = vec![grey; layout.bytes().unwrap()];
    bytes[(SIZE.0 * SIZE.1) as usize..].fill(128);
    tap.see(&bytes, layout, Instant::now(), SystemTime::UNIX_EPOCH);
}

fn pixel(jpeg: &[u8], x: u32, y: u32) -> [u8; 3] {
    image::load_from_memory(jpeg).unwrap().to_rgb8().get_pixel(x, y).0
}

/// A request whose answer does not end.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(running: &Running, path: &str, headers: &str) -> (String, Self) {
        let mut stream = TcpStream::connect(running.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n").unwrap();
        let mut stream = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.0.read_line(&mut head).unwrap() > 0, "{head}");
        }
        (head, stream)
    }

    /// The next chunk of the body; empty at its end.
    fn chunk(&mut self) -> Vec<u8> {
        let mut size = String::new();
        self.0.read_line(&mut size).unwrap();
        let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
        self.0.read_exact(&mut chunk).unwrap();
        chunk.truncate(chunk.len() - 2);
        chunk
    }

    /// The next picture of a live stream.
    fn picture(&mut self) -> Vec<u8> {
        let part = self.chunk();
        let head = part.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let text = std::str::from_utf8(&part[..head]).unwrap();
        assert!(text.starts_with("--picture\r\ncontent-type: image/jpeg\r\n"), "{text}");
        let length = text.split("content-length: ").nth(1).unwrap().trim().parse::<usize>().unwrap();
        assert_eq!(&part[head + length..], b"\r\n");
        part[head..head + length].to_vec()
    }

    /// The next event: name, id and data.
    fn event(&mut self) -> (String, String, Value) {
        loop {
            let text = String::from_utf8(self.chunk()).unwrap();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or("").trim().to_owned()
            };
            if !field("data:").is_empty() {
                return (field("event:"), field("id:"), serde_json::from_str(&field("data:")).unwrap());
            }
        }
    }
}

#[test]
fn without_a_loop_there_are_no_cameras() {
    let running = Running::start(options());
    assert_eq!(running.get("/v1/cameras").json(), json!({"paused": false, "cameras": []}));
    for path in ["/v1/cameras/door/picture", "/v1/cameras/door/stream", "/v1/events?camera=door"] {
        assert_eq!(running.get(path).status, 404, "{path}");
    }
    assert_eq!(running.post("/v1/commands", &[], b"ask").status, 404);
}

#[test]
fn cameras_say_how_they_are_and_what_was_answered() {
    let Loop { running, cameras, .. } = start();
    let tap = cameras.tap(0);
    let list = |camera: usize| running.get("/v1/cameras").json()["cameras"][camera].clone();
    let before = list(0);
    assert_eq!(
        (&before["name"], &before["status"], &before["width"]),
        (&json!("door"), &json!("waiting"), &Value::Null)
    );
    assert_eq!(before["questions"][1]["choices"], json!(["yes", "no"]));
    assert_eq!(before["questions"][0]["answer"], Value::Null);
    show(&tap, 50);
    cameras.looked_at(0, SIZE);
    cameras.tell(&status(CameraStatus::Running));
    cameras.tell(&answer("door", true, vec![cat()]));
    cameras.tell(&event("1", Phase::Begin));
    cameras.tell(&event("2", Phase::Begin));
    cameras.tell(&event("1", Phase::End));
    let after = list(0);
    assert_eq!(
        (&after["status"], &after["width"], &after["height"]),
        (&json!("running"), &json!(64), &json!(48))
    );
    assert_eq!(after["last_picture"], "1970-01-01T00:00:00.000Z");
    let question = &after["questions"][0];
    assert_eq!(
        (&question["reading"], &question["answer"]["objects"][0]["label"]),
        (&json!("objects"), &json!("cat"))
    );
    assert_eq!(question["answer"]["time"], "1970-01-01T00:00:00.000Z");
    let open: Vec<&Value> = question["events"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert_eq!(open, [&json!("2")]);
    assert_eq!(list(1)["questions"][0]["answer"], Value::Null, "the other camera's is its own");
    // Another configuration.
    let (sender, _commands) = channel();
    cameras.begin(
        &Setup { cameras: vec!["gate".into()], ..Setup::default() },
        32,
        DecodeOptions::default(),
        sender,
    );
    assert_eq!(running.get("/v1/cameras").json()["cameras"].as_array().unwrap().len(), 1);
    assert_eq!(running.get("/v1/cameras/door/picture").status, 404);
}

#[test]
fn pictures_have_what_was_found_drawn_in() {
    let Loop { running, cameras, .. } = start();
    let (tap, other) = (cameras.tap(0), cameras.tap(1));
    assert_eq!(running.get("/v1/cameras/door/picture").json()["error"]["code"], "no_picture");
    let picture = |path: &str| {
        let mut got = running.agent.get(running.url(path)).call().unwrap();
        assert_eq!(got.headers()["content-type"], "image/jpeg");
        got.body_mut().read_to_vec().unwrap()
    };
    show(&tap, 100);
    let plain = picture("/v1/cameras/door/picture");
    let grey = pixel(&plain, 8, 24);
    assert!(grey.iter().all(|level| level.abs_diff(grey[0]) < 6), "{grey:?}");
    cameras.looked_at(0, SIZE);
    cameras.tell(&answer("door", false, vec![cat()]));
    let drawn = picture("/v1/cameras/door/picture");
    let edge = pixel(&drawn, 8, 24);
    assert!(edge.iter().any(|level| level.abs_diff(grey[0]) > 40), "the box's left edge: {edge:?}");
    let far = pixel(&drawn, 60, 44);
    assert!(far.iter().all(|level| level.abs_diff(grey[0]) < 12), "{far:?}");
    // A name is data, whatever is in it.
    show(&other, 200);
    let encoded = picture("/v1/cameras/..%2Fyard%20%26%3F/picture");
    assert!(pixel(&encoded, 1, 1)[0] > 180);
    for path in
        ["/v1/cameras/..%2F..%2Fetc%2Fpasswd/picture", "/v1/cameras/%00/picture", "/v1/cameras/%ff/picture"]
    {
        let status = running.get(path).status;
        assert!(status == 404 || status == 400, "{path}: {status}");
    }
    // What is no picture is told as that, and leads to nothing else.
    std::thread::sleep(Duration::from_millis(1100));
    tap.see(b"\xFF\xD8\xFFno picture", Layout::Encoded, Instant::now(), SystemTime::UNIX_EPOCH);
    assert_eq!(running.get("/v1/cameras/door/picture").status, 503);
}

#[test]
fn live_pictures_are_the_newest_ones_however_slowly_they_are_read() {
    let mut this = start();
    let tap = this.cameras.tap(0);
    for wrong in ["0", "31", "x", "nan", "-1"] {
        assert_eq!(this.running.get(&format!("/v1/cameras/door/stream?fps={wrong}")).status, 400, "{wrong}");
    }
    let (head, mut stream) = Stream::open(&this.running, "/v1/cameras/door/stream?fps=30", "");
    assert!(head.contains("multipart/x-mixed-replace; boundary=picture"), "{head}");
    show(&tap, 40);
    assert!(pixel(&stream.picture(), 1, 1)[0] < 60);
    // Browsers show it when the next one begins, so it comes once more, and not again and again.
    assert!(pixel(&stream.picture(), 1, 1)[0] < 60);
    show(&tap, 220);
    assert!(pixel(&stream.picture(), 1, 1)[0] > 180);
    // Nobody reads meanwhile: all but a few of these are left out, and the last one comes.
    for grey in (0..=120).chain([250]) {
        show(&tap, grey);
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut read = 0;
    while pixel(&stream.picture(), 1, 1)[0] < 240 {
        read += 1;
        assert!(read < 60, "pictures are left out");
    }
    // Another configuration ends it, and so does the server's end.
    let (sender, _commands) = channel();
    this.cameras.begin(&setup(), 32, DecodeOptions::default(), sender);
    while !stream.chunk().is_empty() {}
    let (_, mut stream) = Stream::open(&this.running, "/v1/cameras/door/stream", "");
    let tap = this.cameras.tap(0);
    show(&tap, 40);
    stream.picture();
    this.running.end();
    while !stream.chunk().is_empty() {}
}

#[test]
fn only_so_many_look_at_once_and_places_come_back() {
    let Loop { running, cameras, .. } = start();
    let tap = cameras.tap(0);
    let streams: Vec<Stream> =
        (0..16).map(|_| Stream::open(&running, "/v1/cameras/door/stream", "").1).collect();
    let refused = running.get("/v1/cameras/door/stream");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    show(&tap, 9);
    drop(streams);
    let until = Instant::now() + LONG;
    loop {
        let (head, _) = Stream::open(&running, "/v1/cameras/door/stream", "");
        if head.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < until, "{head}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn events_come_as_they_happen_and_what_was_missed_first() {
    let mut this = start();
    let (head, mut stream) = Stream::open(&this.running, "/v1/events", "");
    assert!(head.contains("text/event-stream"), "{head}");
    let (_, mut all) = Stream::open(&this.running, "/v1/events?all=true", "");
    let (_, mut yard) = Stream::open(&this.running, "/v1/events?camera=..%2Fyard%20%26%3F", "");
    this.cameras.tell(&answer("door", false, vec![]));
    this.cameras.tell(&answer("door", true, vec![cat()]));
    this.cameras.tell(&event("1", Phase::Begin));
    this.cameras.tell(&answer("../yard &?", true, vec![]));
    let (name, first, data) = stream.event();
    assert_eq!((name.as_str(), &data["changed"], &data["version"]), ("answer", &json!(true), &json!(1)));
    assert_eq!(data["objects"][0]["box"]["x_max"], 40.0);
    let (name, second, data) = stream.event();
    assert_eq!((name.as_str(), &data["record"], &data["phase"]), ("event", &json!("event"), &json!("begin")));
    assert_eq!(all.event().2["changed"], false);
    assert_eq!(yard.event().2["camera"], "../yard &?");
    // Somebody comes back.
    let (_, mut again) = Stream::open(&this.running, "/v1/events", &format!("last-event-id: {first}\r\n"));
    assert_eq!(again.event().1, second);
    assert_eq!(again.event().2["camera"], "../yard &?");
    // Of a run that is over.
    let (_, mut other) = Stream::open(&this.running, "/v1/events", "last-event-id: 123-9\r\n");
    assert_eq!(other.event().0, "gap");
    assert_eq!(other.event().1, first);
    assert_eq!(this.running.get("/v1/events?camera=nobody").status, 404);
    assert_eq!(this.running.get("/v1/events?all=1").status, 400);
    this.running.end();
    while !stream.chunk().is_empty() {}
}

#[test]
fn commands_reach_the_loop_if_it_can_obey() {
    let Loop { running, cameras, commands } = start();
    let tell = |body: &str| running.post("/v1/commands", &[], body.as_bytes());
    let ask = |question: Option<&str>, camera: Option<&str>| Command::Ask {
        question: question.map(Into::into),
        camera: camera.map(Into::into),
    };
    let prompt = r#"{"prompt": {"question": "cat", "prompt": "detect dog"}}"#;
    let right = [
        ("ask", ask(None, None)),
        ("ask open", ask(Some("open"), None)),
        (r#"{"ask": {"camera": "../yard &?"}}"#, ask(None, Some("../yard &?"))),
        ("\"pause\"", Command::Pause),
        (prompt, Command::Prompt { question: "cat".into(), prompt: "detect dog".into() }),
    ];
    for (body, command) in right {
        let got = tell(body);
        assert_eq!((got.status, got.json()), (202, json!({"accepted": true})), "{body}");
        assert_eq!(commands.try_recv().unwrap(), command);
        cameras.obeyed(&command);
    }
    let list = running.get("/v1/cameras").json();
    assert_eq!(
        (&list["paused"], &list["cameras"][0]["questions"][0]["prompt"]),
        (&json!(true), &json!("detect dog"))
    );
    let long = format!(r#"{{"prompt": {{"question": "cat", "prompt": "{}"}}}}"#, "cat ".repeat(100));
    let wrong = [
        ("reboot", 400),
        ("{", 400),
        (r#"{"prompt": {"question": "cat", "prompt": " "}}"#, 400),
        (long.as_str(), 400),
        ("ask nobody", 404),
        (r#"{"ask": {"question": "open", "camera": "../yard &?"}}"#, 404),
        (r#"{"prompt": {"question": "dog", "prompt": "detect dog"}}"#, 404),
        (&"x".repeat(20_000), 413),
    ];
    for (body, status) in wrong {
        let got = tell(body);
        assert_eq!(got.status, status, "{}", got.body);
    }
    assert!(commands.try_recv().is_err());
    cameras.end();
    assert_eq!(tell("ask").status, 404);
}
