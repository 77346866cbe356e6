//! Output for the user: answers on stdout as text or JSON lines, notes on stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use palmtop_present::plain::{Indented, objects_table, printable, visible};
use palmtop_present::{Answered, json};
use serde::Serialize;

use crate::errors::{self, StdoutClosed};

/// What goes to stderr beside errors.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    pub quiet: bool,
    pub verbose: bool,
}

impl Console {
    /// One that says nothing.
    pub fn silent(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// A line on stderr, unless the user wants quiet.
    pub fn note(self, text: impl fmt::Display) {
        if !self.quiet {
            say(format_args!("{text}\n"));
        }
    }
}

/// Writes to stderr, control characters made visible: names and causes come from outside. If nobody listens there any
/// more, there is nobody to tell.
pub fn say(text: impl fmt::Display) {
    let _ = io::stderr().lock().write_all(visible(&text.to_string()).as_bytes());
}

/// Standard output, where everything written is passed on at once.
pub struct Stdout(io::Stdout);

impl Stdout {
    pub fn new() -> Self {
        Self(io::stdout())
    }

    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = self.0.lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StdoutClosed.into(),
            _ => anyhow::Error::new(error).context("cannot write to standard output"),
        })
    }

    /// Prints text for people, control characters made visible.
    pub fn print(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        self.write_all(visible(&text.to_string()).as_bytes())
    }

    pub fn print_json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.write_all(&line)
    }
}

/// What of an answer is shown as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The answer's words.
    Text,
    /// The objects in it.
    Objects,
    /// The words, then the objects if there are any.
    Both,
}

/// Prints answers as the user wants them.
pub struct Printer {
    out: Stdout,
    json: bool,
    shown: Shown,
    streams: bool,
    names_pictures: bool,
    names_questions: bool,
    /// Streamed text of the answer under way.
    begun: Option<Indented>,
}

impl Printer {
    /// For so many pictures and prompts for each. Text is streamed only on a terminal and for a single prompt.
    pub fn new(json: bool, shown: Shown, pictures: usize, prompts: usize) -> Self {
        let out = Stdout::new();
        Self {
            streams: out.is_terminal() && !json && prompts == 1 && shown != Shown::Objects,
            json,
            shown,
            names_pictures: pictures > 1,
            names_questions: prompts > 1,
            begun: None,
            out,
        }
    }

    /// Answers about a picture follow.
    pub fn begin_picture(&mut self, source: &str) -> anyhow::Result<()> {
        if self.names_pictures && !self.json {
            self.out.print(format_args!("{}\n", printable(source)))?;
        }
        Ok(())
    }

    /// A piece of an answer has come.
    pub fn piece(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.streams {
            return Ok(());
        }
        let indent = self.indent();
        let begun = self.begun.get_or_insert_with(|| Indented::new(indent));
        self.out.print(begun.push(text))
    }

    /// An answer is complete. `question` is what the user asked.
    pub fn answer(&mut self, question: &str, answered: &Answered<'_>) -> anyhow::Result<()> {
        if self.json {
            return self.out.print_json(&json::Answer::new(answered));
        }
        let mut text = String::new();
        if let Some(begun) = self.begun.take() {
            text += begun.end();
        } else {
            if self.names_questions {
                text += &format!("{:indent$}{}\n", "", printable(question), indent = self.indent() - INDENT);
            }
            if self.shown != Shown::Objects {
                let mut words = Indented::new(self.indent());
                text += &words.push(&answered.answer.text);
                text += words.end();
            }
        }
        match self.shown {
            Shown::Text => {}
            Shown::Both if answered.found.is_empty() => {}
            Shown::Both | Shown::Objects => {
                text += &objects_table(answered.found, answered.answer, self.indent());
            }
        }
        self.out.print(text)
    }

    /// Ends a line of streamed text that will not be completed.
    pub fn break_off(&mut self) -> anyhow::Result<()> {
        match self.begun.take() {
            Some(begun) => self.out.print(begun.end()),
            None => Ok(()),
        }
    }

    /// A picture could not be used.
    pub fn failure(&mut self, source: &str, error: &anyhow::Error) -> anyhow::Result<()> {
        self.break_off()?;
        say(errors::explain(error));
        if self.json {
            let error = &errors::in_one_line(error);
            self.out.print_json(&json::Failure { source, error })?;
        }
        Ok(())
    }

    fn indent(&self) -> usize {
        INDENT * (usize::from(self.names_pictures) + usize::from(self.names_questions))
    }
}

const INDENT: usize = 2;

/// How a file is named in notes.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Shows what the libraries log: warnings, with `-v` debugging notes, with `-vv` everything.
pub fn log_to_stderr(verbosity: u8) {
    struct Logger {
        /// Of libraries that are not ours.
        others: log::LevelFilter,
    }
    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata) -> bool {
            let target = metadata.target();
            // DDS warns, again and again, of what is its own affair, such as a network without multicast.
            let is_talk = target.starts_with("rustdds") && self.others < log::LevelFilter::Trace;
            let may_be_shown = !is_talk && palmtop_watch::sink::secret::may_be_logged(metadata);
            target.starts_with("palmtop") || (metadata.level() <= self.others && may_be_shown)
        }
        fn log(&self, record: &log::Record) {
            if !self.enabled(record.metadata()) {
                return;
            }
            let level = record.level().as_str().to_ascii_lowercase();
            say(format_args!("{level}: {}: {}\n", record.target(), record.args()));
        }
        fn flush(&self) {}
    }
    let level = match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let others = if verbosity < 2 { log::LevelFilter::Warn } else { log::LevelFilter::Trace };
    // It lasts as long as the program.
    if log::set_logger(Box::leak(Box::new(Logger { others }))).is_ok() {
        log::set_max_level(level);
    }
}
