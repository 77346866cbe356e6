//! Records and pictures, and the log, as the tests of sinks have them.

#![allow(dead_code, reason = "not every test program needs all of it")]

use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::RgbImage;
use palmtop::tasks::Detections;
use palmtop_present::json::Edges;
use palmtop_watch::record::{
    AnswerRecord, CameraRecord, CameraStatus, EventRecord, Moment, ObjectRecord, Phase, Record,
};
use palmtop_watch::sink::{Message, Sink, SinkError, Snapshot};

/// Long enough that a test which waits for so long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// 2026-11-29, 09:30:00.125 UTC, and so many milliseconds.
pub fn at(milliseconds: u64) -> Moment {
    let since_start = Duration::from_millis(milliseconds);
    Moment {
        since_start,
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_944_600_125) + since_start,
    }
}

pub fn answer(camera: &str, question: &str, text: &str) -> AnswerRecord {
    AnswerRecord {
        camera: camera.into(),
        question: question.into(),
        at: at(0),
        picture: 7,
        changed: true,
        text: text.into(),
        is_about_objects: false,
        score: None,
        objects: Vec::new(),
        latency: Duration::from_millis(250),
    }
}

pub fn event(rule: &str, id: &str, phase: Phase) -> EventRecord {
    EventRecord {
        id: id.into(),
        phase,
        rule: rule.into(),
        question: "person".into(),
        camera: "front".into(),
        at: at(0),
        lasted: (phase == Phase::End).then_some(Duration::from_secs(3)),
        picture: 7,
        text: "yes".into(),
        track: None,
        label: None,
        objects: Vec::new(),
    }
}

pub fn camera(name: &str, status: CameraStatus) -> CameraRecord {
    CameraRecord { camera: name.into(), at: at(0), status, why: None }
}

/// Objects of these labels, each in the upper left of a picture of 64 × 48 pixels.
pub fn objects(labels: &[&str]) -> Vec<ObjectRecord> {
    let text: Vec<String> =
        labels.iter().map(|label| format!("<loc0000><loc0000><loc0512><loc0512> {label}")).collect();
    let read = Detections::read(&text.join(" ; "), 64, 48);
    let record = |detection: palmtop::tasks::Detection| ObjectRecord {
        track: None,
        label: detection.label.clone(),
        score: detection.score,
        bounding_box: Edges::from(&detection.bounding_box),
        detection,
    };
    read.objects.into_iter().map(record).collect()
}

pub fn picture(objects: Vec<ObjectRecord>) -> Arc<Snapshot> {
    Arc::new(Snapshot::new(RgbImage::new(64, 48, vec![90; 64 * 48 * 3]).unwrap(), objects))
}

pub fn message(record: Record) -> Message {
    Message { record, picture: None }
}

/// An event of this identity, without a picture.
pub fn an_event(id: &str) -> Arc<Message> {
    Arc::new(message(Record::Event(event("someone", id, Phase::Begin))))
}

/// Its identity.
pub fn id(message: &Message) -> String {
    match &message.record {
        Record::Event(event) => event.id.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn error(sink: &mut impl Sink, message: &Message) -> String {
    match sink.send(message) {
        Err(SinkError(text)) => text,
        Ok(()) => panic!("it was taken"),
    }
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps all that is logged from now on, by all tests of the program.
pub fn keep_log() {
    struct Kept;
    impl log::Log for Kept {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            palmtop_watch::sink::secret::may_be_logged(metadata)
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                LOG.lock().unwrap().push(format!(
                    "{} {}: {}",
                    record.level(),
                    record.target(),
                    record.args()
                ));
            }
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Kept).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The lines that were logged with this in them.
pub fn logged(part: &str) -> Vec<String> {
    LOG.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
}
