//! The loop of cameras beside the engine: what it last told, its newest pictures, and what it can be told.
//!
//! Whoever runs the loop hands over what it says ([`Cameras::begin`], [`Cameras::tell`], …); routes show it. Without a
//! loop there are no cameras, and all of this is empty.

mod camera;
mod counts;
mod told;

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};

use palmtop::image::DecodeOptions;
use palmtop::model::Model;
use palmtop_watch::command::Command;
use palmtop_watch::record::Record;
use palmtop_watch::setup::Setup;
use palmtop_watch::source::Tap;
use palmtop_watch::watcher::{self, Counts};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
pub(crate) use camera::{Camera, Eye};
pub use camera::{CameraInfo, QuestionInfo};
use counts::LoopCounts;
use told::Told;
pub(crate) use told::{Item, Since};

/// Live pictures that are sent at once.
pub(crate) const VIEWERS_MAX: usize = 16;

/// The cameras of a loop; clones are of the same ones.
#[derive(Clone)]
pub struct Cameras(Arc<Inner>);

struct Inner {
    watching: RwLock<Watching>,
    told: Told,
    counts: LoopCounts,
    viewers: Arc<Semaphore>,
    /// Pictures are drawn and encoded one at a time.
    drawing: Arc<Semaphore>,
}

/// What a loop watches. Another configuration makes another.
#[derive(Default)]
struct Watching {
    cameras: Vec<Arc<Camera>>,
    commands: Option<Sender<Command>>,
    /// Tokens of a prompt at most.
    prompt_tokens: usize,
    is_paused: bool,
    /// Cancelled when another one takes its place.
    over: CancellationToken,
}

impl Default for Cameras {
    fn default() -> Self {
        Self(Arc::new(Inner {
            watching: RwLock::default(),
            told: Told::default(),
            counts: LoopCounts::default(),
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            drawing: Arc::new(Semaphore::new(1)),
        }))
    }
}

impl fmt::Debug for Cameras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.read(|watching| watching.cameras.clone()).iter().map(|c| c.name()))
            .finish()
    }
}

impl Cameras {
    fn read<T>(&self, see: impl FnOnce(&Watching) -> T) -> T {
        see(&self.0.watching.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Watching)) {
        change(&mut self.0.watching.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A loop begins, in place of the one before. `prompt_tokens` are what its session has room for, `decode` says what
    /// a picture may cost, and `commands` is how it is told something.
    pub fn begin(
        &self,
        setup: &Setup,
        prompt_tokens: usize,
        decode: DecodeOptions,
        commands: Sender<Command>,
    ) {
        let over = CancellationToken::new();
        let drawing = &self.0.drawing;
        let camera = |name: &Arc<str>| Arc::new(Camera::new(name, setup, decode, drawing, &over));
        let cameras = setup.cameras.iter().map(camera).collect();
        let over = over.clone();
        let new = Watching { cameras, commands: Some(commands), prompt_tokens, is_paused: false, over };
        self.change(|watching| std::mem::replace(watching, new).over.cancel());
    }

    /// The loop has ended; what it told last is still shown.
    pub fn end(&self) {
        self.change(|watching| watching.commands = None);
    }

    /// Takes a record of the loop.
    pub fn tell(&self, record: &Record) {
        let camera = match record {
            Record::Answer(answer) => &answer.camera,
            Record::Event(event) => &event.camera,
            Record::Camera(camera) => &camera.camera,
        };
        if let Some(camera) = self.find(camera) {
            camera.tell(record);
        }
        self.0.told.tell(record);
    }

    /// The loop looks at a picture of so many pixels of the camera at this place.
    pub fn looked_at(&self, camera: usize, size: (u32, u32)) {
        if let Some(camera) = self.read(|watching| watching.cameras.get(camera).cloned()) {
            camera.looked_at(size);
        }
    }

    /// What the loop has done since it began.
    pub fn count(&self, counts: &Counts) {
        self.0.counts.set(counts);
    }

    /// Shows what the loop has done.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.0.counts.register(registry);
    }

    /// The loop obeyed a command, whoever gave it.
    pub fn obeyed(&self, command: &Command) {
        match command {
            Command::Pause => self.change(|watching| watching.is_paused = true),
            Command::Resume => self.change(|watching| watching.is_paused = false),
            Command::Ask { .. } => {}
            Command::Prompt { question, prompt } => {
                let cameras = self.read(|watching| watching.cameras.clone());
                cameras.iter().for_each(|camera| camera.set_prompt(question, prompt));
            }
        }
    }

    /// Sees the pictures of the camera at this place.
    pub fn tap(&self, camera: usize) -> Arc<dyn Tap> {
        match self.read(|watching| watching.cameras.get(camera).cloned()) {
            Some(camera) => camera,
            None => Arc::new(Nobody),
        }
    }

    /// The camera of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Camera>> {
        self.read(|watching| watching.cameras.iter().find(|camera| camera.name() == name).cloned())
    }

    /// How all cameras are.
    pub fn list(&self) -> Vec<CameraInfo> {
        self.read(|watching| watching.cameras.clone()).iter().map(|camera| camera.info()).collect()
    }

    /// True while the loop looks at nothing.
    pub fn is_paused(&self) -> bool {
        self.read(|watching| watching.is_paused)
    }

    /// Tells the loop something, if it can obey.
    pub(crate) fn command(&self, model: &Model, command: Command) -> Result<(), Problem> {
        self.read(|watching| {
            let Some(commands) = &watching.commands else {
                return Err(Problem::not_found("no cameras are watched; see --watch"));
            };
            watching.check(model, &command)?;
            commands.send(command).map_err(|_| Problem::from(crate::engine::AskError::Ending))
        })
    }

    /// Records from now on, and those since the last one that somebody had.
    pub(crate) fn listen(&self, last: Option<&str>) -> Since {
        self.0.told.listen(last)
    }

    /// A place for somebody who looks at live pictures.
    pub(crate) fn viewer(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.0.viewers.clone().try_acquire_owned().ok()
    }
}

impl Watching {
    fn check(&self, model: &Model, command: &Command) -> Result<(), Problem> {
        let asks = |question: Option<&str>, camera: Option<&str>| {
            let of_camera = |c: &&Arc<Camera>| camera.is_none_or(|name| c.name() == name);
            self.cameras.iter().filter(of_camera).any(|camera| camera.has_question(question))
        };
        let is_there = match command {
            Command::Pause | Command::Resume => true,
            Command::Ask { question, camera } => asks(question.as_deref(), camera.as_deref()),
            Command::Prompt { question, prompt } => {
                let fits = watcher::check_prompt(model, prompt, self.prompt_tokens);
                fits.map_err(|error| Problem::bad(error.to_string()))?;
                asks(Some(question), None)
            }
        };
        match is_there {
            true => Ok(()),
            false => {
                Err(Problem::not_found("there is no such question of such a camera; /v1/cameras names them"))
            }
        }
    }
}

/// Sees pictures of a camera that is not there.
struct Nobody;

impl Tap for Nobody {
    fn see(
        &self,
        _: &[u8],
        _: palmtop_watch::stream::Layout,
        _: std::time::Instant,
        _: std::time::SystemTime,
    ) {
    }
}
