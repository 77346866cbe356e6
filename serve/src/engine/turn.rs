//! Whose turn it is to compute: an engine and a camera loop share the cores, and two pools of threads at once would
//! only be in each other's way.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Lets one at a time compute, in the order in which they came; clones are of the same one.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tickets: Mutex<Tickets>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    called: u64,
}

impl Turn {
    /// Waits for its turn, computes, and lets the next one go on.
    pub fn take<T>(&self, compute: impl FnOnce() -> T) -> T {
        let mut tickets = self.0.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = tickets.next;
        tickets.next += 1;
        while tickets.called != mine {
            tickets = self.0.called.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        drop(tickets);
        let _done = Done(&self.0);
        compute()
    }
}

impl palmtop_watch::look::Turns for Turn {
    fn take(&self, compute: &mut dyn FnMut()) {
        Turn::take(self, compute);
    }
}

/// Calls the next one, even if this one panicked.
struct Done<'a>(&'a Inner);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.tickets.lock().unwrap_or_else(PoisonError::into_inner).called += 1;
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_computes_at_a_time_and_nobody_starves() {
        let (turn, busy, done) = (Turn::default(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        turn.take(|| {
                            assert!(!busy.swap(true, Ordering::SeqCst));
                            std::thread::yield_now();
                            busy.store(false, Ordering::SeqCst);
                            done.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 600);
    }

    #[test]
    fn a_panic_does_not_stop_the_others() {
        let turn = Turn::default();
        let other = turn.clone();
        assert!(std::thread::spawn(move || other.take(|| panic!("as it may be"))).join().is_err());
        assert_eq!(turn.take(|| 1), 1);
    }
}
