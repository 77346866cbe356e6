//! What the image encoder makes of a picture.

use crate::error::{Result, UsageError};
use crate::model::Model;
use crate::system::memory::Reserve;

/// What the image encoder saw in a picture: `[image rows, decoder width]` f32, ready for the decoder.
///
/// Encode once, ask many times. The features of a picture belong to the model that made them: sessions of the same file
/// can use them, those of other models refuse them.
pub struct ImageFeatures {
    pub(crate) values: Vec<f32>,
    pub(crate) encoded: bool,
    /// Width and height in pixels.
    pub(crate) picture: (u32, u32),
    /// [`Model::fingerprint`]
    model: u64,
}

impl ImageFeatures {
    /// `[image rows, decoder width]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// False until a picture has been encoded into it.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }

    /// Width and height in pixels of the picture, upright: what boxes and masks are placed in. Zeros before the first
    /// one.
    pub fn picture_size(&self) -> (u32, u32) {
        self.picture
    }

    /// An error for features of another model.
    pub(crate) fn check_owner(&self, model: &Model) -> Result<(), UsageError> {
        if self.model == model.fingerprint() { Ok(()) } else { Err(UsageError::FeaturesOfAnotherModel) }
    }

    /// An error for features that this model cannot answer about.
    pub(crate) fn check_encoded(&self, model: &Model) -> Result<(), UsageError> {
        self.check_owner(model)?;
        if self.encoded { Ok(()) } else { Err(UsageError::NoPicture) }
    }
}

impl Model {
    /// Memory for the features of one picture, for any session of this model.
    pub fn new_features(&self) -> Result<ImageFeatures> {
        let numbers = self.config().image_rows() * self.config().text.hidden;
        let values = Reserve::taking(true).filled(numbers, 0.0)?;
        Ok(ImageFeatures { values, encoded: false, picture: (0, 0), model: self.fingerprint() })
    }
}
