//! Results: answers as text, tokens, boxes and masks.

use std::ffi::c_char;
use std::mem::offset_of;
use std::sync::Arc;

use palmtop::tasks::{BoxRounding, Detection, Mask, ReadOptions};
use palmtop::{Answer, Model, Request, StopReason};

use crate::arguments::{self, Versioned};
use crate::failure::{Failure, PALMTOP_NOT_FOUND, PALMTOP_TOO_SMALL, Result, call, palmtop_status};
use crate::handles::handle;

handle!(palmtop_result, RESULTS: ResultEntry, 4, "result");

pub const PALMTOP_STOP_END: i32 = 0;
pub const PALMTOP_STOP_LIMIT: i32 = 1;
pub const PALMTOP_STOP_CANCELLED: i32 = 2;
pub const PALMTOP_STOP_DEADLINE: i32 = 3;
pub const PALMTOP_STOP_CALLBACK: i32 = 4;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_answer_info {
    pub size: usize,
    pub text: *const c_char,
    pub text_length: usize,
    pub tokens: *const u32,
    pub probabilities: *const f32,
    pub token_count: usize,
    pub object_count: usize,
    pub prompt_tokens: u32,
    pub stop: i32,
    pub likelihood: f32,
    pub accepted_draft_tokens: u32,
}

// SAFETY: numbers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_answer_info {
    const NAME: &'static str = "palmtop_answer_info";
    const FIRST_BYTES: usize = size_of::<Self>();
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_object {
    pub size: usize,
    pub label: *const c_char,
    pub label_length: usize,
    pub score: f32,
    pub x_min: f32,
    pub y_min: f32,
    pub x_max: f32,
    pub y_max: f32,
    pub locations: [u16; 4],
    pub has_mask: u32,
    pub track: u64,
}

// SAFETY: numbers and an address, the first a `usize`.
unsafe impl Versioned for palmtop_object {
    const NAME: &'static str = "palmtop_object";
    const FIRST_BYTES: usize = offset_of!(Self, track);
}

impl palmtop_object {
    /// An object as C has it. `label` ends with a zero.
    pub(crate) fn new(found: &Detection, label: &[u8], track: Option<u64>) -> Self {
        let edges = found.bounding_box;
        Self {
            size: 0,
            label: label.as_ptr().cast(),
            label_length: label.len() - 1,
            score: found.score.unwrap_or(-1.0),
            x_min: edges.x_min,
            y_min: edges.y_min,
            x_max: edges.x_max,
            y_max: edges.y_max,
            locations: found.locations,
            has_mask: u32::from(found.mask_codes.is_some()),
            track: track.unwrap_or(0),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_mask {
    pub size: usize,
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
    pub area: u64,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_mask {
    const NAME: &'static str = "palmtop_mask";
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// The answers of a call.
pub(crate) struct ResultEntry {
    model: Arc<Model>,
    answers: Vec<AnswerEntry>,
}

struct AnswerEntry {
    /// Width and height of the first of the pictures that it is about.
    picture: (u32, u32),
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
    /// Ends with a zero.
    text: Vec<u8>,
    objects: Vec<ObjectEntry>,
    prompt_tokens: u32,
    likelihood: f32,
    accepted_draft_tokens: u32,
    stop: i32,
}

struct ObjectEntry {
    found: Detection,
    /// Ends with a zero.
    label: Vec<u8>,
}

impl ResultEntry {
    /// Copies answers to requests.
    pub fn new(model: Arc<Model>, answers: &[Answer], requests: &[Request<'_>]) -> Result<Self> {
        let entry = |(answer, request): (&Answer, &Request<'_>)| {
            let picture = request.pictures.first().map_or((0, 0), |features| features.picture_size());
            // Masks are decoded when they are asked for.
            let read = model.read_answer(answer, picture, &ReadOptions::default())?;
            let object = |found: Detection| ObjectEntry { label: with_zero(&found.label), found };
            Ok(AnswerEntry {
                picture,
                tokens: answer.tokens.clone(),
                probabilities: answer.probabilities.clone(),
                text: with_zero(&answer.text),
                objects: read.objects.into_iter().map(object).collect(),
                prompt_tokens: answer.prompt_tokens as u32,
                likelihood: answer.likelihood(),
                accepted_draft_tokens: answer.accepted_draft_tokens as u32,
                stop: match answer.stop {
                    StopReason::EndOfSequence => PALMTOP_STOP_END,
                    StopReason::TokenLimit => PALMTOP_STOP_LIMIT,
                    StopReason::Callback => PALMTOP_STOP_CALLBACK,
                    StopReason::Cancelled => PALMTOP_STOP_CANCELLED,
                    StopReason::DeadlinePassed => PALMTOP_STOP_DEADLINE,
                },
            })
        };
        let answers = answers.iter().zip(requests).map(entry).collect::<Result<_>>()?;
        Ok(Self { model, answers })
    }

    fn answer(&self, index: usize) -> Result<&AnswerEntry> {
        self.answers.get(index).ok_or_else(|| {
            let count = self.answers.len();
            Failure::new(
                PALMTOP_NOT_FOUND,
                format!("there is no answer {index}: the result has {count}, from 0 on"),
            )
        })
    }

    fn object(&self, answer: usize, index: usize) -> Result<&ObjectEntry> {
        let objects = &self.answer(answer)?.objects;
        objects.get(index).ok_or_else(|| {
            let count = objects.len();
            Failure::new(
                PALMTOP_NOT_FOUND,
                format!("there is no object {index}: the answer has {count}, from 0 on"),
            )
        })
    }
}

pub(crate) fn with_zero(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_result_free(result: palmtop_result) -> palmtop_status {
    call(|| RESULTS.remove(result.id).map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_result_count(result: palmtop_result) -> usize {
    let mut count = 0;
    let _ = call(|| {
        count = RESULTS.get(result.id)?.answers.len();
        Ok(())
    });
    count
}

/// # Safety
/// `info` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_result_get_answer(
    result: palmtop_result,
    answer: usize,
    info: *mut palmtop_answer_info,
) -> palmtop_status {
    call(|| {
        let result = RESULTS.get(result.id)?;
        let entry = result.answer(answer)?;
        let value = palmtop_answer_info {
            size: 0,
            text: entry.text.as_ptr().cast(),
            text_length: entry.text.len() - 1,
            tokens: entry.tokens.as_ptr(),
            probabilities: entry.probabilities.as_ptr(),
            token_count: entry.tokens.len(),
            object_count: entry.objects.len(),
            prompt_tokens: entry.prompt_tokens,
            stop: entry.stop,
            likelihood: entry.likelihood,
            accepted_draft_tokens: entry.accepted_draft_tokens,
        };
        // SAFETY: as this function's.
        unsafe { arguments::give(info, value) }
    })
}

/// # Safety
/// `object` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_result_get_object(
    result: palmtop_result,
    answer: usize,
    index: usize,
    object: *mut palmtop_object,
) -> palmtop_status {
    call(|| {
        let result = RESULTS.get(result.id)?;
        let entry = result.object(answer, index)?;
        let value = palmtop_object::new(&entry.found, &entry.label, None);
        // SAFETY: as this function's.
        unsafe { arguments::give(object, value) }
    })
}

/// # Safety
/// `mask` is null, or can be written as far as its size; `pixels` is null, or has `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_result_get_mask(
    result: palmtop_result,
    answer: usize,
    index: usize,
    mask: *mut palmtop_mask,
    pixels: *mut u8,
    bytes: usize,
) -> palmtop_status {
    call(|| {
        let result = RESULTS.get(result.id)?;
        let found = &result.object(answer, index)?.found;
        if found.mask_codes.is_none() {
            return Err(no_mask(found));
        }
        let pasted = result
            .model
            .mask(found, result.answer(answer)?.picture, BoxRounding::default())?
            .ok_or_else(|| no_mask(found))?;
        // SAFETY: as this function's.
        unsafe { give_mask(&pasted, mask, pixels, bytes) }
    })
}

/// Why an object has none.
pub(crate) fn no_mask(found: &Detection) -> Failure {
    let what = match found.mask_codes {
        None => "the object has no mask",
        Some(_) => "the model has no mask decoder: convert it with --mask-codec",
    };
    Failure::new(PALMTOP_NOT_FOUND, what)
}

/// # Safety
/// As [`palmtop_result_get_mask`].
pub(crate) unsafe fn give_mask(
    pasted: &Mask,
    mask: *mut palmtop_mask,
    pixels: *mut u8,
    bytes: usize,
) -> Result<()> {
    let (columns, rows) = (pasted.width() as usize, pasted.height() as usize);
    let value = palmtop_mask {
        size: 0,
        x: pasted.x(),
        y: pasted.y(),
        width: pasted.width(),
        height: pasted.height(),
        area: pasted.area(),
    };
    // SAFETY: as this function's.
    unsafe { arguments::give(mask, value)? };
    if pixels.is_null() {
        return Ok(());
    }
    if bytes < columns * rows {
        let message = format!("the mask has {columns} x {rows} pixels, the buffer {bytes} bytes");
        return Err(Failure::new(PALMTOP_TOO_SMALL, message));
    }
    for (i, bit) in pasted.rows().flatten().enumerate() {
        // SAFETY: there are `columns * rows` bits, and as many bytes at least.
        unsafe { pixels.add(i).write(u8::from(bit)) };
    }
    Ok(())
}
