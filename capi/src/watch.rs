//! The perception loop over frames of the caller.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use ::palmtop_watch::command::Command;
use ::palmtop_watch::frames::{FrameOptions, FrameWatch, FramesError, PreparedFrames};
use ::palmtop_watch::record::Record;
use ::palmtop_watch::watcher::Exposure;
use palmtop::{CancelToken, Error};

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, Result, call, palmtop_status};
use crate::handles::handle;
use crate::model::{MODELS, palmtop_model, palmtop_plan};
use crate::picture::{self, NO_PIXELS, palmtop_pixels};
use crate::record::{Current, Waiting};
use crate::session::{self, DEFAULT_SESSION_OPTIONS, palmtop_session_options, try_lock};

handle!(palmtop_watch, WATCHES: WatchEntry, 6, "watch");

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_watch_options {
    pub size: usize,
    pub session: *const palmtop_session_options,
    pub all_answers: u32,
    pub recording: u32,
}

// SAFETY: integers and an address, the first a `usize`.
unsafe impl Versioned for palmtop_watch_options {
    const NAME: &'static str = "palmtop_watch_options";
    const FIRST_BYTES: usize = size_of::<Self>();
}

const DEFAULT_WATCH_OPTIONS: palmtop_watch_options = palmtop_watch_options {
    size: size_of::<palmtop_watch_options>(),
    session: std::ptr::null(),
    all_answers: 0,
    recording: 0,
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_watch_report {
    pub size: usize,
    pub records: usize,
    pub encoded: u32,
    pub answers: u32,
    pub late: u32,
    pub spared: u32,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_watch_report {
    const NAME: &'static str = "palmtop_watch_report";
    const FIRST_BYTES: usize = size_of::<Self>();
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_watch_counts {
    pub size: usize,
    pub pictures: u64,
    pub not_looked: u64,
    pub still: u64,
    pub encoded: u64,
    pub same: u64,
    pub answers: u64,
    pub spared: u64,
    pub late: u64,
    pub tokens: u64,
    pub drafted: u64,
    pub events: u64,
    pub records_lost: u64,
    pub latency_p50_ns: u64,
    pub latency_p95_ns: u64,
    pub latency_p99_ns: u64,
    pub latency_max_ns: u64,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_watch_counts {
    const NAME: &'static str = "palmtop_watch_counts";
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// A watch and what stops it.
pub(crate) struct WatchEntry {
    cancel: CancelToken,
    state: Mutex<WatchState>,
}

/// What one call at a time uses.
pub(crate) struct WatchState {
    watch: FrameWatch,
    waiting: Inbox,
    /// The record that was taken last, with the memory that its strings are in.
    pub current: Option<Box<Current>>,
}

impl WatchEntry {
    /// The watch for the time of a call, if nobody else has it.
    pub fn lock(&self) -> Result<MutexGuard<'_, WatchState>> {
        try_lock(self.state.try_lock(), "watch")
    }
}

impl WatchState {
    /// The oldest record that waits.
    pub fn take(&mut self) -> Option<Waiting> {
        self.waiting.records.pop_front()
    }
}

/// Records that wait to be taken.
#[derive(Default)]
struct Inbox {
    records: VecDeque<Waiting>,
    lost: u64,
}

/// No more records wait: then the oldest is lost, and counted.
const RECORDS_MAX: usize = 1024;

impl Inbox {
    fn put(&mut self, record: Record, exposure: &Exposure) {
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
            self.lost += 1;
        }
        self.records.push_back(Waiting::new(record, exposure));
    }
}

impl From<FramesError> for Failure {
    fn from(error: FramesError) -> Self {
        match error {
            FramesError::Model(Error::Cancelled) => {
                let message = "the look was cancelled: use palmtop_watch_reset_cancel before the next frame";
                Self { message: message.to_owned(), ..Error::Cancelled.into() }
            }
            FramesError::Model(error) => error.into(),
            other => Self::argument(other.to_string()),
        }
    }
}

/// Checks a configuration and the options, and gives what the threads are to be like.
///
/// # Safety
/// `questions` is null or a text; `options` is null, or can be read as far as its size, and so can what it points to.
unsafe fn prepared(
    model: &palmtop::Model,
    questions: *const c_char,
    options: *const palmtop_watch_options,
) -> Result<(PreparedFrames, palmtop::ThreadHints)> {
    // SAFETY: as this function's.
    let (text, options, session) = unsafe {
        let options = arguments::options(options, DEFAULT_WATCH_OPTIONS)?;
        let session = arguments::options(options.session, DEFAULT_SESSION_OPTIONS)?;
        (arguments::text("the configuration", questions)?, options, session)
    };
    // SAFETY: as this function's.
    let hints = unsafe { session::hints(&session)? };
    let mut limits = session::limits(&session)?;
    // A question is about one frame.
    limits.pictures = 1;
    let how = FrameOptions { all_answers: options.all_answers != 0, recording: options.recording != 0 };
    Ok((PreparedFrames::new(model, text, &limits, how)?, hints))
}

/// # Safety
/// `options` is null, or can be written as far as `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_options_init(
    options: *mut palmtop_watch_options,
    size: usize,
) -> palmtop_status {
    // SAFETY: as this function's.
    call(|| unsafe { arguments::init(options, size, DEFAULT_WATCH_OPTIONS) })
}

/// # Safety
/// As [`palmtop_watch_new`], but `plan` is null, or can be written as far as its size, and `gate_bytes` is null or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_plan(
    model: palmtop_model,
    questions: *const c_char,
    options: *const palmtop_watch_options,
    plan: *mut palmtop_plan,
    gate_bytes: *mut u64,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("gate_bytes", gate_bytes, 0)? };
        let model = MODELS.get(model.id)?;
        // SAFETY: as this function's.
        let (prepared, _) = unsafe { prepared(&model, questions, options)? };
        let (planned, gates) = prepared.plan(&model)?;
        // SAFETY: as this function's.
        unsafe { arguments::give(plan, palmtop_plan::from(&planned))? };
        out.give(gates as u64);
        Ok(())
    })
}

/// # Safety
/// `questions` is null or a text. `options` is null, or can be read as far as its size; its session options are null,
/// or as [`palmtop_session_new`](crate::palmtop_session_new) wants them. `watch` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_new(
    model: palmtop_model,
    questions: *const c_char,
    options: *const palmtop_watch_options,
    watch: *mut palmtop_watch,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("watch", watch, palmtop_watch::default())? };
        let model = MODELS.get(model.id)?;
        // SAFETY: as this function's.
        let (prepared, hints) = unsafe { prepared(&model, questions, options)? };
        let cancel = CancelToken::default();
        let watch = FrameWatch::new(&model, prepared, &hints, &cancel)?;
        let state = Mutex::new(WatchState { watch, waiting: Inbox::default(), current: None });
        out.give(palmtop_watch { id: WATCHES.insert(Arc::new(WatchEntry { cancel, state }))? });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_watch_free(watch: palmtop_watch) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        match entry.state.try_lock() {
            Err(TryLockError::WouldBlock) => entry.lock().map(drop)?,
            // One with a defect can be freed too.
            Ok(_) | Err(TryLockError::Poisoned(_)) => {}
        }
        WATCHES.remove(watch.id).map(drop)
    })
}

/// # Safety
/// `pixels` is null, or can be read as far as its size; each of its planes is null, or has its bytes, and they do not
/// change during the call. `report` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_frame(
    watch: palmtop_watch,
    camera: u32,
    pixels: *const palmtop_pixels,
    time_ns: u64,
    report: *mut palmtop_watch_report,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let frame = unsafe { picture::frame(&arguments::required(pixels, NO_PIXELS)?)? };
        // Nothing is looked at if the report has no place.
        // SAFETY: as this function's.
        unsafe { give_report(report, NO_REPORT)? };
        let entry = WATCHES.get(watch.id)?;
        let state = &mut *entry.lock()?;
        state.current = None;
        let told = |counts: &::palmtop_watch::watcher::Counts| {
            [counts.encoded, counts.answers, counts.late, counts.spared]
        };
        let before = told(state.watch.counts());
        let WatchState { watch, waiting, .. } = state;
        let taken = crate::instant(time_ns);
        let looked = watch.frame(camera as usize, &frame, taken, &mut |record, at| waiting.put(record, at));
        let after = told(watch.counts());
        let [encoded, answers, late, spared] = std::array::from_fn(|i| (after[i] - before[i]) as u32);
        let records = waiting.records.len();
        let value = palmtop_watch_report { records, encoded, answers, late, spared, ..NO_REPORT };
        // SAFETY: as this function's.
        unsafe { give_report(report, value)? };
        Ok(looked?)
    })
}

const NO_REPORT: palmtop_watch_report =
    palmtop_watch_report { size: 0, records: 0, encoded: 0, answers: 0, late: 0, spared: 0 };

/// # Safety
/// `place` is null, or can be read and written as far as its size.
unsafe fn give_report(place: *mut palmtop_watch_report, report: palmtop_watch_report) -> Result<()> {
    match place.is_null() {
        true => Ok(()),
        // SAFETY: as this function's.
        false => unsafe { arguments::give(place, report) },
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_watch_end(watch: palmtop_watch) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        let state = &mut *entry.lock()?;
        state.current = None;
        let WatchState { watch, waiting, .. } = state;
        watch.end(&mut |record, at| waiting.put(record, at));
        Ok(())
    })
}

/// # Safety
/// `line` is null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_command(watch: palmtop_watch, line: *const c_char) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let line = unsafe { arguments::text("the command", line)? };
        let entry = WATCHES.get(watch.id)?;
        let command: Command = line.parse().map_err(|error| Failure::argument(format!("{error}")))?;
        Ok(entry.lock()?.watch.command(&command)?)
    })
}

/// # Safety
/// `question` and `prompt` are null or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_set_prompt(
    watch: palmtop_watch,
    question: *const c_char,
    prompt: *const c_char,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (question, prompt) =
            unsafe { (arguments::text("the question", question)?, arguments::text("the prompt", prompt)?) };
        let command = Command::Prompt { question: question.to_owned(), prompt: prompt.to_owned() };
        Ok(WATCHES.get(watch.id)?.lock()?.watch.command(&command)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_watch_cancel(watch: palmtop_watch) -> palmtop_status {
    call(|| {
        WATCHES.get(watch.id)?.cancel.cancel();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_watch_reset_cancel(watch: palmtop_watch) -> palmtop_status {
    call(|| {
        WATCHES.get(watch.id)?.cancel.reset();
        Ok(())
    })
}

/// # Safety
/// `counts` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_get_counts(
    watch: palmtop_watch,
    counts: *mut palmtop_watch_counts,
) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        let state = entry.lock()?;
        let now = state.watch.counts();
        let ns = |time: Duration| time.as_nanos() as u64;
        let percentile = |percent| now.latencies.percentile(percent).map_or(0, ns);
        let value = palmtop_watch_counts {
            size: 0,
            pictures: now.pictures,
            not_looked: now.not_looked,
            still: now.still,
            encoded: now.encoded,
            same: now.same,
            answers: now.answers,
            spared: now.spared,
            late: now.late,
            tokens: now.tokens,
            drafted: now.drafted,
            events: now.events,
            records_lost: state.waiting.lost,
            latency_p50_ns: percentile(50.0),
            latency_p95_ns: percentile(95.0),
            latency_p99_ns: percentile(99.0),
            latency_max_ns: ns(now.latencies.most()),
        };
        // SAFETY: as this function's.
        unsafe { arguments::give(counts, value) }
    })
}

#[cfg(test)]
mod tests {
    use ::palmtop_watch::record::{CameraRecord, CameraStatus, Moment};

    use super::*;

    #[test]
    fn records_that_nobody_takes_are_lost_from_the_oldest_on() {
        let mut inbox = Inbox::default();
        let exposure = Exposure::now(0);
        let at = Moment { since_start: Duration::ZERO, wall: exposure.wall };
        for number in 0..RECORDS_MAX + 3 {
            let camera = format!("{number}").into();
            let record =
                Record::Camera(CameraRecord { camera, at, status: CameraStatus::Running, why: None });
            inbox.put(record, &exposure);
        }
        assert_eq!((inbox.records.len(), inbox.lost), (RECORDS_MAX, 3));
        let Some(Record::Camera(oldest)) = inbox.records.pop_front().map(|waiting| waiting.record) else {
            panic!("there is one, and it is about a camera")
        };
        assert_eq!(&*oldest.camera, "3");
    }
}
