//! The scanner that finds objects in the text of an answer.

use std::ops::Range;

/// Number of `<loc>` tokens of an object.
const LOCATIONS: usize = 4;
/// Number of `<seg>` tokens of an object that has a mask.
const MASK_CODES: usize = 16;
/// Values of a `<loc>` token: `<loc0000>` to `<loc1023>`.
const LOCATION_VALUES: u16 = 1024;
/// Values of a `<seg>` token: `<seg000>` to `<seg127>`.
const MASK_CODE_VALUES: u16 = 128;

/// An object as it stands in the text of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The text between the object before (or the start) and this one, untrimmed.
    pub text_before: &'a str,
    /// The `<loc>` values in their order in the text: y1, x1, y2, x2, each below 1024.
    pub locations: [u16; 4],
    /// The `<seg>` values, each below 128, if the object has a mask.
    pub mask_codes: Option<[u8; 16]>,
    /// The name, without surrounding white space; empty if the object has none.
    pub label: &'a str,
    /// The bytes of the object in the text, from the first `<loc>` to the end of the label.
    pub span: Range<usize>,
    /// The bytes of the four `<loc>`.
    pub locations_span: Range<usize>,
    /// The bytes of the sixteen `<seg>`, empty without a mask.
    pub mask_codes_span: Range<usize>,
    /// The bytes of [`Object::label`].
    pub label_span: Range<usize>,
}

/// Iterates over the objects in the text of an answer, in order, allocating nothing.
///
/// An object is four `<locDDDD>` in a row, white space if any, sixteen `<segDDD>` in a row or none, and a label up
/// to the next `;`, `<` or `>`; one `;` after it belongs to it. A text that does not have this form is no error: it
/// is kept as [`Object::text_before`] or [`Objects::rest`]. Numbers that no token has (`<loc1024>`) are plain text.
///
/// This is what the regular expression of Google's demos matches, with one difference: there, a line break before
/// an object hides it and all that follow.
#[derive(Clone, Debug)]
pub struct Objects<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Objects<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// The text after the objects found until now: the end of the text once the iterator is exhausted.
    pub fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }
}

impl<'a> Iterator for Objects<'a> {
    type Item = Object<'a>;

    fn next(&mut self) -> Option<Object<'a>> {
        let bytes = self.text.as_bytes();
        let (locations_span, locations) = find_locations(bytes, self.position)?;

        let codes_start = skip_white_space(bytes, locations_span.end);
        let mask_codes = read_run::<MASK_CODES>(bytes, codes_start, mask_code_at);
        let mask_codes_span = match mask_codes {
            Some((_, end)) => codes_start..end,
            None => locations_span.end..locations_span.end,
        };

        let label_start = mask_codes_span.end;
        let label_end = bytes[label_start..]
            .iter()
            .position(|byte| matches!(byte, b';' | b'<' | b'>'))
            .map_or(bytes.len(), |length| label_start + length);
        let untrimmed = &self.text[label_start..label_end];
        let label = untrimmed.trim();
        let label_span = if label.is_empty() {
            label_start..label_start
        } else {
            let start = label_start + (untrimmed.len() - untrimmed.trim_start().len());
            start..start + label.len()
        };

        let object = Object {
            text_before: &self.text[self.position..locations_span.start],
            locations,
            mask_codes: mask_codes.map(|(codes, _)| codes.map(|code| code as u8)),
            label,
            span: locations_span.start..label_span.end,
            locations_span,
            mask_codes_span,
            label_span,
        };
        self.position = match bytes.get(label_end) {
            Some(b';') => skip_white_space(bytes, label_end + 1),
            _ => label_end,
        };
        Some(object)
    }
}

/// The first four `<locDDDD>` in a row at or after `start`.
fn find_locations(bytes: &[u8], start: usize) -> Option<(Range<usize>, [u16; LOCATIONS])> {
    let mut position = start;
    loop {
        position += bytes.get(position..)?.iter().position(|&byte| byte == b'<')?;
        if let Some((locations, end)) = read_run(bytes, position, location_at) {
            return Some((position..end, locations));
        }
        position += 1;
    }
}

/// Reads `N` tokens in a row from `start` on: their values and where the last one ends.
fn read_run<const N: usize>(
    bytes: &[u8],
    start: usize,
    token_at: impl Fn(&[u8], usize) -> Option<(u16, usize)>,
) -> Option<([u16; N], usize)> {
    let mut values = [0; N];
    let mut position = start;
    for value in &mut values {
        (*value, position) = token_at(bytes, position)?;
    }
    Some((values, position))
}

fn location_at(bytes: &[u8], start: usize) -> Option<(u16, usize)> {
    numbered_token_at(bytes, start, b"<loc", 4, LOCATION_VALUES)
}

fn mask_code_at(bytes: &[u8], start: usize) -> Option<(u16, usize)> {
    numbered_token_at(bytes, start, b"<seg", 3, MASK_CODE_VALUES)
}

/// Reads `prefix`, exactly `digits` digits and `>`: the value, if below `values`, and where the token ends.
fn numbered_token_at(
    bytes: &[u8],
    start: usize,
    prefix: &[u8],
    digits: usize,
    values: u16,
) -> Option<(u16, usize)> {
    let after_prefix = bytes.get(start..)?.strip_prefix(prefix)?;
    let number = after_prefix.get(..digits)?;
    if after_prefix.get(digits) != Some(&b'>') {
        return None;
    }
    let mut value = 0u16;
    for digit in number {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u16::from(digit - b'0');
    }
    (value < values).then_some((value, start + prefix.len() + digits + 1))
}

fn skip_white_space(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}
