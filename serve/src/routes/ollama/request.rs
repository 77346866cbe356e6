//! Chats and prompts as Ollama's clients send them. Fields that nothing is known of are ignored, as Ollama does.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::chat::fields::{list, sampling, texts, whole};
use crate::chat::format::Format;
use crate::chat::start::Wanted;
use crate::chat::{Chat, Message, Role, Source};
use crate::problem::Problem;

/// A chat, and how it is to be answered. Other fields are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaChatRequest)]
pub(super) struct ChatRequest {
    /// What was said. The last text of a user counts, with the latest pictures.
    #[serde(default, deserialize_with = "list")]
    messages: Vec<ChatMessage>,
    /// Ignored: the model calls none.
    #[serde(default, deserialize_with = "list")]
    tools: Vec<Value>,
    #[serde(flatten)]
    common: Common,
}

/// A prompt about pictures, and how it is to be answered. Other fields are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct GenerateRequest {
    /// What is asked.
    #[serde(default)]
    prompt: Option<String>,
    /// Pictures in base64.
    #[serde(default, deserialize_with = "list")]
    images: Vec<String>,
    /// Ignored.
    #[serde(default)]
    system: Option<String>,
    /// True: the prompt is given to the model as it is.
    #[serde(default)]
    raw: Option<bool>,
    #[serde(flatten)]
    common: Common,
}

/// What chats and prompts have in common.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaRequest)]
struct Common {
    /// Any name: there is one model, and the answer says its name.
    #[allow(dead_code, reason = "part of the interface, and nothing depends on it")]
    #[serde(default)]
    model: Option<String>,
    /// False: the answer comes at once.
    #[serde(default)]
    stream: Option<bool>,
    /// `json`, or a JSON schema.
    #[serde(default)]
    format: Option<Value>,
    #[serde(default)]
    options: Option<Options>,
    /// 0 in a request without messages or prompt is answered as Ollama does; the model stays.
    #[serde(default)]
    keep_alive: Option<Value>,
}

/// How tokens are chosen. Other options are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = OllamaOptions)]
struct Options {
    /// 0, or absent: always the likeliest token.
    #[serde(default)]
    temperature: Option<f32>,
    /// Only the so many likeliest tokens.
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<i64>,
    /// Only the likeliest tokens that together have this probability.
    #[serde(default)]
    top_p: Option<f32>,
    /// The same seed gives the same answer; 0 if absent.
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    /// Texts that end the answer.
    #[serde(default, deserialize_with = "texts")]
    #[schema(value_type = Vec<String>)]
    stop: Vec<String>,
    /// Tokens of the answer at most; as many as the server gives if it is not above 0.
    #[serde(default, deserialize_with = "whole")]
    num_predict: Option<i64>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaChatMessage)]
struct ChatMessage {
    /// `user`, or another one, whose message is ignored.
    role: String,
    #[serde(default)]
    content: Option<String>,
    /// Pictures in base64.
    #[serde(default, deserialize_with = "list")]
    images: Vec<String>,
}

/// How the answer is to come.
#[derive(Debug)]
pub(super) struct How {
    pub stream: bool,
    pub unload: bool,
    pub ignored: Vec<&'static str>,
}

/// What is asked, if anything is, and how the answer is to come.
type Read = (Option<Wanted>, How);

impl ChatRequest {
    pub fn read(self) -> Result<Read, Problem> {
        let mut how = self.common.how();
        if self.messages.is_empty() {
            return Ok((None, how));
        }
        let chat = Chat::new(self.messages.into_iter().map(ChatMessage::read).collect())?;
        how.ignore("system text", chat.had_system);
        how.ignore("tools", !self.tools.is_empty());
        Ok((Some(self.common.wanted(chat)?), how))
    }
}

impl GenerateRequest {
    pub fn read(self) -> Result<Read, Problem> {
        let mut how = self.common.how();
        let prompt = self.prompt.unwrap_or_default();
        if prompt.is_empty() && self.images.is_empty() {
            return Ok((None, how));
        }
        let pictures = self.images.into_iter().map(Source::new).collect();
        let raw = self.raw.unwrap_or(false).then(|| prompt.clone());
        let mut chat = Chat::new(vec![Message { role: Role::User, texts: vec![prompt], pictures }])?;
        if let Some(raw) = raw {
            chat.prompt = raw;
        }
        how.ignore("system text", self.system.is_some_and(|text| !text.trim().is_empty()));
        Ok((Some(self.common.wanted(chat)?), how))
    }
}

impl ChatMessage {
    fn read(self) -> Message {
        Message {
            role: Role::named(&self.role),
            texts: self.content.into_iter().collect(),
            pictures: self.images.into_iter().map(Source::new).collect(),
        }
    }
}

impl How {
    fn ignore(&mut self, name: &'static str, is_there: bool) {
        self.ignored.extend(is_there.then_some(name));
    }
}

impl Common {
    fn how(&self) -> How {
        let is_zero = |value: &Value| match value {
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.trim_end_matches(['s', 'm', 'h']) == "0",
            _ => false,
        };
        How {
            stream: self.stream.unwrap_or(true),
            unload: self.keep_alive.as_ref().is_some_and(is_zero),
            ignored: Vec::new(),
        }
    }

    fn wanted(self, chat: Chat) -> Result<Wanted, Problem> {
        let options = self.options.unwrap_or_default();
        let format = match self.format {
            None | Some(Value::Null) => Format::Plain,
            Some(Value::String(word)) if word.is_empty() => Format::Plain,
            Some(Value::String(word)) if word == "json" => Format::any_json(&chat.prompt),
            Some(schema) => Format::of_schema(schema, &chat.prompt, "format")?,
        };
        Ok(Wanted {
            chat,
            format,
            sampling: sampling(options.temperature, options.top_k, options.top_p, options.seed)?,
            max_new_tokens: options.num_predict.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
            stop: options.stop,
        })
    }
}
