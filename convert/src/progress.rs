//! Progress reports of a running conversion.

/// Follows a conversion, and can end it. `()` follows nothing. Called from several threads.
pub trait Progress: Sync {
    /// The bytes to be written, of which [`advance`](Self::advance) tells.
    fn start(&self, total_bytes: u64) {
        let _ = total_bytes;
    }
    /// So many bytes more are written.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// So many bytes of what comes need not come again: an earlier run has left what is made of them.
    fn resumed(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Of so many runs of a picture and its prompts through the model, for calibration, some are done.
    fn calibrated(&self, done: u64, total: u64) {
        let _ = (done, total);
    }
    /// What is being done now.
    fn message(&self, text: &str) {
        let _ = text;
    }
    /// True ends the conversion soon with [`Cancelled`](crate::ConvertError::Cancelled).
    fn cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}
