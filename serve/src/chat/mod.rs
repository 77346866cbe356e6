//! A chat reduced to what PaliGemma is asked: one prompt about pictures. OpenAI's and Ollama's interfaces share it.
//!
//! The rule, which docs/serve.md tells clients:
//!
//! - the last text of a user becomes the prompt: in one of the official forms as it is ([`rule::prompt`]), any other as
//!   `answer en …`;
//! - the pictures are those of the last message of a user, or of the latest one that has any;
//! - whatever else was said before is ignored; of system texts and tools the answer says so in a header.

pub(crate) mod fields;
pub(crate) mod format;
pub(crate) mod rule;
pub(crate) mod schema;
pub(crate) mod start;

use axum::http::HeaderValue;
use axum::response::Response;

use crate::access::WARNING;
use crate::problem::Problem;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// What the model is to be like.
    System,
    /// Who asks.
    User,
    /// The model, or a tool.
    Other,
}

impl Role {
    /// By the names of OpenAI and Ollama.
    pub fn named(name: &str) -> Self {
        match name {
            "system" | "developer" => Self::System,
            "user" => Self::User,
            _ => Self::Other,
        }
    }
}

/// Where a picture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the request: base64, perhaps as a data URI.
    Encoded(String),
    /// Somewhere else.
    Address(String),
}

impl Source {
    /// What stands where a client gives a picture.
    pub fn new(text: String) -> Self {
        let scheme = text.get(..8).unwrap_or(&text).to_ascii_lowercase();
        match scheme.starts_with("http://") || scheme.starts_with("https://") {
            true => Self::Address(text),
            false => Self::Encoded(text),
        }
    }
}

/// A message of a chat.
#[derive(Debug)]
pub(crate) struct Message {
    pub role: Role,
    pub texts: Vec<String>,
    pub pictures: Vec<Source>,
}

/// What is left of a chat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chat {
    /// The whole prompt.
    pub prompt: String,
    /// At least one.
    pub pictures: Vec<Source>,
    /// A system text was ignored.
    pub had_system: bool,
}

impl Chat {
    /// Reduces a chat.
    pub fn new(messages: Vec<Message>) -> Result<Self, Problem> {
        let says = |text: &&String| !text.trim().is_empty();
        let had_system = messages.iter().any(|m| m.role == Role::System && m.texts.iter().any(|t| says(&t)));
        let users = || messages.iter().rev().filter(|message| message.role == Role::User);
        let text = users().find_map(|message| message.texts.iter().rev().find(says));
        let text = text.ok_or_else(|| {
            Problem::bad("there is no text of a user: ask something, such as \"caption en\"").at("messages")
        })?;
        let prompt = rule::prompt(text);
        let mut messages = messages;
        let pictures = messages.iter_mut().rev().filter(|message| message.role == Role::User);
        let pictures = pictures.map(|message| &mut message.pictures).find(|pictures| !pictures.is_empty());
        let pictures = pictures.map(std::mem::take).ok_or_else(no_picture)?;
        Ok(Self { prompt, pictures, had_system })
    }
}

/// The model knows nothing to say without a picture.
pub(crate) fn no_picture() -> Problem {
    Problem::bad("this model answers about pictures, and the request has none: add one to the user's message")
        .at("messages")
}

/// Names what was ignored in the header `Warning`.
pub(crate) fn warn(response: &mut Response, ignored: &[&str]) {
    if ignored.is_empty() {
        return;
    }
    if let Ok(text) = HeaderValue::from_str(&format!("199 palmtop \"ignored: {}\"", ignored.join(", "))) {
        response.headers_mut().insert(WARNING, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, texts: &[&str], pictures: &[&str]) -> Message {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        Message { role, texts, pictures: pictures.iter().map(|p| Source::new((*p).to_owned())).collect() }
    }

    #[test]
    fn the_last_text_of_a_user_asks_about_the_latest_pictures() {
        use Role::{Other, System, User};
        let chat = Chat::new(vec![
            message(System, &["You are a pirate."], &[]),
            message(User, &["caption en"], &["QUJD"]),
            message(User, &["first:", "detect a", " "], &["Zm9v", "https://a/b"]),
            message(Other, &["a"], &["bm90"]),
            message(User, &["What is\nit?"], &[]),
        ]);
        let chat = chat.unwrap();
        assert_eq!(chat.prompt, "answer en What is it?");
        let pictures = [Source::Encoded("Zm9v".into()), Source::Address("https://a/b".into())];
        assert_eq!((chat.pictures.as_slice(), chat.had_system), (&pictures[..], true));
        let text_before = vec![message(User, &["ocr"], &[]), message(User, &[], &["QUJD"])];
        assert_eq!(Chat::new(text_before).unwrap().prompt, "ocr");
        let last =
            vec![message(System, &[" "], &["c3lz"]), message(User, &["front:", "detect a"], &["QUJD"])];
        let last = Chat::new(last).unwrap();
        assert_eq!((last.prompt.as_str(), last.had_system), ("detect a", false));
    }

    #[test]
    fn without_a_question_or_a_picture_there_is_no_answer() {
        for (messages, word) in [
            (vec![], "no text"),
            (vec![message(Role::User, &["ocr"], &[])], "has none"),
            (vec![message(Role::User, &[], &["QUJD"])], "no text"),
            (vec![message(Role::System, &["ocr"], &["QUJD"])], "no text"),
        ] {
            let problem = Chat::new(messages).unwrap_err();
            assert!(problem.message.contains(word), "{}", problem.message);
        }
    }
}
