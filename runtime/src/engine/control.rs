//! Stopping a call from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};

/// Stops a call from another thread, within the time of a layer.
///
/// Clones are the same token. It stays cancelled, so that a stop which comes just before a call is not lost, until it is
/// [`reset`](Self::reset).
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

/// What the graph looks at between layers.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub cancel: &'a CancelToken,
    pub deadline: Option<Instant>,
}

impl Control<'_> {
    /// True once the call is to stop.
    pub fn stops(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// An error once the call is to stop.
    pub fn check(&self) -> Result<()> {
        if self.stops() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
