//! JSON files of a checkpoint, read with a bound on their size, and their fields with errors that name them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ConvertError;
use crate::files::{is_there, read_regular, stand_in};

/// No configuration or index of a real checkpoint comes near this.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a JSON file whose outermost value is an object, in the dialect of Python's `json`: with a byte order mark or
/// without, and with [`NOT_FINITE`] numbers, which become texts.
pub fn read(path: &Path) -> Result<Value, ConvertError> {
    object(path, &read_regular(path, FILE_BYTES_MAX)?)
}

/// Like [`read`], of a text; `path` is named in errors.
pub fn object(path: &Path, text: &[u8]) -> Result<Value, ConvertError> {
    let wrong = |what: String| ConvertError::Json { path: path.to_owned(), what };
    if let Some(what) = stand_in(text) {
        return Err(wrong(format!("is {what}")));
    }
    let value: Value = parse(text).map_err(|e| wrong(format!("is not valid JSON: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(wrong("is not a JSON object".into())) }
}

/// What Python writes for numbers that are not finite, and JSON has no form for.
const NOT_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// What a text in Python's dialect says.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let strict = serde_json::from_slice(text);
    match &strict {
        // As it is, unless Python's numbers are what is wrong with it.
        Err(_) => serde_json::from_slice(&quoted_numbers(text)).or(strict),
        Ok(_) => strict,
    }
}

/// The same text with quotes around numbers that are not finite.
fn quoted_numbers(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at, mut in_text) = (Vec::with_capacity(text.len()), 0, false);
    while at < text.len() {
        let number = NOT_FINITE.iter().find(|n| !in_text && text[at..].starts_with(n.as_bytes()));
        if let Some(number) = number {
            out.push(b'"');
            out.extend_from_slice(number.as_bytes());
            out.push(b'"');
            at += number.len();
            continue;
        }
        out.push(text[at]);
        match text[at] {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                at += 1;
                out.extend(text.get(at));
            }
            _ => {}
        }
        at += 1;
    }
    out
}

/// A whole number, also if it is written with a point, as in `96.0`.
pub fn whole(v: &Value) -> Option<u64> {
    // Every whole number below 2^53 is itself in f64.
    let written_with_a_point = || v.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n));
    v.as_u64().or_else(|| written_with_a_point().map(|n| n as u64))
}

/// Like [`read`], `None` if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Value>, ConvertError> {
    if is_there(path) { read(path).map(Some) } else { Ok(None) }
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

    /// The keys that are there.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.into_iter().flat_map(|m| m.keys().map(String::as_str))
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
        let size = whole(v).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        size.ok_or_else(|| self.wrong(key, format!("is {v}, which is not a whole number in 1..={max}")))
    }

    /// The side of a square, given as a number or as two equal ones.
    pub fn side(&self, key: &str, default: usize, max: usize) -> Result<usize, ConvertError> {
        let Some(Value::Array(sides)) = self.get(key) else { return self.size(key, default, max) };
        let side = match &sides[..] {
            [a, b] if whole(a) == whole(b) => whole(a).and_then(|n| usize::try_from(n).ok()),
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
        match self.flag(key, !unsupported)? {
            on if on == unsupported => Err(self.wrong(key, format!("is {on}: {why}"))),
            _ => Ok(()),
        }
    }

    /// Token ids, given as a number or as a list of numbers; `None` if absent.
    pub fn token_ids(&self, key: &str, vocab: usize) -> Result<Option<Vec<u32>>, ConvertError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let items = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
        let id = |v: &Value| whole(v).filter(|&n| n < vocab as u64).and_then(|n| u32::try_from(n).ok());
        match items.iter().map(id).collect::<Option<Vec<u32>>>() {
            Some(ids) if !ids.is_empty() => Ok(Some(ids)),
            _ => Err(self.wrong(key, format!("is {v}, which is not a token id below {vocab}"))),
        }
    }

    /// A switch.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ConvertError> {
        let Some(v) = self.get(key) else { return Ok(default) };
        v.as_bool().ok_or_else(|| self.wrong(key, format!("is {v}, neither true nor false")))
    }

    /// A whole number of any kind, if the key is there and has one.
    pub fn whole(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(whole)
    }

    /// Three finite numbers, given as a list or as one for all.
    pub fn three(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], ConvertError> {
        let Some(v) = self.get(key) else { return Ok(default) };
        if let Some(one) = v.as_f64().filter(|n| n.is_finite()) {
            return Ok([one; 3]);
        }
        let numbers = v.as_array().and_then(|a| a.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers
            .and_then(|n| <[f64; 3]>::try_from(n).ok())
            .filter(|n| n.iter().all(|x| x.is_finite()))
            .ok_or_else(|| self.wrong(key, format!("is {v}, not a list of three numbers")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Value, ConvertError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn what_python_writes_is_read() {
        let value = read_text(
            "\u{feff}{\"a\": Infinity, \"b\": [-Infinity, NaN], \"c\": \"a \\\"NaN\\\" of Infinity\"}",
        );
        let want =
            serde_json::json!({"a": "Infinity", "b": ["-Infinity", "NaN"], "c": "a \"NaN\" of Infinity"});
        assert_eq!(value.unwrap(), want);
        let value = read_text("{\"a\": 96.0, \"b\": [14.0, 14], \"c\": 0.5, \"d\": 1e300}").unwrap();
        let s = Section::new(Path::new("x"), Some(&value));
        assert_eq!((s.size("a", 1, 100).unwrap(), s.side("b", 1, 100).unwrap()), (96, 14));
        assert_eq!(s.three("c", [0.0; 3]).unwrap(), [0.5; 3]);
        for key in ["c", "d"] {
            assert!(s.size(key, 1, 100).is_err());
        }
    }

    #[test]
    fn what_stands_in_the_place_of_a_file_is_named() {
        for (text, says) in [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
            ("\n<!DOCTYPE html>", "a web page"),
            ("{\"error\": \"Access to model is restricted\"}", "error message"),
            ("", "an empty file"),
            ("{,}", "not valid JSON: key must be a string"),
            ("[]", "is not a JSON object"),
            ("{\"a\": Infinite}", "not valid JSON: expected value at line 1 column 7"),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
