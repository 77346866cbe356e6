//! Topics of ROS 2, with Cyclone DDS on the other side (`ros2_peer.py`), over loopback.
#![cfg(feature = "ros2")]

#[path = "../../tests/common/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{PixelFormat, RgbImage};
use palmtop::tasks::{BoundingBox, Detection, PixelBox};
use palmtop_watch::record::{AnswerRecord, EventRecord, Moment, ObjectRecord, Phase, Record};
use palmtop_watch::ros2::Ros2Options;
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::sink::ros2::Ros2Sink;
use palmtop_watch::sink::{Message, Sink, Snapshot, Versioned};
use palmtop_watch::source::{Capture, OpenOptions, Shot, Taken};
use palmtop_watch::stream::Layout;
use serde_json::{Value, json};

/// Nodes need seconds to find each other; a machine that does much else may need many.
const LONG: Duration = Duration::from_secs(60);

/// One test at a time, so that there are never more participants than each side looks for.
static ALONE: Mutex<()> = Mutex::new(());

fn options() -> Ros2Options {
    // Few others will be in this domain.
    let domain = 100 + (std::process::id() % 100) as u16;
    Ros2Options {
        domain: Some(domain),
        interfaces: vec![Ipv4Addr::LOCALHOST.into()],
        ..Ros2Options::default()
    }
}

/// A Python that has Cyclone DDS.
fn python() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cyclonedds/bin/python3");
    let named = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    [named.into(), beside].into_iter().find(|python| {
        let found = Command::new(python).args(["-c", "import cyclonedds.domain"]).output();
        found.is_ok_and(|output| output.status.success())
    })
}

/// The other side. It ends when this is dropped.
struct Peer {
    child: Child,
    lines: Receiver<Value>,
}

impl Peer {
    /// `None` if there is no Cyclone DDS; the test has said so then.
    fn start(arguments: &[&str]) -> Option<Self> {
        let Some(python) = python() else {
            skip::skipped("topics of ROS 2", "no Python with Cyclone DDS is here (tests/setup.sh)");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ros2_peer.py");
        let mut command = Command::new(python);
        command.arg(script).arg(options().domain.unwrap().to_string()).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        let peer = Self { child, lines };
        assert_eq!(peer.lines.recv_timeout(LONG).unwrap(), json!({"ready": true}));
        Some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A moment whose nanoseconds are all needed.
fn moment() -> Moment {
    let wall = SystemTime::UNIX_EPOCH + Duration::new(1_795_942_200, 123_456_789);
    Moment { since_start: Duration::from_secs(3), wall }
}

fn object(label: &str, score: Option<f32>, track: Option<u64>) -> ObjectRecord {
    // No whole numbers, and exact in 32 bits.
    let bounding_box = BoundingBox { x_min: 10.25, y_min: 4.5, x_max: 30.75, y_max: 20.0 };
    let detection = Detection {
        label: label.into(),
        bounding_box,
        pixel_box: PixelBox::default(),
        score,
        locations: [0; 4],
        mask_codes: None,
        mask: None,
        text_before: String::new(),
        text_span: 0..0,
        tokens: None,
    };
    ObjectRecord { track, label: label.into(), score, bounding_box: (&bounding_box).into(), detection }
}

fn answer(question: &str, text: &str, objects: Vec<ObjectRecord>) -> Record {
    Record::Answer(AnswerRecord {
        camera: "Hof & Tor".into(),
        question: question.into(),
        at: moment(),
        picture: 7,
        changed: true,
        text: text.into(),
        is_about_objects: !objects.is_empty(),
        score: None,
        objects,
        latency: Duration::from_millis(250),
    })
}

fn setup() -> Setup {
    let camera: Arc<str> = "Hof & Tor".into();
    let question = |name: &str, reading| QuestionSetup {
        name: name.into(),
        camera: camera.clone(),
        prompt: format!("{name}\n"),
        reading,
        rules: vec!["visitor".into()],
    };
    Setup {
        model: "demo".into(),
        cameras: vec![camera.clone()],
        questions: vec![question("people", Reading::Objects), question("weather", Reading::Text)],
    }
}

#[test]
fn cyclone_dds_receives_every_field_that_is_published() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let topics = [
        "Detection2DArray:rt/palmtop/Hof_Tor/people/detections",
        "String:rt/palmtop/Hof_Tor/weather/text",
        "String:rt/palmtop/Hof_Tor/events",
        "CompressedImage:rt/palmtop/Hof_Tor/annotated/compressed",
        "ParticipantEntitiesInfo:ros_discovery_info",
    ];
    let arguments: Vec<&str> = ["receive"].into_iter().chain(topics).collect();
    let Some(peer) = Peer::start(&arguments) else { return };

    let mut sink = Ros2Sink::new(&options(), &setup()).unwrap();
    assert_eq!(sink.name(), "ROS 2 /palmtop/*");
    let objects = vec![object("cat", Some(0.75), Some(41)), object("a “dog”", None, None)];
    let weather = answer("weather", "Regen, später Sonne ☀\n", vec![]);
    let event = Record::Event(EventRecord {
        id: "visitor-1".into(),
        phase: Phase::Begin,
        rule: "visitor".into(),
        question: "people".into(),
        camera: "Hof & Tor".into(),
        at: moment(),
        lasted: None,
        picture: 7,
        text: "<loc0001>".into(),
        track: Some(41),
        label: Some("cat".into()),
        objects: objects.clone(),
    });
    let people = answer("people", "…", objects.clone());
    // Noise, so that its JPEG takes more than one datagram.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let picture = RgbImage::new(320, 240, noise.take(320 * 240 * 3).collect()).unwrap();
    let picture = || Arc::new(Snapshot::new(picture.clone(), objects.clone()));
    let jpeg = picture().annotated_jpeg().unwrap().to_vec();
    assert!(jpeg.len() > 70_000, "{} bytes", jpeg.len());

    // What was sent before the others are found is lost, so it is sent until all has come.
    let until = Instant::now() + LONG;
    let mut came = BTreeMap::new();
    let has_all = |came: &BTreeMap<String, Value>| {
        let nodes = came.get(topics[4]).map(|m| &m["node_entities_info_seq"][0]["writer_gid_seq"]);
        came.len() == topics.len() && nodes.and_then(Value::as_array).is_some_and(|w| w.len() == 4)
    };
    while !has_all(&came) {
        assert!(Instant::now() < until, "only {:?} came", came.keys());
        for record in [&people, &weather, &event] {
            let picture = sink.interest().in_picture(record).then(picture);
            sink.send(&Message { record: record.clone(), picture }).unwrap();
        }
        match peer.lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => came.insert(line["topic"].as_str().unwrap().to_owned(), line["message"].clone()),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(error) => panic!("the other side is gone: {error}"),
        };
    }
    assert!(!sink.interest().in_picture(&event), "only answers have pictures to show");
    assert_eq!(sink.finish(Instant::now() + LONG), 0);

    let header = json!({"stamp": {"sec": 1_795_942_200, "nanosec": 123_456_789}, "frame_id": "Hof & Tor"});
    let pose = json!({
        "pose": {
            "position": {"x": 0.0, "y": 0.0, "z": 0.0},
            "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0},
        },
        "covariance": vec![0.0; 36],
    });
    let detection = |label: &str, score: f64, id: &str| {
        json!({
            "header": header,
            "results": [{"hypothesis": {"class_id": label, "score": score}, "pose": pose}],
            "bbox": {
                "center": {"position": {"x": 20.5, "y": 12.25}, "theta": 0.0},
                "size_x": 20.5,
                "size_y": 15.5,
            },
            "id": id,
        })
    };
    let detections = [detection("cat", 0.75, "41"), detection("a “dog”", 1.0, "")];
    assert_eq!(came[topics[0]], json!({"header": header, "detections": detections}));
    assert_eq!(came[topics[1]], json!({"data": "Regen, später Sonne ☀\n"}));
    let data: Value = serde_json::from_str(came[topics[2]]["data"].as_str().unwrap()).unwrap();
    assert_eq!(data, serde_json::to_value(Versioned::from(&event)).unwrap());
    assert_eq!(data["record"], "event");
    let image = &came[topics[3]];
    assert_eq!((&image["header"], &image["format"]), (&header, &json!("jpeg")));
    assert_eq!(from_base64(image["data"].as_str().unwrap()), jpeg);

    let info = &came[topics[4]];
    let node = &info["node_entities_info_seq"][0];
    assert_eq!((&node["node_namespace"], &node["node_name"]), (&json!("/palmtop"), &json!("watch")));
    // All writers are of this participant: their identifiers begin as its own does.
    let prefix = |gid: &Value| from_base64(gid["data"].as_str().unwrap())[..12].to_vec();
    let writers = node["writer_gid_seq"].as_array().unwrap();
    assert!(writers.iter().all(|writer| prefix(writer) == prefix(&info["gid"])), "{info}");
    assert_eq!(node["reader_gid_seq"], json!([]));
}

#[cfg(unix)]
#[test]
fn a_subscriber_that_hangs_keeps_nothing_from_the_others() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = "String:rt/palmtop/Hof_Tor/weather/text";
    let Some(hanging) = Peer::start(&["receive", topic]) else { return };
    let Some(sound) = Peer::start(&["follow", topic]) else { return };
    let mut sink = Ros2Sink::new(&options(), &setup()).unwrap();
    let mut send = |text: &str| {
        sink.send(&Message { record: answer("weather", text, vec![]), picture: None }).unwrap();
    };

    let until = Instant::now() + LONG;
    let mut has_come = [false; 2];
    while has_come != [true; 2] {
        assert!(Instant::now() < until, "only {has_come:?} of both subscribers were found");
        send("first");
        std::thread::sleep(Duration::from_millis(50));
        for (peer, has_come) in [&hanging, &sound].into_iter().zip(&mut has_come) {
            *has_come |= peer.lines.try_recv().is_ok();
        }
    }
    let stopped = Command::new("kill").args(["-STOP", &hanging.child.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    // More than the ten that a history keeps.
    for number in 0..40 {
        send(&number.to_string());
        let came = loop {
            let line = sound.lines.recv_timeout(LONG).unwrap();
            if line["message"]["data"] != "first" {
                break line;
            }
        };
        assert_eq!(came["message"]["data"], number.to_string());
    }
    // The end of the loop does not wait for it for ever.
    assert_eq!(sink.finish(Instant::now() + Duration::from_millis(50)), 1);
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |c| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let bits = four.iter().fold(0, |bits, &c| bits << 6 | if c == b'=' { 0 } else { value(c) });
        let count = 3 - four.iter().filter(|&&c| c == b'=').count();
        out.extend(&bits.to_be_bytes()[1..1 + count]);
    }
    out
}

/// Pictures of a capture until there is one for which `is_done` holds.
fn shots(capture: &Capture, mut is_done: impl FnMut(&Shot) -> bool) {
    let until = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < until, "the pictures have not come: {:?}", capture.status());
        match capture.take(None, Duration::from_millis(200)) {
            Taken::Shot(shot) if is_done(&shot) => return,
            Taken::Shot(_) | Taken::Nothing => {}
            Taken::End => panic!("the capture has ended: {:?}", capture.status()),
        }
    }
}

#[test]
fn pictures_that_cyclone_dds_publishes_are_captured_and_broken_ones_are_not() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(_peer) = Peer::start(&["publish"]) else { return };
    let open = OpenOptions { ros2: options(), ..OpenOptions::default() };
    let start = |address: &str| Capture::start(address.parse().unwrap(), open.clone()).unwrap();

    let images = start("ros2:///camera/image_raw");
    let pattern = |bytes: usize| (0..bytes).map(|n| (n * 7 % 251) as u8);
    let padded: Vec<u8> = pattern(150 * 610).collect();
    let rgb: Vec<u8> = padded.chunks(610).flat_map(|row| &row[..600]).copied().collect();
    let grey: Vec<u8> = pattern(48 * 64).collect();
    let pairs: Vec<u8> = pattern(48 * 128).collect();
    let (mut has_rgb, mut has_grey, mut has_pairs) = (false, false, false);
    shots(&images, |shot| {
        match shot.layout {
            Layout::Packed { format: PixelFormat::Rgb, width: 200, height: 150 } => {
                assert!(shot.bytes == rgb);
                has_rgb = true;
            }
            Layout::Packed { format: PixelFormat::Grey, width: 64, height: 48 } => {
                assert!(shot.bytes == grey);
                has_grey = true;
            }
            Layout::Yuyv { width: 64, height: 48, .. } => {
                assert!(shot.bytes == pairs);
                has_pairs = true;
            }
            other => panic!("nobody sent {other:?}"),
        }
        // The publisher's clock is the same, and its stamp is from before the picture came.
        assert!(shot.wall <= SystemTime::now());
        has_rgb && has_grey && has_pairs
    });
    drop(images);

    let files = start("ros2:///camera/image_raw/compressed");
    let file: Vec<u8> =
        [0xff, 0xd8, 0xff, 0xe0].into_iter().chain((0..=255).cycle().take(256 * 400)).collect();
    let mut count = 0;
    shots(&files, |shot| {
        assert!(shot.layout == Layout::Encoded && shot.bytes == file);
        count += 1;
        count == 3
    });
}
