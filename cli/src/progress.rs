//! Progress of long operations: a bar on a terminal, an occasional line elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use palmtop::session::CancelToken;
use palmtop_convert::Progress;
use palmtop_present::plain::{human_bytes, printable};

use crate::output::{Console, say};

const BAR: &str = "{prefix} [{bar:32}] {percent:>3} % of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left  {wide_msg}";
const BAR_OF_ITEMS: &str = "{prefix} [{bar:32}] {pos} of {len}, {eta} left  {wide_msg}";
/// Lines come after a tenth of the work, but not sooner than this one after another …
const LINE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// … and not later than this.
const LINE_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Shows progress on stderr.
pub struct Bar {
    shown: Output,
    cancel: Option<CancelToken>,
}

enum Output {
    Nothing,
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

/// What is counted.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Items,
}

struct Lines {
    what: String,
    unit: Unit,
    total: u64,
    done: u64,
    start: Instant,
    last_at: Instant,
    last_done: u64,
}

impl Bar {
    /// `what` is being done, counted in bytes; it ends when `cancel` says so.
    pub fn new(console: Console, what: &str, cancel: Option<CancelToken>) -> Self {
        Self::counting(Unit::Bytes, console, what, cancel)
    }

    /// The same, counted in items.
    pub fn items(console: Console, what: &str, cancel: Option<CancelToken>) -> Self {
        Self::counting(Unit::Items, console, what, cancel)
    }

    fn counting(unit: Unit, console: Console, what: &str, cancel: Option<CancelToken>) -> Self {
        let now = Instant::now();
        let shown = if console.quiet {
            Output::Nothing
        } else if std::io::stderr().is_terminal() {
            let template = match unit {
                Unit::Bytes => BAR,
                Unit::Items => BAR_OF_ITEMS,
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar =
                ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(printable(what));
            Output::Bar(bar)
        } else {
            Output::Lines(Mutex::new(Lines {
                what: what.to_owned(),
                unit,
                total: 0,
                done: 0,
                start: now,
                last_at: now,
                last_done: 0,
            }))
        };
        Self { shown, cancel }
    }

    /// A line beside the bar, unless the user wants quiet.
    pub fn note(&self, text: &str) {
        match &self.shown {
            Output::Nothing => {}
            Output::Bar(_) | Output::Lines(_) => self.hide_while(|| say(format_args!("{text}\n"))),
        }
    }

    /// Writes elsewhere while the bar is out of the way.
    pub fn hide_while<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.shown {
            Output::Bar(bar) => bar.suspend(write),
            Output::Nothing | Output::Lines(_) => write(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Output::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    /// What ends in an error leaves no bar on the terminal.
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress for Bar {
    fn start(&self, total_bytes: u64) {
        match &self.shown {
            Output::Nothing => {}
            Output::Bar(bar) => {
                bar.set_position(0);
                bar.set_length(total_bytes);
                bar.reset_elapsed();
                bar.reset_eta();
            }
            Output::Lines(lines) => {
                if let Ok(mut lines) = lines.lock() {
                    (lines.total, lines.done, lines.last_done) = (total_bytes, 0, 0);
                    lines.start = Instant::now();
                }
            }
        }
    }

    fn advance(&self, bytes: u64) {
        match &self.shown {
            Output::Nothing => {}
            Output::Bar(bar) => bar.inc(bytes),
            Output::Lines(lines) => {
                if let Ok(mut lines) = lines.lock()
                    && let Some(line) = lines.advance(bytes, Instant::now())
                {
                    say(line);
                }
            }
        }
    }

    fn resumed(&self, bytes: u64) {
        self.note(&format!("going on: {} have come before", human_bytes(bytes)));
    }

    fn calibrated(&self, done: u64, total: u64) {
        match &self.shown {
            Output::Nothing => {}
            Output::Bar(bar) => bar.set_message(format!("calibrating: {done} of {total} runs")),
            Output::Lines(lines) => {
                if let Ok(mut lines) = lines.lock()
                    && lines.is_time(done < total)
                {
                    say(format_args!("{}: calibrating, {done} of {total} runs\n", lines.what));
                }
            }
        }
    }

    fn message(&self, text: &str) {
        if let Output::Bar(bar) = &self.shown {
            bar.set_message(printable(text));
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }
}

impl Lines {
    /// Whether it is time for a line about work that is not counted here.
    fn is_time(&mut self, goes_on: bool) -> bool {
        let now = Instant::now();
        let is_time = goes_on && now.duration_since(self.last_at) >= LINE_INTERVAL_MAX;
        if is_time {
            self.last_at = now;
        }
        is_time
    }

    /// The line to print, if it is time for one.
    fn advance(&mut self, bytes: u64, now: Instant) -> Option<String> {
        self.done += bytes;
        let since = now.duration_since(self.last_at);
        let is_step = self.done - self.last_done >= self.total / 10;
        if self.done >= self.total || since < LINE_INTERVAL_MIN || !(is_step || since >= LINE_INTERVAL_MAX) {
            return None;
        }
        (self.last_at, self.last_done) = (now, self.done);
        let rate = self.done as f64 / now.duration_since(self.start).as_secs_f64().max(1e-3);
        let left = (self.total - self.done) as f64 / rate;
        let percent = self.done * 100 / self.total;
        Some(match self.unit {
            Unit::Bytes => format!(
                "{}: {percent} % of {}, {}/s, {left:.0} s left\n",
                self.what,
                human_bytes(self.total),
                human_bytes(rate as u64)
            ),
            Unit::Items => format!("{}: {} of {}, {left:.0} s left\n", self.what, self.done, self.total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_now_and_then() {
        let start = Instant::now();
        let lines = |unit| {
            let what = "converting".into();
            Lines { what, unit, total: 1000, done: 0, start, last_at: start, last_done: 0 }
        };
        let mut of_items = lines(Unit::Items);
        let line = of_items.advance(400, start + Duration::from_secs(2)).unwrap();
        assert_eq!(line, "converting: 400 of 1000, 3 s left\n");
        let mut lines = lines(Unit::Bytes);
        let mut at = |seconds: f64, bytes| lines.advance(bytes, start + Duration::from_secs_f64(seconds));
        assert_eq!(at(0.5, 200), None);
        assert_eq!(at(2.0, 200).unwrap(), "converting: 40 % of 1.0 kB, 200 B/s, 3 s left\n");
        assert_eq!(at(4.0, 10), None);
        assert!(at(13.0, 10).is_some());
        assert_eq!(at(20.0, 580), None);
    }
}
