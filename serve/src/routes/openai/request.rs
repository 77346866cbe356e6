//! Chats as OpenAI's clients send them. Fields that nothing is known of are ignored, as their servers do.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::chat::fields::{list, sampling, texts, whole};
use crate::chat::format::Format;
use crate::chat::schema::short;
use crate::chat::start::Wanted;
use crate::chat::{Chat, Message, Role, Source};
use crate::problem::Problem;

/// A chat, and how it is to be answered. Other fields are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChatRequest {
    /// What was said, pictures in it. The last text of a user counts, with the latest pictures.
    messages: Vec<ChatMessage>,
    /// Any name: there is one model, and the answer says its name.
    #[allow(dead_code, reason = "part of the interface, and nothing depends on it")]
    #[serde(default)]
    model: Option<String>,
    /// True: the answer comes as events.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Tokens of the answer at most.
    #[serde(default, deserialize_with = "whole")]
    max_completion_tokens: Option<i64>,
    /// The same, by its old name.
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    /// 0, or absent: always the likeliest token.
    #[serde(default)]
    temperature: Option<f32>,
    /// Only the likeliest tokens that together have this probability.
    #[serde(default)]
    top_p: Option<f32>,
    /// The same seed gives the same answer; 0 if absent.
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    /// A text that ends the answer, or several.
    #[serde(default, deserialize_with = "texts")]
    #[schema(value_type = Vec<String>)]
    stop: Vec<String>,
    /// True: with the probability of each token.
    #[serde(default)]
    logprobs: Option<bool>,
    /// Likely tokens beside it: the lists stay empty.
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
    /// 1.
    #[serde(default, deserialize_with = "whole")]
    n: Option<i64>,
    /// `text`, `json_object` or `json_schema`.
    #[serde(default)]
    response_format: Option<Value>,
    /// Ignored: the model calls none.
    #[serde(default, deserialize_with = "list")]
    tools: Vec<Value>,
}

/// What a stream is to have.
#[derive(Debug, Deserialize, ToSchema)]
struct StreamOptions {
    /// True: the numbers of tokens before the end.
    #[serde(default)]
    include_usage: Option<bool>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
struct ChatMessage {
    /// `user`, or another one, whose message is ignored.
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

/// What a message says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A text or a picture.
#[derive(Debug, Deserialize, ToSchema)]
struct Part {
    /// `text` or `image_url`.
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

/// Where a picture is: a data URI, or an address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum ImageUrl {
    Url(String),
    Object { url: String },
}

/// How the answer is to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct How {
    pub stream: bool,
    pub usage: bool,
    pub logprobs: bool,
    pub ignored: Vec<&'static str>,
}

/// So many tokens beside the chosen one can be asked for in OpenAI's interface.
const TOP_LOGPROBS_MAX: i64 = 20;

impl ChatRequest {
    /// What is asked, and how the answer is to come.
    pub fn read(self) -> Result<(Wanted, How), Problem> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(Problem::bad("one answer is given: n can only be 1").at("n"));
        }
        if self.top_logprobs.is_some_and(|n| !(0..=TOP_LOGPROBS_MAX).contains(&n)) {
            let message = format!("top_logprobs can be 0 to {TOP_LOGPROBS_MAX}");
            return Err(Problem::bad(message).at("top_logprobs"));
        }
        let sampling = sampling(self.temperature, None, self.top_p, self.seed)?;
        let (most, field) = match (self.max_completion_tokens, self.max_tokens) {
            (Some(most), _) => (Some(most), "max_completion_tokens"),
            (None, most) => (most, "max_tokens"),
        };
        let most = most.map(usize::try_from).transpose().ok().filter(|most| *most != Some(0));
        let max_new_tokens =
            most.ok_or_else(|| Problem::bad(format!("{field} must be 1 or more")).at(field))?;
        let messages = self.messages.into_iter().map(ChatMessage::read).collect::<Result<Vec<_>, _>>()?;
        let chat = Chat::new(messages)?;
        let format = format(self.response_format, &chat.prompt)?;
        let ignored = [("system text", chat.had_system), ("tools", !self.tools.is_empty())];
        let how = How {
            stream: self.stream.unwrap_or(false),
            usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            logprobs: self.logprobs.unwrap_or(false),
            ignored: ignored.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect(),
        };
        Ok((Wanted { chat, format, sampling, max_new_tokens, stop: self.stop }, how))
    }
}

impl ChatMessage {
    fn read(self) -> Result<Message, Problem> {
        let role = Role::named(&self.role);
        let (mut texts, mut pictures) = (Vec::new(), Vec::new());
        match self.content {
            None => {}
            Some(Content::Text(text)) => texts.push(text),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    match (part.image_url, part.text) {
                        (Some(ImageUrl::Url(url) | ImageUrl::Object { url }), _) => {
                            pictures.push(Source::new(url));
                        }
                        (None, Some(text)) => texts.push(text),
                        (None, None) if role == Role::User => {
                            let message = format!(
                                "a part of the type {:?} cannot be used: text and image_url can",
                                part.kind
                            );
                            return Err(Problem::bad(message).at("messages"));
                        }
                        (None, None) => {}
                    }
                }
            }
        }
        Ok(Message { role, texts, pictures })
    }
}

fn format(wanted: Option<Value>, prompt: &str) -> Result<Format, Problem> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_null()) else { return Ok(Format::Plain) };
    let bad = |message: String| Problem::bad(message).at("response_format");
    match wanted.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Plain),
        Some("json_object") => match wanted.get("schema") {
            // As llama.cpp's server takes it.
            Some(schema) if schema.is_object() => {
                Format::of_schema(schema.clone(), prompt, "response_format")
            }
            _ => Ok(Format::any_json(prompt)),
        },
        Some("json_schema") => {
            let schema = wanted.get("json_schema").and_then(|named| named.get("schema"));
            let schema = schema.ok_or_else(|| bad("response_format has no json_schema.schema".to_owned()))?;
            Format::of_schema(schema.clone(), prompt, "response_format")
        }
        _ => Err(bad(format!(
            "response_format is {}: its type can be text, json_object or json_schema",
            short(&wanted)
        ))),
    }
}
