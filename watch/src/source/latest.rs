//! A place for one picture, between a thread that captures and a loop that looks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::bell::Bell;
use crate::stream::Layout;

/// A captured picture.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How they lie.
    pub layout: Layout,
    /// Counts the pictures of its source from 0 on, those that nobody took included.
    pub number: u64,
    /// When it was exposed, as far as that is known, or else when it came; on a clock that never jumps.
    pub taken: Instant,
    /// The same by the clock on the wall.
    pub wall: SystemTime,
}

/// Sees pictures as they are captured, beside the loop and before it: for somebody who looks on.
pub trait Tap: Send + Sync {
    /// Sees a picture. Capture waits for it: it should copy at most.
    fn see(&self, bytes: &[u8], layout: Layout, taken: Instant, wall: SystemTime);
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nobody: an older picture that was not taken is dropped for a newer one.
    Live,
    /// Capture waits until each picture was taken.
    Every,
}

/// What a [`Latest`] gives.
#[derive(Debug)]
pub enum Taken {
    /// The newest picture.
    Shot(Shot),
    /// None came in time.
    Nothing,
    /// None will come any more.
    End,
}

/// The newest picture of a source. Three buffers go round: one is filled, one lies here, one is looked at.
pub struct Latest {
    state: Mutex<State>,
    changed: Condvar,
    bell: Bell,
    tap: Mutex<Option<Arc<dyn Tap>>>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    newest: Option<Shot>,
    spare: Vec<Vec<u8>>,
    came: u64,
    dropped: u64,
    has_ended: bool,
    is_closed: bool,
}

impl Latest {
    /// A place for pictures. The bell rings when there is something to take.
    pub fn new(pace: Pace, bell: Bell) -> Self {
        let state = State {
            pace,
            newest: None,
            spare: Vec::new(),
            came: 0,
            dropped: 0,
            has_ended: false,
            is_closed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), bell, tap: Mutex::default() }
    }

    /// Lets somebody see all pictures from now on.
    pub fn set_tap(&self, tap: Arc<dyn Tap>) {
        *self.tap.lock().unwrap_or_else(|e| e.into_inner()) = Some(tap);
    }

    /// Lets pictures come at another pace from now on.
    pub fn set_pace(&self, pace: Pace) {
        self.lock().pace = pace;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole whenever the lock is free.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Hands a picture over; gives a buffer for the next one, or `None` if nobody wants more.
    pub fn put(&self, bytes: Vec<u8>, layout: Layout, taken: Instant, wall: SystemTime) -> Option<Vec<u8>> {
        if let Some(tap) = self.tap.lock().unwrap_or_else(|e| e.into_inner()).as_deref() {
            tap.see(&bytes, layout, taken, wall);
        }
        let mut state = self.lock();
        while state.pace == Pace::Every && state.newest.is_some() && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        if state.is_closed {
            return None;
        }
        let number = state.came;
        state.came += 1;
        let older = state.newest.replace(Shot { bytes, layout, number, taken, wall });
        let buffer = match older {
            Some(older) => {
                state.dropped += 1;
                older.bytes
            }
            None => state.spare.pop().unwrap_or_default(),
        };
        drop(state);
        self.changed.notify_all();
        self.bell.ring();
        Some(buffer)
    }

    /// So many pictures came and were dropped before they were copied.
    pub fn pass_over(&self, pictures: u64) {
        let mut state = self.lock();
        state.came += pictures;
        state.dropped += pictures;
    }

    /// No picture will come any more; what lies here can still be taken.
    pub fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
        self.bell.ring();
    }

    /// Nobody will take a picture any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The newest picture, or the next one within `wait`. `spare` is the buffer of one that was looked at.
    pub fn take(&self, spare: Option<Vec<u8>>, wait: Duration) -> Taken {
        let mut state = self.lock();
        state.spare.extend(spare);
        let waits = |state: &mut State| state.newest.is_none() && !state.has_ended;
        let waited = self.changed.wait_timeout_while(state, wait, waits);
        let (mut state, _) = waited.unwrap_or_else(|e| e.into_inner());
        match state.newest.take() {
            Some(shot) => {
                self.changed.notify_all();
                Taken::Shot(shot)
            }
            None if state.has_ended => Taken::End,
            None => Taken::Nothing,
        }
    }

    /// How many pictures came, and how many of them were dropped for newer ones.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.came, state.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(latest: &Latest, byte: u8, mut buffer: Vec<u8>) -> Option<Vec<u8>> {
        buffer.clear();
        buffer.push(byte);
        latest.put(buffer, Layout::Encoded, Instant::now(), SystemTime::now())
    }

    fn byte(taken: Taken) -> Option<(u64, u8)> {
        match taken {
            Taken::Shot(shot) => Some((shot.number, shot.bytes[0])),
            Taken::Nothing | Taken::End => None,
        }
    }

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_newest_picture_wins_and_the_others_are_counted() {
        let latest = Latest::new(Pace::Live, Bell::default());
        let mut buffer = Vec::with_capacity(10);
        for n in 0..5 {
            buffer = put(&latest, n, buffer).unwrap();
        }
        assert_eq!(byte(latest.take(None, NOW)), Some((4, 4)));
        assert_eq!(latest.counts(), (5, 4));
        assert!(matches!(latest.take(None, NOW), Taken::Nothing));
        put(&latest, 9, buffer).unwrap();
        latest.end();
        assert_eq!(byte(latest.take(None, NOW)), Some((5, 9)));
        assert!(matches!(latest.take(None, LONG), Taken::End));
    }

    #[test]
    fn buffers_go_round() {
        let latest = Latest::new(Pace::Live, Bell::default());
        let mut buffer = Vec::with_capacity(100);
        let mut spare = None;
        let mut places = std::collections::BTreeSet::new();
        for n in 0..100 {
            // By then each has been filled once.
            if n > 10 {
                places.insert(buffer.as_ptr() as usize);
            }
            buffer = put(&latest, n, buffer).unwrap();
            buffer.reserve(100);
            if n % 3 == 0 {
                let Taken::Shot(shot) = latest.take(spare.take(), NOW) else { panic!("one lies there") };
                spare = Some(shot.bytes);
            }
        }
        assert!(places.len() <= 3, "{} buffers", places.len());
    }

    #[test]
    fn a_film_loses_no_picture() {
        let latest = Latest::new(Pace::Every, Bell::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                for n in 0..200 {
                    buffer = put(&latest, n, buffer).unwrap();
                }
                latest.end();
            });
            let mut spare = None;
            for n in 0..200 {
                let Taken::Shot(shot) = latest.take(spare.take(), LONG) else {
                    panic!("picture {n} is missing")
                };
                assert_eq!((shot.number, shot.bytes[0]), (u64::from(n), n));
                spare = Some(shot.bytes);
            }
            assert!(matches!(latest.take(None, LONG), Taken::End));
        });
        assert_eq!(latest.counts(), (200, 0));
    }

    #[test]
    fn somebody_who_looks_on_sees_what_the_loop_does_not() {
        struct Seen(Mutex<Vec<u8>>);
        impl Tap for Seen {
            fn see(&self, bytes: &[u8], layout: Layout, _: Instant, _: SystemTime) {
                assert_eq!(layout, Layout::Encoded);
                self.0.lock().unwrap().extend(bytes);
            }
        }
        let latest = Latest::new(Pace::Live, Bell::default());
        let seen = Arc::new(Seen(Mutex::default()));
        put(&latest, 0, Vec::new());
        latest.set_tap(seen.clone());
        (1..4).for_each(|n| _ = put(&latest, n, Vec::new()));
        assert_eq!(byte(latest.take(None, NOW)), Some((3, 3)));
        assert_eq!(*seen.0.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn capture_ends_when_nobody_looks_any_more() {
        let latest = Latest::new(Pace::Every, Bell::default());
        put(&latest, 0, Vec::new()).unwrap();
        std::thread::scope(|scope| {
            let capture = scope.spawn(|| put(&latest, 1, Vec::new()));
            latest.close();
            assert!(capture.join().unwrap().is_none());
        });
    }

    #[test]
    fn a_bell_of_several_rings_for_pictures_and_ends() {
        let bell = Bell::default();
        let [door, yard] = [(); 2].map(|()| Latest::new(Pace::Live, bell.clone()));
        put(&door, 0, Vec::new()).unwrap();
        assert!(bell.wait(LONG));
        put(&yard, 1, Vec::new()).unwrap();
        assert!(bell.wait(LONG));
        assert_eq!((byte(door.take(None, NOW)), byte(yard.take(None, NOW))), (Some((0, 0)), Some((0, 1))));
        assert!(!bell.wait(NOW), "nothing is new");
        yard.end();
        assert!(bell.wait(LONG));
    }
}
