//! Answers as OpenAI's clients read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use palmtop::model::Model;
use serde_json::{Value, json};

use crate::app::App;
use crate::chat::format::{Format, is_whole};
use crate::chat::start::Begun;
use crate::engine::{Finished, Token};
use crate::problem::Problem;

/// What all parts of an answer say.
pub(super) struct Reply {
    id: String,
    created: u64,
    model: String,
    prompt_tokens: usize,
    cached_tokens: usize,
    format: Format,
    logprobs: bool,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);
/// Answers are the same for the same version and model.
const FINGERPRINT: &str = concat!("palmtop-", env!("CARGO_PKG_VERSION"));
/// What stands for a probability of 0, as in OpenAI's answers: JSON has no infinity.
const LOGPROB_LEAST: f32 = -9999.0;

impl Reply {
    pub fn new(app: &App, begun: &Begun, format: Format, logprobs: bool) -> Self {
        let created = seconds(SystemTime::now());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("chatcmpl-{created:x}-{number}"),
            created,
            model: app.options.model_name.clone(),
            prompt_tokens: begun.prompt_tokens,
            cached_tokens: begun.cached_tokens,
            format,
            logprobs,
        }
    }

    /// The whole answer at once.
    pub fn whole(&self, model: &Model, finished: &Finished) -> Result<Value, Problem> {
        let content = self.format.content(model, finished)?;
        let choice = json!({
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": null, "annotations": []},
            "logprobs": self.logprobs(&finished.tokens()),
            "finish_reason": finish_reason(finished),
        });
        let mut value = self.around("chat.completion", vec![choice]);
        value["usage"] = self.usage(finished);
        Ok(value)
    }

    /// The first event: who speaks.
    pub fn first_chunk(&self, usage: bool) -> Value {
        self.delta(json!({"role": "assistant", "content": "", "refusal": null}), &[], None, usage)
    }

    /// What came; `None` if there is nothing to say yet.
    pub fn chunk(&self, text: &str, tokens: &[Token], usage: bool) -> Option<Value> {
        // As JSON there is an answer only at its end.
        let text = if self.format.is_plain() { text } else { "" };
        if text.is_empty() && (tokens.is_empty() || !self.logprobs) {
            return None;
        }
        Some(self.delta(json!({"content": text}), tokens, None, usage))
    }

    /// The event that says why it ended.
    pub fn last_chunk(&self, model: &Model, finished: &Finished, usage: bool) -> Result<Value, Problem> {
        let delta = match self.format.is_plain() {
            true => json!({}),
            false => json!({"content": self.format.content(model, finished)?}),
        };
        Ok(self.delta(delta, &[], Some(finish_reason(finished)), usage))
    }

    /// The event with the numbers of tokens.
    pub fn usage_chunk(&self, finished: &Finished) -> Value {
        let mut value = self.around("chat.completion.chunk", Vec::new());
        value["usage"] = self.usage(finished);
        value
    }

    fn delta(&self, delta: Value, tokens: &[Token], finish_reason: Option<&str>, usage: bool) -> Value {
        let logprobs = if tokens.is_empty() { Value::Null } else { self.logprobs(tokens) };
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        let mut value = self.around("chat.completion.chunk", vec![choice]);
        if usage {
            value["usage"] = Value::Null;
        }
        value
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }

    fn usage(&self, finished: &Finished) -> Value {
        let completion_tokens = finished.answer.tokens.len();
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }

    fn logprobs(&self, tokens: &[Token]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        let token = |token: &Token| {
            json!({
                "token": token.text,
                "logprob": token.probability.ln().max(LOGPROB_LEAST),
                "bytes": token.text.as_bytes(),
                "top_logprobs": [],
            })
        };
        json!({"content": tokens.iter().map(token).collect::<Vec<_>>(), "refusal": null})
    }
}

fn finish_reason(finished: &Finished) -> &'static str {
    if is_whole(finished) { "stop" } else { "length" }
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
