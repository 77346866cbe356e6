//! Where the hub is, who asks, and where its cache lies: the variables and files that huggingface_hub knows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::HubError;

const ENDPOINT: &str = "https://huggingface.co";
/// Name certificates to trust, for OpenSSL and for Python's clients.
const CERTIFICATES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// No token is longer.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// A token, and where it is from. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    /// The variable or the file.
    pub origin: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token from {}", self.origin)
    }
}

impl Token {
    /// A token from somewhere; `None` if there is nothing but blanks.
    ///
    /// # Errors
    /// If it is none that can stand in a request.
    pub fn new(secret: &str, origin: impl Into<String>) -> Result<Option<Self>, HubError> {
        let (secret, origin) = (secret.replace(['\r', '\n'], ""), origin.into());
        let secret = secret.trim();
        if secret.is_empty() {
            return Ok(None);
        }
        if !secret.bytes().all(|b| b.is_ascii_graphic()) {
            let what = "holds a token with characters that no token has".to_owned();
            return Err(HubError::Setting { name: origin, what });
        }
        Ok(Some(Self { secret: secret.to_owned(), origin }))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}

/// How the hub is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<Token>,
    /// The variable that forbids the network.
    pub offline: Option<&'static str>,
    /// The cache of other programs.
    pub cache: PathBuf,
    /// Certificates to trust instead of those that come with the program, such as those of a company's proxy: a file
    /// in PEM, and the variable that names it.
    pub certificates: Option<(PathBuf, &'static str)>,
}

impl Settings {
    /// What the environment says.
    ///
    /// # Errors
    /// If a variable or the token's file cannot be used.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// What these variables say.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| {
            let wrong = || HubError::Setting { name: name.to_owned(), what: "is no text".to_owned() };
            get(name).map(|value| value.into_string().map_err(|_| wrong())).transpose()
        };
        let home =
            || get("HOME").map(PathBuf::from).or_else(|| etcetera::home_dir().ok()).unwrap_or_default();
        let path = |name: &str| get(name).map(|value| expand(Path::new(&value), &home));
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let endpoint = text("HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let what = format!("is '{endpoint}', and must begin with https:// or http://");
            return Err(HubError::Setting { name: "HF_ENDPOINT".to_owned(), what });
        }
        let is_on = |name: &&&'static str| {
            get(name).is_some_and(|value| {
                ["1", "ON", "YES", "TRUE"].contains(&&*value.to_string_lossy().to_uppercase())
            })
        };
        let token = match is_on(&&"HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => token(&text, &path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token")))?,
        };
        Ok(Self {
            endpoint,
            token,
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().find(is_on).copied(),
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            certificates: CERTIFICATES.iter().find_map(|name| Some((path(name)?, *name))),
        })
    }

    /// The host of the endpoint, as errors name it.
    pub fn host(&self) -> &str {
        self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, host)| host)
    }
}

/// From the environment, or else from a file.
fn token(
    text: &dyn Fn(&str) -> Result<Option<String>, HubError>,
    file: &Path,
) -> Result<Option<Token>, HubError> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(token) = text(name)?.map(|value| Token::new(&value, name)).transpose()?.flatten() {
            return Ok(Some(token));
        }
    }
    let Ok(metadata) = file.metadata() else { return Ok(None) };
    let origin = file.display().to_string();
    let wrong = |what: String| HubError::Setting { name: origin.clone(), what };
    if !metadata.is_file() || metadata.len() > TOKEN_BYTES_MAX {
        return Err(wrong("is no file with a token".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    Token::new(&text, origin)
}

/// A path whose first part may be `~`.
fn expand(path: &Path, home: &dyn Fn() -> PathBuf) -> PathBuf {
    path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home().join(rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, HubError> {
        let mut variables: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        variables.entry("HOME").or_insert("/home/a");
        Settings::from_variables(&|name| variables.get(name).map(|value| (*value).into()))
    }

    #[test]
    fn folders_and_addresses_are_those_of_other_programs() {
        let plain = settings(&[]).unwrap();
        assert_eq!((&*plain.endpoint, plain.offline, plain.host()), (ENDPOINT, None, "huggingface.co"));
        let cache = |pairs: &[(&str, &str)]| settings(pairs).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/home/a/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), Path::new("/home/a/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
        let mirror = settings(&[("HF_ENDPOINT", "http://127.0.0.1:9/"), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert_eq!((&*mirror.endpoint, mirror.offline), ("http://127.0.0.1:9", Some("HF_HUB_OFFLINE")));
        assert_eq!(settings(&[("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", "")]).unwrap().offline, None);
        let wrong = settings(&[("HF_ENDPOINT", "huggingface.co")]).unwrap_err().to_string();
        assert_eq!(wrong, "HF_ENDPOINT: is 'huggingface.co', and must begin with https:// or http://");
    }

    #[test]
    fn tokens_come_from_variables_and_then_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(dir.path().join("mine"), " hf_mine\r\n").unwrap();
        let (home, mine) = (dir.path().to_str().unwrap(), dir.path().join("mine"));
        let of = |pairs: &[(&str, &str)]| {
            let all: Vec<_> = pairs.iter().copied().chain([("HF_HOME", home)]).collect();
            settings(&all).unwrap().token.map(|token| (token.secret, token.origin))
        };
        let file = (String::from("hf_file"), dir.path().join("token").display().to_string());
        assert_eq!(of(&[]), Some(file));
        assert_eq!(of(&[("HF_TOKEN_PATH", mine.to_str().unwrap())]).unwrap().0, "hf_mine");
        let both = [("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")];
        assert_eq!(of(&both), Some(("hf_new".into(), "HF_TOKEN".into())));
        assert_eq!(of(&both[..1]).unwrap().1, "HUGGING_FACE_HUB_TOKEN");
        assert_eq!(of(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let wrong = settings(&[("HF_TOKEN", "hf_ö")]).unwrap_err().to_string();
        assert_eq!(wrong, "HF_TOKEN: holds a token with characters that no token has");
        let token = Token::new("hf_secret", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(format!("{token:?}"), "Token from HF_TOKEN");
    }
}
