//! Requests that wait for a place in the batch.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use palmtop::CancelToken;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AskError;
use super::answering::{Answering, Event};
use super::ask::Ask;
use crate::counts::Counts;

/// A place for a request, in the queue or among those that are being answered.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

impl Place {
    /// One of the places that were taken together; `None` if there is none left.
    pub fn split(&mut self) -> Option<Self> {
        self.0.split(1).map(Self)
    }
}

/// A request on its way.
pub(super) struct Job {
    pub ask: Ask,
    pub cancel: CancelToken,
    pub sender: UnboundedSender<Result<Event, AskError>>,
    pub came: Instant,
    _place: Place,
}

impl Job {
    pub fn new(ask: Ask, place: Place) -> (Self, Answering) {
        // Bounded by the tokens of an answer.
        let (sender, receiver) = unbounded_channel();
        let cancel = CancelToken::default();
        let answering = Answering::new(receiver, cancel.clone(), ask.deadline);
        (Self { ask, cancel, sender, came: Instant::now(), _place: place }, answering)
    }

    /// Says how it went; nobody may listen any more.
    pub fn tell(&self, event: Result<Event, AskError>) {
        let _ = self.sender.send(event);
    }
}

/// The queue between requests and the engine's thread.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    places: Arc<Semaphore>,
    places_max: usize,
}

struct State {
    jobs: VecDeque<Job>,
    is_open: bool,
    /// Why nothing will be answered any more.
    broken: Option<String>,
}

/// What the engine is to do.
pub(super) enum Next {
    /// Begin this one.
    Job(Box<Job>),
    /// Go on with what runs.
    Nothing,
    /// There is nothing left, and nothing will come.
    End,
}

impl Queue {
    /// With so many places, those of requests that are being answered included.
    pub fn new(places_max: usize) -> Self {
        let state = State { jobs: VecDeque::with_capacity(places_max), is_open: true, broken: None };
        let places = Arc::new(Semaphore::new(places_max));
        Self { state: Mutex::new(state), changed: Condvar::new(), places, places_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many places together.
    pub fn enter(&self, count: usize, counts: &Counts) -> Result<Place, AskError> {
        let try_enter = || self.places.clone().try_acquire_many_owned(count as u32).ok().map(Place);
        if let Some(place) = try_enter() {
            return Ok(place);
        }
        // Those that nobody waits for any more make room.
        let mut state = self.lock();
        state.jobs.retain(|job| !job.cancel.is_cancelled());
        counts.waiting.set(state.jobs.len() as i64);
        drop(state);
        try_enter().ok_or_else(|| {
            counts.refused.inc();
            let waiting = self.places_max - self.places.available_permits();
            AskError::Busy { waiting, retry_after: counts.time_for(waiting) }
        })
    }

    pub fn push(&self, job: Job, counts: &Counts) -> Result<(), AskError> {
        let mut state = self.lock();
        if let Some(why) = &state.broken {
            return Err(AskError::Broken(why.clone()));
        }
        if !state.is_open {
            return Err(AskError::Ending);
        }
        state.jobs.push_back(job);
        counts.waiting.set(state.jobs.len() as i64);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next one; waits for one if nothing runs.
    pub fn next(&self, is_idle: bool, has_room: bool, counts: &Counts) -> Next {
        let mut state = self.lock();
        loop {
            let job = if has_room { state.jobs.pop_front() } else { None };
            counts.waiting.set(state.jobs.len() as i64);
            match job {
                Some(job) => return Next::Job(Box::new(job)),
                None if !is_idle => return Next::Nothing,
                None if !state.is_open => return Next::End,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Takes nothing any more; if that is for a failure, what waits hears of it.
    pub fn close(&self, broken: Option<String>) {
        let mut state = self.lock();
        state.is_open = false;
        if let Some(why) = broken {
            for job in state.jobs.drain(..) {
                job.tell(Err(AskError::Broken(why.clone())));
            }
            state.broken = Some(why);
        }
        drop(state);
        self.wake();
    }

    pub fn wake(&self) {
        self.changed.notify_all();
    }

    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// All places.
    pub fn places_max(&self) -> usize {
        self.places_max
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.places_max - self.places.available_permits()
    }
}
