//! The checkpoints that Google has published on the hub, with short names: the last part of the repository's.

/// A published checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its short name.
    pub name: &'static str,
    /// Its architecture, as [`preset`](palmtop_convert::synthetic::preset) knows it.
    pub preset: &'static str,
    /// What it was trained for.
    pub purpose: &'static str,
}

impl Published {
    /// Its repository.
    pub fn repository(&self) -> String {
        format!("google/{}", self.name)
    }
}

const PT: &str = "to be fine-tuned";
const MIX: &str = "ready to answer";
const DOCCI: &str = "long captions";

const fn published(name: &'static str, preset: &'static str, purpose: &'static str) -> Published {
    Published { name, preset, purpose }
}

/// All of them.
pub const PUBLISHED: [Published; 22] = [
    published("paligemma-3b-mix-224", "paligemma-3b-224", MIX),
    published("paligemma-3b-mix-448", "paligemma-3b-448", MIX),
    published("paligemma-3b-pt-224", "paligemma-3b-224", PT),
    published("paligemma-3b-pt-448", "paligemma-3b-448", PT),
    published("paligemma-3b-pt-896", "paligemma-3b-896", PT),
    published("paligemma2-3b-mix-224", "paligemma2-3b-224", MIX),
    published("paligemma2-3b-mix-448", "paligemma2-3b-448", MIX),
    published("paligemma2-3b-ft-docci-448", "paligemma2-3b-448", DOCCI),
    published("paligemma2-3b-pt-224", "paligemma2-3b-224", PT),
    published("paligemma2-3b-pt-448", "paligemma2-3b-448", PT),
    published("paligemma2-3b-pt-896", "paligemma2-3b-896", PT),
    published("paligemma2-10b-mix-224", "paligemma2-10b-224", MIX),
    published("paligemma2-10b-mix-448", "paligemma2-10b-448", MIX),
    published("paligemma2-10b-ft-docci-448", "paligemma2-10b-448", DOCCI),
    published("paligemma2-10b-pt-224", "paligemma2-10b-224", PT),
    published("paligemma2-10b-pt-448", "paligemma2-10b-448", PT),
    published("paligemma2-10b-pt-896", "paligemma2-10b-896", PT),
    published("paligemma2-28b-mix-224", "paligemma2-28b-224", MIX),
    published("paligemma2-28b-mix-448", "paligemma2-28b-448", MIX),
    published("paligemma2-28b-pt-224", "paligemma2-28b-224", PT),
    published("paligemma2-28b-pt-448", "paligemma2-28b-448", PT),
    published("paligemma2-28b-pt-896", "paligemma2-28b-896", PT),
];

/// Short names that are like one, the nearest first.
pub fn nearest(name: &str) -> Vec<String> {
    crate::nearest(name, PUBLISHED.iter().map(|published| published.name))
}

/// One by its short name.
pub fn by_name(name: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|published| published.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use palmtop_convert::synthetic::preset;

    use super::*;
    use crate::RepositoryName;

    #[test]
    fn names_are_repositories_and_have_architectures() {
        let mut names = BTreeSet::new();
        for published in &PUBLISHED {
            assert!(names.insert(published.name));
            assert_eq!(by_name(published.name), Some(published));
            let repository = RepositoryName::parse(&published.repository()).unwrap();
            assert_eq!(repository.name(), published.name);
            let config = preset(published.preset).unwrap();
            // Size and generation stand in both names.
            let size = published.name.rsplit('-').next().unwrap();
            assert_eq!(config.vision.image_size.to_string(), size, "{}", published.name);
            let family: Vec<&str> = published.name.split('-').take(2).collect();
            assert!(published.preset.starts_with(&family.join("-")), "{}", published.name);
        }
    }
}
