//! A thread that reads a source, and opens it again when it breaks off.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::address::Address;
use super::bell::Bell;
use super::feed::{Next, Stop};
use super::health::Health;
use super::latest::{Latest, Pace, Taken, Tap};
use super::open::{OpenOptions, Opened, SourceError, open};

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

/// Pauses between attempts grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A thread that was told to stop is waited for so long.
const STOP_MAX: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(2);

/// A source that is read by a thread of its own.
///
/// Dropping it ends the thread, and with it connections and programs, within a second. Only a server that is being
/// looked up or reached just then may take longer; it is left to itself.
pub struct Capture {
    shared: Arc<Shared>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    health: Health,
}

struct Shared {
    latest: Latest,
    status: Mutex<Status>,
    broken: AtomicU64,
    is_film: AtomicBool,
    /// Why a film ended before its first picture.
    failure: Mutex<Option<String>>,
}

impl Capture {
    /// Opens a source and begins to read it. A file is read picture by picture, and so is a folder; any other is live.
    ///
    /// # Errors
    /// If it cannot be opened now. What breaks off later is tried again, with growing pauses.
    pub fn start(address: Address, options: OpenOptions) -> Result<Self, SourceError> {
        #[cfg(feature = "ros2")]
        if let super::address::Kind::Ros2(topic) = &address.kind {
            return Self::subscribe(topic, &options);
        }
        let name = address.kind.to_string();
        let (sender, receiver) = sync_channel(1);
        let capture = Self::spawn(address, options, Some(sender))?;
        let gone = |_| SourceError::Io { source_name: name, error: io::Error::other("its thread has ended") };
        receiver.recv().map_err(gone)??;
        Ok(capture)
    }

    /// The same for a source that may not be there yet: if it cannot be opened, [`status`](Self::status) says why, and
    /// it is tried again. Returns at once.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start_when_there(address: Address, options: OpenOptions) -> Result<Self, SourceError> {
        #[cfg(feature = "ros2")]
        if let super::address::Kind::Ros2(topic) = &address.kind {
            return Self::subscribe(topic, &options);
        }
        Self::spawn(address, options, None)
    }

    /// Subscribes to a topic of ROS 2. It waits for its publishers itself, so it is opened once.
    #[cfg(feature = "ros2")]
    fn subscribe(topic: &str, options: &OpenOptions) -> Result<Self, SourceError> {
        let source_name = || format!("ros2://{topic}");
        let opened = super::ros2::open(topic, options.picture_bytes_max, &options.ros2);
        let mut opened = opened.map_err(|error| SourceError::Ros2 { source_name: source_name(), error })?;
        let (shared, stop) = (Arc::new(Shared::new(options.bell.clone())), Stop::default());
        let (of_thread, stop_of_thread) = (shared.clone(), stop.clone());
        let body = move || {
            opened.read(&of_thread.latest, &stop_of_thread, |status| of_thread.set(status));
            of_thread.set(Status::Ended);
            of_thread.latest.end();
        };
        let io = |error| SourceError::Io { source_name: source_name(), error };
        let thread = thread::Builder::new().name("capture".into()).spawn(body).map_err(io)?;
        Ok(Self { shared, stop, thread: Some(thread), health: Health::new(options.health, true) })
    }

    /// The first opening is told, and the thread ends if it fails and that is told.
    fn spawn(
        address: Address,
        options: OpenOptions,
        tells: Option<SyncSender<Result<(), SourceError>>>,
    ) -> Result<Self, SourceError> {
        let name = address.kind.to_string();
        let health = Health::new(options.health, address.can_freeze());
        let stop = Stop::default();
        let shared = Arc::new(Shared::new(options.bell.clone()));
        let (of_thread, stop_of_thread) = (shared.clone(), stop.clone());
        // The thread opens it itself: programs end with the thread that started them.
        let body = move || of_thread.run(&address, &options, &stop_of_thread, tells);
        let io = |error| SourceError::Io { source_name: name, error };
        let thread = thread::Builder::new().name("capture".into()).spawn(body).map_err(io)?;
        Ok(Self { shared, stop, thread: Some(thread), health })
    }

    /// The newest picture; see [`Latest::take`].
    pub fn take(&self, spare: Option<Vec<u8>>, wait: Duration) -> Taken {
        self.shared.latest.take(spare, wait)
    }

    /// Lets somebody see all pictures from now on, also those that the loop never takes.
    pub fn set_tap(&self, tap: Arc<dyn Tap>) {
        self.shared.latest.set_tap(tap);
    }

    /// True for a film: it is read picture by picture, and has a clock of its own.
    pub fn is_film(&self) -> bool {
        self.shared.is_film.load(Ordering::Relaxed)
    }

    /// How many pictures came, and how many of them were dropped for newer ones.
    pub fn counts(&self) -> (u64, u64) {
        self.shared.latest.counts()
    }

    /// How many pictures were cut short or damaged, or failed in the camera; they are in no other count.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Why a film has ended without a picture.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Follows the health of this source; whoever takes pictures tells it of them.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.latest.close();
        self.stop.set();
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + STOP_MAX;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(STEP);
        }
        if thread.is_finished() {
            // A thread that panicked has nothing to tell any more.
            let _ = thread.join();
        }
    }
}

/// When pictures were taken.
enum Clock {
    /// When they come, or as long before as the source says.
    Live,
    /// A film's pictures follow each other at its own pace, however fast it is read.
    Film { next: Instant, wanted: Option<Duration> },
}

/// From picture to picture of a film that does not say.
const FILM_PERIOD: Duration = Duration::from_millis(100);

impl Clock {
    fn of(opened: &Opened, fps: Option<f32>) -> Self {
        match opened.is_film {
            true => {
                Self::Film { next: Instant::now(), wanted: fps.map(|n| Duration::from_secs_f32(1.0 / n)) }
            }
            false => Self::Live,
        }
    }

    fn now(&mut self, age: Duration, period: Option<Duration>) -> Instant {
        match self {
            Self::Live => {
                let now = Instant::now();
                now.checked_sub(age).unwrap_or(now)
            }
            Self::Film { next, wanted } => {
                let step = wanted.or(period).unwrap_or(FILM_PERIOD);
                std::mem::replace(next, *next + step)
            }
        }
    }
}

impl Shared {
    fn new(bell: Bell) -> Self {
        Self {
            latest: Latest::new(Pace::Live, bell),
            status: Mutex::new(Status::Opening),
            broken: AtomicU64::new(0),
            is_film: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    fn run(
        &self,
        address: &Address,
        options: &OpenOptions,
        stop: &Stop,
        mut tells: Option<SyncSender<Result<(), SourceError>>>,
    ) {
        let mut pause = options.pause;
        let mut picture = Vec::new();
        while !stop.is_set() {
            self.set(Status::Opening);
            let source = open(address, options, stop);
            let (why, ends, came) = match (source, tells.take()) {
                (Err(error), Some(tells)) => {
                    // Whoever started this waits for the word.
                    let _ = tells.send(Err(error));
                    return;
                }
                (Err(error), None) => (error.to_string(), false, 0),
                (Ok(mut source), tells) => {
                    self.latest.set_pace(source.pace);
                    self.is_film.store(source.is_film, Ordering::Relaxed);
                    if let Some(tells) = tells {
                        let _ = tells.send(Ok(()));
                    }
                    let before = self.latest.counts().0;
                    let clock = Clock::of(&source, address.fps);
                    let why = self.read(&mut source, &mut picture, clock, stop);
                    (why, source.ends, self.latest.counts().0 - before)
                }
            };
            if ends {
                if came == 0 && !stop.is_set() {
                    *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(why);
                }
                break;
            }
            if came > 0 {
                pause = options.pause;
            }
            self.set(Status::Waiting { why });
            stop.pause(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.set(Status::Ended);
        self.latest.end();
    }

    /// Reads until the source ends; gives the reason.
    fn read(&self, source: &mut Opened, picture: &mut Vec<u8>, mut clock: Clock, stop: &Stop) -> String {
        let mut broken = 0;
        picture.clear();
        while !stop.is_set() {
            let next = source.feed.next(picture);
            let now_broken = source.feed.broken();
            self.broken.fetch_add(now_broken - broken, Ordering::Relaxed);
            broken = now_broken;
            match next {
                Next::Picture(caught) => {
                    let taken = clock.now(caught.age, caught.period);
                    let now = SystemTime::now();
                    let wall = now.checked_sub(caught.age).unwrap_or(now);
                    self.latest.pass_over(caught.passed_over);
                    // Before: whoever has the picture may ask.
                    self.set(Status::Running);
                    match self.latest.put(std::mem::take(picture), caught.layout, taken, wall) {
                        Some(spare) => *picture = spare,
                        None => return "nobody looks any more".into(),
                    }
                }
                Next::Nothing => {}
                Next::Well => self.set(Status::Running),
                Next::Missing(why) => self.set(Status::Waiting { why }),
                Next::End(why) => return why,
            }
        }
        "it was stopped".into()
    }

    fn set(&self, status: Status) {
        *self.status.lock().unwrap_or_else(|e| e.into_inner()) = status;
    }
}
