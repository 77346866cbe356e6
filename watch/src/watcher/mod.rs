//! The loop's core: takes a picture at a time, decides what to ask about it, and tells what follows.
//!
//! ```text
//!  picture ─▶ pixel gate ─▶ which questions are due ─▶ encode ─▶ feature gate ─▶ answer, in one batch ─▶ rules ─▶ records
//! ```
//!
//! It knows no cameras, no clock and no receivers: pictures and their times are given to it. [`crate::run`] connects it
//! with those; an app that has frames of its own calls it directly.

mod counts;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::Frame;
use palmtop::tokenizer::{EncodeScratch, TokenizerError};
use palmtop::{CancelToken, Model, Session};

use crate::command::Command;
use crate::event::{Quorum, Rule};
use crate::gate::{FeatureGate, FeatureOptions, PixelGate, PixelOptions, Zones};
use crate::look::{LookReport, Looker, Question, Turns};
use crate::record::{Moment, Record};
use crate::setup::{Reading, Setup};
pub use counts::Counts;
use state::{QuestionState, Told};

/// A camera of the loop.
#[derive(Clone, Debug)]
pub struct Camera {
    /// What records call it.
    pub name: Arc<str>,
    /// What of its pictures counts, for all questions.
    pub zones: Zones,
}

/// A question that is asked of one camera again and again.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The camera, by its place.
    pub camera: usize,
    /// What is asked.
    pub question: Question,
    /// What answers are.
    pub reading: Reading,
    /// What of the picture must change before it is asked.
    pub zones: Zones,
    /// It is asked at most so often.
    pub every: Duration,
    /// It is asked at least so often, whether or not anything moves.
    pub at_least_every: Option<Duration>,
    /// So many looks must agree before another answer is believed.
    pub needed: Quorum,
    /// Events.
    pub rules: Vec<Rule>,
}

/// How a [`Watcher`] works.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The pixel gate; none if absent: every picture is one in which something may have moved.
    pub pixels: Option<PixelOptions>,
    /// The feature gate; none if absent.
    pub features: Option<FeatureOptions>,
    /// The time from a picture's exposure to its answers; what does not fit is late, and comes first next time.
    pub budget: Option<Duration>,
    /// Tell of every answer, not only of those that change something.
    pub all_answers: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            pixels: Some(PixelOptions::default()),
            features: Some(FeatureOptions::default()),
            budget: None,
            all_answers: false,
        }
    }
}

/// When a picture was taken.
#[derive(Clone, Copy, Debug)]
pub struct Exposure {
    /// The picture's number, of those of its camera.
    pub number: u64,
    /// On a clock that never jumps: what rules, periods and gates go by. A film has a clock of its own.
    pub taken: Instant,
    /// By the clock on the wall.
    pub wall: SystemTime,
    /// From when on latencies and the budget count: `taken`, or for a film the time at which it was read.
    pub counts_from: Instant,
}

impl Exposure {
    /// A picture that is taken now.
    pub fn now(number: u64) -> Self {
        let now = Instant::now();
        Self { number, taken: now, wall: SystemTime::now(), counts_from: now }
    }
}

/// What is usual in a still scene of a camera.
#[derive(Clone, Copy, Debug)]
pub struct Noise<'a> {
    /// The camera.
    pub camera: &'a str,
    /// The standard deviation of a sample of the pixel gate, in levels of 255, of the median cell.
    pub levels: Option<f32>,
    /// The usual distance of a patch of the feature gate, and the one from which on it has changed.
    pub distances: Option<(f32, f32)>,
}

impl fmt::Display for Noise<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.camera)?;
        if let Some(levels) = self.levels {
            write!(f, " noise of {levels:.1} levels")?;
        }
        if let Some((usual, limit)) = self.distances {
            write!(f, ", patches are {usual:.4} apart, and have changed from {limit:.4} on")?;
        }
        Ok(())
    }
}

/// Watches the pictures of some cameras.
pub struct Watcher {
    looker: Looker,
    cameras: Vec<CameraState>,
    questions: Vec<QuestionState>,
    /// Which questions are due about the picture at hand.
    due: Vec<bool>,
    options: WatchOptions,
    counts: Counts,
    model: Arc<Model>,
    /// The first picture's time.
    began: Option<Instant>,
    is_paused: bool,
    /// Makes the names of events unlike those of other runs.
    run: u64,
}

struct CameraState {
    camera: Camera,
    pixels: Option<PixelGate>,
    features: Option<FeatureGate>,
    /// The last picture's time.
    last: Option<Instant>,
    was_open: bool,
}

impl Watcher {
    /// A loop with these questions. All memory is taken here but what records are made of, which are made when
    /// something is told.
    ///
    /// # Errors
    /// If memory cannot be had.
    ///
    /// # Panics
    /// If a question names a camera that is not there.
    pub fn new(
        session: Session,
        cameras: Vec<Camera>,
        watched: Vec<Watched>,
        options: WatchOptions,
        cancel: &CancelToken,
    ) -> palmtop::Result<Self> {
        let model = session.model().clone();
        let config = model.config();
        let (patches, width) = (config.image_rows(), config.text.hidden);
        let camera_state = |camera: Camera| CameraState {
            pixels: options
                .pixels
                .clone()
                .map(|pixels| PixelGate::new(PixelOptions { zones: camera.zones.clone(), ..pixels })),
            features: options.features.map(|features| FeatureGate::new(patches, width, features)),
            camera,
            last: None,
            was_open: false,
        };
        let cameras: Vec<CameraState> = cameras.into_iter().map(camera_state).collect();
        let questions = watched.iter().map(|w| w.question.clone()).collect();
        let side = patches.isqrt();
        let state = |watched: Watched| {
            let camera = &cameras[watched.camera];
            let grid = camera.pixels.as_ref().map_or((1, 1), PixelGate::grid);
            let name = camera.camera.name.clone();
            QuestionState::new(watched, name, grid, (side, patches / side.max(1)))
        };
        let questions_state: Vec<QuestionState> = watched.into_iter().map(state).collect();
        let run = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64);
        Ok(Self {
            looker: Looker::new(session, questions, cancel)?,
            due: vec![false; questions_state.len()],
            questions: questions_state,
            cameras,
            options,
            counts: Counts::new(),
            model,
            began: None,
            is_paused: false,
            run,
        })
    }

    /// Bytes that gates and features take beside the session's plan, for so many cameras.
    pub fn gate_bytes(model: &Model, cameras: usize, options: &WatchOptions) -> usize {
        let config = model.config();
        let features =
            options.features.map_or(0, |_| FeatureGate::bytes(config.image_rows(), config.text.hidden));
        let pixels = options.pixels.as_ref().map_or(0, PixelGate::bytes);
        cameras * (features + pixels)
    }

    /// What is watched.
    pub fn setup(&self) -> Setup {
        let cameras = self.cameras.iter().map(|state| &state.camera);
        Setup::new(&self.model, cameras, self.questions.iter().map(QuestionState::watched))
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The session, for its plan and its model.
    pub fn session(&self) -> &Session {
        self.looker.session()
    }

    /// What is usual in a still scene of each camera, as its gates have learned it.
    pub fn noises(&self) -> impl Iterator<Item = Noise<'_>> {
        self.cameras.iter().map(|state| Noise {
            camera: &state.camera.name,
            levels: state.pixels.as_ref().map(PixelGate::usual_noise),
            distances: state.features.as_ref().map(FeatureGate::usual_and_limit),
        })
    }

    /// Takes a turn for each pass over the model from now on; gates wait for none.
    pub fn take_turns(&mut self, turns: Box<dyn Turns>) {
        self.looker.take_turns(turns);
    }

    /// True while it looks at nothing.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// When a picture was, for records.
    pub fn moment(&self, exposure: &Exposure) -> Moment {
        let began = self.began.unwrap_or(exposure.taken);
        Moment { since_start: exposure.taken.saturating_duration_since(began), wall: exposure.wall }
    }

    /// Does what it is told.
    ///
    /// # Errors
    /// What is wrong with it: a question or a camera that is not there, or a prompt that is too long.
    pub fn command(&mut self, command: &Command) -> Result<(), CommandError> {
        match command {
            Command::Pause => self.is_paused = true,
            Command::Resume => self.is_paused = false,
            Command::Ask { question, camera } => {
                let is_it = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|w| w == name);
                let mut any = false;
                for state in &mut self.questions {
                    if is_it(question, state.name()) && is_it(camera, state.camera_name()) {
                        state.ask_now();
                        any = true;
                    }
                }
                if !any {
                    return Err(CommandError::NoSuchQuestion { names: self.names() });
                }
            }
            Command::Prompt { question, prompt } => {
                check_prompt(&self.model, prompt, self.looker.session().limits().prompt_tokens)?;
                let mut any = false;
                for (index, state) in self.questions.iter_mut().enumerate() {
                    if **state.name() == **question {
                        self.looker.set_prompt(index, prompt);
                        state.ask_now();
                        any = true;
                    }
                }
                if !any {
                    return Err(CommandError::NoSuchQuestion { names: self.names() });
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.questions.iter().map(|state| &**state.name()).collect();
        names.dedup();
        names.join(", ")
    }

    /// A picture came that cannot be decoded.
    pub fn broken(&mut self) {
        self.counts.pictures += 1;
        self.counts.broken += 1;
    }

    /// Takes a picture of a camera. `tell` hears of what follows, in order.
    ///
    /// # Errors
    /// [`palmtop::Error::Cancelled`] if it was cancelled, and what [`Looker::answer`] gives. The loop can go on
    /// afterwards.
    pub fn picture(
        &mut self,
        camera: usize,
        frame: &Frame<'_>,
        exposure: &Exposure,
        tell: &mut dyn FnMut(Record),
    ) -> palmtop::Result<()> {
        self.counts.pictures += 1;
        self.began.get_or_insert(exposure.taken);
        if self.is_paused {
            self.counts.not_looked += 1;
            return Ok(());
        }
        self.look_for_motion(camera, frame, exposure.taken);
        let mut any = false;
        for (due, state) in self.due.iter_mut().zip(&self.questions) {
            *due = state.watched().camera == camera && state.is_due(exposure.taken);
            any |= *due;
        }
        if !any {
            self.counts.not_looked += 1;
            return Ok(());
        }
        self.model.check_unchanged()?;
        let deadline = self.options.budget.map(|budget| exposure.counts_from + budget);
        if !self.looker.encode(*frame, deadline)? {
            self.counts.late += self.looker.postpone(|i| self.due[i]) as u64;
            return Ok(());
        }
        self.counts.encoded += 1;
        if !self.look_for_news(camera, exposure.taken) {
            self.counts.same += 1;
            return Ok(());
        }
        self.ask(frame, exposure, deadline, tell)
    }

    /// Ends all events.
    pub fn end(&mut self, exposure: &Exposure, tell: &mut dyn FnMut(Record)) {
        let at = self.moment(exposure);
        for state in &mut self.questions {
            state.end(exposure, at, self.run, tell);
        }
    }

    /// The pixel gate: marks questions in whose zone something moves, or has just ceased to.
    fn look_for_motion(&mut self, index: usize, frame: &Frame<'_>, taken: Instant) {
        let camera = &mut self.cameras[index];
        let since =
            camera.last.replace(taken).map_or(Duration::ZERO, |last| taken.saturating_duration_since(last));
        let of_camera = self.questions.iter_mut().filter(|state| state.watched().camera == index);
        let Some(gate) = &mut camera.pixels else {
            of_camera.for_each(QuestionState::something_moved);
            return;
        };
        let is_open = gate.look(frame, since).is_open;
        if !is_open && !camera.was_open {
            self.counts.still += 1;
        }
        camera.was_open = is_open;
        of_camera.for_each(|state| {
            let is_open = gate.is_open(state.pixel_cells());
            state.pixels_are(is_open);
        });
    }

    /// The feature gate: leaves out questions in whose zone nothing is new. True if any is left.
    fn look_for_news(&mut self, index: usize, taken: Instant) -> bool {
        let Some(gate) = &mut self.cameras[index].features else { return true };
        gate.look(self.looker.features());
        let mut any = false;
        for (i, (due, state)) in self.due.iter_mut().zip(&mut self.questions).enumerate() {
            if state.watched().camera != index {
                continue;
            }
            state.features_are(gate.is_open(state.patch_cells()));
            if *due && !state.has_reason(taken) && !self.looker.was_late(i) {
                *due = false;
                state.was_spared(taken);
                self.counts.spared += 1;
            }
            any |= *due;
        }
        let features = self.looker.features();
        for (_, state) in self.due.iter().zip(&self.questions).filter(|(due, _)| **due) {
            gate.keep(state.patch_cells(), features);
        }
        any
    }

    /// Answers what is due about the picture that was encoded.
    fn ask(
        &mut self,
        frame: &Frame<'_>,
        exposure: &Exposure,
        deadline: Option<Instant>,
        tell: &mut dyn FnMut(Record),
    ) -> palmtop::Result<()> {
        let size = (frame.width(), frame.height());
        let at = self.moment(exposure);
        let Self { looker, questions, due, options, counts, model, run, .. } = self;
        let mut wrong = None;
        let report = looker.answer(|i| due[i], deadline, &mut |i, answer| {
            let told = Told {
                model,
                exposure,
                at,
                picture: size,
                latency: exposure.counts_from.elapsed(),
                all_answers: options.all_answers,
                run: *run,
            };
            let mut count = |record: Record| {
                counts.events += u64::from(record.begins_event());
                tell(record);
            };
            if let Err(error) = questions[i].answered(answer, &told, &mut count) {
                wrong = Some(error);
            }
        })?;
        self.count(report, exposure.counts_from.elapsed());
        wrong.map_or(Ok(()), Err)
    }

    fn count(&mut self, report: LookReport, latency: Duration) {
        self.counts.answers += report.answered as u64;
        self.counts.late += report.late as u64;
        self.counts.tokens += report.tokens as u64;
        self.counts.drafted += report.drafted as u64;
        if report.answered > 0 {
            self.counts.latencies.add(latency);
        }
    }
}

/// Whether a prompt fits into so many tokens, begin-of-sequence and the newline that ends it included.
///
/// # Errors
/// [`CommandError::PromptTooLong`]; [`CommandError::Prompt`] if it has no tokens.
pub fn check_prompt(model: &Model, prompt: &str, most: usize) -> Result<(), CommandError> {
    let mut tokens = Vec::new();
    model.tokenizer().encode(prompt, &mut EncodeScratch::with_capacity(prompt.len()), &mut tokens)?;
    match tokens.len() + 2 {
        tokens if tokens > most => Err(CommandError::PromptTooLong { tokens, most }),
        _ => Ok(()),
    }
}

/// Why a loop does not do what it is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no question, or no camera, of that name.
    #[error("there is no such question of such a camera; the questions are: {names}")]
    NoSuchQuestion {
        /// The names that there are.
        names: String,
    },
    /// The prompt is longer than the session has room for.
    #[error("the prompt has {tokens} tokens, and there is room for {most}; restart with a longer one")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Most tokens.
        most: usize,
    },
    /// The prompt cannot be tokenized.
    #[error(transparent)]
    Prompt(#[from] TokenizerError),
}
