//! What a session must be able to do for the questions of a configuration.

use palmtop::Limits;

use super::Config;
use super::question::NEW_TOKENS;
use crate::watcher::Watched;

/// Questions that are answered together at most, unless the file says otherwise.
const BATCH: usize = 8;
/// Tokens of drafts that are checked in one pass, unless the file says otherwise.
const DRAFT_TOKENS: usize = 8;
/// The memory for prompts is for as many tokens as the longest has bytes, within these: another prompt may be set
/// later.
const PROMPT_TOKENS: (usize, usize) = (256, 4096);
/// The longest side of a picture.
const SIDE_MAX: usize = 8192;

impl Config {
    /// `limits` say how to use the machine; what the questions need is filled in.
    pub fn limits(&self, watched: &[Watched], limits: &Limits) -> Limits {
        let of_camera = |camera: usize| watched.iter().filter(|w| w.camera == camera).count();
        let most = (0..self.cameras.len()).map(of_camera).max().unwrap_or(1);
        let mut limits = limits.clone();
        limits.batch = self.batch.unwrap_or(BATCH).min(most).max(1);
        limits.new_tokens = self.max_new_tokens.unwrap_or(NEW_TOKENS);
        limits.draft_tokens = self.draft_tokens.unwrap_or(DRAFT_TOKENS);
        // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
        let longest = watched.iter().map(|w| w.question.prompt.len() + 2).max().unwrap_or(0);
        limits.prompt_tokens = longest.clamp(PROMPT_TOKENS.0, PROMPT_TOKENS.1);
        limits.image_side = limits.image_side.min(SIDE_MAX);
        limits
    }
}
