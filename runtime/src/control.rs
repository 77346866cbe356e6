//! Stopping a call from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};

/// Stops a call from another thread, within the time of a layer.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
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
    /// An error once the call is to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}
