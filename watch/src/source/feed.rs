//! What a capture thread reads, and what tells it to stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::stream::Layout;

/// A feed gives word at least so often, so that its thread sees when it is to stop.
pub(super) const MOMENT: Duration = Duration::from_millis(100);

/// What a feed gives.
#[derive(Debug)]
pub(super) enum Next {
    /// A picture lies in the caller's memory.
    Picture(Caught),
    /// None came for a moment.
    Nothing,
    /// All is well, and there is none that is new.
    Well,
    /// None comes for this reason, and the feed waits for better times.
    Missing(String),
    /// None will come, for this reason.
    End(String),
}

/// What is known of a picture beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught {
    pub layout: Layout,
    /// The time since its exposure.
    pub age: Duration,
    /// From picture to picture, if a film says so.
    pub period: Option<Duration>,
    /// Older pictures that were not worth copying.
    pub passed_over: u64,
}

/// Gives pictures, one after the other.
pub(super) trait Feed: Send {
    /// The next picture, into memory that is used again: what is in `picture` must be left alone between calls that
    /// gave no picture.
    fn next(&mut self, picture: &mut Vec<u8>) -> Next;

    /// Pictures that were cut short or damaged.
    fn broken(&self) -> u64;
}

/// Tells a capture thread to stop, wherever it waits.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_set: bool,
    /// The connections that are then shut down.
    agent: Option<ureq::Agent>,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn is_set(&self) -> bool {
        self.lock().is_set
    }

    pub fn set(&self) {
        let agent = {
            let mut state = self.lock();
            state.is_set = true;
            state.agent.take()
        };
        self.0.changed.notify_all();
        if let Some(agent) = agent {
            agent.shutdown();
        }
    }

    /// Lets [`set`](Self::set) shut down these connections too, instead of those named before.
    pub fn shuts_down(&self, agent: &ureq::Agent) {
        let mut state = self.lock();
        match state.is_set {
            true => {
                drop(state);
                agent.clone().shutdown();
            }
            false => state.agent = Some(agent.clone()),
        }
    }

    /// Waits, but not when it is set.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.is_set {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}
