//! A bounded queue in front of each sink, and the thread that empties it: nothing that a receiver does holds up the
//! loop.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::end::End;
use super::health::Health;
use super::interest::Interest;
use super::{Message, Sink};
use crate::record::Record;

/// How long before the outbox a sink must be done.
const MARGIN: Duration = Duration::from_millis(50);

/// What may wait for a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Records.
    pub messages: usize,
    /// Bytes of pictures, as pixels. One picture may always wait, whatever its size.
    pub picture_bytes: usize,
}

impl Default for Bound {
    /// 256 records, 64 MiB of pictures.
    fn default() -> Self {
        Self { messages: 256, picture_bytes: 64 << 20 }
    }
}

/// What became of the records that a sink was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The sink delivered them, or took them over.
    pub sent: u64,
    /// The sink could not deliver them.
    pub failed: u64,
    /// They were dropped: the queue was full, or the sink is no more.
    pub dropped: u64,
}

/// A sink behind its queue.
pub struct Outbox {
    name: String,
    interest: Interest,
    bound: Bound,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    end: Arc<End>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Message>>,
    /// Of the pictures that wait.
    picture_bytes: usize,
    counts: Counts,
    health: Health,
    /// A record is with the sink.
    is_sending: bool,
    /// Nothing is taken any more.
    is_closed: bool,
    /// The thread is at its end.
    is_over: bool,
    /// What the sink still held when it ended, and lost.
    lost_at_end: u64,
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_oldest(&mut self) -> Option<Arc<Message>> {
        let message = self.waiting.pop_front()?;
        self.picture_bytes -= picture_bytes(&message);
        Some(message)
    }
}

fn picture_bytes(message: &Message) -> usize {
    message.picture.as_ref().map_or(0, |picture| picture.picture().data().len())
}

impl Outbox {
    /// Starts the sink's thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut sink: Box<dyn Sink>, bound: Bound) -> std::io::Result<Self> {
        let (name, interest) = (sink.name(), sink.interest());
        let shared = Arc::new(Shared::default());
        sink.attach(Arc::clone(&shared.end));
        let thread = (Arc::clone(&shared), name.clone());
        thread::Builder::new().name("palmtop-sink".into()).spawn(move || {
            let (shared, name) = thread;
            // The sink goes with the closure, so that a panic of its destructor is caught as well.
            let ended = catch_unwind(AssertUnwindSafe(|| work(sink, &shared, &name)));
            let mut state = shared.locked();
            if ended.is_err() {
                log::error!("{name}: broke down, and gets no more records; please report this");
                let lost = state.waiting.len() as u64;
                (state.counts.failed, state.counts.dropped) =
                    (state.counts.failed + u64::from(state.is_sending), state.counts.dropped + lost);
                state.lost_at_end = lost + u64::from(state.is_sending);
                state.waiting.clear();
                (state.picture_bytes, state.is_sending, state.is_closed) = (0, false, true);
            }
            state.is_over = true;
            shared.changed.notify_all();
        })?;
        Ok(Self { name, interest, bound, shared })
    }

    /// What the sink is called in notes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the sink wants records like this one.
    pub fn wants(&self, record: &Record) -> bool {
        self.interest.records.has(record)
    }

    /// Whether the sink wants the picture of a record like this one.
    pub fn wants_picture(&self, record: &Record) -> bool {
        self.interest.in_picture(record)
    }

    /// Puts a record behind those that wait, if the sink wants it. Never waits itself: if too many do, the oldest are
    /// dropped.
    pub fn offer(&self, message: Arc<Message>) {
        if !self.wants(&message.record) {
            return;
        }
        let mut state = self.shared.locked();
        if state.is_closed {
            state.counts.dropped += 1;
            return;
        }
        let bytes = picture_bytes(&message);
        let mut dropped = 0;
        while state.waiting.len() >= self.bound.messages.max(1)
            || (!state.waiting.is_empty()
                && bytes > 0
                && state.picture_bytes + bytes > self.bound.picture_bytes)
        {
            state.take_oldest();
            dropped += 1;
        }
        state.waiting.push_back(message);
        state.picture_bytes += bytes;
        state.counts.dropped += dropped;
        let begins = dropped > 0 && state.health.loses(dropped);
        drop(state);
        self.shared.changed.notify_all();
        if begins {
            log::warn!(
                "{}: records come faster than they are delivered, and the oldest are dropped",
                self.name
            );
        }
    }

    /// What became of the records so far. Those that wait are in none of these.
    pub fn counts(&self) -> Counts {
        self.shared.locked().counts
    }

    /// Says that [`finish`](Self::finish) will come with this deadline, and nothing more to deliver: so that several
    /// sinks end at once, and not one after the other. A later call may give a sooner one.
    pub fn close(&self, deadline: Instant) {
        // What the sink says at its deadline must still be heard.
        let margin = deadline.saturating_duration_since(Instant::now()) / 8;
        self.shared.end.set(deadline.checked_sub(margin.min(MARGIN)).unwrap_or(deadline));
        self.shared.locked().is_closed = true;
        self.shared.changed.notify_all();
    }

    /// True when the sink has ended, after [`close`](Self::close) or by breaking down.
    pub fn is_over(&self) -> bool {
        self.shared.locked().is_over
    }

    /// Delivers what waits, until the deadline, and ends. A sink that is not done by then is left behind with what it
    /// has. Gives the number of records that were lost by ending.
    pub fn finish(self, deadline: Instant) -> u64 {
        self.close(deadline);
        let mut state = self.shared.locked();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let left = state.waiting.len() as u64 + u64::from(state.is_sending);
        // Nobody has them any more: a sink that is stuck must not deliver them later.
        state.waiting.clear();
        state.picture_bytes = 0;
        state.lost_at_end + left
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // Without `finish` nothing is waited for, and what waits is lost; after it this changes nothing.
        self.shared.end.set(self.shared.end.deadline().unwrap_or_else(Instant::now));
        let mut state = self.shared.locked();
        state.is_closed = true;
        state.waiting.clear();
        self.shared.changed.notify_all();
    }
}

/// Gives the sink what waits, until the end.
fn work(mut sink: Box<dyn Sink>, shared: &Shared, name: &str) {
    let mut state = shared.locked();
    loop {
        while state.waiting.is_empty() && !state.is_closed {
            state = shared.wait(state);
        }
        if shared.end.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let Some(message) = state.take_oldest() else { break };
        state.is_sending = true;
        drop(state);
        let result = sink.send(&message);
        drop(message);
        state = shared.locked();
        state.is_sending = false;
        match result {
            Ok(()) => {
                state.counts.sent += 1;
                let well = if state.waiting.is_empty() { state.health.delivers() } else { None };
                if let Some(lost) = well {
                    log::warn!(
                        "{name}: is well again; {lost} {} lost",
                        if lost == 1 { "record was" } else { "records were" }
                    );
                }
            }
            Err(error) => {
                state.counts.failed += 1;
                if state.health.loses(1) {
                    log::warn!("{name}: {error}");
                }
            }
        }
    }
    drop(state);
    let deadline = shared.end.deadline().unwrap_or_else(|| Instant::now() + Duration::from_millis(1));
    let lost = sink.finish(deadline);
    shared.locked().lost_at_end += lost;
}
