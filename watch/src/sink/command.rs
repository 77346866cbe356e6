//! Runs a program for each record: the record as JSON on its standard input, the most important of it as environment
//! variables.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::end::End;
use super::interest::{Interest, Kinds, Picture};
use super::{Message, Sink, SinkError, Versioned};
use crate::period::Period;
use crate::record::{Phase, Record};

/// Bytes of `PALMTOP_TEXT` at most; standard input has the whole text. Linux takes 128 KiB in one variable.
const TEXT_BYTES_MAX: usize = 32 << 10;
/// Between two looks at whether the program has ended: they begin short and grow.
const LOOKS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// The table `[command]` of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandOptions {
    /// The program and its arguments. No shell reads them.
    pub run: Vec<String>,
    /// For which records it runs.
    pub records: Kinds,
    /// The picture that it gets as a file, which is deleted when it has ended.
    pub picture: Picture,
    /// After this it is killed, with all that it started.
    pub time_limit: Period,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            run: Vec::new(),
            records: Kinds::EVENTS,
            picture: Picture::None,
            time_limit: Period(Duration::from_secs(30)),
        }
    }
}

/// A program that is run for each record.
pub struct Command {
    options: CommandOptions,
    end: Arc<End>,
}

impl Command {
    /// The sink.
    ///
    /// # Errors
    /// If no program is named.
    pub fn new(options: CommandOptions) -> Result<Self, SinkError> {
        if options.run.first().is_none_or(String::is_empty) {
            return Err(SinkError("a command needs `run`, a list of the program and its arguments".into()));
        }
        if options.run.iter().any(|argument| argument.contains('\0')) {
            return Err(SinkError("`run` of a command has a NUL character".into()));
        }
        Ok(Self { options, end: Arc::default() })
    }

    fn program(&self) -> &str {
        &self.options.run[0]
    }

    fn failed(&self, what: impl std::fmt::Display) -> SinkError {
        SinkError(format!("'{}' {what}", self.program()))
    }

    /// Waits until it ends or its time is over, which kills it.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus, SinkError> {
        let started = Instant::now();
        let mut look = LOOKS.0;
        loop {
            if let Some(status) =
                child.try_wait().map_err(|e| self.failed(format_args!("cannot be waited for: {e}")))?
            {
                return Ok(status);
            }
            let left = self.end.within(self.options.time_limit.0.saturating_sub(started.elapsed()));
            if left.is_zero() {
                kill(child);
                // It cannot ignore this.
                let _ = child.wait();
                return Err(self.failed(match self.end.deadline() {
                    Some(_) => "was killed, since the watch ends".to_owned(),
                    None => format!("was killed after its time limit of {}", self.options.time_limit),
                }));
            }
            thread::sleep(look.min(left));
            look = (look * 2).min(LOOKS.1);
        }
    }
}

impl Sink for Command {
    fn name(&self) -> String {
        format!("command {}", Path::new(self.program()).display())
    }

    fn interest(&self) -> Interest {
        let pictures = if self.options.picture == Picture::None { Kinds::NONE } else { Kinds::ALL };
        Interest { records: self.options.records, pictures }
    }

    fn attach(&mut self, end: Arc<End>) {
        self.end = end;
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        let mut json = serde_json::to_vec(&Versioned::from(&message.record)).map_err(|e| self.failed(e))?;
        json.push(b'\n');
        let snapshot = self.snapshot(message)?;
        let mut process = Process::new(self.program());
        process.args(&self.options.run[1..]);
        // Its standard output would end up among our records.
        process.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        for (name, value) in variables(&message.record) {
            match value {
                Some(value) => process.env(name, value.as_ref()),
                None => process.env_remove(name),
            };
        }
        match &snapshot {
            Some(file) => process.env("PALMTOP_SNAPSHOT", file.path()),
            None => process.env_remove("PALMTOP_SNAPSHOT"),
        };
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        let mut child = process.spawn().map_err(|e| self.failed(format_args!("cannot be started: {e}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read must not hold us up. The thread ends when it has read all, or is gone.
            let written = thread::Builder::new().spawn(move || {
                let _ = stdin.write_all(&json);
            });
            if let Err(e) = written {
                kill(&mut child);
                let _ = child.wait();
                return Err(self.failed(format_args!("gets no input: {e}")));
            }
        }
        match self.wait(&mut child)? {
            status if status.success() => Ok(()),
            status => Err(self.failed(format_args!("failed: {status}"))),
        }
    }
}

impl Command {
    fn snapshot(&self, message: &Message) -> Result<Option<tempfile::NamedTempFile>, SinkError> {
        let Some(picture) = &message.picture else { return Ok(None) };
        let jpeg = picture.jpeg_of(self.options.picture);
        let Some(jpeg) = jpeg.map_err(|e| self.failed(format_args!("gets no picture: {e}")))? else {
            return Ok(None);
        };
        let written =
            tempfile::Builder::new().prefix("palmtop-").suffix(".jpg").tempfile().and_then(|mut file| {
                file.write_all(jpeg)?;
                Ok(file)
            });
        written.map(Some).map_err(|e| self.failed(format_args!("gets no picture: {e}")))
    }
}

/// Kills it with all that it started, unless that left its process group.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It has not been waited for, so the number is still its own.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    // It may have ended by itself.
    let _ = child.kill();
}

/// The environment variables of a record; without a value those that it does not have.
fn variables(record: &Record) -> [(&'static str, Option<Cow<'_, str>>); 6] {
    let (kind, camera, question, rule, phase, text) = match record {
        Record::Answer(a) => ("answer", &a.camera, Some(&a.question), None, None, Some(&a.text)),
        Record::Event(e) => {
            let phase = match e.phase {
                Phase::Begin => "begin",
                Phase::End => "end",
            };
            ("event", &e.camera, Some(&e.question), Some(&e.rule), Some(phase), Some(&e.text))
        }
        Record::Camera(c) => ("camera", &c.camera, None, None, None, None),
    };
    [
        ("PALMTOP_RECORD", Some(kind.into())),
        ("PALMTOP_CAMERA", Some(value(camera))),
        ("PALMTOP_QUESTION", question.map(|q| value(q))),
        ("PALMTOP_RULE", rule.map(|r| value(r))),
        ("PALMTOP_PHASE", phase.map(Cow::from)),
        ("PALMTOP_TEXT", text.map(|t| value(t))),
    ]
}

/// The text as a variable can hold it: without NUL characters, and cut if it is long.
fn value(text: &str) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}
