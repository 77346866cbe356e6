//! The whole loop: cameras are captured, pictures decoded, a [`Watcher`] asked, and records delivered.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{Frame, ImageError, ImageLimits, RgbImage, decode};
use palmtop::{CancelToken, Limits, Model, Session};

use crate::command::Command;
use crate::config::{Config, ConfigError};
use crate::record::{CameraRecord, CameraStatus, ObjectRecord, Record};
use crate::setup::Setup;
use crate::sink::{Message, Snapshot};
use crate::source::{Address, Capture, OpenOptions, Shot, SourceError, Status, Taken};
use crate::watcher::{Camera, Counts, Exposure, Watched, Watcher};

/// Why a loop cannot be started, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoopError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No source can be opened; this is the first.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The model or the session.
    #[error(transparent)]
    Model(#[from] palmtop::Error),
}

/// Takes what a loop tells.
pub trait Deliver {
    /// True if the picture of such a record is wanted.
    fn wants_picture(&self, record: &Record) -> bool;

    /// Takes a record. The loop waits for it, and ends if it says so.
    fn deliver(&mut self, message: Message) -> ControlFlow<()>;
}

/// How pictures come.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// How sources are opened.
    pub open: OpenOptions,
    /// What an encoded picture may cost.
    pub images: ImageLimits,
}

/// A loop that can be started: everything is checked, and no memory is taken yet.
pub struct Prepared {
    cameras: Vec<(Camera, Address)>,
    watched: Vec<Watched>,
    config: Config,
    limits: Limits,
}

impl Prepared {
    /// Checks a configuration against a model. `limits` say how to use the machine; what answers need is filled in.
    ///
    /// # Errors
    /// [`LoopError::Config`]
    pub fn new(model: &Model, config: &Config, limits: &Limits) -> Result<Self, LoopError> {
        config.check()?;
        let (cameras, watched) = (config.cameras()?, config.watched(model)?);
        let limits = config.limits(&watched, limits);
        Ok(Self { cameras, watched, config: config.clone(), limits })
    }

    /// What a session needs.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What will be watched.
    pub fn setup(&self, model: &Model) -> Setup {
        Setup::new(model, self.cameras.iter().map(|(camera, _)| camera), &self.watched)
    }

    /// Bytes that the gates need beside the session.
    pub fn gate_bytes(&self, model: &Model) -> usize {
        Watcher::gate_bytes(model, self.cameras.len(), &self.config.options())
    }
}

/// A loop that runs.
pub struct Loop {
    watcher: Watcher,
    cameras: Vec<Running>,
    /// Whose turn it is, so that no camera starves another.
    next: usize,
    /// The last picture's time.
    last: Exposure,
    /// A receiver wants no more.
    is_over: bool,
}

struct Running {
    name: Arc<str>,
    address: Address,
    options: SourceOptions,
    capture: Opening,
    spare: Option<Vec<u8>>,
    /// What was told of it last.
    told: Option<CameraStatus>,
    broken: u32,
}

/// A source, or when to try it again.
enum Opening {
    Open(Capture),
    Closed {
        again: Instant,
        pause: Duration,
        why: String,
    },
    /// The film is over.
    Ended,
}

/// How pauses between attempts to open a source for the first time grow.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// So long the loop waits for pictures before it looks for commands.
const WAIT: Duration = Duration::from_millis(100);
/// With several cameras, so long for each.
const WAIT_EACH: Duration = Duration::from_millis(4);
/// Pictures in a row that cannot be decoded before a camera counts as broken.
const BROKEN: u32 = 5;

impl Loop {
    /// Takes all memory, and opens the sources.
    ///
    /// # Errors
    /// [`LoopError::Source`] if not one source can be opened; those that cannot, beside others that can, are tried again
    /// later. [`LoopError::Model`] if the session cannot be made.
    pub fn start(
        model: &Arc<Model>,
        prepared: Prepared,
        options: &SourceOptions,
        all_answers: bool,
        cancel: &CancelToken,
    ) -> Result<Self, LoopError> {
        let session = Session::new(model, &prepared.limits)?;
        let mut loop_options = prepared.config.options();
        loop_options.all_answers = all_answers;
        if let Some(pixels) = &mut loop_options.pixels {
            pixels.side_max = prepared.limits.image_side;
        }
        let names: Vec<Camera> = prepared.cameras.iter().map(|(camera, _)| camera.clone()).collect();
        let watcher = Watcher::new(session, names, prepared.watched, loop_options, cancel)?;
        let mut options = options.clone();
        if let Some(ros2) = &prepared.config.ros2 {
            // Sources and sink are one node.
            options.open.ros2 = ros2.clone();
        }
        let (mut cameras, mut first_error) = (Vec::new(), None);
        for (camera, address) in prepared.cameras {
            let capture = match Capture::start(address.clone(), options.open.clone()) {
                Ok(capture) => Opening::Open(capture),
                Err(error) => {
                    let why = error.to_string();
                    first_error.get_or_insert(error);
                    Opening::Closed { again: Instant::now() + PAUSE.0, pause: PAUSE.0, why }
                }
            };
            cameras.push(Running {
                name: camera.name,
                address,
                options: options.clone(),
                capture,
                spare: None,
                told: None,
                broken: 0,
            });
        }
        let is_closed = |running: &Running| matches!(running.capture, Opening::Closed { .. });
        match first_error {
            Some(error) if cameras.iter().all(is_closed) => Err(error.into()),
            _ => Ok(Self { watcher, cameras, next: 0, last: Exposure::now(0), is_over: false }),
        }
    }

    /// The core, for its set-up and its counts.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Pictures that cameras gave, and those of them that were dropped for newer ones.
    pub fn captured(&self) -> (u64, u64) {
        let counts = self.cameras.iter().filter_map(|running| match &running.capture {
            Opening::Open(capture) => Some(capture.counts()),
            _ => None,
        });
        counts.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1))
    }

    /// Runs until all films are over, or `goes_on`, which is asked between pictures and at least ten times a second, says
    /// no. Events that are open end then.
    ///
    /// # Errors
    /// [`LoopError::Model`]: [`palmtop::Error::Cancelled`] if it was cancelled in the middle of a look.
    pub fn run(
        &mut self,
        commands: &Receiver<Command>,
        deliver: &mut dyn Deliver,
        goes_on: &mut dyn FnMut(&Counts) -> bool,
    ) -> Result<(), LoopError> {
        let result = self.run_on(commands, deliver, goes_on);
        let last = self.last;
        let is_over = &mut self.is_over;
        self.watcher.end(&last, &mut |record| {
            *is_over |= deliver.deliver(Message { record, picture: None }).is_break();
        });
        result
    }

    fn run_on(
        &mut self,
        commands: &Receiver<Command>,
        deliver: &mut dyn Deliver,
        goes_on: &mut dyn FnMut(&Counts) -> bool,
    ) -> Result<(), LoopError> {
        while goes_on(self.watcher.counts()) {
            while let Ok(command) = commands.try_recv() {
                if let Err(error) = self.watcher.command(&command) {
                    log::warn!("{error}");
                }
            }
            let wait = if self.cameras.len() > 1 { WAIT_EACH } else { WAIT };
            let mut has_ended = true;
            for _ in 0..self.cameras.len() {
                let index = self.next;
                self.next = (self.next + 1) % self.cameras.len();
                let taken = self.cameras[index].take(wait);
                self.tell_status(index, deliver);
                match taken {
                    Taken::Shot(shot) => {
                        has_ended = false;
                        self.picture(index, &shot, deliver)?;
                        self.cameras[index].spare = Some(shot.bytes);
                    }
                    Taken::Nothing => has_ended = false,
                    Taken::End => {}
                }
                if self.is_over || !goes_on(self.watcher.counts()) {
                    return Ok(());
                }
            }
            if has_ended {
                return Ok(());
            }
        }
        Ok(())
    }

    fn picture(&mut self, index: usize, shot: &Shot, deliver: &mut dyn Deliver) -> Result<(), LoopError> {
        let running = &mut self.cameras[index];
        let decoded;
        let frame = match frame(shot, &running.options.images) {
            Ok(Decoded::Frame(frame)) => frame,
            Ok(Decoded::Image(image)) => {
                decoded = image;
                Frame::from(decoded.view())
            }
            Err(error) => {
                running.broken += 1;
                self.watcher.broken();
                if running.broken == BROKEN {
                    let why = Some(error.to_string());
                    self.tell(index, CameraStatus::Broken, why, deliver);
                }
                return Ok(());
            }
        };
        if std::mem::take(&mut running.broken) >= BROKEN {
            self.tell(index, CameraStatus::Running, None, deliver);
        }
        let running = &self.cameras[index];
        let counts_from = if running.is_film() { Instant::now() } else { shot.taken };
        self.last = Exposure { number: shot.number, taken: shot.taken, wall: shot.wall, counts_from };
        let is_over = &mut self.is_over;
        self.watcher.picture(index, &frame, &self.last, &mut |record| {
            let picture =
                deliver.wants_picture(&record).then(|| snapshot(&frame, record.objects())).flatten();
            *is_over |= deliver.deliver(Message { record, picture }).is_break();
        })?;
        Ok(())
    }

    /// Tells how a camera is, if it is not as it was.
    fn tell_status(&mut self, index: usize, deliver: &mut dyn Deliver) {
        let running = &self.cameras[index];
        let (status, why) = match &running.capture {
            Opening::Closed { why, .. } => (CameraStatus::Waiting, Some(why.clone())),
            Opening::Ended => (CameraStatus::Ended, None),
            Opening::Open(capture) => match capture.status() {
                Status::Running if running.broken >= BROKEN => return,
                Status::Running => (CameraStatus::Running, None),
                Status::Waiting { why } => (CameraStatus::Waiting, Some(why)),
                // A film that has been read to its end may still be looked at.
                Status::Ended | Status::Opening => return,
            },
        };
        if running.told != Some(status) {
            self.tell(index, status, why, deliver);
        }
    }

    fn tell(&mut self, index: usize, status: CameraStatus, why: Option<String>, deliver: &mut dyn Deliver) {
        self.cameras[index].told = Some(status);
        let at = self.watcher.moment(&Exposure { wall: SystemTime::now(), ..self.last });
        let camera = self.cameras[index].name.clone();
        let told = deliver.deliver(Message {
            record: Record::Camera(CameraRecord { camera, at, status, why }),
            picture: None,
        });
        self.is_over |= told.is_break();
    }
}

impl Running {
    /// The newest picture, or the next one within `wait`.
    fn take(&mut self, wait: Duration) -> Taken {
        match &mut self.capture {
            Opening::Open(capture) => {
                let taken = capture.take(self.spare.take(), wait);
                if matches!(taken, Taken::End) {
                    self.capture = Opening::Ended;
                }
                taken
            }
            Opening::Ended => Taken::End,
            Opening::Closed { again, pause, why } => {
                if Instant::now() < *again {
                    std::thread::sleep(wait);
                    return Taken::Nothing;
                }
                match Capture::start(self.address.clone(), self.options.open.clone()) {
                    Ok(capture) => self.capture = Opening::Open(capture),
                    Err(error) => {
                        *why = error.to_string();
                        *pause = (*pause * 2).min(PAUSE.1);
                        *again = Instant::now() + *pause;
                    }
                }
                Taken::Nothing
            }
        }
    }

    fn is_film(&self) -> bool {
        matches!(&self.capture, Opening::Open(capture) if capture.is_film())
    }
}

enum Decoded<'a> {
    Frame(Frame<'a>),
    Image(RgbImage),
}

/// The picture of a shot.
fn frame<'a>(shot: &'a Shot, limits: &ImageLimits) -> Result<Decoded<'a>, ImageError> {
    match shot.layout.frame(&shot.bytes) {
        Some(frame) => frame.map(Decoded::Frame),
        None => decode(&shot.bytes, limits).map(Decoded::Image),
    }
}

/// A copy of a picture with what was found in it.
fn snapshot(frame: &Frame<'_>, objects: &[ObjectRecord]) -> Option<Arc<Snapshot>> {
    let (width, height) = (frame.width(), frame.height());
    let mut data = vec![0; 3 * width as usize * height as usize];
    for (row, out) in data.chunks_exact_mut(3 * width as usize).enumerate() {
        frame.write_row(row as u32, out);
    }
    let picture = RgbImage::new(width, height, data).ok()?;
    Some(Arc::new(Snapshot::new(picture, objects.to_vec())))
}
