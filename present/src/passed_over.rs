//! What was passed over in folders: how many files of which kinds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use palmtop::image::FileKind;

/// Files in folders that are no pictures, counted by kind. Reads as such a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    kinds: BTreeMap<String, usize>,
    advice: Option<&'static str>,
}

impl PassedOver {
    /// Counts a file of this kind in.
    pub fn push(&mut self, path: &Path, kind: FileKind) {
        let extension = || path.extension().map(|e| format!(".{}", e.to_string_lossy().to_ascii_lowercase()));
        let name = kind.name().map(str::to_owned).or_else(extension).unwrap_or("of no known kind".into());
        *self.kinds.entry(name).or_default() += 1;
        if kind.shows_something() {
            self.advice.get_or_insert(kind.advice());
        }
    }

    /// Counts all of another count in.
    pub fn append(&mut self, other: Self) {
        for (name, count) in other.kinds {
            *self.kinds.entry(name).or_default() += count;
        }
        self.advice = self.advice.or(other.advice);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kinds.values().sum()
    }

    /// What can be done about the first of them that shows something, but in another format.
    pub fn advice(&self) -> Option<&'static str> {
        self.advice
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Kinds that are named.
        const NAMED_MAX: usize = 5;
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
        let named: Vec<String> =
            kinds.iter().take(NAMED_MAX).map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&named.join(", "))?;
        match kinds.iter().skip(NAMED_MAX).map(|(_, count)| **count).sum::<usize>() {
            0 => Ok(()),
            rest => write!(f, ", {rest} of other kinds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_kinds_are_not_all_named() {
        let mut passed_over = PassedOver::default();
        for (count, extension) in [(1, "a"), (2, "b"), (1, "c"), (1, "d"), (3, "e"), (1, "f"), (2, "g")] {
            for _ in 0..count {
                passed_over.push(Path::new(&format!("x.{extension}")), FileKind::Unknown);
            }
        }
        assert_eq!(passed_over.to_string(), "3 .e, 2 .b, 2 .g, 1 .a, 1 .c, 2 of other kinds");
    }
}
