//! Typed key-value pairs in the head of a `.palm` file.

use std::collections::BTreeMap;

use super::FormatError;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned integer.
    U64(u64),
    /// Floating-point number.
    F64(f64),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// List of unsigned integers.
    U64s(Vec<u64>),
    /// List of floating-point numbers.
    F64s(Vec<f64>),
}

impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Self::U64(v)
    }
}
impl From<usize> for Value {
    fn from(v: usize) -> Self {
        Self::U64(v as u64)
    }
}
impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Self::F64(v)
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}
impl From<Vec<u64>> for Value {
    fn from(v: Vec<u64>) -> Self {
        Self::U64s(v)
    }
}
impl From<Vec<f64>> for Value {
    fn from(v: Vec<f64>) -> Self {
        Self::F64s(v)
    }
}

/// All metadata of a file, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty, $what:literal) => {
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Result<$type, FormatError> {
            match self.0.get(key) {
                Some(Value::$variant(v)) => Ok(v.to_owned()),
                Some(_) => Err(Self::wrong(key, concat!("is not ", $what))),
                None => Err(Self::wrong(key, "is missing")),
            }
        }
    };
}

impl Metadata {
    /// Sets an entry.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All entries, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    getter!(/// An unsigned integer that must be there.
        u64, U64, u64, "an unsigned integer");
    getter!(/// A truth value that must be there.
        bool, Bool, bool, "true or false");
    getter!(/// A number that must be there.
        f64, F64, f64, "a number");
    getter!(/// A text that must be there.
        text, Text, String, "a text");
    getter!(/// A list of unsigned integers that must be there.
        u64s, U64s, Vec<u64>, "a list of unsigned integers");
    getter!(/// A list of numbers that must be there.
        f64s, F64s, Vec<f64>, "a list of numbers");

    /// An unsigned integer within `range` that must be there.
    pub fn usize_in(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, FormatError> {
        let value = self.u64(key)?;
        usize::try_from(value).ok().filter(|v| range.contains(v)).ok_or_else(|| {
            Self::wrong(key, &format!("is {value}, outside {}..={}", range.start(), range.end()))
        })
    }

    /// The error for a key.
    pub(crate) fn wrong(key: &str, what: &str) -> FormatError {
        FormatError::Metadata { key: key.to_owned(), what: what.to_owned() }
    }
}
