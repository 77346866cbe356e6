//! What wakes a loop that waits for several captures at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bell: captures ring it when there is something to take, and a loop over them sleeps until then. Clones are the
/// same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    has_rung: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.has_rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits, or waits next.
    pub fn ring(&self) {
        *self.lock() = true;
        self.0.rung.notify_all();
    }

    /// Waits until it rings, but no longer than this. If it rang since the last call, returns at once. True if it rang.
    pub fn wait(&self, time: Duration) -> bool {
        let waited = self.0.rung.wait_timeout_while(self.lock(), time, |has_rung| !*has_rung);
        let (mut has_rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *has_rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_ring_before_the_wait_is_heard_once() {
        let bell = Bell::default();
        assert!(!bell.wait(Duration::ZERO));
        bell.ring();
        bell.clone().ring();
        assert!(bell.wait(LONG));
        assert!(!bell.wait(Duration::ZERO));
    }

    #[test]
    fn any_clone_wakes_who_waits() {
        let bell = Bell::default();
        for _ in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| bell.clone().ring());
                assert!(bell.wait(LONG));
            });
        }
    }
}
