//! What the image encoder makes of a picture.

use crate::error::Result;
use crate::model::Model;
use crate::system::memory::zeroed;

/// What the image encoder saw in a picture: `[patches, hidden]` f32, ready for the decoder.
///
/// Encode once, ask many times.
pub struct ImageFeatures {
    pub(crate) values: Vec<f32>,
    pub(crate) encoded: bool,
    /// Width and height in pixels.
    pub(crate) picture: (u32, u32),
}

impl ImageFeatures {
    /// `[patches, hidden]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// False until a picture has been encoded into it.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }

    /// Width and height in pixels of the picture, upright: what boxes and masks are placed in. Zeros before the first one.
    pub fn picture_size(&self) -> (u32, u32) {
        self.picture
    }
}

impl Model {
    /// Memory for the features of one picture, for any session of this model.
    pub fn new_features(&self) -> Result<ImageFeatures> {
        let values = zeroed(self.config().vision.patches() * self.config().text.hidden)?;
        Ok(ImageFeatures { values, encoded: false, picture: (0, 0) })
    }
}
