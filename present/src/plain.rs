//! Plain text for people: safe on a terminal, whatever an answer or a name holds.

use palmtop::{Answer, StopReason};

use crate::found::Found;

/// Text that comes in pieces, every line indented.
#[derive(Clone, Debug)]
pub struct Indented {
    indent: usize,
    at_line_start: bool,
}

impl Indented {
    /// By so many blanks.
    pub fn new(indent: usize) -> Self {
        Self { indent, at_line_start: true }
    }

    /// What to print for the next piece.
    pub fn push(&mut self, text: &str) -> String {
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
    pub fn end(self) -> &'static str {
        if self.at_line_start && self.indent > 0 { "" } else { "\n" }
    }
}

/// Text of several lines for a terminal.
pub fn visible(text: &str) -> String {
    text.chars().map(printable_char).collect()
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

/// Longer labels stand out of their column.
const LABEL_COLUMNS_MAX: usize = 40;

/// How an answer ended that did not come to its end; `None` if it did.
fn broken_off(answer: &Answer) -> Option<String> {
    match answer.stop {
        StopReason::EndOfSequence => None,
        StopReason::TokenLimit => Some(format!("cut off by the limit of {} tokens", answer.tokens.len())),
        StopReason::Callback | StopReason::Cancelled => Some("interrupted".into()),
        StopReason::DeadlinePassed => Some("late".into()),
    }
}

/// A table of objects, a line each, indented by so many blanks. An answer that did not come to its end has another line
/// that says so, since there may be more.
pub fn objects_table(found: &[Found], answer: &Answer, indent: usize) -> String {
    let broken_off = broken_off(answer);
    if found.is_empty() {
        return match broken_off {
            None => format!("{:indent$}nothing found\n", ""),
            Some(how) => format!("{:indent$}nothing found before the answer was {how}\n", ""),
        };
    }
    let label = |found: &Found| match found.detection.label.as_str() {
        "" => "-".into(),
        label => printable(label),
    };
    let labels: Vec<String> = found.iter().map(label).collect();
    // A single long label does not make every line long.
    let widths = labels.iter().map(|l| l.chars().count()).filter(|&width| width <= LABEL_COLUMNS_MAX);
    let width = widths.max().unwrap_or(0).max("label".len());
    let has_masks = found.iter().any(|f| f.detection.mask.is_some());
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
            let pixels = found.detection.mask.as_ref().map_or_else(|| "-".into(), |m| m.area().to_string());
            table += &format!("  {pixels:>11}");
        }
        table.push('\n');
    }
    if let Some(how) = broken_off {
        table += &format!("{:indent$}(the answer was {how}: there may be more)\n", "");
    }
    table
}

/// A size in bytes for people, in powers of 1000.
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use palmtop::tasks::Detections;

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
        assert_eq!(
            visible("\x1b[2J\u{9b}x\ny\r\n\tz\x07\x7f"),
            "\u{fffd}[2J\u{fffd}x\ny\u{fffd}\n\tz\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn objects_stand_in_columns() {
        let text = "<loc0256><loc0128><loc0768><loc0512> cat ; <loc0000><loc0000><loc1023><loc1023>";
        let found: Vec<Found> =
            Detections::read(text, 640, 480).objects.into_iter().map(Found::from).collect();
        let expected = "  label  score  x_min  y_min  x_max  y_max\n\
                        \x20 cat        -     80    120    320    360\n\
                        \x20 -          -      0      0    639    480\n";
        let mut answer = Answer::default();
        answer.stop = StopReason::EndOfSequence;
        assert_eq!(objects_table(&found, &answer, 2), expected);
        assert_eq!(objects_table(&[], &answer, 2), "  nothing found\n");
        (answer.stop, answer.tokens) = (StopReason::TokenLimit, vec![1, 2, 3]);
        let more = "  (the answer was cut off by the limit of 3 tokens: there may be more)\n";
        assert_eq!(objects_table(&found, &answer, 2), format!("{expected}{more}"));
        let none = "nothing found before the answer was cut off by the limit of 3 tokens\n";
        assert_eq!(objects_table(&[], &answer, 0), none);
    }

    #[test]
    fn sizes_read_well() {
        let shown = [999, 1_500, 2_900_000_000].map(human_bytes);
        assert_eq!(shown, ["999 B", "1.5 kB", "2.90 GB"]);
    }
}
