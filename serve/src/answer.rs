//! Whole answers, read into objects and given as the JSON of `docs/json.md`.

use std::time::Duration;

use palmtop::model::Model;
use palmtop::session::Timings;
use palmtop::tasks::ReadOptions;
use palmtop_present::{Answered, Found, json};
use serde_json::Value;

use crate::engine::{Finished, Stop};

/// The objects that an answer locates in its first picture, with masks if `masks` and the model can decode them.
///
/// # Errors
/// If the mask decoder is broken.
pub fn found(model: &Model, finished: &Finished, masks: bool) -> palmtop::Result<Vec<Found>> {
    let mut options = ReadOptions::default();
    options.masks = masks;
    let size = finished.sizes.first().copied().unwrap_or((1, 1));
    let objects = model.read_answer(&finished.answer, size, &options)?.objects;
    Ok(objects.into_iter().map(Found::from).collect())
}

/// The object of `docs/json.md`.
pub fn to_json(
    finished: &Finished,
    found: &[Found],
    source: &str,
    task: &str,
    prompt: &str,
    chosen: bool,
) -> Value {
    let times = &finished.times;
    let mut timings = Timings::default();
    timings.encode = times.encode;
    timings.prefill = times.prefill;
    timings.decode = times.decode;
    timings.decode_steps = times.decode_steps;
    let answer = &finished.answer;
    let answered = Answered {
        source,
        task,
        prompt,
        answer,
        score: (chosen && finished.stop == Stop::End).then(|| answer.likelihood()),
        found,
        picture: finished.sizes.first().copied().unwrap_or((1, 1)),
        is_truncated: false,
        together: &[],
        timings: &json::Timings::new(Duration::ZERO, &timings, answer.tokens.len(), times.batch.max(1)),
    };
    let mut value = serde_json::to_value(json::Answer::new(&answered)).unwrap_or_default();
    if finished.stop == Stop::Text {
        value["stop"] = finished.stop.name().into();
        value["text"] = finished.text.as_str().into();
    }
    value
}
