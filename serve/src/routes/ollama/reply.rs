//! Answers as Ollama's clients read them.

use std::time::Duration;

use palmtop::model::Model;
use serde_json::{Value, json};

use super::models;
use crate::app::App;
use crate::chat::format::{Format, is_whole};
use crate::chat::start::Begun;
use crate::engine::Finished;
use crate::problem::Problem;

/// Which of the two was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Generate,
}

impl Kind {
    /// What is new, where the clients look for it.
    fn with_text(self, mut value: Value, text: &str) -> Value {
        match self {
            Self::Chat => value["message"] = json!({"role": "assistant", "content": text}),
            Self::Generate => value["response"] = text.into(),
        }
        value
    }
}

/// What all parts of an answer say.
pub(super) struct Reply {
    kind: Kind,
    model: String,
    prompt_tokens: usize,
    format: Format,
}

impl Reply {
    pub fn new(app: &App, kind: Kind, begun: &Begun, format: Format) -> Self {
        Self { kind, model: models::name(app), prompt_tokens: begun.prompt_tokens, format }
    }

    /// The whole answer at once.
    pub fn whole(&self, model: &Model, finished: &Finished) -> Result<Value, Problem> {
        Ok(self.end(&self.format.content(model, finished)?, finished))
    }

    /// What came; `None` if there is nothing to say yet.
    pub fn more(&self, text: &str) -> Option<Value> {
        // As JSON there is an answer only at its end.
        let is_shown = self.format.is_plain() && !text.is_empty();
        is_shown.then(|| {
            self.kind.with_text(json!({"model": self.model, "created_at": now(), "done": false}), text)
        })
    }

    /// The end of what came.
    pub fn last(&self, model: &Model, finished: &Finished) -> Result<Value, Problem> {
        match self.format.is_plain() {
            true => Ok(self.end("", finished)),
            false => self.whole(model, finished),
        }
    }

    fn end(&self, text: &str, finished: &Finished) -> Value {
        let times = &finished.times;
        let value = json!({
            "model": self.model,
            "created_at": now(),
            "done": true,
            "done_reason": if is_whole(finished) { "stop" } else { "length" },
            "total_duration": nanoseconds(times.total()),
            "load_duration": 0,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": nanoseconds(times.encode + times.prefill),
            "eval_count": finished.answer.tokens.len(),
            "eval_duration": nanoseconds(times.decode),
        });
        self.kind.with_text(value, text)
    }
}

/// The answer to a request that asks nothing: Ollama loads or unloads the model then, and here it always is.
pub(super) fn loaded(app: &App, kind: Kind, unload: bool) -> Value {
    let value = json!({
        "model": models::name(app),
        "created_at": now(),
        "done": true,
        "done_reason": if unload { "unload" } else { "load" },
    });
    kind.with_text(value, "")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
