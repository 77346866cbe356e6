//! What a watch tells, as C takes it: one record at a time, whose strings stay until the next one.

use std::ffi::c_char;
use std::time::{Duration, SystemTime};

use ::palmtop_watch::record::{Line, Moment, ObjectRecord, Phase, Record};
use ::palmtop_watch::watcher::Exposure;

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, PALMTOP_INTERNAL, PALMTOP_NOT_FOUND, Result, call, palmtop_status};
use crate::result::{give_mask, no_mask, palmtop_mask, palmtop_object, with_zero};
use crate::watch::{WATCHES, WatchState, palmtop_watch};

pub const PALMTOP_RECORD_ANSWER: i32 = 1;
pub const PALMTOP_RECORD_EVENT: i32 = 2;

pub const PALMTOP_EVENT_BEGINS: i32 = 1;
pub const PALMTOP_EVENT_ENDS: i32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_record {
    pub size: usize,
    pub kind: i32,
    pub phase: i32,
    pub picture: u64,
    pub time_ns: u64,
    pub since_start_ns: u64,
    pub unix_ns: u64,
    pub latency_ns: u64,
    pub lasted_ns: u64,
    pub camera: *const c_char,
    pub question: *const c_char,
    pub rule: *const c_char,
    pub id: *const c_char,
    pub text: *const c_char,
    pub text_length: usize,
    pub label: *const c_char,
    pub track: u64,
    pub object_count: usize,
    pub score: f32,
    pub changed: u32,
}

// SAFETY: numbers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_record {
    const NAME: &'static str = "palmtop_record";
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// A record that has not been taken yet.
pub(crate) struct Waiting {
    pub record: Record,
    /// When its picture was taken, on the library's clock.
    time_ns: u64,
    /// From then until it was told.
    latency: Duration,
}

impl Waiting {
    pub fn new(record: Record, exposure: &Exposure) -> Self {
        let time_ns = crate::clock_ns(exposure.taken);
        Self { record, time_ns, latency: exposure.counts_from.elapsed() }
    }
}

/// The record that was taken last. Its strings end with a zero, and lie where they are until it is dropped.
pub(crate) struct Current {
    waiting: Waiting,
    camera: Vec<u8>,
    question: Vec<u8>,
    rule: Vec<u8>,
    id: Vec<u8>,
    text: Vec<u8>,
    label: Vec<u8>,
    labels: Vec<Vec<u8>>,
    /// Made when it is asked for.
    json: Option<Vec<u8>>,
}

impl Current {
    fn new(waiting: Waiting) -> Self {
        let (camera, question, text) = match &waiting.record {
            Record::Answer(answer) => (&answer.camera, &*answer.question, &*answer.text),
            Record::Event(event) => (&event.camera, &*event.question, &*event.text),
            Record::Camera(camera) => (&camera.camera, "", ""),
        };
        let (rule, id, label) = match &waiting.record {
            Record::Event(event) => (&*event.rule, &*event.id, event.label.as_deref().unwrap_or_default()),
            Record::Answer(_) | Record::Camera(_) => ("", "", ""),
        };
        let labels = waiting.record.objects().iter().map(|object| with_zero(&object.label)).collect();
        Self {
            camera: with_zero(camera),
            question: with_zero(question),
            rule: with_zero(rule),
            id: with_zero(id),
            text: with_zero(text),
            label: with_zero(label),
            labels,
            json: None,
            waiting,
        }
    }

    /// As C has it, with addresses in this record.
    fn value(&self) -> palmtop_record {
        let ns = |time: Duration| time.as_nanos() as u64;
        let unix = |at: &Moment| at.wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ns);
        let mut value = palmtop_record {
            size: 0,
            kind: 0,
            phase: 0,
            picture: 0,
            time_ns: self.waiting.time_ns,
            since_start_ns: 0,
            unix_ns: 0,
            latency_ns: ns(self.waiting.latency),
            lasted_ns: 0,
            camera: self.camera.as_ptr().cast(),
            question: self.question.as_ptr().cast(),
            rule: self.rule.as_ptr().cast(),
            id: self.id.as_ptr().cast(),
            text: self.text.as_ptr().cast(),
            text_length: self.text.len() - 1,
            label: self.label.as_ptr().cast(),
            track: 0,
            object_count: self.labels.len(),
            score: -1.0,
            changed: 0,
        };
        match &self.waiting.record {
            Record::Answer(answer) => {
                value.kind = PALMTOP_RECORD_ANSWER;
                (value.picture, value.latency_ns) = (answer.picture, ns(answer.latency));
                (value.since_start_ns, value.unix_ns) = (ns(answer.at.since_start), unix(&answer.at));
                (value.score, value.changed) = (answer.score.unwrap_or(-1.0), u32::from(answer.changed));
            }
            Record::Event(event) => {
                value.kind = PALMTOP_RECORD_EVENT;
                value.phase = match event.phase {
                    Phase::Begin => PALMTOP_EVENT_BEGINS,
                    Phase::End => PALMTOP_EVENT_ENDS,
                };
                (value.picture, value.track) = (event.picture, event.track.unwrap_or(0));
                (value.since_start_ns, value.unix_ns) = (ns(event.at.since_start), unix(&event.at));
                (value.lasted_ns, value.changed) = (event.lasted.map_or(0, ns), 1);
            }
            // Only a loop that captures tells of cameras.
            Record::Camera(_) => {}
        }
        value
    }

    fn object(&self, index: usize) -> Result<(&ObjectRecord, &[u8])> {
        let objects = self.waiting.record.objects();
        objects.get(index).zip(self.labels.get(index).map(Vec::as_slice)).ok_or_else(|| {
            let count = objects.len();
            not_found(format!("there is no object {index}: the record has {count}, from 0 on"))
        })
    }
}

fn not_found(message: impl Into<String>) -> Failure {
    Failure::new(PALMTOP_NOT_FOUND, message)
}

impl WatchState {
    fn taken(&mut self) -> Result<&mut Current> {
        let none = || not_found("no record has been taken since the last frame: use palmtop_watch_next");
        self.current.as_deref_mut().ok_or_else(none)
    }
}

/// # Safety
/// `record` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_next(
    watch: palmtop_watch,
    record: *mut palmtop_record,
) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        // A record that has no place is not taken.
        // SAFETY: as this function's.
        unsafe { arguments::check(record)? };
        let mut state = entry.lock()?;
        state.current = None;
        let next = state.take().ok_or_else(|| not_found("no record waits: give the watch a frame"))?;
        let current = Box::new(Current::new(next));
        // SAFETY: as this function's.
        unsafe { arguments::give(record, current.value())? };
        state.current = Some(current);
        Ok(())
    })
}

/// # Safety
/// `object` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_get_object(
    watch: palmtop_watch,
    index: usize,
    object: *mut palmtop_object,
) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        let mut state = entry.lock()?;
        let (found, label) = state.taken()?.object(index)?;
        let value = palmtop_object::new(&found.detection, label, found.track);
        // SAFETY: as this function's.
        unsafe { arguments::give(object, value) }
    })
}

/// # Safety
/// `mask` is null, or can be written as far as its size; `pixels` is null, or has `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_get_mask(
    watch: palmtop_watch,
    index: usize,
    mask: *mut palmtop_mask,
    pixels: *mut u8,
    bytes: usize,
) -> palmtop_status {
    call(|| {
        let entry = WATCHES.get(watch.id)?;
        let mut state = entry.lock()?;
        let detection = &state.taken()?.object(index)?.0.detection;
        let pasted = detection.mask.as_ref().ok_or_else(|| no_mask(detection))?;
        // SAFETY: as this function's.
        unsafe { give_mask(pasted, mask, pixels, bytes) }
    })
}

/// # Safety
/// `json` and `length` are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_watch_record_json(
    watch: palmtop_watch,
    json: *mut *const c_char,
    length: *mut usize,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out, out_length) =
            unsafe { (Out::new("json", json, std::ptr::null())?, Out::new("length", length, 0)?) };
        let entry = WATCHES.get(watch.id)?;
        let mut state = entry.lock()?;
        let current = state.taken()?;
        if current.json.is_none() {
            let line = serde_json::to_string(&Line::from(&current.waiting.record));
            let line = line.map_err(|error| Failure::new(PALMTOP_INTERNAL, error.to_string()))?;
            current.json = Some(with_zero(&line));
        }
        if let Some(line) = &current.json {
            out.give(line.as_ptr().cast());
            out_length.give(line.len() - 1);
        }
        Ok(())
    })
}
