//! What a loop can be told while it runs: by a line of standard input, a message of MQTT, or another thread.

use std::str::FromStr;

use serde::Deserialize;

/// Bytes of a command at most.
pub const COMMAND_BYTES_MAX: usize = 16 << 10;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Ask now, whether or not anything moves: this question (all, if absent) of this camera (all, if absent).
    Ask {
        /// The question's name.
        #[serde(default)]
        question: Option<String>,
        /// The camera's name.
        #[serde(default)]
        camera: Option<String>,
    },
    /// Give a question another prompt, from the next look on.
    Prompt {
        /// The question's name.
        question: String,
        /// The whole prompt.
        prompt: String,
    },
    /// Look at nothing until it is told to go on.
    Pause,
    /// Go on.
    Resume,
}

/// A text that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is longer than a command may be.
    #[error("a command of {0} bytes; {COMMAND_BYTES_MAX} are the most")]
    Long(usize),
    /// It begins with no word that is known.
    #[error(
        "'{0}' is no command; commands are ask, ask QUESTION, pause, resume, and in JSON {{\"ask\": {{\"question\": …, \
         \"camera\": …}}}} and {{\"prompt\": {{\"question\": …, \"prompt\": …}}}}"
    )]
    Unknown(String),
    /// It begins as JSON, and is no command in JSON.
    #[error("a command in JSON that cannot be read: {0}")]
    Json(String),
    /// The new prompt is empty.
    #[error("an empty prompt")]
    EmptyPrompt,
}

/// In words (`ask` or nothing for all questions, `ask QUESTION` for one, `pause`, `resume`) or in JSON:
/// `{"ask": {"question": …, "camera": …}}`, of which either may be absent, `{"prompt": {"question": …, "prompt": …}}`,
/// `"pause"`, `"resume"`.
impl FromStr for Command {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        if text.len() > COMMAND_BYTES_MAX {
            return Err(CommandError::Long(text.len()));
        }
        let text = text.trim();
        let command =
            match text.split_once(char::is_whitespace).map_or((text, ""), |(w, rest)| (w, rest.trim_start()))
            {
                _ if text.starts_with(['{', '"']) => {
                    serde_json::from_str(text).map_err(|e| CommandError::Json(e.to_string()))?
                }
                ("" | "ask", "") => Self::Ask { question: None, camera: None },
                ("ask", question) => Self::Ask { question: Some(question.into()), camera: None },
                ("pause", "") => Self::Pause,
                ("resume", "") => Self::Resume,
                _ => return Err(CommandError::Unknown(text.escape_debug().take(40).collect())),
            };
        match command {
            Self::Prompt { prompt, .. } if prompt.trim().is_empty() => Err(CommandError::EmptyPrompt),
            command => Ok(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(question: Option<&str>, camera: Option<&str>) -> Command {
        Command::Ask { question: question.map(Into::into), camera: camera.map(Into::into) }
    }

    #[test]
    fn words_and_json_are_commands() {
        let prompt = Command::Prompt { question: "door".into(), prompt: "answer en is it open?".into() };
        for (text, want) in [
            ("\n", ask(None, None)),
            ("ask", ask(None, None)),
            (" ask\r\n", ask(None, None)),
            ("ask door", ask(Some("door"), None)),
            ("ask  front door ", ask(Some("front door"), None)),
            ("pause", Command::Pause),
            ("resume", Command::Resume),
            (r#"{"ask":{}}"#, ask(None, None)),
            (r#"{"ask":{"question":"door"}}"#, ask(Some("door"), None)),
            (r#" {"ask": {"camera": "yard", "question": null}} "#, ask(None, Some("yard"))),
            (r#"{"prompt":{"question":"door","prompt":"answer en is it open?"}}"#, prompt),
            (r#""pause""#, Command::Pause),
            (r#"{"resume":null}"#, Command::Resume),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for text in ["asks", "ASK", "pause now", "resume 1", "prompt door: x", "\u{1b}[2J"] {
            assert!(matches!(text.parse::<Command>(), Err(CommandError::Unknown(_))), "{text}");
        }
        for text in [
            "{",
            "{}",
            r#"{"ask":{"question":1}}"#,
            r#"{"ask":{"all":true}}"#,
            r#"{"ask":{},"pause":null}"#,
            r#"{"prompt":{"question":"door"}}"#,
            r#"{"pause":null} x"#,
            r#""reboot""#,
        ] {
            assert!(matches!(text.parse::<Command>(), Err(CommandError::Json(_))), "{text}");
        }
        let deep = "{\"ask\":".repeat(1000);
        assert!(matches!(deep.parse::<Command>(), Err(CommandError::Json(_))));
        let empty = r#"{"prompt":{"question":"door","prompt":" "}}"#;
        assert_eq!(empty.parse::<Command>(), Err(CommandError::EmptyPrompt));
        let long = "x".repeat(COMMAND_BYTES_MAX + 1);
        assert_eq!(long.parse::<Command>(), Err(CommandError::Long(long.len())));
        // What is shown of a wrong one is short, and has no control characters.
        let error = format!("\u{1b}{}", "y".repeat(1000)).parse::<Command>().unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = text.parse::<Command>();
        }
    }
}
