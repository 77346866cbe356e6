//! JSON files of a checkpoint, read with a bound on their size, and their fields with errors that name them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ConvertError;
use crate::files::read_regular;

/// No configuration or index of a real checkpoint comes near this.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a JSON file whose outermost value is an object.
pub fn read(path: &Path) -> Result<Value, ConvertError> {
    let wrong = |what: String| ConvertError::Json { path: path.to_owned(), what };
    let text = read_regular(path, FILE_BYTES_MAX)?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("is not valid JSON: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(wrong("is not a JSON object".into())) }
}

/// Like [`read`], `None` if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Value>, ConvertError> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

/// An object of a JSON file. A field that is null counts as absent, as in transformers.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    path: &'a Path,
    /// Keys that lead here, with a dot behind each.
    prefix: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Section<'a> {
    /// The outermost object of a file, or an empty one.
    pub fn new(path: &'a Path, value: Option<&'a Value>) -> Self {
        Self { path, prefix: "", map: value.and_then(Value::as_object) }
    }

    /// An object inside; empty if it is absent. `prefix` is its key with a dot behind.
    pub fn section(&self, key: &str, prefix: &'static str) -> Result<Section<'a>, ConvertError> {
        let map = match self.get(key) {
            None => None,
            Some(v) => Some(v.as_object().ok_or_else(|| self.wrong(key, "is not an object"))?),
        };
        Ok(Section { path: self.path, prefix, map })
    }

    /// True if the file has this object.
    pub fn is_there(&self) -> bool {
        self.map.is_some()
    }

    /// The value of a key that is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|v| !v.is_null())
    }

    /// True if a key stands there with the value null.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.and_then(|m| m.get(key)).is_some_and(Value::is_null)
    }

    /// The error for a key.
    pub fn wrong(&self, key: &str, what: impl Into<String>) -> ConvertError {
        let key = format!("{}{key}", self.prefix);
        ConvertError::Config { path: self.path.to_owned(), key, what: what.into() }
    }

    /// A size of at most `max`.
    pub fn size(&self, key: &str, default: usize, max: usize) -> Result<usize, ConvertError> {
        let Some(v) = self.get(key) else { return Ok(default) };
        let size = v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        size.ok_or_else(|| self.wrong(key, format!("is {v}, which is not a whole number in 1..={max}")))
    }

    /// The side of a square, given as a number or as two equal ones.
    pub fn side(&self, key: &str, default: usize, max: usize) -> Result<usize, ConvertError> {
        let Some(Value::Array(sides)) = self.get(key) else { return self.size(key, default, max) };
        let side = match &sides[..] {
            [a, b] if a == b => a.as_u64().and_then(|n| usize::try_from(n).ok()),
            _ => None,
        };
        side.filter(|n| (1..=max).contains(n))
            .ok_or_else(|| self.wrong(key, "is a list, and not one of two equal sizes"))
    }

    /// A number above zero.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64, ConvertError> {
        let Some(v) = self.get(key) else { return Ok(default) };
        let number = v.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        number.ok_or_else(|| self.wrong(key, format!("is {v}, which is not a number above zero")))
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ConvertError> {
        let text = |v: &'a Value| v.as_str().ok_or_else(|| self.wrong(key, format!("is {v}, not a text")));
        self.get(key).map(text).transpose()
    }

    /// A switch that must not be on `unsupported`.
    pub fn refuse_flag(&self, key: &str, unsupported: bool, why: &str) -> Result<(), ConvertError> {
        match self.get(key).map(|v| v.as_bool().ok_or(v)) {
            Some(Ok(on)) if on == unsupported => Err(self.wrong(key, format!("is {on}: {why}"))),
            Some(Err(v)) => Err(self.wrong(key, format!("is {v}, neither true nor false"))),
            _ => Ok(()),
        }
    }

    /// Token ids, given as a number or as a list of numbers; `None` if absent.
    pub fn token_ids(&self, key: &str, vocab: usize) -> Result<Option<Vec<u32>>, ConvertError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let items = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
        let id = |v: &Value| v.as_u64().filter(|&n| n < vocab as u64).and_then(|n| u32::try_from(n).ok());
        match items.iter().map(id).collect::<Option<Vec<u32>>>() {
            Some(ids) if !ids.is_empty() => Ok(Some(ids)),
            _ => Err(self.wrong(key, format!("is {v}, which is not a token id below {vocab}"))),
        }
    }

    /// Three finite numbers.
    pub fn three(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], ConvertError> {
        let Some(v) = self.get(key) else { return Ok(default) };
        let numbers = v.as_array().and_then(|a| a.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers
            .and_then(|n| <[f64; 3]>::try_from(n).ok())
            .filter(|n| n.iter().all(|x| x.is_finite()))
            .ok_or_else(|| self.wrong(key, format!("is {v}, not a list of three numbers")))
    }
}
