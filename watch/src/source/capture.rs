//! A thread that reads a source, and opens it again when it breaks off.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::address::Address;
use super::latest::{Latest, Pace, Taken};
use super::open::{OpenOptions, SourceError, open};

/// What a capture is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It is being opened.
    Opening,
    /// Pictures come.
    Running,
    /// It broke off, and will be opened again.
    Waiting {
        /// Why it broke off.
        why: String,
    },
    /// The film is over, or it was stopped.
    Ended,
}

/// How pauses between attempts grow.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So often a pause looks whether it is to end.
const STEP: Duration = Duration::from_millis(50);
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 18;

/// A source that is read by a thread of its own.
///
/// Dropping it stops the thread as soon as a read returns; one that waits for a pipe's other end is left to itself.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    is_film: bool,
}

#[derive(Debug)]
struct Shared {
    latest: Latest,
    status: Mutex<Status>,
    stops: AtomicBool,
}

impl Capture {
    /// Opens a source and begins to read it. A source that is a film is read picture by picture, any other live.
    ///
    /// # Errors
    /// If it cannot be opened now. What breaks off later is tried again, with growing pauses.
    pub fn start(address: Address, options: OpenOptions) -> Result<Self, SourceError> {
        #[cfg(feature = "ros2")]
        if let super::address::Kind::Ros2(topic) = &address.kind {
            return Self::subscribe(topic, &options);
        }
        let opened = open(&address, &options)?;
        let is_film = opened.ends;
        let pace = if is_film { Pace::Every } else { Pace::Live };
        let shared = Arc::new(Shared {
            latest: Latest::new(pace),
            status: Mutex::new(Status::Opening),
            stops: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let name = address.kind.to_string();
        let io = |error| SourceError::Io { source_name: name, error };
        let body = move || of_thread.run(&address, &options, opened);
        thread::Builder::new().name("capture".into()).spawn(body).map_err(io)?;
        Ok(Self { shared, is_film })
    }

    /// Subscribes to a topic of ROS 2. It waits for its publishers itself, so it is opened once.
    #[cfg(feature = "ros2")]
    fn subscribe(topic: &str, options: &OpenOptions) -> Result<Self, SourceError> {
        let source_name = || format!("ros2://{topic}");
        let opened = super::ros2::open(topic, options.picture_bytes_max, &options.ros2);
        let mut opened = opened.map_err(|error| SourceError::Ros2 { source_name: source_name(), error })?;
        let shared = Arc::new(Shared {
            latest: Latest::new(Pace::Live),
            status: Mutex::new(Status::Opening),
            stops: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let io = |error| SourceError::Io { source_name: source_name(), error };
        let body = move || {
            opened.read(&of_thread.latest, &of_thread.stops, |status| of_thread.set(status));
            of_thread.set(Status::Ended);
            of_thread.latest.end();
        };
        thread::Builder::new().name("capture".into()).spawn(body).map_err(io)?;
        Ok(Self { shared, is_film: false })
    }

    /// The newest picture; see [`Latest::take`].
    pub fn take(&self, spare: Option<Vec<u8>>, wait: Duration) -> Taken {
        self.shared.latest.take(spare, wait)
    }

    /// True for a film: it is read picture by picture, and has a clock of its own.
    pub fn is_film(&self) -> bool {
        self.is_film
    }

    /// How many pictures came, and how many of them were dropped for newer ones.
    pub fn counts(&self) -> (u64, u64) {
        self.shared.latest.counts()
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.shared.latest.close();
    }
}

/// When pictures were taken.
enum Clock {
    /// When they come.
    Live,
    /// A film's pictures follow each other at its own pace, however fast it is read.
    Film { next: Instant, step: Duration },
}

/// Pictures a second of a film that does not say.
const FILM_FPS: f32 = 10.0;

impl Clock {
    fn film(fps: Option<f32>) -> Self {
        Self::Film { next: Instant::now(), step: Duration::from_secs_f32(1.0 / fps.unwrap_or(FILM_FPS)) }
    }

    fn now(&mut self) -> Instant {
        match self {
            Self::Live => Instant::now(),
            Self::Film { next, step } => std::mem::replace(next, *next + *step),
        }
    }
}

impl Shared {
    fn run(&self, address: &Address, options: &OpenOptions, first: super::open::Opened) {
        let (mut opened, mut pause) = (Some(first), PAUSE_FIRST);
        let mut picture = Vec::new();
        while !self.stops.load(Ordering::Relaxed) {
            self.set(Status::Opening);
            let source = opened.take().map_or_else(|| open(address, options), Ok);
            let (why, ends, came) = match source {
                Err(error) => (error.to_string(), false, 0),
                Ok(mut source) => {
                    let before = self.latest.counts().0;
                    let clock = if source.ends { Clock::film(address.fps) } else { Clock::Live };
                    let why = self.read(&mut source, &mut picture, clock);
                    (why, source.ends, self.latest.counts().0 - before)
                }
            };
            if ends {
                break;
            }
            if came > 0 {
                pause = PAUSE_FIRST;
            }
            self.set(Status::Waiting { why });
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.stops.load(Ordering::Relaxed) {
                thread::sleep(STEP);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.set(Status::Ended);
        self.latest.end();
    }

    /// Reads until the stream ends; gives the reason.
    fn read(&self, source: &mut super::open::Opened, picture: &mut Vec<u8>, mut clock: Clock) -> String {
        let mut chunk = vec![0; READ_BYTES];
        picture.clear();
        loop {
            let n = match source.bytes.read(&mut chunk) {
                Ok(0) => return "the stream has ended".into(),
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return error.to_string(),
            };
            let mut rest = &chunk[..n];
            while !rest.is_empty() {
                let taken = match source.splitter.take(rest, picture) {
                    Ok(taken) => taken,
                    Err(error) => return error.to_string(),
                };
                rest = &rest[taken.bytes..];
                let Some(layout) = source.splitter.layout().filter(|_| taken.is_complete) else { continue };
                let full = std::mem::take(picture);
                match self.latest.put(full, layout, clock.now(), SystemTime::now()) {
                    Some(spare) => *picture = spare,
                    None => return "nobody looks any more".into(),
                }
                self.set(Status::Running);
            }
        }
    }

    fn set(&self, status: Status) {
        *self.status.lock().unwrap_or_else(|e| e.into_inner()) = status;
    }
}
