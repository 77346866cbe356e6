//! The whole loop: cameras are captured, pictures decoded, a [`Watcher`] asked, and records delivered.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{DecodeOptions, Frame, RgbImage, decode_into};
use palmtop::{CancelToken, Limits, Model, Session};

use crate::command::Command;
use crate::config::{Config, ConfigError};
use crate::look::Turns;
use crate::record::{CameraRecord, CameraStatus, Record};
use crate::setup::Setup;
use crate::sink::{Message, Snapshot};
use crate::source::{Address, Bell, Capture, Health, OpenOptions, Shot, SourceError, Status, Taken, Tap};
use crate::stream::to_rgb;
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

    /// Hears of each picture that the loop takes, before it is looked at: its camera's place, its width and height.
    fn picture(&mut self, _camera: usize, _size: (u32, u32)) {}

    /// Hears of each command that the loop obeyed.
    fn obeyed(&mut self, _command: &Command) {}
}

/// How pictures come.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// How sources are opened.
    pub open: OpenOptions,
    /// What encoded pictures may cost.
    pub decode: DecodeOptions,
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
    decode: DecodeOptions,
    /// The pixels of the last picture that had to be decoded.
    decoded: RgbImage,
    /// Rings when a camera has something.
    bell: Bell,
    /// The last picture's time.
    last: Exposure,
    /// A receiver wants no more.
    is_over: bool,
}

struct Running {
    name: Arc<str>,
    capture: Capture,
    health: Health,
    spare: Option<Vec<u8>>,
    /// What was told of it last.
    told: Option<CameraStatus>,
    /// The film is over.
    has_ended: bool,
}

/// So long the loop waits for pictures before it looks for commands.
const WAIT: Duration = Duration::from_millis(100);

impl Loop {
    /// Takes all memory, and opens the sources.
    ///
    /// # Errors
    /// [`LoopError::Source`] if not one source can be opened; those that cannot, beside others that can, are tried
    /// again later. [`LoopError::Model`] if the session cannot be made.
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
        // Its own, since each ring wakes one loop.
        options.open.bell = Bell::default();
        let ffmpeg = &prepared.config.ffmpeg;
        if let Some(program) = &ffmpeg.program {
            options.open.ffmpeg.clone_from(program);
        }
        options.open.ffmpeg_input.extend_from_slice(&ffmpeg.input);
        if let Some(ros2) = &prepared.config.ros2 {
            // Sources and sink are one node.
            options.open.ros2 = ros2.clone();
        }
        let (mut cameras, mut first_error, mut is_open) = (Vec::new(), None, false);
        for (camera, address) in prepared.cameras {
            let capture = match Capture::start(address.clone(), options.open.clone()) {
                Ok(capture) => {
                    is_open = true;
                    capture
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                    Capture::start_when_there(address, options.open.clone())?
                }
            };
            let health = capture.health();
            let (spare, told, has_ended) = (None, None, false);
            cameras.push(Running { name: camera.name, capture, health, spare, told, has_ended });
        }
        if let Some(error) = first_error.filter(|_| !is_open) {
            return Err(error.into());
        }
        Ok(Self {
            watcher,
            cameras,
            decode: options.decode,
            decoded: RgbImage::new(1, 1, vec![0; 3]).map_err(palmtop::Error::from)?,
            bell: options.open.bell,
            last: Exposure::now(0),
            is_over: false,
        })
    }

    /// The core, for its set-up and its counts.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Takes a turn for each pass over the model from now on.
    pub fn take_turns(&mut self, turns: Box<dyn Turns>) {
        self.watcher.take_turns(turns);
    }

    /// Lets somebody see the pictures of each camera from now on, as they are captured: `tap_of` is called with the
    /// cameras' places.
    pub fn tap(&mut self, mut tap_of: impl FnMut(usize) -> Arc<dyn Tap>) {
        for (index, running) in self.cameras.iter().enumerate() {
            running.capture.set_tap(tap_of(index));
        }
    }

    /// Pictures that cameras gave, and those of them that were dropped for newer ones.
    pub fn captured(&self) -> (u64, u64) {
        let counts = self.cameras.iter().map(|running| running.capture.counts());
        counts.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1))
    }

    /// Runs until all films are over, or `goes_on`, which is asked between pictures and at least ten times a second,
    /// says no. Events that are open end then.
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
                match self.watcher.command(&command) {
                    Ok(()) => deliver.obeyed(&command),
                    Err(error) => log::warn!("{error}"),
                }
            }
            // A round gives each camera its turn, so that none starves another.
            let (mut has_ended, mut has_looked) = (true, false);
            for index in 0..self.cameras.len() {
                let running = &mut self.cameras[index];
                let taken = match running.has_ended {
                    true => Taken::End,
                    false => running.capture.take(running.spare.take(), Duration::ZERO),
                };
                match taken {
                    Taken::Shot(shot) => {
                        (has_ended, has_looked) = (false, true);
                        self.picture(index, &shot, deliver)?;
                        self.cameras[index].spare = Some(shot.bytes);
                    }
                    Taken::Nothing => has_ended = false,
                    Taken::End => running.has_ended = true,
                }
                self.tell_status(index, deliver);
                if self.is_over || !goes_on(self.watcher.counts()) {
                    return Ok(());
                }
            }
            if has_ended {
                return Ok(());
            }
            if !has_looked {
                self.bell.wait(WAIT);
            }
        }
        Ok(())
    }

    fn picture(&mut self, index: usize, shot: &Shot, deliver: &mut dyn Deliver) -> Result<(), LoopError> {
        let running = &mut self.cameras[index];
        let counts_from = if running.capture.is_film() { Instant::now() } else { shot.taken };
        self.last = Exposure { number: shot.number, taken: shot.taken, wall: shot.wall, counts_from };
        running.health.bytes(&shot.bytes, shot.taken);
        let frame = shot.layout.frame(&shot.bytes).unwrap_or_else(|| {
            decode_into(&shot.bytes, &self.decode, &mut self.decoded)?;
            Ok(Frame::from(self.decoded.view()))
        });
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                running.health.undecodable(&error.to_string());
                self.watcher.broken();
                return Ok(());
            }
        };
        running.health.frame(&frame, shot.taken);
        deliver.picture(index, (frame.width(), frame.height()));
        let is_over = &mut self.is_over;
        self.watcher.picture(index, &frame, &self.last, &mut |record| {
            let wants = deliver.wants_picture(&record);
            let copy = wants.then(|| to_rgb(&frame).ok()).flatten();
            let picture = copy.map(|copy| Arc::new(Snapshot::new(copy, record.objects().to_vec())));
            *is_over |= deliver.deliver(Message { record, picture }).is_break();
        })?;
        Ok(())
    }

    /// Tells how a camera is, if it is not as it was.
    fn tell_status(&mut self, index: usize, deliver: &mut dyn Deliver) {
        let running = &mut self.cameras[index];
        let capture = running.capture.status();
        // A film that was read to its end may still be looked at.
        if capture != Status::Ended || running.has_ended {
            running.health.capture(&capture);
        }
        let Some(status) = running.health.status() else { return };
        if running.told != Some(status) {
            let failure = running.capture.failure();
            if let Some(why) = &failure {
                log::warn!("{}: no picture: {why}", running.name);
            }
            let why = running.health.why().map(str::to_owned).or(failure);
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
