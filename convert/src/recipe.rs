//! Recipes: the weight format of each part of the model.

use std::fmt;
use std::str::FromStr;

use palmtop::model::tensors::Part;
use palmtop_kernels::layout::WeightFormat;

use crate::ConvertError;

/// A weight format for each part of the model. `docs/quantization.md` gives the reasons of the presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Patch embedding.
    pub patch_embedding: WeightFormat,
    /// Matrices of the image encoder.
    pub vision: WeightFormat,
    /// Projector from the encoder to the decoder.
    pub projector: WeightFormat,
    /// Matrices of the decoder's layers.
    pub text: WeightFormat,
    /// Token embedding, which is also the head, or both of them if they are two matrices.
    pub embedding: WeightFormat,
}

impl Default for Recipe {
    fn default() -> Self {
        Self::preset(WeightFormat::Int8)
    }
}

/// Names of the parts in recipes; the first name of a part is the one that is written.
const PARTS: [(&str, Part); 6] = [
    ("patch", Part::PatchEmbedding),
    ("vision", Part::Vision),
    ("projector", Part::Projector),
    ("text", Part::Text),
    ("head", Part::Embedding),
    ("embedding", Part::Embedding),
];

impl Recipe {
    /// What `--weights FORMAT` means.
    ///
    /// The patch embedding stays f16 in the integer recipes, and the image encoder, projector and head stay
    /// int8 in the int4 recipe.
    pub const fn preset(format: WeightFormat) -> Self {
        let rest = match format {
            WeightFormat::Int4 => WeightFormat::Int8,
            other => other,
        };
        let patch_embedding = match format {
            WeightFormat::F32 => WeightFormat::F32,
            _ => WeightFormat::F16,
        };
        Self { patch_embedding, vision: rest, projector: rest, text: format, embedding: rest }
    }

    /// The format of a part.
    pub const fn format(&self, part: Part) -> WeightFormat {
        match part {
            Part::PatchEmbedding => self.patch_embedding,
            Part::Vision => self.vision,
            Part::Projector => self.projector,
            Part::Text => self.text,
            Part::Embedding => self.embedding,
            // It is small, and its outputs are what is compared.
            Part::Retrieval => match self.embedding {
                WeightFormat::F32 => WeightFormat::F32,
                _ => WeightFormat::F16,
            },
        }
    }

    /// Changes the format of a part; that of the retrieval head follows the embedding's.
    pub const fn set(&mut self, part: Part, format: WeightFormat) {
        match part {
            Part::PatchEmbedding => self.patch_embedding = format,
            Part::Vision => self.vision = format,
            Part::Projector => self.projector = format,
            Part::Text => self.text = format,
            Part::Embedding => self.embedding = format,
            Part::Retrieval => {}
        }
    }

    /// The name of a part in recipes and reports.
    pub const fn part_name(part: Part) -> &'static str {
        match part {
            Part::PatchEmbedding => "patch",
            Part::Vision => "vision",
            Part::Projector => "projector",
            Part::Text => "text",
            Part::Embedding => "head",
            Part::Retrieval => "retrieval",
        }
    }

    /// The part that an item of a recipe such as `text=int4` names.
    pub fn part_of(item: &str) -> Option<Part> {
        let name = item.split_once('=')?.0.trim();
        PARTS.iter().find(|(n, _)| *n == name).map(|(_, part)| *part)
    }

    /// Applies a text such as `text=int4,head=int8` to this recipe. A format without a part sets the preset.
    pub fn apply(mut self, text: &str) -> Result<Self, ConvertError> {
        let wrong = |what: String| ConvertError::Recipe { recipe: text.to_owned(), what };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let Some((name, format)) = item.split_once('=') else {
                self = Self::preset(item.parse().map_err(wrong)?);
                continue;
            };
            let format = format.trim().parse().map_err(wrong)?;
            let part = PARTS.iter().find(|(n, _)| *n == name.trim()).ok_or_else(|| {
                let names: Vec<_> = PARTS.iter().map(|(n, _)| *n).collect();
                wrong(format!("unknown part '{}': use {}", name.trim(), names.join(", ")))
            })?;
            self.set(part.1, format);
        }
        Ok(self)
    }
}

impl FromStr for Recipe {
    type Err = ConvertError;
    /// Reads a recipe such as `int4`, `text=int4,vision=int8` (the rest as in `int8`) or `f16,text=int8`.
    fn from_str(text: &str) -> Result<Self, ConvertError> {
        Self::default().apply(text)
    }
}

impl fmt::Display for Recipe {
    /// Every part with its format, in a form that [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { patch_embedding, vision, projector, text, embedding } = self;
        write!(
            f,
            "patch={patch_embedding},vision={vision},projector={projector},text={text},head={embedding}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_come_back_as_written() {
        for text in ["f32", "f16", "int8", "int4", "int4,vision=int4", "text=int4, head=f16", "patch=f32"] {
            let recipe: Recipe = text.parse().unwrap();
            assert_eq!(recipe.to_string().parse::<Recipe>().unwrap(), recipe, "{text}");
        }
        let recipe: Recipe = "int4,head=int4".parse().unwrap();
        assert_eq!(recipe.to_string(), "patch=f16,vision=int8,projector=int8,text=int4,head=int4");
        assert_eq!("embedding=f16".parse::<Recipe>().unwrap(), "head=f16".parse().unwrap());
    }

    #[test]
    fn wrong_recipes_say_what_is_possible() {
        for (text, says) in [
            ("q4_0", "unknown weight format 'q4_0': use f32, f16, int8 or int4"),
            ("text=int3", "unknown weight format 'int3'"),
            ("lm=int4", "unknown part 'lm': use patch, vision, projector, text, head, embedding"),
        ] {
            let got = text.parse::<Recipe>().unwrap_err().to_string();
            assert!(got.contains(says), "{got:?} does not say {says:?}");
        }
    }
}
