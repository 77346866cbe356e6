//! `rank_pattern` and `alpha_pattern`: values for modules by regular expressions over their names.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::ConvertError;
use crate::json::Section;

/// No PaliGemma has as many modules.
const PATTERNS_MAX: usize = 4096;
/// Compiled, each.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// Values for the modules whose names match, the first that does.
#[derive(Debug)]
pub(super) struct Patterns(Vec<(Regex, f64)>);

/// The patterns as they stand in the file.
#[derive(Deserialize)]
pub(super) struct PatternTexts {
    #[serde(default)]
    pub rank_pattern: Option<Entries>,
    #[serde(default)]
    pub alpha_pattern: Option<Entries>,
}

/// The entries of an object, in the order of the file.
#[derive(Default)]
pub(super) struct Entries(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from patterns to numbers")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(InOrder)
    }
}

impl Patterns {
    /// Compiles the patterns of `key` as PEFT reads them: from the start of a name or from behind a dot, to its end.
    /// Values are refused that `fits` does not take.
    pub fn new(
        s: &Section<'_>,
        key: &str,
        entries: Option<Entries>,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Self, ConvertError> {
        let entries = entries.unwrap_or_default().0;
        if entries.len() > PATTERNS_MAX {
            let what = format!("has {} patterns, which is more than any model has modules", entries.len());
            return Err(s.wrong(key, what));
        }
        let pattern = |(text, value): (String, f64)| {
            if !fits(value) {
                return Err(s.wrong(key, format!("has {value} for '{text}', which cannot be")));
            }
            let mut builder = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{text})$"));
            // Names are ASCII; without Unicode's tables a pattern stays small.
            match builder.unicode(false).size_limit(PATTERN_BYTES_MAX).build() {
                Ok(regex) => Ok((regex, value)),
                Err(error) => {
                    let error = error.to_string();
                    let why = error.lines().last().unwrap_or_default();
                    let what = format!("has the pattern '{text}', which palmtop cannot read: {why}");
                    Err(s.wrong(key, what))
                }
            }
        };
        entries.into_iter().map(pattern).collect::<Result<_, _>>().map(Self)
    }

    /// The value of the first pattern that matches a module's name.
    pub fn first(&self, module: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(module.as_bytes())).map(|(_, value)| *value)
    }
}
