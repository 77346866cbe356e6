//! The end of a sink: its deadline reaches those who wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a sink must be done at the latest. The loop sets it once; pauses and time limits of the sink heed it.
#[derive(Debug, Default)]
pub struct End {
    deadline: Mutex<Option<Instant>>,
    set: Condvar,
}

impl End {
    /// Not in sight.
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that it must be done by then, and wakes whoever pauses.
    pub fn set(&self, deadline: Instant) {
        *self.locked() = Some(deadline);
        self.set.notify_all();
    }

    /// The deadline, if it has been set.
    pub fn deadline(&self) -> Option<Instant> {
        *self.locked()
    }

    /// This much time, or what is left if that is less.
    pub fn within(&self, time: Duration) -> Duration {
        match self.deadline() {
            Some(deadline) => time.min(deadline.saturating_duration_since(Instant::now())),
            None => time,
        }
    }

    /// Waits. False, as soon as it is known, if the deadline is before the end of the pause.
    pub fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut deadline = self.locked();
        loop {
            let now = Instant::now();
            match *deadline {
                Some(deadline) if deadline < until => return false,
                _ if now >= until => return true,
                _ => {}
            }
            deadline = self.set.wait_timeout(deadline, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
