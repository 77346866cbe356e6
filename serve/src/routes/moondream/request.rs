//! Requests as Moondream's clients send them. Fields that nothing is known of are ignored.

use palmtop::tasks::Task;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::chat::fields::{list, sampling, whole};
use crate::chat::format::Format;
use crate::chat::start::Wanted;
use crate::chat::{Chat, Source, rule};
use crate::problem::Problem;

/// A picture to describe.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CaptionRequest {
    /// The picture: a data URI, or an address.
    image_url: String,
    /// `short`, `normal` or `long`.
    #[serde(default)]
    length: Option<String>,
    /// True: the answer comes as events.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    settings: Option<Settings>,
}

/// A question about a picture.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct QueryRequest {
    /// The picture: a data URI, or an address.
    #[serde(default)]
    image_url: Option<String>,
    question: String,
    /// True: the answer comes as events.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    settings: Option<Settings>,
    /// Ignored.
    #[serde(default)]
    reasoning: Option<bool>,
    /// Ignored.
    #[serde(default, deserialize_with = "list")]
    spatial_refs: Vec<Value>,
}

/// What to find in a picture.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ObjectRequest {
    /// The picture: a data URI, or an address.
    image_url: String,
    /// What to find: a name, or several between semicolons.
    object: String,
    /// True: an outline comes as events.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    settings: Option<Settings>,
    /// Ignored.
    #[serde(default, deserialize_with = "list")]
    spatial_refs: Vec<Value>,
}

/// How to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = MoondreamSettings)]
struct Settings {
    /// 0, or absent: always the likeliest token.
    #[serde(default)]
    temperature: Option<f32>,
    /// Only the likeliest tokens that together have this probability.
    #[serde(default)]
    top_p: Option<f32>,
    /// Tokens of the answer at most.
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    /// Objects at most.
    #[serde(default, deserialize_with = "whole")]
    max_objects: Option<i64>,
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Read {
    pub wanted: Wanted,
    pub stream: bool,
    pub max_objects: Option<usize>,
    pub ignored: Vec<&'static str>,
}

impl Read {
    fn new(
        prompt: String,
        image_url: String,
        stream: Option<bool>,
        settings: Option<Settings>,
    ) -> Result<Self, Problem> {
        let settings = settings.unwrap_or_default();
        let count = |number: Option<i64>, field| match number.map(usize::try_from) {
            None => Ok(None),
            Some(Ok(number)) if number > 0 => Ok(Some(number)),
            Some(_) => Err(Problem::bad(format!("{field} must be 1 or more")).at(field)),
        };
        let wanted = Wanted {
            chat: Chat { prompt, pictures: vec![Source::new(image_url)], had_system: false },
            format: Format::Plain,
            sampling: sampling(settings.temperature, None, settings.top_p, None)?,
            max_new_tokens: count(settings.max_tokens, "max_tokens")?,
            stop: Vec::new(),
        };
        let max_objects = count(settings.max_objects, "max_objects")?;
        Ok(Self { wanted, stream: stream.unwrap_or(false), max_objects, ignored: Vec::new() })
    }

    fn ignore(mut self, name: &'static str, is_there: bool) -> Self {
        self.ignored.extend(is_there.then_some(name));
        self
    }
}

impl CaptionRequest {
    pub fn read(self) -> Result<Read, Problem> {
        let prompt = match self.length.as_deref() {
            None | Some("short" | "normal") => "caption en",
            Some("long") => "describe en",
            Some(other) => {
                let message = format!("the length is {other:?}: it can be short, normal or long");
                return Err(Problem::bad(message).at("length"));
            }
        };
        Read::new(prompt.to_owned(), self.image_url, self.stream, self.settings)
    }
}

impl QueryRequest {
    pub fn read(self) -> Result<Read, Problem> {
        if self.question.trim().is_empty() {
            return Err(Problem::bad("the question is empty").at("question"));
        }
        let no_picture = || Problem::bad("this model answers about pictures: add image_url").at("image_url");
        let image_url = self.image_url.ok_or_else(no_picture)?;
        let read = Read::new(rule::prompt(&self.question), image_url, self.stream, self.settings)?;
        Ok(read
            .ignore("reasoning", self.reasoning.unwrap_or(false))
            .ignore("spatial_refs", !self.spatial_refs.is_empty()))
    }
}

impl ObjectRequest {
    /// With `detect` or `segment`.
    pub fn read(self, task: &str) -> Result<Read, Problem> {
        let labels = self.object.split(';');
        let task = if task == "segment" { Task::segment(labels) } else { Task::detect(labels) };
        let prompt = task.map_err(|error| Problem::bad(error.to_string()).at("object"))?.prompt();
        let read = Read::new(prompt, self.image_url, self.stream, self.settings)?;
        Ok(read.ignore("spatial_refs", !self.spatial_refs.is_empty()))
    }
}
