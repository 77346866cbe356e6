//! What a loop can be told while it runs: by a line of standard input, a message of MQTT, or another thread.

use std::str::FromStr;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask now, whether or not anything moves: this question (all, if absent) of this camera (all, if absent).
    Ask {
        /// The question's name.
        question: Option<String>,
        /// The camera's name.
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

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{line}' is no command; write ask, ask QUESTION, pause or resume")]
pub struct NoCommand {
    /// Its beginning.
    line: String,
}

impl FromStr for Command {
    type Err = NoCommand;

    /// Reads a line: `ask` or nothing for all questions, `ask NAME` for one, `pause`, `resume`.
    fn from_str(line: &str) -> Result<Self, NoCommand> {
        const SHOWN: usize = 60;
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let question = Some(rest.trim()).filter(|name| !name.is_empty()).map(str::to_owned);
        match (word, &question) {
            ("" | "ask", _) => Ok(Self::Ask { question, camera: None }),
            ("pause", None) => Ok(Self::Pause),
            ("resume", None) => Ok(Self::Resume),
            _ => Err(NoCommand { line: line.chars().take(SHOWN).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        let ask =
            |question: Option<&str>| Command::Ask { question: question.map(str::to_owned), camera: None };
        for (line, command) in [
            ("\n", ask(None)),
            ("ask", ask(None)),
            (" ask  is it open? \r\n", ask(Some("is it open?"))),
            ("pause", Command::Pause),
            ("resume\n", Command::Resume),
        ] {
            assert_eq!(line.parse(), Ok(command), "{line:?}");
        }
        for line in ["stop", "pause now", "Ask"] {
            assert!(line.parse::<Command>().unwrap_err().to_string().contains("is no command"), "{line}");
        }
    }
}
