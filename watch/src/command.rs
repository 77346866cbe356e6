//! What a loop can be told while it runs: by a line of standard input, a message of MQTT, or another thread.

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
