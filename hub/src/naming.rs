//! What names on a command line stand for, and what a model is called that nobody has given one.

use std::path::Path;

use palmtop_convert::Adapter;

use crate::error::HubError;
use crate::published;
use crate::pull::AdapterSource;
use crate::repository::RepositoryName;

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

impl RepositoryName {
    /// The repository that a user means: what [`parse`](Self::parse) reads, or a short name of what is
    /// [published](crate::published), with `@` and a revision behind it or without.
    ///
    /// # Errors
    /// If it is neither; names that are like it stand in the error.
    pub fn from_argument(text: &str) -> Result<Self, HubError> {
        if text.contains('/') {
            return Self::parse(text);
        }
        let (short, revision) = match text.split_once('@') {
            Some((short, revision)) => (short, Some(revision.to_owned())),
            None => (text, None),
        };
        let published = published::by_name(short).ok_or_else(|| HubError::NoShortName {
            name: short.to_owned(),
            nearest: published::nearest(short),
        })?;
        let revision = revision.map_or(String::new(), |revision| format!("@{revision}"));
        Self::parse(&format!("{}{revision}", published.repository()))
    }
}

impl AdapterSource {
    /// Reads `DIR`, `DIR=SCALE`, `ORG/NAME` or `ORG/NAME=SCALE`; a folder that is there comes first.
    ///
    /// # Errors
    /// If it is neither a folder nor a name, or the scale is no number.
    pub fn from_argument(text: &str) -> Result<Self, HubError> {
        let wrong = |what: String| HubError::Name { name: text.to_owned(), what };
        let (path, scale) = match text.rsplit_once('=') {
            Some((path, scale)) if !Path::new(text).exists() => {
                let number = scale.trim().parse::<f64>().ok().filter(|scale| scale.is_finite());
                (
                    path,
                    number.ok_or_else(|| wrong(format!("'{scale}' is not a number to scale '{path}' by")))?,
                )
            }
            _ => (text, 1.0),
        };
        if Path::new(path).exists() {
            return Ok(Self::Folder(Adapter { path: path.into(), scale }));
        }
        match RepositoryName::parse(path) {
            Ok(name) => Ok(Self::Repository(name, scale)),
            Err(_) => Err(wrong(format!("there is no folder '{path}', and it is no ORG/NAME"))),
        }
    }
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

    #[test]
    fn arguments_are_short_names_folders_and_repositories() {
        let name = |text: &str| RepositoryName::from_argument(text).map(|name| name.to_string());
        assert_eq!(name("paligemma2-3b-pt-224").unwrap(), "google/paligemma2-3b-pt-224");
        assert_eq!(name("paligemma2-3b-pt-224@v1").unwrap(), "google/paligemma2-3b-pt-224@v1");
        assert_eq!(name("me/mine@v1").unwrap(), "me/mine@v1");
        for wrong in ["paligemma2-3b", "paligemma2-3b-pt-224@", "", "@"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let adapter = |text: &str| match AdapterSource::from_argument(text) {
            Ok(AdapterSource::Folder(adapter)) => format!("{} {}", adapter.path == dir.path(), adapter.scale),
            Ok(AdapterSource::Repository(name, scale)) => format!("{name} {scale}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(adapter(folder), "true 1");
        assert_eq!(adapter(&format!("{folder}=0.5")), "true 0.5");
        assert_eq!(adapter("me/lora=2"), "me/lora 2");
        assert!(adapter("me/lora=x").contains("'x' is not a number to scale 'me/lora' by"));
        assert!(adapter("lora").contains("there is no folder 'lora', and it is no ORG/NAME"));
    }
}
