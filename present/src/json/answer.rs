//! Answers, and pictures that cannot be used.

use std::fmt;
use std::time::Duration;

use palmtop::tasks::BoundingBox;
use palmtop::{StopReason, session};
use serde::Serialize;

use crate::found::{Answered, Found, Part};

/// An answer.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer<'a> {
    source: &'a str,
    task: &'a str,
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
    probabilities: &'a [f32],
    stop: &'static str,
    score: Option<f32>,
    image: Size,
    timings: &'a Timings,
    objects: Vec<Object<'a>>,
    /// The pictures of the prompt, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    together: Vec<TogetherPart<'a>>,
}

/// One of several pictures of a prompt.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct TogetherPart<'a> {
    source: &'a str,
    /// Which frame of a film, from 0 on.
    frame: Option<u64>,
    /// How long after its first frame.
    seconds: Option<f64>,
    image: Size,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Size {
    width: u32,
    height: u32,
    /// Whether the file ends too early, so that some of the pixels are not its own.
    truncated: bool,
}

/// Milliseconds of the steps of an answer. Prompts answered together share them. Reads as a line for people.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timings {
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

/// An object that an answer locates.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Object<'a> {
    label: &'a str,
    score: Option<f32>,
    #[serde(rename = "box")]
    bounding_box: Edges,
    locations: [u16; 4],
    mask_codes: Option<[u8; 16]>,
    mask: Option<Mask<'a>>,
}

/// Edges of a box in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Edges {
    x_min: f32,
    y_min: f32,
    x_max: f32,
    y_max: f32,
}

impl From<&BoundingBox> for Edges {
    fn from(b: &BoundingBox) -> Self {
        Self { x_min: b.x_min, y_min: b.y_min, x_max: b.x_max, y_max: b.y_max }
    }
}

/// A mask over the whole picture.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mask<'a> {
    rle: RunLengths,
    area: u64,
    png: Option<&'a str>,
}

/// As COCO has it: `size` is rows, columns.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct RunLengths {
    size: [u32; 2],
    counts: String,
}

/// A picture that cannot be used, and why.
#[derive(Debug, Serialize)]
pub struct Failure<'a> {
    /// The picture's name.
    pub source: &'a str,
    /// What is wrong, in one line.
    pub error: &'a str,
}

impl<'a> Answer<'a> {
    /// The object of an answer.
    pub fn new(answered: &Answered<'a>) -> Self {
        let (width, height) = answered.picture;
        Self {
            source: answered.source,
            task: answered.task,
            prompt: answered.prompt,
            text: &answered.answer.text,
            tokens: &answered.answer.tokens,
            probabilities: &answered.answer.probabilities,
            stop: stop_name(answered.answer.stop),
            score: answered.score,
            image: Size { width, height, truncated: answered.is_truncated },
            timings: answered.timings,
            objects: answered.found.iter().map(Object::new).collect(),
            together: answered.together.iter().map(TogetherPart::new).collect(),
        }
    }
}

impl<'a> TogetherPart<'a> {
    fn new(part: &'a Part) -> Self {
        let (width, height) = part.size;
        Self {
            source: &part.source,
            frame: part.frame.map(|(number, _)| number),
            seconds: part.frame.map(|(_, time)| (time.as_secs_f64() * 1e3).round() / 1e3),
            image: Size { width, height, truncated: part.is_truncated },
        }
    }
}

impl<'a> Object<'a> {
    /// The object of something found.
    pub fn new(found: &'a Found) -> Self {
        let detection = &found.detection;
        Self {
            label: &detection.label,
            score: detection.score,
            bounding_box: Edges::from(&detection.bounding_box),
            locations: detection.locations,
            mask_codes: detection.mask_codes,
            mask: detection.mask.as_ref().map(|mask| {
                let rle = mask.rle();
                Mask {
                    area: mask.area(),
                    rle: RunLengths { size: [rle.height, rle.width], counts: rle.compressed() },
                    png: found.mask_file.as_deref(),
                }
            }),
        }
    }
}

impl Timings {
    /// Of an answer of so many `tokens`, one of `batch` that took `timings` together.
    pub fn new(decode_image: Duration, timings: &session::Timings, tokens: usize, batch: usize) -> Self {
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
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

impl fmt::Display for Timings {
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

#[cfg(test)]
mod tests {
    use palmtop::tasks::{BoxRounding, Detections, Mask};

    use super::*;

    /// The line of `docs/json.md`, its fields in their order.
    #[test]
    fn an_answer_is_the_line_that_the_docs_promise() {
        let mut answer = palmtop::Answer::default();
        answer.text = "<loc0256><loc0128><loc0768><loc0512> cat".to_owned();
        (answer.tokens, answer.probabilities) = (vec![7, 9], vec![0.5, 1.0]);
        let mut found: Vec<Found> =
            Detections::read(&answer.text, 4, 4).objects.into_iter().map(Found::from).collect();
        let timings = Timings::new(Duration::from_micros(6100), &session::Timings::default(), 2, 1);
        let line = |found: &[Found]| {
            let answered = Answered {
                source: "street.jpg",
                task: "segment",
                prompt: "segment cat",
                answer: &answer,
                score: None,
                found,
                picture: (4, 4),
                is_truncated: false,
                together: &[],
                timings: &timings,
            };
            serde_json::to_string(&super::Answer::new(&answered)).unwrap()
        };
        let start = r#"{"source":"street.jpg","task":"segment","prompt":"segment cat","text":"<loc0256><loc0128><loc0768><loc0512> cat","tokens":[7,9],"probabilities":[0.5,1.0],"stop":"limit","score":null,"image":{"width":4,"height":4,"truncated":false},"timings":{"decode_image_ms":6.1,"encode_ms":0.0,"prefill_ms":0.0,"decode_ms":0.0,"tokens":2,"ms_per_token":null,"batch":1},"objects":[{"label":"cat","score":null,"box":{"x_min":0.5,"y_min":1.0,"x_max":2.0,"y_max":3.0},"locations":[256,128,768,512],"mask_codes":null,"mask":"#;
        assert_eq!(line(&found), format!("{start}null}}]}}"));
        let mask = Mask::paste(&[1.0; 4096], [0, 0, 1023, 1023], 4, 4, BoxRounding::Nearest).unwrap();
        found[0].detection.mask = Some(mask);
        found[0].mask_file = Some("masks/cat.png".to_owned());
        // No unset pixels, then 16 set ones: "0" and "`0" of COCO's code of six bits a character.
        let mask = r#"{"rle":{"size":[4,4],"counts":"0`0"},"area":16,"png":"masks/cat.png"}"#;
        assert_eq!(line(&found), format!("{start}{mask}}}]}}"));
        let failure = Failure { source: "broken.png", error: "the image is empty" };
        let failure = serde_json::to_string(&failure).unwrap();
        assert_eq!(failure, r#"{"source":"broken.png","error":"the image is empty"}"#);
    }
}
