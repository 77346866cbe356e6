//! Output for the user: answers on stdout as text or JSON lines, notes on stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use palmtop::session::{Answer, StopReason, Timings};
use palmtop::tasks::{Detection, Mask};
use serde::Serialize;

use crate::errors;
use crate::sources::Source;

/// How much is said on stderr.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    pub quiet: bool,
    pub verbose: bool,
}

impl Voice {
    /// A line on stderr, unless the user wants quiet.
    pub fn note(self, text: impl fmt::Display) {
        if !self.quiet {
            say(format_args!("{text}\n"));
        }
    }
}

/// Writes to stderr. If nobody listens there any more, there is nobody to tell.
pub fn say(text: impl fmt::Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// The reader of stdout has closed it.
#[derive(Debug)]
pub struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for StdoutClosed {}

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

    pub fn print(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        self.write_all(text.to_string().as_bytes())
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
    Words,
    /// The objects in it.
    Objects,
    /// The words, then the objects if there are any.
    Both,
}

/// An object that the model found, with its mask.
pub struct Found {
    pub detection: Detection,
    pub mask: Option<Mask>,
    /// The file that the mask was written to.
    pub mask_file: Option<String>,
}

/// An answer and all that is known about it.
pub struct Answered<'a> {
    pub source: &'a Source,
    pub task: &'static str,
    /// The whole prompt.
    pub prompt: &'a str,
    /// What the user asked.
    pub question: &'a str,
    pub answer: &'a Answer,
    /// The likelihood of a choice among the choices.
    pub score: Option<f32>,
    pub found: &'a [Found],
    /// Width and height of the picture.
    pub picture: (u32, u32),
    pub timings: TimingsJson,
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
    pub fn begin_picture(&mut self, source: &Source) -> anyhow::Result<()> {
        if self.names_pictures && !self.json {
            self.out.print(format_args!("{}\n", printable(&source.to_string())))?;
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

    /// An answer is complete.
    pub fn answer(&mut self, answered: &Answered) -> anyhow::Result<()> {
        if self.json {
            return self.out.print_json(&AnswerJson::new(answered));
        }
        let mut text = String::new();
        if let Some(begun) = self.begun.take() {
            text += begun.end();
        } else {
            if self.names_questions {
                text += &format!(
                    "{:indent$}{}\n",
                    "",
                    printable(answered.question),
                    indent = self.indent() - INDENT
                );
            }
            if self.shown != Shown::Objects {
                let mut words = Indented::new(self.indent());
                text += &words.push(&answered.answer.text);
                text += words.end();
            }
        }
        match self.shown {
            Shown::Words => {}
            Shown::Both if answered.found.is_empty() => {}
            Shown::Both | Shown::Objects => text += &objects_table(answered.found, self.indent()),
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
    pub fn failure(&mut self, source: &Source, error: &anyhow::Error) -> anyhow::Result<()> {
        self.break_off()?;
        say(errors::explain(error));
        if self.json {
            let error = errors::in_one_line(error);
            self.out.print_json(&FailureJson { source: source.to_string(), error })?;
        }
        Ok(())
    }

    fn indent(&self) -> usize {
        INDENT * (usize::from(self.names_pictures) + usize::from(self.names_questions))
    }
}

const INDENT: usize = 2;

/// Text that comes in pieces, every line indented.
struct Indented {
    indent: usize,
    at_line_start: bool,
}

impl Indented {
    fn new(indent: usize) -> Self {
        Self { indent, at_line_start: true }
    }

    fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + self.indent);
        for character in text.chars() {
            if self.at_line_start {
                out.extend(std::iter::repeat_n(' ', self.indent));
            }
            self.at_line_start = character == '\n';
            out.push(printable_char(character));
        }
        out
    }

    /// What ends the last line.
    fn end(self) -> &'static str {
        if self.at_line_start && self.indent > 0 { "" } else { "\n" }
    }
}

/// Control characters could move a terminal's cursor or worse; names and answers are not trusted with that.
fn printable_char(character: char) -> char {
    if character.is_control() && !matches!(character, '\n' | '\t') {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

/// One line of text for a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { ' ' } else { printable_char(c) }).collect()
}

fn objects_table(found: &[Found], indent: usize) -> String {
    if found.is_empty() {
        return format!("{:indent$}nothing found\n", "");
    }
    let label = |found: &Found| match found.detection.label.as_str() {
        "" => "-".into(),
        label => printable(label),
    };
    let labels: Vec<String> = found.iter().map(label).collect();
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0).max("label".len());
    let has_masks = found.iter().any(|f| f.mask.is_some());
    let mut table = format!("{:indent$}{:width$}  score  x_min  y_min  x_max  y_max", "", "label");
    table += if has_masks { "  mask pixels\n" } else { "\n" };
    for (label, found) in labels.iter().zip(found) {
        let score = found.detection.score.map_or_else(|| "-".into(), |s| format!("{s:.3}"));
        let b = &found.detection.pixel_box;
        table += &format!(
            "{:indent$}{label:width$}  {score:>5}  {:>5}  {:>5}  {:>5}  {:>5}",
            "", b.x_min, b.y_min, b.x_max, b.y_max
        );
        if has_masks {
            let pixels = found.mask.as_ref().map_or_else(|| "-".into(), |m| m.area().to_string());
            table += &format!("  {pixels:>11}");
        }
        table.push('\n');
    }
    table
}

/// An answer as a line of JSON. `docs/json.md` promises this shape.
#[derive(Serialize)]
struct AnswerJson<'a> {
    source: String,
    task: &'static str,
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
    probabilities: &'a [f32],
    stop: &'static str,
    score: Option<f32>,
    image: SizeJson,
    timings: &'a TimingsJson,
    objects: Vec<ObjectJson<'a>>,
}

#[derive(Serialize)]
struct SizeJson {
    width: u32,
    height: u32,
}

/// Milliseconds of the steps of an answer. Prompts answered together share them.
#[derive(Clone, Debug, Serialize)]
pub struct TimingsJson {
    decode_image_ms: f64,
    encode_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    /// Tokens of this answer.
    tokens: usize,
    ms_per_token: Option<f64>,
    /// Prompts answered together.
    batch: usize,
}

#[derive(Serialize)]
struct ObjectJson<'a> {
    label: &'a str,
    score: Option<f32>,
    #[serde(rename = "box")]
    bounding_box: BoxJson,
    locations: [u16; 4],
    mask_codes: Option<[u8; 16]>,
    mask: Option<MaskJson<'a>>,
}

#[derive(Serialize)]
struct BoxJson {
    x_min: f32,
    y_min: f32,
    x_max: f32,
    y_max: f32,
}

#[derive(Serialize)]
struct MaskJson<'a> {
    rle: RleJson,
    area: u64,
    png: Option<&'a str>,
}

/// As COCO has it: `size` is rows, columns.
#[derive(Serialize)]
struct RleJson {
    size: [u32; 2],
    counts: String,
}

#[derive(Serialize)]
struct FailureJson {
    source: String,
    error: String,
}

impl<'a> AnswerJson<'a> {
    fn new(answered: &'a Answered) -> Self {
        let (width, height) = answered.picture;
        Self {
            source: answered.source.to_string(),
            task: answered.task,
            prompt: answered.prompt,
            text: &answered.answer.text,
            tokens: &answered.answer.tokens,
            probabilities: &answered.answer.probabilities,
            stop: stop_name(answered.answer.stop),
            score: answered.score,
            image: SizeJson { width, height },
            timings: &answered.timings,
            objects: answered.found.iter().map(ObjectJson::new).collect(),
        }
    }
}

impl<'a> ObjectJson<'a> {
    fn new(found: &'a Found) -> Self {
        let detection = &found.detection;
        let b = &detection.bounding_box;
        Self {
            label: &detection.label,
            score: detection.score,
            bounding_box: BoxJson { x_min: b.x_min, y_min: b.y_min, x_max: b.x_max, y_max: b.y_max },
            locations: detection.locations,
            mask_codes: detection.mask_codes,
            mask: found.mask.as_ref().map(|mask| {
                let rle = mask.rle();
                MaskJson {
                    area: mask.area(),
                    rle: RleJson { size: [rle.height, rle.width], counts: rle.compressed() },
                    png: found.mask_file.as_deref(),
                }
            }),
        }
    }
}

impl TimingsJson {
    /// `tokens` of one answer among `batch` that took `timings` together.
    pub fn new(decode_image: std::time::Duration, timings: &Timings, tokens: usize, batch: usize) -> Self {
        let ms = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let steps = timings.decode_steps;
        Self {
            decode_image_ms: ms(decode_image),
            encode_ms: ms(timings.encode),
            prefill_ms: ms(timings.prefill),
            decode_ms: ms(timings.decode),
            tokens,
            ms_per_token: (steps > 0).then(|| ms(timings.decode / steps as u32)),
            batch,
        }
    }
}

impl fmt::Display for TimingsJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decode_image_ms, encode_ms, prefill_ms, .. } = self;
        write!(f, "picture {decode_image_ms:.1} ms, encoder {encode_ms:.1} ms, prefill {prefill_ms:.1} ms")?;
        if let Some(ms) = self.ms_per_token {
            write!(f, ", then {ms:.2} ms a token")?;
        }
        Ok(())
    }
}

/// Why an answer ended, in a word.
pub fn stop_name(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndOfSequence => "eos",
        StopReason::TokenLimit => "limit",
        StopReason::Callback => "callback",
        StopReason::Cancelled => "cancelled",
        StopReason::DeadlinePassed => "deadline",
    }
}

/// A size in bytes for people.
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// How a file is named in notes.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Shows what the libraries log: warnings, with `-v` debugging notes, with `-vv` everything.
pub fn log_to_stderr(verbosity: u8) {
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }
        fn log(&self, record: &log::Record) {
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
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_indented_however_they_come() {
        let mut text = Indented::new(2);
        let pieces: String = ["a", "b\n", "", "c\n\nd"].iter().map(|p| text.push(p)).collect();
        assert_eq!(pieces + text.end(), "  ab\n  c\n  \n  d\n");
    }

    #[test]
    fn an_empty_answer_is_an_empty_line() {
        assert_eq!(Indented::new(0).end(), "\n");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("\x1b[2J\u{9b}x\ny"), "\u{fffd}[2J\u{fffd}x y");
    }

    #[test]
    fn sizes_read_well() {
        let shown = [999, 1_500, 2_900_000_000].map(human_bytes);
        assert_eq!(shown, ["999 B", "1.5 kB", "2.90 GB"]);
    }
}
