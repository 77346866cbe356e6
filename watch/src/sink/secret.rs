//! What must not be seen in notes: passwords, tokens, and addresses that hold them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;

use super::SinkError;

/// Bytes of a secret at most: more is some other file.
const BYTES_MAX: u64 = 64 << 10;

/// A text that no note shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// Where a secret is, as a configuration says it.
pub(super) struct Place<'a> {
    /// What it is, for errors: `password` stands for the fields `password_file` and `password_env`.
    pub name: &'a str,
    /// The file that holds it.
    pub file: &'a Option<PathBuf>,
    /// The environment variable that holds it.
    pub variable: &'a Option<String>,
}

impl Place<'_> {
    /// Reads it; none if the configuration names none. An end of line behind it is no part of it.
    ///
    /// # Errors
    /// If both places are named, it is not there or empty, or it has characters that no header may have.
    pub fn read(&self) -> Result<Option<Secret>, SinkError> {
        let name = self.name;
        let (text, place) = match (self.file, self.variable) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(SinkError(format!(
                    "{name}_file and {name}_env exclude each other: give one of them"
                )));
            }
            (Some(path), None) => {
                let mut text = String::new();
                let read =
                    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
                read.map_err(|e| {
                    SinkError(format!("the {name} cannot be read from {}: {e}", path.display()))
                })?;
                (text, path.display().to_string())
            }
            (None, Some(variable)) => match std::env::var(variable) {
                Ok(text) => (text, format!("the environment variable {variable}")),
                Err(e) => return Err(SinkError(format!("the {name} cannot be read from {variable}: {e}"))),
            },
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let wrong = match text {
            "" => "is empty",
            _ if text.len() as u64 > BYTES_MAX => "is longer than 64 KiB",
            _ if text.contains(char::is_control) => "has several lines or control characters",
            _ => return Ok(Some(Secret(text.into()))),
        };
        Err(SinkError(format!("the {name} in {place} {wrong}")))
    }
}

/// Whether a log line may be shown: at its most talkative level the HTTP client (`ureq` and `ureq_proto`) shows whole
/// addresses, and the bytes of requests with their tokens. Loggers ask this before they show a line.
pub fn may_be_logged(metadata: &log::Metadata<'_>) -> bool {
    !metadata.target().starts_with("ureq") || metadata.level() <= log::Level::Debug
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(contents: &[u8]) -> Result<Option<Secret>, SinkError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, contents).unwrap();
        Place { name: "token", file: &Some(path), variable: &None }.read()
    }

    #[test]
    fn secrets_are_read_without_the_end_of_line() {
        for contents in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            assert_eq!(of_file(contents.as_bytes()).unwrap().unwrap().reveal(), "s3cret");
        }
        assert_eq!(of_file(b" a b \n").unwrap().unwrap().reveal(), " a b ");
        let nowhere = Place { name: "token", file: &None, variable: &None };
        assert_eq!(nowhere.read().unwrap(), None);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        let long = vec![b'x'; BYTES_MAX as usize + 1];
        for (contents, wrong) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"one\ntwo\n", "several lines"),
            (b"a\0b", "control characters"),
            (&long, "longer than 64 KiB"),
            (b"\xff\xfe", "cannot be read"),
        ] {
            let error = of_file(contents).unwrap_err().to_string();
            assert!(error.contains(wrong) && !error.contains("two") && !error.contains("xx"), "{error}");
        }
        let (file, variable) = (Some("/no/such/file".into()), Some("PALMTOP_NO_SUCH".to_owned()));
        let read =
            |file, variable| Place { name: "password", file, variable }.read().unwrap_err().to_string();
        assert!(read(&file, &None).contains("/no/such/file: No such file"));
        assert!(read(&None, &variable).contains("from PALMTOP_NO_SUCH: environment variable not found"));
        assert!(read(&file, &variable).contains("password_file and password_env exclude each other"));
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        assert_eq!(format!("{:?} {:?}", Secret::from("hidden"), Secret::default()), "*** none");
    }
}
