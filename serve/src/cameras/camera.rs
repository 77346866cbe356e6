//! One camera of the loop: how it is, what was answered about it, and its newest picture.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use palmtop::image::{DecodeOptions, Frame, decode_with};
use palmtop_watch::record::{AnswerRecord, CameraStatus, EventRecord, ObjectRecord, Phase, Record, rfc3339};
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::sink::Snapshot;
use palmtop_watch::source::Tap;
use palmtop_watch::stream::{Layout, to_rgb};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// A camera of the loop.
#[derive(Debug, Serialize, ToSchema)]
pub struct CameraInfo {
    /// What records call it.
    pub name: String,
    /// `running`, `waiting`, `frozen`, `black`, `broken` or `ended`.
    pub status: &'static str,
    /// Why, if it does not run.
    pub why: Option<String>,
    /// Pixels of a row of its last picture that was looked at.
    pub width: Option<u32>,
    /// Rows of that picture.
    pub height: Option<u32>,
    /// When its newest picture was taken, in UTC.
    pub last_picture: Option<String>,
    /// What is asked about it.
    pub questions: Vec<QuestionInfo>,
}

/// A question about a camera.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuestionInfo {
    /// What records call it.
    pub name: String,
    /// The prompt.
    pub prompt: String,
    /// What answers are: `text`, `choice` or `objects`.
    pub reading: &'static str,
    /// All that a choice may be.
    pub choices: Vec<String>,
    /// The last answer, an object as docs/json.md has it; none before the first.
    #[schema(value_type = Option<Object>)]
    pub answer: Option<Value>,
    /// Events that have begun and not ended, objects as docs/json.md has them.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Value>,
}

/// A camera.
pub(crate) struct Camera {
    name: Arc<str>,
    state: Mutex<State>,
    seen: Mutex<Seen>,
    /// The newest picture's number, for those who wait for another.
    numbers: watch::Sender<u64>,
    /// Those who want every picture.
    eyes: AtomicUsize,
    drawn: tokio::sync::Mutex<Option<Drawn>>,
    drawing: Arc<Semaphore>,
    decode: DecodeOptions,
    over: CancellationToken,
}

/// What records told.
struct State {
    status: CameraStatus,
    why: Option<String>,
    size: Option<(u32, u32)>,
    questions: Vec<Question>,
    /// Grows with each answer.
    version: u64,
}

struct Question {
    setup: QuestionSetup,
    answer: Option<AnswerRecord>,
    /// Of the picture that it is about.
    size: Option<(u32, u32)>,
    events: Vec<EventRecord>,
}

/// Pictures as they are captured.
#[derive(Default)]
struct Seen {
    last: Option<SystemTime>,
    shot: Option<Arc<Shot>>,
    number: u64,
}

/// A copy of a picture.
struct Shot {
    bytes: Vec<u8>,
    layout: Layout,
    copied: Instant,
    number: u64,
}

/// A picture with what was found drawn in.
struct Drawn {
    number: u64,
    version: u64,
    jpeg: Bytes,
}

/// If nobody looks, a picture is copied so seldom: whoever asks for one then gets it at once.
const COPY_EVERY: Duration = Duration::from_secs(1);
/// So long a picture is waited for that is newer than the last copy.
const NEWER_WITHIN: Duration = Duration::from_millis(1200);

/// Open events of a question that are shown at most. There are as many as objects that rules are about.
const EVENTS_MAX: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Camera {
    pub(super) fn new(
        name: &Arc<str>,
        setup: &Setup,
        decode: DecodeOptions,
        drawing: &Arc<Semaphore>,
        over: &CancellationToken,
    ) -> Self {
        let question = |setup: &QuestionSetup| Question {
            setup: setup.clone(),
            answer: None,
            size: None,
            events: Vec::new(),
        };
        let of_camera = setup.questions.iter().filter(|question| question.camera == *name);
        let state = State {
            status: CameraStatus::Waiting,
            why: None,
            size: None,
            questions: of_camera.map(question).collect(),
            version: 0,
        };
        Self {
            name: name.clone(),
            state: Mutex::new(state),
            seen: Mutex::default(),
            numbers: watch::Sender::new(0),
            eyes: AtomicUsize::new(0),
            drawn: tokio::sync::Mutex::default(),
            drawing: drawing.clone(),
            decode,
            over: over.clone(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cancelled when the loop watches something else.
    pub fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// True if this is asked about it; whether anything is, without a name.
    pub fn has_question(&self, name: Option<&str>) -> bool {
        lock(&self.state)
            .questions
            .iter()
            .any(|question| name.is_none_or(|name| *question.setup.name == *name))
    }

    pub(super) fn set_prompt(&self, name: &str, prompt: &str) {
        let mut state = lock(&self.state);
        for question in state.questions.iter_mut().filter(|question| *question.setup.name == *name) {
            question.setup.prompt = prompt.to_owned();
        }
    }

    pub(super) fn looked_at(&self, size: (u32, u32)) {
        lock(&self.state).size = Some(size);
    }

    pub(super) fn tell(&self, record: &Record) {
        let mut state = lock(&self.state);
        let State { status, why, size, questions, version } = &mut *state;
        let named = |questions: &mut Vec<Question>, name: &Arc<str>| {
            questions.iter().position(|question| question.setup.name == *name)
        };
        match record {
            Record::Camera(camera) => (*status, *why) = (camera.status, camera.why.clone()),
            Record::Answer(answer) => {
                let Some(index) = named(questions, &answer.question) else { return };
                (questions[index].answer, questions[index].size) = (Some(answer.clone()), *size);
                *version += 1;
            }
            Record::Event(event) => {
                let Some(index) = named(questions, &event.question) else { return };
                let events = &mut questions[index].events;
                events.retain(|open| open.id != event.id);
                // What disappears begins and ends at once.
                if event.phase == Phase::Begin && events.len() < EVENTS_MAX {
                    events.push(event.clone());
                }
            }
        }
    }

    pub(super) fn info(&self) -> CameraInfo {
        let last = lock(&self.seen).last;
        let state = lock(&self.state);
        let question = |question: &Question| {
            let (reading, choices) = match &question.setup.reading {
                Reading::Text => ("text", Vec::new()),
                Reading::Choice(choices) => ("choice", choices.clone()),
                Reading::Objects => ("objects", Vec::new()),
            };
            QuestionInfo {
                name: question.setup.name.to_string(),
                prompt: question.setup.prompt.clone(),
                reading,
                choices,
                answer: question.answer.as_ref().map(json),
                events: question.events.iter().map(json).collect(),
            }
        };
        CameraInfo {
            name: self.name.to_string(),
            status: state.status.name(),
            why: state.why.clone(),
            width: state.size.map(|size| size.0),
            height: state.size.map(|size| size.1),
            last_picture: last.map(rfc3339),
            questions: state.questions.iter().map(question).collect(),
        }
    }

    /// Somebody wants every picture, for as long as the eye is kept.
    pub fn look(self: &Arc<Self>) -> Eye {
        self.eyes.fetch_add(1, Ordering::Relaxed);
        Eye(self.clone())
    }

    /// Objects of the last answers about pictures of this size, and which answers those are.
    fn objects(&self, size: Option<(u32, u32)>) -> (Vec<ObjectRecord>, u64) {
        let state = lock(&self.state);
        let fitting = state.questions.iter().filter(|question| size.is_none() || question.size == size);
        let answers = fitting.filter_map(|question| question.answer.as_ref());
        (answers.flat_map(|answer| answer.objects.iter().cloned()).collect(), state.version)
    }
}

/// A record as JSON.
fn json(record: &impl Serialize) -> Value {
    serde_json::to_value(record).unwrap_or_default()
}

impl Tap for Camera {
    fn see(&self, bytes: &[u8], layout: Layout, _taken: Instant, wall: SystemTime) {
        let mut seen = lock(&self.seen);
        seen.last = Some(wall);
        let is_due = seen.shot.as_ref().is_none_or(|shot| shot.copied.elapsed() >= COPY_EVERY);
        if !is_due && self.eyes.load(Ordering::Relaxed) == 0 {
            return;
        }
        seen.number += 1;
        let number = seen.number;
        let copied = Instant::now();
        match seen.shot.as_mut().and_then(Arc::get_mut) {
            Some(shot) => {
                shot.bytes.clear();
                shot.bytes.extend_from_slice(bytes);
                (shot.layout, shot.copied, shot.number) = (layout, copied, number);
            }
            // Somebody is drawing on it.
            None => seen.shot = Some(Arc::new(Shot { bytes: bytes.to_vec(), layout, copied, number })),
        }
        drop(seen);
        self.numbers.send_replace(number);
    }
}

/// Somebody who looks at a camera.
pub(crate) struct Eye(Arc<Camera>);

impl Drop for Eye {
    fn drop(&mut self) {
        self.0.eyes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Eye {
    /// The camera.
    pub fn camera(&self) -> &Arc<Camera> {
        &self.0
    }

    /// Waits for a picture behind this one.
    pub async fn newer_than(&self, number: u64) {
        // The sender is the camera's own.
        let _ = self.0.numbers.subscribe().wait_for(|&newest| newest > number).await;
    }

    /// The picture of now: the next one if it comes soon, or else the last. `None` if there was none yet, or it cannot
    /// be decoded.
    pub async fn now(&self) -> Option<(u64, Bytes)> {
        let (number, age) = {
            let seen = lock(&self.0.seen);
            (seen.number, seen.shot.as_ref().map(|shot| shot.copied.elapsed()))
        };
        if age.is_none_or(|age| age > COPY_EVERY / 4) {
            let _ = tokio::time::timeout(NEWER_WITHIN, self.newer_than(number)).await;
        }
        self.newest().await
    }

    /// The newest picture as JPEG, with what was found drawn in, and its number. It is drawn once, however many look.
    pub async fn newest(&self) -> Option<(u64, Bytes)> {
        let camera = &self.0;
        let mut drawn = camera.drawn.lock().await;
        let shot = lock(&camera.seen).shot.clone()?;
        let version = lock(&camera.state).version;
        if let Some(drawn) = &*drawn
            && (drawn.number, drawn.version) == (shot.number, version)
        {
            return Some((drawn.number, drawn.jpeg.clone()));
        }
        let _permit = camera.drawing.clone().acquire_owned().await.ok()?;
        let (number, of) = (shot.number, camera.clone());
        let (jpeg, version) = tokio::task::spawn_blocking(move || draw(&of, &shot)).await.ok()??;
        *drawn = Some(Drawn { number, version, jpeg: jpeg.clone() });
        Some((number, jpeg))
    }
}

/// Draws what was found into a picture.
fn draw(camera: &Camera, shot: &Shot) -> Option<(Bytes, u64)> {
    if shot.layout == Layout::Encoded && shot.bytes.starts_with(&JPEG) {
        let (objects, version) = camera.objects(None);
        if objects.is_empty() {
            return Some((Bytes::copy_from_slice(&shot.bytes), version));
        }
    }
    let decoded;
    let frame = match shot.layout.frame(&shot.bytes) {
        Some(frame) => frame.ok()?,
        None => {
            decoded = decode_with(&shot.bytes, &camera.decode).ok()?.image;
            Frame::from(decoded.view())
        }
    };
    let (objects, version) = camera.objects(Some((frame.width(), frame.height())));
    let snapshot = Snapshot::new(to_rgb(&frame).ok()?, objects);
    Some((Bytes::copy_from_slice(snapshot.annotated_jpeg().ok()?), version))
}

/// How a JPEG file begins.
const JPEG: [u8; 3] = [0xFF, 0xD8, 0xFF];
