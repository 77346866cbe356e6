//! The text of an answer read into typed objects: boxes, labels, mask codes, scores.

use std::ops::Range;

use super::boxes::{BoundingBox, PixelBox};
use super::mask::Mask;
use super::scan::Objects;

/// The objects that an answer locates, and its text around them. Any text can be read: a plain caption has no objects.
///
/// [`Model::read_answer`](crate::Model::read_answer) makes one of an answer, with scores and masks;
/// [`Detections::read`] of a text that no session has written, such as the expected answer of a test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detections {
    /// The whole text as the model gave it.
    pub text: String,
    /// The objects, in the order of the text.
    pub objects: Vec<Detection>,
    /// The text after the last object; the whole text if there is none. Untrimmed.
    pub text_after: String,
    /// Whether the answer ended before the model had ended it, by a limit, a deadline or because it was stopped. The
    /// last object may then lack a part of its label, or its mask.
    pub cut_short: bool,
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
    /// The likelihood of the label ([`label_likelihood`]); `None` without a label, or if no session has written the
    /// text.
    pub score: Option<f32>,
    /// The `<loc>` values in the model's order: y1, x1, y2, x2, each below 1024.
    pub locations: [u16; 4],
    /// The `<seg>` values for [`MaskCodec::decode`](super::MaskCodec::decode), each below 128, if there is a mask.
    pub mask_codes: Option<[u8; 16]>,
    /// The mask, if it has been decoded.
    pub mask: Option<Mask>,
    /// The text between the object before (or the start) and this one, untrimmed. Usually empty.
    pub text_before: String,
    /// The bytes of the object in [`Detections::text`].
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

impl Detection {
    /// The box in parts of the picture, from 0 to 1: multiply columns by its width and rows by its height.
    pub fn relative_box(&self) -> BoundingBox {
        BoundingBox::from_locations(self.locations, 1, 1)
    }
}

impl Detections {
    /// Reads the text of an answer about a picture of `width` × `height` pixels. Any text can be read; see
    /// [`Objects`] for what counts as an object. There are no scores and no masks.
    pub fn read(text: &str, width: u32, height: u32) -> Self {
        let mut objects = Objects::new(text);
        let found = objects
            .by_ref()
            .map(|object| Detection {
                label: object.label.to_owned(),
                bounding_box: BoundingBox::from_locations(object.locations, width, height),
                pixel_box: PixelBox::from_locations(object.locations, width, height),
                score: None,
                locations: object.locations,
                mask_codes: object.mask_codes,
                mask: None,
                text_before: object.text_before.to_owned(),
                text_span: object.span,
                tokens: None,
            })
            .collect();
        Self {
            text: text.to_owned(),
            objects: found,
            text_after: objects.rest().to_owned(),
            cut_short: false,
        }
    }

    /// Like [`Detections::read`], and says which tokens each object is made of.
    ///
    /// `token_ends[i]` is the length of the decoded text after token `i`, in bytes, as a detokenizer that appends
    /// to one string leaves it: token `i` is `text[token_ends[i - 1]..token_ends[i]]`. A token may be empty (the
    /// end of the answer, or a byte of a character that a later token completes). Ends that decrease or lie beyond
    /// the text are taken as the nearest possible ones.
    pub fn read_tokens(text: &str, token_ends: &[usize], width: u32, height: u32) -> Self {
        let mut read = Self::read(text, width, height);
        let mut ends = Vec::with_capacity(token_ends.len());
        let mut end_before = 0;
        for &end in token_ends {
            end_before = end.clamp(end_before, text.len());
            ends.push(end_before);
        }
        for (detection, object) in read.objects.iter_mut().zip(Objects::new(text)) {
            detection.tokens = Some(ObjectTokens {
                span: tokens_of(&ends, &object.span),
                locations: tokens_of(&ends, &object.locations_span),
                mask_codes: tokens_of(&ends, &object.mask_codes_span),
                label: label_tokens_of(&ends, &object.label_span),
            });
        }
        read
    }

    /// Gives every object its score: [`label_likelihood`] of its label's tokens.
    ///
    /// `probabilities[i]` is the probability that the model gave to token `i` when it was chosen. An object keeps
    /// `None` if it has no label, if the answer was read without tokens, or if a probability is missing.
    pub fn set_scores(&mut self, probabilities: &[f32]) {
        for detection in &mut self.objects {
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
#[path = "detections_tests.rs"]
mod tests;
