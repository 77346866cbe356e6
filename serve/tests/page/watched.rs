//! What the page shows of a loop: two cameras, driven by the test in the loop's place.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{DecodeOptions, YuvColor};
use palmtop::tasks::Detections;
use palmtop_serve::cameras::Cameras;
use palmtop_watch::record::{
    AnswerRecord, CameraRecord, CameraStatus, EventRecord, Moment, ObjectRecord, Phase, Record,
};
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::source::Tap;
use palmtop_watch::stream::Layout;

const SIZE: (u32, u32) = (64, 48);

/// A loop begins: the door runs, nobody is there, and an event has begun.
pub fn begin(cameras: &Cameras) {
    let question = QuestionSetup {
        name: "people".into(),
        camera: "door".into(),
        prompt: "detect cat ; dog".into(),
        reading: Reading::Objects,
        rules: vec!["someone".into()],
    };
    let names = vec!["door".into(), "garden".into()];
    let setup = Setup { model: "demo".into(), cameras: names, questions: vec![question] };
    // Nobody obeys.
    let (sender, _) = channel();
    cameras.begin(&setup, 32, DecodeOptions::default(), sender);
    for name in ["door", "garden"] {
        cameras.tell(&status(name, CameraStatus::Running, None));
    }
    cameras.tell(&answer(&[]));
    cameras.tell(&event(Phase::Begin, None));
    picture(cameras);
}

/// Each camera gives a picture.
fn picture(cameras: &Cameras) {
    let layout = Layout::Nv12 { width: SIZE.0, height: SIZE.1, color: YuvColor::default() };
    let bytes = vec![128; layout.bytes().unwrap()];
    for camera in 0..2 {
        let tap: Arc<dyn Tap> = cameras.tap(camera);
        tap.see(&bytes, layout, Instant::now(), SystemTime::now());
    }
}

/// Two are seen, the event is over, and the other camera is gone.
pub fn go_on(cameras: &Cameras) {
    cameras.tell(&answer(&["cat", "dog"]));
    cameras.tell(&event(Phase::End, Some(Duration::from_millis(61_250))));
    cameras.tell(&status("garden", CameraStatus::Waiting, Some("the stream broke off")));
}

fn at() -> Moment {
    Moment { since_start: Duration::from_secs(1), wall: SystemTime::UNIX_EPOCH }
}

fn status(camera: &str, status: CameraStatus, why: Option<&str>) -> Record {
    Record::Camera(CameraRecord { camera: camera.into(), at: at(), status, why: why.map(Into::into) })
}

fn answer(labels: &[&str]) -> Record {
    let object = |label: &&str| {
        let text = format!("<loc0171><loc0128><loc0853><loc0640> {label}");
        let detection = Detections::read(&text, SIZE.0, SIZE.1).objects[0].clone();
        ObjectRecord {
            track: None,
            label: (*label).into(),
            score: Some(0.5),
            bounding_box: (&detection.bounding_box).into(),
            detection,
        }
    };
    Record::Answer(AnswerRecord {
        camera: "door".into(),
        question: "people".into(),
        at: at(),
        picture: 0,
        changed: true,
        text: labels.join(" ; "),
        is_about_objects: true,
        score: None,
        objects: labels.iter().map(object).collect(),
        latency: Duration::ZERO,
    })
}

fn event(phase: Phase, lasted: Option<Duration>) -> Record {
    Record::Event(EventRecord {
        id: "1".into(),
        phase,
        rule: "someone".into(),
        question: "people".into(),
        camera: "door".into(),
        at: at(),
        lasted,
        picture: 0,
        text: "".into(),
        track: None,
        label: Some("cat".into()),
        objects: vec![],
    })
}
