//! What is watched, as sinks must know it before the first record: Home Assistant is told of entities beforehand.

use std::sync::Arc;

/// Everything that is watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// The model's name.
    pub model: String,
    /// The cameras.
    pub cameras: Vec<Arc<str>>,
    /// The questions: one that is asked of several cameras is here once for each.
    pub questions: Vec<QuestionSetup>,
}

/// A question about one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct QuestionSetup {
    /// Its name.
    pub name: Arc<str>,
    /// The camera's name.
    pub camera: Arc<str>,
    /// The prompt.
    pub prompt: String,
    /// What answers are.
    pub reading: Reading,
    /// The names of its rules.
    pub rules: Vec<Arc<str>>,
}

/// What answers to a question are read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Any text.
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// Objects: what counts is how many, which and where.
    Objects,
}
