//! The native half of the Python package `palmtop`. It passes plain numbers, strings and bytes, which
//! `palmtop/__init__.py` turns into arrays.
//!
//! Long operations run without Python's global lock, on bytes that nobody can change. Everything that computes does so
//! in the default floating-point mode, since other extensions may have set another on the thread.

#![allow(missing_docs, reason = "the Python side has them")]

mod pull;
mod rows;
mod watch;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use palmtop::image::{Frame, ImageError, ImageLimits, PixelFormat, Plane, Rotation, decode};
use palmtop::tasks::{Mask, ReadOptions, Task};
use palmtop::{
    CancelToken, DefaultFloatMode, GenerateOptions, Grammar, ImageFeatures, KvFormat, Limits, PrefixLimits,
    PrefixText, Request, Sampling, StopReason, ThreadHints,
};
use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rows::{Array, Prefix};

create_exception!(palmtop, Error, PyRuntimeError, "What went wrong, and what to do about it.");
create_exception!(palmtop, Busy, Error, "Another thread is using the session.");
create_exception!(palmtop, Cancelled, Error, "The call was cancelled.");
create_exception!(palmtop, DeadlinePassed, Error, "The time for the call was up.");

fn to_python(error: palmtop::Error) -> PyErr {
    let message = with_causes(&error);
    match error {
        palmtop::Error::Usage(_)
        | palmtop::Error::Isa(_)
        | palmtop::Error::Prompt(_)
        | palmtop::Error::Grammar(_)
        | palmtop::Error::Image(ImageError::Layout(_)) => PyValueError::new_err(message),
        palmtop::Error::Cancelled => {
            Cancelled::new_err("the call was cancelled; use reset_cancel() before the next call")
        }
        palmtop::Error::DeadlinePassed => {
            DeadlinePassed::new_err("the timeout passed before the call finished")
        }
        palmtop::Error::Io { .. } | palmtop::Error::Lock { .. } => PyOSError::new_err(message),
        _ => Error::new_err(message),
    }
}

/// What an error and its causes say, none of it twice.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_says = cause.to_string();
        if !message.contains(&cause_says) {
            message = format!("{message}: {cause_says}");
        }
        source = cause.source();
    }
    message
}

fn of_image(error: ImageError) -> PyErr {
    to_python(error.into())
}

/// As a model in memory must lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static DEMO: &Aligned<[u8]> = &Aligned(*include_bytes!("../../demo/demo.palm"));

#[pyclass(frozen)]
struct Model(Arc<palmtop::Model>);

#[pymethods]
impl Model {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, map: bool) -> PyResult<Self> {
        let _mode = DefaultFloatMode::enter();
        let open = if map { palmtop::Model::open } else { palmtop::Model::read };
        py.detach(|| open(&path)).map(Self).map_err(to_python)
    }

    /// The model that is part of this package.
    #[staticmethod]
    fn demo() -> PyResult<Self> {
        let _mode = DefaultFloatMode::enter();
        palmtop::Model::from_static(&DEMO.0).map(Self).map_err(to_python)
    }

    fn preload(&self, py: Python<'_>) {
        py.detach(|| self.0.preload());
    }

    fn lock(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.lock()).map_err(to_python)
    }

    /// Side of the square that pictures are resized to, image tokens, vocabulary, generation, whether masks are
    /// decoded, and numbers of a vector for retrieval.
    fn info(&self) -> PyResult<(usize, usize, usize, u32, bool, Option<usize>)> {
        let config = self.0.config();
        let generation =
            if config.text.generation == palmtop::model::config::Generation::Gemma1 { 1 } else { 2 };
        let masks = self.0.mask_codec().map_err(to_python)?.is_some();
        let vectors = self.0.retrieval().map(|retrieval| retrieval.dim);
        Ok((config.vision.image_size, config.vision.patches(), config.text.vocab, generation, masks, vectors))
    }

    /// Bytes of a session, of the weights, and of the features of one picture.
    fn plan(&self, wanted: Wanted) -> PyResult<(usize, usize, usize)> {
        let plan = self.0.plan(&limits(wanted)?).map_err(to_python)?;
        Ok((plan.session_bytes(), plan.weights_bytes, plan.features_bytes))
    }
}

/// `batch`, `prompt_tokens`, `new_tokens`, `pictures` and `draft_tokens` of a session.
type WantedTokens = (usize, usize, usize, usize, usize);
/// These, and `image_side`, `filter`, `kv`, `threads`, `isa` and `lazy_memory`.
type Wanted = (WantedTokens, usize, Option<String>, String, Option<usize>, Option<String>, bool);

fn limits(wanted: Wanted) -> PyResult<Limits> {
    let (tokens, image_side, filter, kv, threads, isa, lazy_memory) = wanted;
    let (batch, prompt_tokens, new_tokens, pictures, draft_tokens) = tokens;
    let mut limits = Limits::default();
    limits.touch_memory = !lazy_memory;
    (limits.batch, limits.prompt_tokens, limits.new_tokens) = (batch, prompt_tokens, new_tokens);
    (limits.pictures, limits.draft_tokens) = (pictures, draft_tokens);
    (limits.image_side, limits.threads) = (image_side, threads);
    limits.filter = filter.map(|name| name.parse()).transpose().map_err(PyValueError::new_err)?;
    limits.kv = match &*kv {
        "auto" => KvFormat::Auto,
        "f32" => KvFormat::F32,
        "f16" => KvFormat::F16,
        "int8" => KvFormat::Int8,
        other => {
            return Err(PyValueError::new_err(format!("kv is {other:?}: choose auto, f32, f16 or int8")));
        }
    };
    limits.isa =
        isa.map(|name| name.parse()).transpose().map_err(|error| to_python(palmtop::Error::Isa(error)))?;
    Ok(limits)
}

/// Packed pixels, or luma and chroma planes that lie behind each other with one stride.
fn frame_of<'a>(
    pixels: &'a [u8],
    format: &str,
    width: u32,
    height: u32,
    stride: usize,
    rotation: u32,
) -> PyResult<Frame<'a>> {
    let packed = |format| Frame::packed(format, width, height, stride, pixels);
    let chroma = stride.checked_mul(height as usize).and_then(|luma| pixels.get(luma..)).unwrap_or_default();
    let (luma, chroma) = (Plane::new(pixels, stride), Plane::new(chroma, stride));
    let frame = match format {
        "rgb" => packed(PixelFormat::Rgb),
        "bgr" => packed(PixelFormat::Bgr),
        "rgba" => packed(PixelFormat::Rgba),
        "bgra" => packed(PixelFormat::Bgra),
        "grey" => packed(PixelFormat::Grey),
        "nv12" => Frame::nv12(width, height, luma, chroma),
        "nv21" => Frame::nv21(width, height, luma, chroma),
        other => return Err(PyValueError::new_err(format!("{other:?} is not a pixel format"))),
    };
    Ok(frame.map_err(of_image)?.turned(Rotation::from_degrees(rotation).map_err(of_image)?))
}

/// A mask's x, y, width, height and pixels.
type MaskBytes = (u32, u32, u32, u32, Py<PyBytes>);

fn mask_bytes(py: Python<'_>, mask: &Mask) -> MaskBytes {
    let pixels: Vec<u8> = mask.rows().flatten().map(u8::from).collect();
    (mask.x(), mask.y(), mask.width(), mask.height(), PyBytes::new(py, &pixels).unbind())
}

#[pyclass(frozen)]
struct Features(RwLock<ImageFeatures>);

#[pymethods]
impl Features {
    /// Width and height in pixels of the picture, upright.
    fn picture_size(&self) -> PyResult<(u32, u32)> {
        Ok(self.read()?.picture_size())
    }
}

impl Features {
    fn read(&self) -> PyResult<RwLockReadGuard<'_, ImageFeatures>> {
        self.0.try_read().map_err(|_| Busy::new_err("the features are in use"))
    }
}

#[pyclass(frozen)]
struct Session {
    model: Arc<palmtop::Model>,
    cancel: CancelToken,
    session: Mutex<palmtop::Session>,
}

/// Label, score, box, locations, and mask.
type Object = (String, Option<f32>, (f32, f32, f32, f32), [u16; 4], Option<MaskBytes>);
/// Text, tokens, probabilities, why it ended, tokens of the prompt, likelihood, tokens that the draft had right, the
/// first picture's size, objects.
type Answered = (String, Vec<u32>, Vec<f32>, &'static str, usize, f32, usize, (u32, u32), Vec<Object>);
/// Pictures, prompt, draft.
type Asked = (Vec<Py<Features>>, String, Vec<u32>);

#[pymethods]
impl Session {
    #[new]
    fn new(
        py: Python<'_>,
        model: &Model,
        wanted: Wanted,
        cores: Vec<usize>,
        nice: Option<i32>,
    ) -> PyResult<Self> {
        let _mode = DefaultFloatMode::enter();
        let limits = limits(wanted)?;
        let mut hints = ThreadHints::default();
        (hints.cores, hints.nice) = (cores, nice);
        let model = model.0.clone();
        let session =
            py.detach(|| palmtop::Session::with_threads(&model, &limits, &hints)).map_err(to_python)?;
        Ok(Self { model, cancel: CancelToken::default(), session: Mutex::new(session) })
    }

    /// Looks at the picture in a file's bytes.
    fn encode_file(&self, py: Python<'_>, file: PyBackedBytes, timeout: Option<f64>) -> PyResult<Features> {
        let _mode = DefaultFloatMode::enter();
        let session = &mut *self.lock()?;
        let options = self.options(timeout)?;
        py.detach(|| {
            let picture = decode(&file, &ImageLimits::default())?;
            let mut features = self.model.new_features()?;
            session.encode(picture.view(), &mut features, &options)?;
            Ok(Features(RwLock::new(features)))
        })
        .map_err(to_python)
    }

    /// Looks at packed pixels, or at luma and chroma planes that lie behind each other with one stride.
    fn encode_pixels(
        &self,
        py: Python<'_>,
        pixels: PyBackedBytes,
        format: &str,
        width: u32,
        height: u32,
        stride: usize,
        rotation: u32,
        timeout: Option<f64>,
    ) -> PyResult<Features> {
        let _mode = DefaultFloatMode::enter();
        let frame = frame_of(&pixels, format, width, height, stride, rotation)?;
        let session = &mut *self.lock()?;
        let options = self.options(timeout)?;
        py.detach(|| {
            let mut features = self.model.new_features()?;
            session.encode(frame, &mut features, &options)?;
            Ok(Features(RwLock::new(features)))
        })
        .map_err(to_python)
    }

    /// Answers requests together. `on_piece(prompt, text)` hears the pieces and returns true to end that answer.
    fn answer(
        &self,
        py: Python<'_>,
        requests: Vec<Asked>,
        max_new_tokens: Option<usize>,
        sampling: (f32, usize, f32, u64),
        choices: Option<Vec<String>>,
        timeout: Option<f64>,
        on_piece: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Answered>> {
        let _mode = DefaultFloatMode::enter();
        let session = &mut *self.lock()?;
        let guards: Vec<Vec<RwLockReadGuard<'_, ImageFeatures>>> = requests
            .iter()
            .map(|(pictures, ..)| pictures.iter().map(|one| one.get().read()).collect())
            .collect::<PyResult<_>>()?;
        let pictures: Vec<Vec<&ImageFeatures>> =
            guards.iter().map(|of_one| of_one.iter().map(|guard| &**guard).collect()).collect();
        let asked = requests.iter().zip(&pictures);
        let asked: Vec<Request<'_>> =
            asked.map(|((_, prompt, draft), pictures)| Request { pictures, prompt, draft }).collect();
        let mut options = self.options(timeout)?;
        options.max_new_tokens = max_new_tokens;
        let (temperature, top_k, top_p, seed) = sampling;
        options.sampling = Sampling { temperature, top_k, top_p, seed };
        let mut raised = None;
        let answers = py.detach(|| {
            if let Some(choices) = &choices {
                options.grammar = Some(Grammar::choices(&self.model, choices.iter().map(String::as_str))?);
            }
            let mut hear = |piece: palmtop::Piece<'_>| {
                // The function may leave another mode of floating point behind.
                let _mode = DefaultFloatMode::enter();
                let heard = Python::attach(|py| {
                    py.check_signals()?;
                    match &on_piece {
                        Some(on_piece) if !piece.text.is_empty() => {
                            on_piece.call1(py, (piece.prompt, piece.text))?.is_truthy(py)
                        }
                        _ => Ok(false),
                    }
                });
                match heard {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) => ControlFlow::Break(()),
                    Err(error) => {
                        raised.get_or_insert(error);
                        ControlFlow::Break(())
                    }
                }
            };
            session.answer_requests(&asked, &options, &mut hear).map(<[palmtop::Answer]>::to_vec)
        });
        if let Some(error) = raised {
            return Err(error);
        }
        let answers = answers.map_err(to_python)?;
        // Stopped before any prompt had been read: there is nothing to give.
        match answers.first() {
            Some(first) if !first.is_begun() && first.stop == StopReason::DeadlinePassed => {
                return Err(to_python(palmtop::Error::DeadlinePassed));
            }
            Some(first) if !first.is_begun() => return Err(to_python(palmtop::Error::Cancelled)),
            _ => {}
        }
        let first = |request: &Request<'_>| request.pictures.first().map_or((0, 0), |one| one.picture_size());
        answers.iter().zip(&asked).map(|(answer, request)| self.read(py, answer, first(request))).collect()
    }

    /// Runs pictures, of which some may be missing, and a text or tokens through the decoder. `keep` keys and values,
    /// and the rows behind the last layer.
    fn prefix(
        &self,
        py: Python<'_>,
        pictures: Vec<Option<Py<Features>>>,
        text: Option<String>,
        tokens: Vec<u32>,
        open: bool,
        keep: (bool, bool),
        timeout: Option<f64>,
    ) -> PyResult<Prefix> {
        let _mode = DefaultFloatMode::enter();
        let session = &mut *self.lock()?;
        let options = self.options(timeout)?;
        let guards: Vec<Option<RwLockReadGuard<'_, ImageFeatures>>> = pictures
            .iter()
            .map(|one| one.as_ref().map(|one| one.get().read()).transpose())
            .collect::<PyResult<_>>()?;
        let pictures: Vec<Option<&ImageFeatures>> = guards.iter().map(Option::as_deref).collect();
        // What the session has no room for is refused before it is computed.
        let most = session.limits();
        let mut limits = PrefixLimits::default();
        (limits.keys_values, limits.hidden) = keep;
        limits.pictures = pictures.len().min(most.pictures);
        // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
        limits.tokens = text.as_ref().map_or(tokens.len(), |text| text.len() + 2).min(most.prompt_tokens);
        let text = match &text {
            None => PrefixText::Tokens(&tokens),
            Some(text) if open => PrefixText::Open(text),
            Some(text) => PrefixText::Prompt(text),
        };
        py.detach(|| {
            let mut prefix = self.model.new_prefix(&limits)?;
            session.prefix(&pictures, text, &options, &mut prefix)?;
            Ok(Prefix::new(prefix))
        })
        .map_err(to_python)
    }

    /// The vectors of a page.
    fn embed_picture(&self, py: Python<'_>, features: &Features, timeout: Option<f64>) -> PyResult<Array> {
        let _mode = DefaultFloatMode::enter();
        let session = &mut *self.lock()?;
        let options = self.options(timeout)?;
        let features = &*features.read()?;
        py.detach(|| {
            let mut vectors = self.model.new_embedding(self.model.page_rows()?)?;
            session.embed_picture(features, &options, &mut vectors)?;
            Ok(Array::of_vectors(vectors))
        })
        .map_err(to_python)
    }

    /// The vectors of a question.
    fn embed_query(&self, py: Python<'_>, question: &str, timeout: Option<f64>) -> PyResult<Array> {
        let _mode = DefaultFloatMode::enter();
        let session = &mut *self.lock()?;
        let options = self.options(timeout)?;
        py.detach(|| {
            let mut vectors = self.model.new_embedding(session.limits().prompt_tokens)?;
            session.embed_query(question, &options, &mut vectors)?;
            Ok(Array::of_vectors(vectors))
        })
        .map_err(to_python)
    }

    /// Stops the call that is using the session; it and all later ones raise until `reset_cancel`.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    fn reset_cancel(&self) {
        self.cancel.reset();
    }

    /// Seconds of the last encoding, prefill and decoding, decoding steps, and seconds of the last rows.
    fn timings(&self) -> PyResult<(f64, f64, f64, usize, f64)> {
        let taken = self.lock()?.timings();
        let [encode, prefill, decode, rows] =
            [taken.encode, taken.prefill, taken.decode, taken.rows].map(|t| t.as_secs_f64());
        Ok((encode, prefill, decode, taken.decode_steps, rows))
    }
}

impl Session {
    fn lock(&self) -> PyResult<MutexGuard<'_, palmtop::Session>> {
        match self.session.try_lock() {
            Ok(session) => Ok(session),
            Err(TryLockError::WouldBlock) => Err(Busy::new_err("another call is using the session")),
            Err(TryLockError::Poisoned(_)) => {
                Err(Error::new_err("an earlier call hit a bug: create a new session"))
            }
        }
    }

    fn options(&self, timeout: Option<f64>) -> PyResult<GenerateOptions> {
        let mut options = GenerateOptions::default();
        options.cancel = self.cancel.clone();
        if let Some(seconds) = timeout {
            let wait = Duration::try_from_secs_f64(seconds)
                .map_err(|error| PyValueError::new_err(format!("a timeout of {seconds} s: {error}")))?;
            options.deadline = Instant::now().checked_add(wait);
        }
        Ok(options)
    }

    /// An answer as Python takes it.
    fn read(&self, py: Python<'_>, answer: &palmtop::Answer, picture: (u32, u32)) -> PyResult<Answered> {
        let mut options = ReadOptions::default();
        options.masks = true;
        let read = self.model.read_answer(answer, picture, &options).map_err(to_python)?;
        let mut objects = Vec::with_capacity(read.objects.len());
        for found in read.objects {
            let mask = found.mask.as_ref().map(|mask| mask_bytes(py, mask));
            let edges = found.bounding_box;
            let edges = (edges.x_min, edges.y_min, edges.x_max, edges.y_max);
            objects.push((found.label, found.score, edges, found.locations, mask));
        }
        let stop = match answer.stop {
            StopReason::EndOfSequence => "end",
            StopReason::TokenLimit => "limit",
            StopReason::Callback => "callback",
            StopReason::Cancelled => "cancelled",
            StopReason::DeadlinePassed => "deadline",
        };
        Ok((
            answer.text.clone(),
            answer.tokens.clone(),
            answer.probabilities.clone(),
            stop,
            answer.prompt_tokens,
            answer.likelihood(),
            answer.accepted_draft_tokens,
            picture,
            objects,
        ))
    }
}

/// The prompt that asks for objects: `detect a ; b` or `segment a ; b`.
#[pyfunction]
fn object_prompt(masks: bool, labels: Vec<String>) -> PyResult<String> {
    let task = if masks { Task::segment(&labels) } else { Task::detect(&labels) };
    Ok(task.map_err(|error| to_python(error.into()))?.prompt())
}

#[pymodule]
fn _palmtop(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Model>()?;
    m.add_class::<Session>()?;
    m.add_class::<Features>()?;
    m.add_class::<Prefix>()?;
    m.add_class::<Array>()?;
    m.add_class::<watch::Watch>()?;
    m.add_function(wrap_pyfunction!(object_prompt, m)?)?;
    m.add_function(wrap_pyfunction!(pull::pull, m)?)?;
    m.add_function(wrap_pyfunction!(pull::usual_path, m)?)?;
    m.add("Error", m.py().get_type::<Error>())?;
    m.add("Busy", m.py().get_type::<Busy>())?;
    m.add("Cancelled", m.py().get_type::<Cancelled>())?;
    m.add("DeadlinePassed", m.py().get_type::<DeadlinePassed>())?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
