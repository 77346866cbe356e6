//! What the engine has done, for `/metrics` and for guesses of how long a request will wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::{Finished, Stop};

/// Counted since the start. Each is read and written by itself.
#[derive(Debug)]
pub struct Counts {
    /// Requests in the queue, now.
    pub waiting: Gauge,
    /// Requests that are being answered, now.
    pub running: Gauge,
    /// Answers that ended by themselves.
    pub answered: Counter,
    /// Answers that their deadline cut short, or kept from beginning.
    pub late: Counter,
    /// Requests whose callers went away.
    pub cancelled: Counter,
    /// Requests that could not be begun.
    pub failed: Counter,
    /// Requests that the full queue turned away.
    pub refused: Counter,
    /// Rows of pictures and tokens of prompts.
    pub prompt_tokens: Counter,
    /// Tokens of answers.
    pub tokens: Counter,
    /// Passes over the weights behind the prefills.
    pub steps: Counter,
    /// Pictures that the image encoder saw.
    pub pictures_encoded: Counter,
    /// Pictures whose features were there.
    pub pictures_cached: Counter,
    /// From the request to the encoder, in seconds.
    wait: Histogram,
    /// From the request to its first token, in seconds.
    first_token: Histogram,
    /// From the request to its last token, in seconds.
    total: Histogram,
    /// Microseconds that a request keeps the engine from others: a moving mean, 0 until there is one.
    share_us: AtomicU64,
}

/// A guess until something has been answered.
const SHARE_US: u64 = 1_000_000;
/// The share of the newest answer in the mean: one of this many.
const SHARE_NEW: u64 = 8;
/// Upper ends of the classes of times, in seconds.
const SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Default for Counts {
    fn default() -> Self {
        Self {
            waiting: Gauge::default(),
            running: Gauge::default(),
            answered: Counter::default(),
            late: Counter::default(),
            cancelled: Counter::default(),
            failed: Counter::default(),
            refused: Counter::default(),
            prompt_tokens: Counter::default(),
            tokens: Counter::default(),
            steps: Counter::default(),
            pictures_encoded: Counter::default(),
            pictures_cached: Counter::default(),
            wait: Histogram::new(SECONDS),
            first_token: Histogram::new(SECONDS),
            total: Histogram::new(SECONDS),
            share_us: AtomicU64::new(0),
        }
    }
}

impl Counts {
    /// Counts an answer.
    pub fn add(&self, finished: &Finished) {
        let one_of = match finished.stop {
            Stop::End | Stop::Text | Stop::Limit => &self.answered,
            Stop::Deadline => &self.late,
            Stop::Cancelled => &self.cancelled,
        };
        one_of.inc();
        self.tokens.inc_by(finished.answer.tokens.len() as u64);
        if finished.stop == Stop::Cancelled {
            return;
        }
        let times = &finished.times;
        self.wait.observe(times.waited.as_secs_f64());
        self.first_token.observe(times.first_token().as_secs_f64());
        self.total.observe(times.total().as_secs_f64());
        let own = times.encode + times.prefill + times.decode / times.batch.max(1) as u32;
        let new = own.as_micros() as u64;
        let old = match self.share_us.load(Ordering::Relaxed) {
            0 => new,
            old => old,
        };
        let mean = (old * (SHARE_NEW - 1) + new) / SHARE_NEW;
        self.share_us.store(mean.max(1), Ordering::Relaxed);
    }

    /// How long so many requests will take, in whole seconds, at least one.
    pub fn time_for(&self, requests: usize) -> Duration {
        let share = match self.share_us.load(Ordering::Relaxed) {
            0 => SHARE_US,
            share => share,
        };
        Duration::from_secs(share.saturating_mul(requests as u64).div_ceil(1_000_000).clamp(1, 3600))
    }

    /// Shows all of them.
    pub fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("requests_waiting", "Requests in the queue", &self.waiting),
            ("requests_running", "Requests that are being answered", &self.running),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            ("answers", "Answers that ended by themselves", &self.answered),
            ("answers_late", "Answers cut short, or not begun, for their deadline", &self.late),
            ("answers_cancelled", "Requests whose callers went away", &self.cancelled),
            ("requests_failed", "Requests that could not be begun", &self.failed),
            ("requests_refused", "Requests that the full queue turned away", &self.refused),
            ("prompt_tokens", "Rows of pictures and tokens of prompts", &self.prompt_tokens),
            ("tokens", "Tokens of answers", &self.tokens),
            ("steps", "Passes over the weights behind the prefills", &self.steps),
            ("pictures_encoded", "Pictures that the image encoder saw", &self.pictures_encoded),
            ("pictures_cached", "Pictures whose features were kept from before", &self.pictures_cached),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let times = [
            ("wait", "From the request to the image encoder", &self.wait),
            ("first_token", "From the request to its first token", &self.first_token),
            ("answer", "From the request to its last token", &self.total),
        ];
        for (name, help, histogram) in times {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }
}
