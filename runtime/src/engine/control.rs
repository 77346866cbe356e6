//! Stopping a call from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};

/// Stops a call from another thread, within the time of a layer.
///
/// Clones are the same token. It stays cancelled, so that a stop which comes just before a call is not lost, until it
/// is [`reset`](Self::reset).
///
/// ```
/// use palmtop::{CancelToken, GenerateOptions};
///
/// let mut options = GenerateOptions::default();
/// let token = CancelToken::default();
/// options.cancel = token.clone();
/// // A button, on another thread: the session's call with these options gives `Error::Cancelled`.
/// std::thread::spawn(move || token.cancel()).join().unwrap();
/// assert!(options.cancel.is_cancelled());
/// options.cancel.reset();
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Forgets that a stop was asked for: calls work again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// True once a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a call stops before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    DeadlinePassed,
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

/// What an engine looks at between layers.
pub(crate) trait Watch {
    /// Why the call is to stop, if it is.
    fn stop(&self) -> Option<Stop>;

    /// An error once the call is to stop.
    fn check(&self) -> Result<()> {
        self.stop().map_or(Ok(()), |stop| Err(stop.into()))
    }
}

/// A cancellation or a deadline, whichever is seen first.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub cancel: &'a CancelToken,
    pub deadline: Option<Instant>,
}

impl Watch for Control<'_> {
    fn stop(&self) -> Option<Stop> {
        if self.cancel.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(Stop::DeadlinePassed)
    }
}
