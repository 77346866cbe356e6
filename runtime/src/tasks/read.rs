//! An answer read into objects: the one way from what a session wrote to boxes, scores and masks.

use super::detections::{Detection, Detections};
use super::mask::{BoxRounding, Mask};
use super::mask_codec::{MASK_SIDE, MaskCodec, MaskScratch};
use crate::error::Result;
use crate::model::Model;
use crate::session::{Answer, StopReason};

/// What [`Model::read_answer`] makes of an answer.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Decode the masks, if the model has a decoder. Each takes longer than all else together, and memory for a bit per
    /// pixel of its box. [`Model::mask`] decodes a single one later.
    pub masks: bool,
    /// How a mask's box becomes pixels.
    pub box_rounding: BoxRounding,
}

impl Model {
    /// Reads an answer about a picture of `width` × `height` pixels: the objects that it locates, with boxes in these
    /// pixels and a score each, and masks if `options` say so. Any answer can be read; one that locates nothing has no
    /// objects.
    ///
    /// # Errors
    /// Only with [`ReadOptions::masks`], and if the answer has a mask: if the model's decoder is broken, or the picture
    /// is too large.
    pub fn read_answer(
        &self,
        answer: &Answer,
        (width, height): (u32, u32),
        options: &ReadOptions,
    ) -> Result<Detections> {
        let mut read = Detections::read_tokens(&answer.text, &answer.token_ends, width, height);
        read.set_scores(&answer.probabilities);
        read.cut_short = answer.stop != StopReason::EndOfSequence;
        let has_masks = || read.objects.iter().any(|object| object.mask_codes.is_some());
        if options.masks
            && has_masks()
            && let Some(codec) = self.mask_codec()?
        {
            let mut scratch = MaskScratch::new();
            for object in &mut read.objects {
                object.mask = decode(&codec, &mut scratch, object, (width, height), options.box_rounding)?;
            }
        }
        Ok(read)
    }

    /// The mask of an object in a picture of `width` × `height` pixels, decoded now. `None` if the object has no mask,
    /// or the model no decoder.
    ///
    /// # Errors
    /// If the model's decoder is broken, or the picture is too large.
    pub fn mask(
        &self,
        object: &Detection,
        (width, height): (u32, u32),
        rounding: BoxRounding,
    ) -> Result<Option<Mask>> {
        if object.mask_codes.is_none() {
            return Ok(None);
        }
        match self.mask_codec()? {
            Some(codec) => decode(&codec, &mut MaskScratch::new(), object, (width, height), rounding),
            None => Ok(None),
        }
    }
}

fn decode(
    codec: &MaskCodec<'_>,
    scratch: &mut MaskScratch,
    object: &Detection,
    (width, height): (u32, u32),
    rounding: BoxRounding,
) -> Result<Option<Mask>> {
    let Some(codes) = &object.mask_codes else { return Ok(None) };
    let mut logits = [0.0; MASK_SIDE * MASK_SIDE];
    codec.decode(codes, scratch, &mut logits);
    Ok(Some(Mask::paste(&logits, object.locations, width, height, rounding)?))
}
