//! PaliGemma's tasks: the prompts that ask for them and the answers that they give.
//!
//! | asked with | answered as | read by |
//! |---|---|---|
//! | [`Task::caption`], [`Task::answer`], [`Task::ocr`], … | plain text | – |
//! | [`Task::detect`] | boxes and labels as text | [`Answer::read`] |
//! | [`Task::segment`] | boxes, labels and 16 mask codes each | [`Answer::read`], then [`MaskCodec`] and [`Mask`] |
//!
//! Nothing here runs the model: a [`Task`] becomes the text to encode, an [`Answer`] is made of the decoded text.

mod answer;
mod mask;
mod mask_codec;
mod prompt;
mod rle;
mod scan;
#[cfg(test)]
mod test_npz;

pub use answer::{Answer, BoundingBox, Detection, ObjectTokens, PixelBox, label_likelihood};
pub use mask::{BoxRounding, Mask, MaskError};
pub use mask_codec::{
    MASK_SIDE, MaskAxis, MaskCodec, MaskCodecError, MaskLogits, MaskScratch, MaskTensor, MaskTensorSpec,
};
pub use prompt::{Label, Language, Line, PromptError, Task};
pub use rle::Rle;
pub use scan::{Object, Objects};
