//! What is watched, as sinks must know it before the first record: Home Assistant is told of entities beforehand.

use std::sync::Arc;

use palmtop::Model;

use crate::watcher::{Camera, Watched};

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

impl Setup {
    /// Of these cameras and questions.
    ///
    /// # Panics
    /// If a question names a camera that is not there.
    pub fn new<'a>(
        model: &Model,
        cameras: impl IntoIterator<Item = &'a Camera>,
        questions: impl IntoIterator<Item = &'a Watched>,
    ) -> Self {
        let cameras: Vec<Arc<str>> = cameras.into_iter().map(|camera| camera.name.clone()).collect();
        let question = |watched: &Watched| QuestionSetup {
            name: watched.question.name.as_str().into(),
            camera: cameras[watched.camera].clone(),
            prompt: watched.question.prompt.clone(),
            reading: watched.reading.clone(),
            rules: watched.rules.iter().map(|rule| rule.name.clone()).collect(),
        };
        Self {
            model: model.file().metadata().text("general.name").unwrap_or_default(),
            questions: questions.into_iter().map(question).collect(),
            cameras,
        }
    }
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
