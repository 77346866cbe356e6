//! PaliGemma's tasks: the prompts that ask for them and the answers that they give.
//!
//! | asked with | answered as | read by |
//! |---|---|---|
//! | [`Task::caption`], [`Task::answer`], [`Task::ocr`], … | plain text | – |
//! | [`Task::detect`] | boxes and labels as text | [`Model::read_answer`] |
//! | [`Task::segment`] | boxes, labels and 16 mask codes each | [`Model::read_answer`], with masks |
//!
//! Nothing here runs the language model: a [`Task`] becomes the text to encode, [`Detections`] are made of the decoded
//! text.
//!
//! [`Model::read_answer`]: crate::Model::read_answer

mod boxes;
mod detections;
mod mask;
mod mask_codec;
mod prompt;
mod read;
mod rle;
mod scan;
#[cfg(test)]
mod test_npz;

pub use boxes::{BoundingBox, PixelBox};
pub use detections::{Detection, Detections, ObjectTokens, label_likelihood};
pub use mask::{BoxRounding, Mask, MaskError};
pub use mask_codec::{
    MASK_SIDE, MaskAxis, MaskCodec, MaskCodecError, MaskLogits, MaskScratch, MaskTensor, MaskTensorSpec,
};
pub use prompt::{Label, Language, Line, PromptError, Task};
pub use read::ReadOptions;
pub use rle::Rle;
pub use scan::{Object, Objects};
