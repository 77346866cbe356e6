//! An answer, with all that is shown of it.

use std::time::Duration;

use palmtop::Answer;
use palmtop::tasks::Detection;

use crate::json::Timings;

/// An object that the model found, and where its mask was saved.
#[derive(Clone, Debug)]
pub struct Found {
    /// The object, with its mask if that was decoded.
    pub detection: Detection,
    /// The file that the mask was written to.
    pub mask_file: Option<String>,
}

impl From<Detection> for Found {
    fn from(detection: Detection) -> Self {
        Self { detection, mask_file: None }
    }
}

/// One of several pictures of a prompt.
#[derive(Clone, Debug)]
pub struct Part {
    /// The picture's name, or the film's.
    pub source: String,
    /// Which frame of the film, from 0 on, and how long after the first one.
    pub frame: Option<(u64, Duration)>,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Whether its file ends too early.
    pub is_truncated: bool,
}

/// An answer and all that is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The picture's name.
    pub source: &'a str,
    /// The command, or whatever asked.
    pub task: &'a str,
    /// What the model was given, without the newline that ends every prompt.
    pub prompt: &'a str,
    /// What the session gave.
    pub answer: &'a Answer,
    /// The likelihood of a choice among the choices, if there were any.
    pub score: Option<f32>,
    /// The objects in the answer.
    pub found: &'a [Found],
    /// Width and height of the picture in pixels.
    pub picture: (u32, u32),
    /// Whether the picture's file ends too early, so that some of the pixels are not its own.
    pub is_truncated: bool,
    /// The pictures of the prompt, in its order, if there are several; `picture` is then the size of the first.
    pub together: &'a [Part],
    /// How long it took.
    pub timings: &'a Timings,
}
