//! What a loop tells: answers, events, and how its cameras are. Each record is a line of `--json` (docs/json.md).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use palmtop::tasks::Detection;
use palmtop_present::json::Edges;
use serde::{Serialize, Serializer};

/// The version of the records: it grows if a field changes its name or its meaning.
pub const RECORD_VERSION: u32 = 1;

/// Something that a loop tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A question was answered.
    Answer(AnswerRecord),
    /// A rule came to hold, or holds no more.
    Event(EventRecord),
    /// A camera is not as it was.
    Camera(CameraRecord),
}

impl Record {
    /// True for the beginning of an event.
    pub fn begins_event(&self) -> bool {
        matches!(self, Self::Event(event) if event.phase == Phase::Begin)
    }

    /// The objects that it names.
    pub fn objects(&self) -> &[ObjectRecord] {
        match self {
            Self::Answer(answer) => &answer.objects,
            Self::Event(event) => &event.objects,
            Self::Camera(_) => &[],
        }
    }
}

/// A record as `--json` has it: with the version of the records.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Line<'a> {
    version: u32,
    #[serde(flatten)]
    record: &'a Record,
}

impl<'a> From<&'a Record> for Line<'a> {
    fn from(record: &'a Record) -> Self {
        Self { version: RECORD_VERSION, record }
    }
}

/// When something was: a picture's exposure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Since the loop began, on a clock that never jumps. In a film, since its first picture.
    pub since_start: Duration,
    /// By the clock on the wall. JSON has it in UTC, to the millisecond: `2026-11-29T09:30:00.125Z`.
    pub wall: SystemTime,
}

/// The answer to a question about a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerRecord {
    /// The camera's name.
    pub camera: Arc<str>,
    /// The question's name.
    pub question: Arc<str>,
    /// When the picture was taken.
    #[serde(flatten, serialize_with = "moment")]
    pub at: Moment,
    /// The picture's number, of those that the camera gave.
    pub picture: u64,
    /// Whether the answer is believed from this look on, and was not before: for a text another text, for objects
    /// another number of them.
    pub changed: bool,
    /// The whole answer.
    pub text: String,
    /// Whether answers are read as objects.
    #[serde(skip)]
    pub is_about_objects: bool,
    /// With `choose`, the likelihood of the answer among the choices.
    pub score: Option<f32>,
    /// The objects that it locates.
    pub objects: Vec<ObjectRecord>,
    /// From the picture's exposure to this answer.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Duration,
}

/// An object of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectRecord {
    /// The number that it keeps from look to look; none before it has been seen often enough.
    pub track: Option<u64>,
    /// What it is called.
    pub label: String,
    /// The likelihood of the label.
    pub score: Option<f32>,
    /// Its edges in pixels of the picture.
    #[serde(rename = "box")]
    pub bounding_box: Edges,
    /// The object as the model gave it, with its mask if there is one.
    #[serde(skip)]
    pub detection: Detection,
}

/// Whether an event begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It begins.
    Begin,
    /// It ends.
    End,
}

/// The beginning or the end of an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventRecord {
    /// Names the event: the same at its beginning and its end, and never given again.
    pub id: String,
    /// Which of the two this is.
    pub phase: Phase,
    /// The rule's name.
    pub rule: Arc<str>,
    /// The question's name.
    pub question: Arc<str>,
    /// The camera's name.
    pub camera: Arc<str>,
    /// When the picture was taken.
    #[serde(flatten, serialize_with = "moment")]
    pub at: Moment,
    /// How long it has lasted, at its end.
    #[serde(rename = "lasted_ms", serialize_with = "optional_milliseconds")]
    pub lasted: Option<Duration>,
    /// The picture's number.
    pub picture: u64,
    /// The answer that decided.
    pub text: String,
    /// The track that it is about, for rules about single objects.
    pub track: Option<u64>,
    /// What that track is called.
    pub label: Option<String>,
    /// The objects that the answer locates.
    pub objects: Vec<ObjectRecord>,
}

/// How a camera is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraRecord {
    /// The camera's name.
    pub camera: Arc<str>,
    /// When the picture was taken.
    #[serde(flatten, serialize_with = "moment")]
    pub at: Moment,
    /// How it is.
    pub status: CameraStatus,
    /// Why, if it does not run.
    pub why: Option<String>,
}

/// How a camera is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraStatus {
    /// Pictures come.
    Running,
    /// It broke off, and is opened again with growing pauses.
    Waiting,
    /// Its pictures have been the same to the byte for a while.
    Frozen,
    /// Its pictures have been black for a while.
    Black,
    /// Its pictures cannot be decoded.
    Broken,
    /// The film is over.
    Ended,
}

impl CameraStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Waiting, Self::Frozen, Self::Black, Self::Broken, Self::Ended];

    /// True if its pictures are worth something.
    pub fn is_well(self) -> bool {
        self == Self::Running
    }

    /// The word of the records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Frozen => "frozen",
            Self::Black => "black",
            Self::Broken => "broken",
            Self::Ended => "ended",
        }
    }
}

/// A point in time as records have it: RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(wall: SystemTime) -> String {
    match jiff::Timestamp::try_from(wall) {
        Ok(time) => format!("{time:.3}"),
        // Some ten thousand years away: a clock that was never set.
        Err(_) => "1970-01-01T00:00:00.000Z".into(),
    }
}

/// The time of day by the clock of this machine's zone: `09:30:00`.
pub fn local_time(wall: SystemTime) -> String {
    match jiff::Timestamp::try_from(wall) {
        Ok(time) => jiff::tz::TimeZone::system().to_datetime(time).strftime("%H:%M:%S").to_string(),
        Err(_) => "--:--:--".into(),
    }
}

fn in_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn milliseconds<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(in_milliseconds(*time))
}

fn optional_milliseconds<S: Serializer>(time: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    time.map(in_milliseconds).serialize(out)
}

fn moment<S: Serializer>(at: &Moment, out: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Both {
        time: String,
        since_start_ms: f64,
    }
    Both { time: rfc3339(at.wall), since_start_ms: in_milliseconds(at.since_start) }.serialize(out)
}
