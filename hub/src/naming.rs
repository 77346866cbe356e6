//! What a model is called that nobody has given a name.

use std::path::Path;

use crate::RepositoryName;

/// Weights that need not be named.
const USUAL: &str = "int8";

/// The name of a model in the folder of models: the repository's or the file's, and how its weights are stored, where
/// that is not the usual way; that there was a recipe; and the last part of each adapter's name.
pub fn model_name(
    repository: &RepositoryName,
    weights: Option<&str>,
    has_recipe: bool,
    adapters: &[String],
) -> String {
    let file = repository.file.as_deref().and_then(|file| Path::new(file).file_stem());
    let mut out = file.and_then(|stem| stem.to_str()).unwrap_or(repository.name()).to_owned();
    if let Some(weights) = weights.filter(|weights| *weights != USUAL) {
        out += &format!("-{weights}");
    }
    if has_recipe {
        out += "-recipe";
    }
    for adapter in adapters {
        let end = adapter.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        out += &format!("+{}", end.chars().map(plain).collect::<String>());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_unusual() {
        let name = |text: &str, weights, has_recipe, adapters: &[&str]| {
            let adapters: Vec<String> = adapters.iter().map(|&a| a.to_owned()).collect();
            model_name(&RepositoryName::parse(text).unwrap(), weights, has_recipe, &adapters)
        };
        assert_eq!(name("a/b", None, false, &[]), "b");
        assert_eq!(name("a/b@main", Some("int8"), false, &[]), "b");
        assert_eq!(
            name("a/b", Some("int4"), true, &["me/my lora/", "./x=0.5"]),
            "b-int4-recipe+my-lora+x-0.5"
        );
        assert_eq!(name("a/b/c/d.palm", None, false, &[]), "d");
    }
}
