//! What a loop has done so far.

use std::fmt;
use std::time::Duration;

use crate::look::Latencies;

/// Numbers since the loop began.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Pictures that came to the loop.
    pub pictures: u64,
    /// Of those, that could not be decoded.
    pub broken: u64,
    /// Pictures that nothing was asked about: nothing moved by the pixel gate, or nothing was due yet.
    pub not_looked: u64,
    /// Of those, that the pixel gate stayed shut for.
    pub still: u64,
    /// Pictures that were encoded.
    pub encoded: u64,
    /// Of those, that no question was asked about, since the feature gate saw nothing new.
    pub same: u64,
    /// Answers that were not asked for, since the feature gate saw nothing new for their questions.
    pub spared: u64,
    /// Answers: runs of the decoder.
    pub answers: u64,
    /// Answers that there was no time for.
    pub late: u64,
    /// Tokens of the answers.
    pub tokens: u64,
    /// Those of them that drafts had right.
    pub drafted: u64,
    /// Events that began.
    pub events: u64,
    /// From exposure to the last answer of each look.
    pub latencies: Latencies,
}

impl Counts {
    /// All zero.
    pub fn new() -> Self {
        Self {
            pictures: 0,
            broken: 0,
            not_looked: 0,
            still: 0,
            encoded: 0,
            same: 0,
            spared: 0,
            answers: 0,
            late: 0,
            tokens: 0,
            drafted: 0,
            events: 0,
            latencies: Latencies::new(),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pictures, broken, still, encoded, same, spared, answers, late, .. } = self;
        write!(
            f,
            "{pictures} pictures ({still} still, {broken} broken), {encoded} encoded ({same} with nothing new)"
        )?;
        write!(f, ", {answers} answers ({spared} spared, {late} late), {} events", self.events)?;
        if self.tokens > 0 {
            write!(f, ", {} tokens ({} % from drafts)", self.tokens, 100 * self.drafted / self.tokens)?;
        }
        let percentile = |percent| self.latencies.percentile(percent);
        if let (Some(p50), Some(p95), Some(p99)) = (percentile(50.0), percentile(95.0), percentile(99.0)) {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let (p50, p95, p99, most) = (ms(p50), ms(p95), ms(p99), ms(self.latencies.most()));
            write!(f, ", latency p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms, longest {most:.0} ms")?;
        }
        Ok(())
    }
}
