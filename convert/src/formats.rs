//! The format of each matrix: that of its part, unless the recipe names the matrix itself.

use std::collections::BTreeMap;
use std::fmt;

use palmtop::model::config::Config;
use palmtop::model::tensors::TensorSpec;
use palmtop_kernels::layout::WeightFormat;

use crate::{ConvertError, Recipe};

/// A recipe, and formats of single matrices by their names in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// For each part.
    pub recipe: Recipe,
    /// For single matrices, such as `text.layer.0.mlp.down.weight`.
    pub exceptions: BTreeMap<String, WeightFormat>,
}

impl From<Recipe> for Formats {
    fn from(recipe: Recipe) -> Self {
        Self { recipe, exceptions: BTreeMap::new() }
    }
}

impl Formats {
    /// The format of a matrix; none for what is no matrix.
    pub fn of(&self, tensor: &TensorSpec) -> Option<WeightFormat> {
        let part = tensor.matrix()?;
        Some(self.exceptions.get(&tensor.name).copied().unwrap_or(self.recipe.format(part)))
    }

    /// Applies a text such as `int4,head=int8,text.layer.0.mlp.down.weight=int8`: what [`Recipe::apply`] reads, and
    /// single matrices, which are known by the dots in their names.
    pub fn apply(mut self, text: &str) -> Result<Self, ConvertError> {
        let mut of_parts = Vec::new();
        for item in text.split(',').map(str::trim) {
            match item.split_once('=') {
                Some((name, format)) if name.contains('.') => {
                    let wrong = |what| ConvertError::Recipe { recipe: text.to_owned(), what };
                    self.exceptions.insert(name.trim().to_owned(), format.trim().parse().map_err(wrong)?);
                }
                _ => of_parts.push(item),
            }
        }
        self.recipe = self.recipe.apply(&of_parts.join(","))?;
        Ok(self)
    }

    /// An error for exceptions that the architecture has no matrix for.
    pub(crate) fn check(&self, config: &Config) -> Result<(), ConvertError> {
        let tensors = config.tensors();
        let matrices = || tensors.iter().filter(|t| t.matrix().is_some()).map(|t| t.name.as_str());
        match self.exceptions.keys().find(|name| !matrices().any(|m| m == *name)) {
            None => Ok(()),
            Some(name) => Err(ConvertError::Recipe {
                recipe: self.to_string(),
                what: format!("this model has no matrix '{name}'; `palmtop inspect --all` shows their names"),
            }),
        }
    }
}

impl fmt::Display for Formats {
    /// In a form that [`apply`](Self::apply) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.recipe)?;
        self.exceptions.iter().try_for_each(|(name, format)| write!(f, ",{name}={format}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::preset;

    #[test]
    fn formats_come_back_as_written() {
        for text in
            ["int4", "int4,text.embed=int4,vision.layer.1.mlp.fc2.weight=f16", "text.embed=f16, head=int8"]
        {
            let formats = Formats::default().apply(text).unwrap();
            assert_eq!(Formats::default().apply(&formats.to_string()).unwrap(), formats, "{text}");
            formats.check(&preset("tiny").unwrap()).unwrap();
        }
    }

    #[test]
    fn exceptions_come_before_parts_and_only_matrices_have_formats() {
        let config = preset("tiny").unwrap();
        let formats = Formats::default().apply("int4,text.layer.1.mlp.down.weight=int8").unwrap();
        let of = |name: &str| formats.of(config.tensors().iter().find(|t| t.name == name).unwrap());
        assert_eq!(of("text.layer.1.mlp.down.weight"), Some(WeightFormat::Int8));
        assert_eq!(of("text.layer.0.mlp.down.weight"), Some(WeightFormat::Int4));
        assert_eq!((of("vision.patch_embed.weight"), of("text.norm")), (Some(WeightFormat::F16), None));
    }

    #[test]
    fn wrong_exceptions_are_refused() {
        let wrong = Formats::default().apply("text.layer.0.mlp.down.weight=int3").unwrap_err().to_string();
        assert!(wrong.contains("unknown weight format 'int3'"), "{wrong}");
        for name in ["text.layer.99.mlp.down.weight", "text.norm", "text.layer.0"] {
            let formats = Formats::default().apply(&format!("{name}=int8")).unwrap();
            let wrong = formats.check(&preset("tiny").unwrap()).unwrap_err().to_string();
            assert!(wrong.contains(&format!("has no matrix '{name}'")), "{wrong}");
        }
    }
}
