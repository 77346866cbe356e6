//! The perception loop over frames of Python.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{Frame, ImageLimits, decode};
use palmtop::{CancelToken, DefaultFloatMode, ThreadHints};
use palmtop_watch::command::Command;
use palmtop_watch::frames::{FrameOptions, FrameWatch, FramesError, PreparedFrames};
use palmtop_watch::record::{Line, Moment, ObjectRecord, Phase, Record};
use palmtop_watch::watcher::Exposure;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::{Busy, Cancelled, Error, MaskBytes, Model, Wanted, frame_of, limits, mask_bytes, to_python};

#[pyclass(frozen)]
pub struct Watch {
    cancel: CancelToken,
    plan: (usize, usize),
    recording: bool,
    /// When the recording began.
    start: Instant,
    state: Mutex<State>,
}

struct State {
    /// None once it is closed.
    watch: Option<FrameWatch>,
    told: Vec<Told>,
}

/// A record, and what it does not say of its picture.
struct Told {
    record: Record,
    latency: Duration,
    picture: (u32, u32),
}

/// Camera, question, number of the picture, seconds since 1970, since the start and of latency, text, the picture's
/// size, JSON.
type Common = (String, String, u64, f64, f64, f64, String, (u32, u32), String);
/// Whether it changes what is believed, and the likelihood of a choice.
type OfAnswer = (bool, Option<f32>);
/// Name, phase, rule, seconds that it lasted, track, label.
type OfEvent = (String, &'static str, String, Option<f64>, Option<u64>, Option<String>);
/// Label, score, box, track, and mask.
type Found = (String, Option<f32>, (f32, f32, f32, f32), Option<u64>, Option<MaskBytes>);
type Given = (Common, Option<OfAnswer>, Option<OfEvent>, Vec<Found>);

fn of_frames(error: FramesError) -> PyErr {
    match error {
        FramesError::Model(palmtop::Error::Cancelled) => {
            Cancelled::new_err("the look was cancelled; use reset_cancel() before the next frame")
        }
        FramesError::Model(error) => to_python(error),
        other => PyValueError::new_err(other.to_string()),
    }
}

#[pymethods]
impl Watch {
    #[new]
    fn new(
        py: Python<'_>,
        model: &Model,
        toml: String,
        wanted: Wanted,
        cores: Vec<usize>,
        nice: Option<i32>,
        all_answers: bool,
        recording: bool,
    ) -> PyResult<Self> {
        let _mode = DefaultFloatMode::enter();
        let limits = limits(wanted)?;
        let mut hints = ThreadHints::default();
        (hints.cores, hints.nice) = (cores, nice);
        let model = model.0.clone();
        let cancel = CancelToken::default();
        let made = py.detach(|| {
            let prepared =
                PreparedFrames::new(&model, &toml, &limits, FrameOptions { all_answers, recording })?;
            let (plan, gates) = prepared.plan(&model)?;
            Ok(((plan.session_bytes(), gates), FrameWatch::new(&model, prepared, &hints, &cancel)?))
        });
        let (plan, watch) = made.map_err(of_frames)?;
        let state = Mutex::new(State { watch: Some(watch), told: Vec::new() });
        Ok(Self { cancel, plan, recording, start: Instant::now(), state })
    }

    /// Bytes of the session, and of the gates.
    fn plan(&self) -> (usize, usize) {
        self.plan
    }

    #[getter]
    fn recording(&self) -> bool {
        self.recording
    }

    /// Takes a frame that is a file's bytes. `ago` says how many seconds ago it was exposed.
    fn frame_file(
        &self,
        py: Python<'_>,
        camera: usize,
        file: PyBackedBytes,
        ago: Option<f64>,
    ) -> PyResult<Vec<Given>> {
        let _mode = DefaultFloatMode::enter();
        let taken = self.taken(ago)?;
        let state = &mut *self.lock()?;
        py.detach(|| {
            let picture =
                decode(&file, &ImageLimits::default()).map_err(palmtop::Error::from).map_err(to_python)?;
            state.frame(camera, &picture.view().into(), taken)
        })?;
        state.give(py)
    }

    /// Takes a frame of packed pixels, or of luma and chroma planes that lie behind each other with one stride.
    fn frame_pixels(
        &self,
        py: Python<'_>,
        camera: usize,
        pixels: PyBackedBytes,
        format: &str,
        width: u32,
        height: u32,
        stride: usize,
        rotation: u32,
        ago: Option<f64>,
    ) -> PyResult<Vec<Given>> {
        let _mode = DefaultFloatMode::enter();
        let frame = frame_of(&pixels, format, width, height, stride, rotation)?;
        let taken = self.taken(ago)?;
        let state = &mut *self.lock()?;
        py.detach(|| state.frame(camera, &frame, taken))?;
        state.give(py)
    }

    fn end(&self, py: Python<'_>) -> PyResult<Vec<Given>> {
        let state = &mut *self.lock()?;
        state.end()?;
        state.give(py)
    }

    /// Ends all events and frees the session.
    fn close(&self, py: Python<'_>) -> PyResult<Vec<Given>> {
        let state = &mut *self.lock()?;
        if state.watch.is_none() {
            return Ok(Vec::new());
        }
        state.end()?;
        let watch = state.watch.take();
        py.detach(|| drop(watch));
        state.give(py)
    }

    fn command(&self, line: &str) -> PyResult<()> {
        let command = line.parse::<Command>().map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.lock()?.open()?.0.command(&command).map_err(of_frames)
    }

    fn set_prompt(&self, question: String, prompt: String) -> PyResult<()> {
        let _mode = DefaultFloatMode::enter();
        self.lock()?.open()?.0.command(&Command::Prompt { question, prompt }).map_err(of_frames)
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }

    fn reset_cancel(&self) {
        self.cancel.reset();
    }

    /// All counts, then percentiles 50, 95, 99 and the longest of latencies in seconds.
    fn counts(&self) -> PyResult<([u64; 11], Option<f64>, Option<f64>, Option<f64>, Option<f64>)> {
        let mut state = self.lock()?;
        let now = state.open()?.0.counts();
        let numbers = [
            now.pictures,
            now.not_looked,
            now.still,
            now.encoded,
            now.same,
            now.answers,
            now.spared,
            now.late,
            now.tokens,
            now.drafted,
            now.events,
        ];
        let percentile = |percent| now.latencies.percentile(percent).map(|time| time.as_secs_f64());
        let most = (now.latencies.count() > 0).then(|| now.latencies.most().as_secs_f64());
        Ok((numbers, percentile(50.0), percentile(95.0), percentile(99.0), most))
    }
}

impl Watch {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::WouldBlock) => Err(Busy::new_err("another call is using the watch")),
            Err(TryLockError::Poisoned(_)) => {
                Err(Error::new_err("an earlier call hit a bug: create a new watch"))
            }
        }
    }

    /// When a frame was exposed; in a recording, seconds ago are seconds before its beginning.
    fn taken(&self, ago: Option<f64>) -> PyResult<Option<Instant>> {
        let Some(seconds) = ago else { return Ok(None) };
        let from = if self.recording { self.start } else { Instant::now() };
        let wrong = || PyValueError::new_err("the time is no time that a clock shows");
        let length = Duration::try_from_secs_f64(seconds.abs()).map_err(|_| wrong())?;
        let taken = if seconds < 0.0 { from.checked_add(length) } else { from.checked_sub(length) };
        taken.map(Some).ok_or_else(wrong)
    }
}

impl State {
    /// The watch, and where its records go.
    fn open(&mut self) -> PyResult<(&mut FrameWatch, &mut Vec<Told>)> {
        let watch = self.watch.as_mut().ok_or_else(|| Error::new_err("the watch is closed"))?;
        Ok((watch, &mut self.told))
    }

    fn frame(&mut self, camera: usize, frame: &Frame<'_>, taken: Option<Instant>) -> PyResult<()> {
        let (watch, told) = self.open()?;
        let picture = (frame.width(), frame.height());
        let tell = &mut |record, at: &Exposure| {
            told.push(Told { record, latency: at.counts_from.elapsed(), picture });
        };
        watch.frame(camera, frame, taken, tell).map_err(of_frames)
    }

    fn end(&mut self) -> PyResult<()> {
        let (watch, told) = self.open()?;
        watch.end(&mut |record, at| {
            told.push(Told { record, latency: at.counts_from.elapsed(), picture: (0, 0) });
        });
        Ok(())
    }

    fn give(&mut self, py: Python<'_>) -> PyResult<Vec<Given>> {
        self.told.drain(..).map(|told| told.give(py)).collect()
    }
}

impl Told {
    fn give(self, py: Python<'_>) -> PyResult<Given> {
        let json =
            serde_json::to_string(&Line::from(&self.record)).map_err(|e| Error::new_err(e.to_string()))?;
        let seconds = |time: Duration| time.as_secs_f64();
        let common = |camera: &Arc<str>, question: &str, picture, at: &Moment, latency, text: &str| {
            let unix = at.wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, seconds);
            let (camera, question) = (camera.to_string(), question.to_owned());
            let since = seconds(at.since_start);
            (camera, question, picture, unix, since, seconds(latency), text.to_owned(), self.picture, json)
        };
        let found = |objects: &[ObjectRecord]| objects.iter().map(|object| found(py, object)).collect();
        Ok(match &self.record {
            Record::Answer(a) => (
                common(&a.camera, &a.question, a.picture, &a.at, a.latency, &a.text),
                Some((a.changed, a.score)),
                None,
                found(&a.objects),
            ),
            Record::Event(e) => {
                let phase = match e.phase {
                    Phase::Begin => "begin",
                    Phase::End => "end",
                };
                let rule = e.rule.to_string();
                (
                    common(&e.camera, &e.question, e.picture, &e.at, self.latency, &e.text),
                    None,
                    Some((e.id.clone(), phase, rule, e.lasted.map(seconds), e.track, e.label.clone())),
                    found(&e.objects),
                )
            }
            // Only a loop that captures tells of cameras.
            Record::Camera(c) => (common(&c.camera, "", 0, &c.at, self.latency, ""), None, None, Vec::new()),
        })
    }
}

fn found(py: Python<'_>, object: &ObjectRecord) -> Found {
    let edges = object.detection.bounding_box;
    let edges = (edges.x_min, edges.y_min, edges.x_max, edges.y_max);
    let mask = object.detection.mask.as_ref().map(|mask| mask_bytes(py, mask));
    (object.label.clone(), object.score, edges, object.track, mask)
}
