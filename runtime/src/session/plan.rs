//! The memory of a session, known before it is made.

use std::fmt;

/// The memory of a session, known before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Weights in the mapped file: read-only, shared between sessions and processes.
    pub weights_bytes: usize,
    /// Keys and values of all sequences.
    pub kv_bytes: usize,
    /// Activations of the image encoder and of the decoder, which share their memory.
    pub activation_bytes: usize,
    /// Scratch memory of all threads, and the stacks of those that the session starts.
    pub thread_bytes: usize,
    /// The stacks alone, which are part of `thread_bytes`: 512 KiB for each thread but the caller's. The system
    /// reserves them when a thread starts, and backs them as they are used.
    pub stack_bytes: usize,
    /// Resizing and patches.
    pub image_bytes: usize,
    /// Tokens, texts and sampling.
    pub text_bytes: usize,
    /// One set of image features.
    pub features_bytes: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl Plan {
    /// All that a session takes when it is made, one set of image features included; the mapped weights are not.
    pub fn session_bytes(&self) -> usize {
        let parts = [
            self.kv_bytes,
            self.activation_bytes,
            self.thread_bytes,
            self.image_bytes,
            self.text_bytes,
            self.features_bytes,
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, bytes: usize| {
            writeln!(f, "{name:<24}{bytes:>16} bytes {:>10.1} MiB", bytes as f64 / (1 << 20) as f64)
        };
        row("weights (mapped)", self.weights_bytes)?;
        row("keys and values", self.kv_bytes)?;
        row("activations", self.activation_bytes)?;
        row("threads", self.thread_bytes)?;
        row("image", self.image_bytes)?;
        row("tokens and text", self.text_bytes)?;
        row("image features", self.features_bytes)?;
        row("session", self.session_bytes())
    }
}
