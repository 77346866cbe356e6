//! Answers read into typed results: boxes, labels, mask codes, scores.

use std::ops::Range;

use super::scan::Objects;

/// Steps of a `<loc>` token across the image: `<loc0512>` is the middle.
const LOCATION_STEPS: u32 = 1024;

/// An answer's text and the objects found in it. Built from any text: a plain caption has no detections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The whole text as the model gave it.
    pub text: String,
    /// The objects, in the order of the text.
    pub detections: Vec<Detection>,
    /// The text after the last object; the whole text if there is none. Untrimmed.
    pub text_after: String,
}

/// An object that the model found.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// The name, without surrounding white space; empty if the model gave none.
    pub label: String,
    /// The box in pixels of the original picture.
    pub bounding_box: BoundingBox,
    /// The same box in whole pixels.
    pub pixel_box: PixelBox,
    /// The likelihood of the label, once [`Answer::set_scores`] has been called.
    pub score: Option<f32>,
    /// The `<loc>` values in the model's order: y1, x1, y2, x2, each below 1024.
    pub locations: [u16; 4],
    /// The `<seg>` values for [`MaskCodec::decode`](super::MaskCodec::decode), each below 128, if there is a mask.
    pub mask_codes: Option<[u8; 16]>,
    /// The text between the object before (or the start) and this one, untrimmed. Usually empty.
    pub text_before: String,
    /// The bytes of the object in [`Answer::text`].
    pub text_span: Range<usize>,
    /// Which tokens of the answer the object is made of, if they were given.
    pub tokens: Option<ObjectTokens>,
}

/// Which tokens of an answer an object is made of, as indices into the answer's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTokens {
    /// From the first `<loc>` to the end of the label.
    pub span: Range<usize>,
    /// The four `<loc>` tokens.
    pub locations: Range<usize>,
    /// The sixteen `<seg>` tokens; empty without a mask.
    pub mask_codes: Range<usize>,
    /// The tokens of the label; empty without a label.
    pub label: Range<usize>,
}

impl Answer {
    /// Reads the text of an answer about a picture of `width` × `height` pixels. Any text is an answer; see
    /// [`Objects`] for what counts as an object.
    pub fn read(text: &str, width: u32, height: u32) -> Self {
        let mut objects = Objects::new(text);
        let detections = objects
            .by_ref()
            .map(|object| Detection {
                label: object.label.to_owned(),
                bounding_box: BoundingBox::from_locations(object.locations, width, height),
                pixel_box: PixelBox::from_locations(object.locations, width, height),
                score: None,
                locations: object.locations,
                mask_codes: object.mask_codes,
                text_before: object.text_before.to_owned(),
                text_span: object.span,
                tokens: None,
            })
            .collect();
        Self { text: text.to_owned(), detections, text_after: objects.rest().to_owned() }
    }

    /// Like [`Answer::read`], and says which tokens each object is made of.
    ///
    /// `token_ends[i]` is the length of the decoded text after token `i`, in bytes, as a detokenizer that appends
    /// to one string leaves it: token `i` is `text[token_ends[i - 1]..token_ends[i]]`. A token may be empty (the
    /// end of the answer, or a byte of a character that a later token completes). Ends that decrease or lie beyond
    /// the text are taken as the nearest possible ones.
    pub fn read_tokens(text: &str, token_ends: &[usize], width: u32, height: u32) -> Self {
        let mut answer = Self::read(text, width, height);
        let mut ends = Vec::with_capacity(token_ends.len());
        let mut end_before = 0;
        for &end in token_ends {
            end_before = end.clamp(end_before, text.len());
            ends.push(end_before);
        }
        for (detection, object) in answer.detections.iter_mut().zip(Objects::new(text)) {
            detection.tokens = Some(ObjectTokens {
                span: tokens_of(&ends, &object.span),
                locations: tokens_of(&ends, &object.locations_span),
                mask_codes: tokens_of(&ends, &object.mask_codes_span),
                label: label_tokens_of(&ends, &object.label_span),
            });
        }
        answer
    }

    /// Gives every object its score: [`label_likelihood`] of its label's tokens.
    ///
    /// `probabilities[i]` is the probability that the model gave to token `i` when it was chosen. An object keeps
    /// `None` if it has no label, if the answer was read without tokens, or if a probability is missing.
    pub fn set_scores(&mut self, probabilities: &[f32]) {
        for detection in &mut self.detections {
            detection.score = detection
                .tokens
                .as_ref()
                .and_then(|tokens| probabilities.get(tokens.label.clone()))
                .and_then(label_likelihood);
        }
    }
}

/// The score of an object: the likelihood of its label, which is the product of the probabilities of the label's
/// tokens, each given all tokens before it. `None` for no tokens or a value outside 0 to 1.
///
/// PaliGemma's authors rank boxes by the likelihood of the class tokens when they compute average precision. The
/// product is that likelihood itself: over all labels that could stand there the scores sum to at most one, so the
/// scores of different labels compare. A geometric mean would favour long labels, whose later tokens are nearly
/// certain once the first is known ("traffic", then "light").
pub fn label_likelihood(probabilities: &[f32]) -> Option<f32> {
    if probabilities.is_empty() || !probabilities.iter().all(|p| (0.0..=1.0).contains(p)) {
        return None;
    }
    Some(probabilities.iter().map(|&p| f64::from(p)).product::<f64>() as f32)
}

/// A box in pixels of the original picture, as edges: a box over all of a picture is 0, 0, width, height.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundingBox {
    /// Left edge.
    pub x_min: f32,
    /// Upper edge.
    pub y_min: f32,
    /// Right edge, not less than `x_min`.
    pub x_max: f32,
    /// Lower edge, not less than `y_min`.
    pub y_max: f32,
}

impl BoundingBox {
    /// The box of `[y1, x1, y2, x2]` in a picture of `width` × `height` pixels: `location / 1024 * size`, and the
    /// lesser of two edges first, whatever their order in the answer.
    ///
    /// 1024 is what Google's demos, transformers' documentation and other readers of answers divide by. big_vision,
    /// which trained the models, writes `round(edge * 1023)` and its evaluators divide by 1023; the difference is
    /// below a thousandth of the picture.
    pub fn from_locations(locations: [u16; 4], width: u32, height: u32) -> Self {
        let edge = |location: u16, size: u32| {
            (f64::from(location) * f64::from(size) / f64::from(LOCATION_STEPS)) as f32
        };
        let [y1, x1, y2, x2] = locations;
        let (x1, x2) = (edge(x1, width), edge(x2, width));
        let (y1, y2) = (edge(y1, height), edge(y2, height));
        Self { x_min: x1.min(x2), y_min: y1.min(y2), x_max: x1.max(x2), y_max: y1.max(y2) }
    }
}

/// A box in whole pixels of the original picture: columns `x_min..x_max` and rows `y_min..y_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelBox {
    /// First column.
    pub x_min: u32,
    /// First row.
    pub y_min: u32,
    /// One past the last column, not less than `x_min`.
    pub x_max: u32,
    /// One past the last row, not less than `y_min`.
    pub y_max: u32,
}

impl PixelBox {
    /// [`BoundingBox::from_locations`] with every edge rounded to the nearest whole pixel, halves to the even one,
    /// as Python's `round` does.
    pub fn from_locations(locations: [u16; 4], width: u32, height: u32) -> Self {
        let [y1, x1, y2, x2] = locations;
        let (x1, x2) = (rounded_edge(x1, width), rounded_edge(x2, width));
        let (y1, y2) = (rounded_edge(y1, height), rounded_edge(y2, height));
        Self { x_min: x1.min(x2), y_min: y1.min(y2), x_max: x1.max(x2), y_max: y1.max(y2) }
    }

    /// Number of columns.
    pub fn width(&self) -> u32 {
        self.x_max.saturating_sub(self.x_min)
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.y_max.saturating_sub(self.y_min)
    }
}

/// `location / 1024 * size`, rounded half to even, not above `size`.
pub(super) fn rounded_edge(location: u16, size: u32) -> u32 {
    let steps = u64::from(LOCATION_STEPS);
    let scaled = u64::from(location) * u64::from(size);
    let (whole, rest) = (scaled / steps, scaled % steps);
    let rounds_up = rest > steps / 2 || (rest == steps / 2 && whole % 2 == 1);
    (whole + u64::from(rounds_up)).min(u64::from(size)) as u32
}

/// The tokens that have bytes in `span`.
fn tokens_of(ends: &[usize], span: &Range<usize>) -> Range<usize> {
    let first = ends.partition_point(|&end| end <= span.start);
    if span.is_empty() {
        return first..first;
    }
    let last = ends.partition_point(|&end| end < span.end);
    first..(last + 1).min(ends.len()).max(first)
}

/// The tokens that have bytes in `span`, and the empty tokens right before them: bytes of a first character that
/// came out with a later token.
fn label_tokens_of(ends: &[usize], span: &Range<usize>) -> Range<usize> {
    let mut tokens = tokens_of(ends, span);
    let is_empty = |token: usize| ends[token] == if token == 0 { 0 } else { ends[token - 1] };
    while !tokens.is_empty() && tokens.start > 0 && is_empty(tokens.start - 1) {
        tokens.start -= 1;
    }
    tokens
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
