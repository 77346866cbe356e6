//! The engine: one thread with one session. Requests join a running batch between two steps.
//!
//! ```text
//!  Engine::ask ─▶ queue (bounded) ─▶ engine thread: encode if the cache has not the picture ─▶ begin ─▶ step, step, …
//!       ▲                                                                                        │
//!       └──────────────────────────────── Answering: tokens as they come ◀──────────────────────┘
//! ```
//!
//! Whoever drops its [`Answering`] cancels: an encoder or prefill that runs for it alone ends within a layer, and the
//! batch goes on without it from the next step.

mod answering;
mod ask;
mod batch;
mod cache;
mod picture;
mod queue;
mod turn;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use palmtop::model::Model;
use palmtop::{CancelToken, Limits, Plan, Session, UsageError};

pub use answering::{Answering, Event, Finished, Stop, Times, Token};
pub use ask::Ask;
pub(crate) use picture::DECODED_MAX;
pub use picture::{Picture, Pictures};
pub use turn::Turn;

use crate::counts::Counts;
use batch::Batch;
use cache::Cache;
pub use queue::Place;
use queue::{Job, Queue};

/// What the engine may use.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The session's limits: how many requests are answered together, how long, about how many pictures.
    pub limits: Limits,
    /// Requests that wait for a place beyond those that are being answered.
    pub waiting_max: usize,
    /// Bytes of image features that are kept, so that a picture that comes again is not encoded again.
    pub features_bytes: usize,
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// As many wait as may.
    #[error("{waiting} requests are waiting or being answered already; try again in {} s", .retry_after.as_secs())]
    Busy {
        /// How many there are.
        waiting: usize,
        /// After which time there may be room.
        retry_after: Duration,
    },
    /// The server is about to end.
    #[error("the server is ending")]
    Ending,
    /// The request's deadline passed before its answer began.
    #[error("the deadline passed before the answer began")]
    Late,
    /// The caller went away.
    #[error("cancelled")]
    Cancelled,
    /// Prompt, picture or limits cannot be used.
    #[error(transparent)]
    Request(palmtop::Error),
    /// The engine is broken: nothing more will be answered.
    #[error("the engine has failed: {0}")]
    Broken(String),
}

impl AskError {
    /// True if the caller can mend it by asking something else.
    pub fn is_callers_fault(&self) -> bool {
        use palmtop::Error;
        match self {
            Self::Request(error) => matches!(
                error,
                Error::Image(_)
                    | Error::Tokenizer(_)
                    | Error::Prompt(_)
                    | Error::Grammar(_)
                    | Error::Usage(
                        UsageError::Pictures { .. }
                            | UsageError::NewTokens { .. }
                            | UsageError::PromptTokens { .. }
                            | UsageError::PromptBytes { .. }
                            | UsageError::ImageTokenInPrompt
                    )
            ),
            _ => false,
        }
    }
}

/// A handle on the engine; clones are of the same one.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    model: Arc<Model>,
    limits: Limits,
    queue: Queue,
    cache: Cache,
    counts: Arc<Counts>,
    turn: Turn,
    /// Ends what runs, when the time to end is over.
    cut_off: CancelToken,
}

/// The engine's thread.
pub struct EngineThread(JoinHandle<()>);

impl Engine {
    /// What the engine will take: the session, and bytes of image features.
    ///
    /// # Errors
    /// As [`Model::plan`].
    pub fn plan(model: &Model, options: &EngineOptions) -> palmtop::Result<(Plan, usize)> {
        let plan = model.plan(&options.limits)?;
        let bytes = Cache::slots(model, options) * Cache::slot_bytes(model);
        Ok((plan, bytes))
    }

    /// Takes all memory, and starts the thread.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn start(model: &Arc<Model>, options: &EngineOptions) -> palmtop::Result<(Self, EngineThread)> {
        let session = Session::new(model, &options.limits)?;
        let slots = Cache::slots(model, options);
        let features = (0..slots).map(|_| session.new_features()).collect::<palmtop::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            model: model.clone(),
            limits: options.limits.clone(),
            queue: Queue::new(options.waiting_max + options.limits.batch),
            cache: Cache::new(slots),
            counts: Arc::default(),
            turn: Turn::default(),
            cut_off: CancelToken::default(),
        });
        let batch = Batch::new(session, features, shared.clone());
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || batch.run());
        Ok((Self(shared), EngineThread(thread.map_err(palmtop::Error::Threads)?)))
    }

    /// Takes places for so many requests: the first thing that a request needs, before its pictures take memory. They
    /// are free again when they are dropped, or their requests are done.
    ///
    /// # Errors
    /// [`AskError::Busy`] if there are not so many; [`AskError::Ending`].
    pub fn enter(&self, requests: usize) -> Result<Place, AskError> {
        if !self.is_ready() {
            return Err(AskError::Ending);
        }
        self.0.queue.enter(requests, &self.0.counts)
    }

    /// Puts a request into the queue. What becomes of it comes through the [`Answering`].
    ///
    /// # Errors
    /// [`AskError::Ending`], [`AskError::Broken`], and what is wrong with the request as far as that can be known
    /// without computing.
    pub fn ask(&self, place: Place, ask: Ask) -> Result<Answering, AskError> {
        ask.check(&self.0.limits)?;
        let (job, answering) = Job::new(ask, place);
        self.0.queue.push(job, &self.0.counts)?;
        Ok(answering)
    }

    /// The model that answers.
    pub fn model(&self) -> &Arc<Model> {
        &self.0.model
    }

    /// What a request may ask for.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What has been done so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    /// Whose turn it is to compute.
    pub fn turn(&self) -> &Turn {
        &self.0.turn
    }

    /// True if requests are answered.
    pub fn is_ready(&self) -> bool {
        self.0.queue.is_open()
    }

    /// Why nothing will be answered any more, if the engine has failed: its model's file was changed while it was
    /// mapped, or a bug.
    pub fn broken(&self) -> Option<String> {
        self.0.queue.broken()
    }

    /// Width and height of a picture whose features are kept.
    pub(crate) fn kept(&self, key: picture::Key) -> Option<(u32, u32)> {
        self.0.cache.size(key)
    }

    /// Takes no more requests. Those that it has are answered.
    pub fn close(&self) {
        self.0.queue.close(None);
    }

    /// Ends what is being answered and what waits.
    pub fn cut_off(&self) {
        self.close();
        self.0.cut_off.cancel();
        self.0.queue.wake();
    }

    /// Requests that can have a place at once.
    pub fn places_max(&self) -> usize {
        self.0.queue.places_max()
    }

    /// Requests that have a place: they wait, or are being answered.
    pub fn pending(&self) -> usize {
        self.0.queue.taken()
    }
}

impl EngineThread {
    /// Waits until the engine has ended: it does once it is closed and has nothing left to do.
    pub fn join(self) {
        let _ = self.0.join();
    }
}
