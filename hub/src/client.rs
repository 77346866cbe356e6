//! Requests to the hub: redirects that leave the token behind, answers that are errors, and pauses before the next try.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ureq::http::Response;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::error::HubError;
use crate::settings::Settings;

const CONNECT: Duration = Duration::from_secs(20);
/// Nothing comes for so long: the line is dead.
const SILENCE: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;
/// Between tries, doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Tries that bring nothing, one after the other.
const TRIES_MAX: u32 = 9;
/// What a hub may ask to wait for.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// An answer in JSON is not longer.
const JSON_BYTES_MAX: u64 = 32 << 20;
/// Of an error's text.
const SAID_MAX: usize = 200;

/// Whether the caller wants to stop.
pub type Cancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// A connection to the hub, for several threads.
pub struct Client {
    agent: Agent,
    pub settings: Settings,
    cancelled: Cancelled,
}

/// Why a try has failed.
pub enum Failure {
    /// It may work later: not before this, if the hub has said so.
    Passing(HubError, Option<Duration>),
    Final(HubError),
}

/// Tries of one thing.
#[derive(Default)]
pub struct Tries(u32);

impl Tries {
    /// Something has come: the next failure is a first one.
    pub fn has_come(&mut self) {
        self.0 = 0;
    }
}

/// What is asked for.
pub struct Request<'a> {
    pub url: &'a str,
    /// Of which repository, for errors.
    pub repo: &'a str,
    pub revision: &'a str,
    /// A file of it, for errors.
    pub file: Option<&'a str>,
    /// From this byte up to that one.
    pub range: Option<(u64, u64)>,
}

impl Request<'_> {
    fn what(&self) -> String {
        self.file.map_or_else(|| self.repo.to_owned(), |file| format!("{file} of {}", self.repo))
    }
}

impl Client {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// If certificates are named that cannot be read.
    pub fn new(settings: Settings, cancelled: Cancelled) -> Result<Self, HubError> {
        let mut tls = TlsConfig::builder();
        if let Some((path, variable)) = &settings.certificates {
            tls = tls.root_certs(certificates(path, variable)?);
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            // Each is looked at, so that the token stays with the hub.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("palmtop/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .new_agent();
        Ok(Self { agent, settings, cancelled })
    }

    /// Waits before the next try, or gives the error if it was the last.
    pub fn pause(&self, failure: Failure, tries: &mut Tries) -> Result<(), HubError> {
        let (error, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing(error, wait) => (error, wait),
        };
        tries.0 += 1;
        if tries.0 >= TRIES_MAX {
            return Err(error);
        }
        let growing = (PAUSE * 2u32.pow(tries.0 - 1)).min(PAUSE_MAX);
        let wait = wait.map_or(growing, |wait| wait.max(growing));
        log::debug!("{error}; trying again in {wait:?}");
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.go_on()?;
            std::thread::sleep(Duration::from_millis(50).min(wait));
        }
        self.go_on()
    }

    pub fn go_on(&self) -> Result<(), HubError> {
        if (self.cancelled)() { Err(HubError::Cancelled) } else { Ok(()) }
    }

    /// Reads an answer in JSON.
    pub fn json(&self, request: &Request<'_>) -> Result<Vec<u8>, HubError> {
        let mut tries = Tries::default();
        loop {
            let read = self.get(request).and_then(|mut answer| {
                let body = answer.body_mut().with_config().limit(JSON_BYTES_MAX);
                body.read_to_vec().map_err(|e| self.unreachable(&e))
            });
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => self.pause(failure, &mut tries)?,
            }
        }
    }

    /// Asks once, and follows redirects. What comes back is the thing itself.
    pub fn get(&self, request: &Request<'_>) -> Result<Response<Body>, Failure> {
        let home = origin_of(&self.settings.endpoint);
        let mut url = request.url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let is_home = origin_of(&url) == home;
            let mut asked = self.agent.get(&url);
            if let Some(token) = self.settings.token.as_ref().filter(|_| is_home) {
                asked = asked.header(AUTHORIZATION, token.header());
            }
            if let Some((start, end)) = request.range {
                asked = asked.header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
            }
            let answer = asked.call().map_err(|error| self.transport(&error, &url))?;
            if !answer.status().is_redirection() {
                return self.checked(request, answer, &url, is_home);
            }
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let wrong =
                |what: String| Failure::Final(HubError::Answer { host: host_of(&url).to_owned(), what });
            let to = to.ok_or_else(|| wrong("redirects to nowhere".to_owned()))?;
            let next = joined(&url, to).ok_or_else(|| wrong("redirects to what is no address".to_owned()))?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(wrong("redirects to an address without TLS, which is not followed".to_owned()));
            }
            url = next;
        }
        let what = "redirects again and again".to_owned();
        Err(Failure::Final(HubError::Answer { host: host_of(&url).to_owned(), what }))
    }

    /// An answer that is no redirect: the thing, or what the error means.
    fn checked(
        &self,
        request: &Request<'_>,
        mut answer: Response<Body>,
        url: &str,
        is_home: bool,
    ) -> Result<Response<Body>, Failure> {
        let header = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, host) = (answer.status(), host_of(url).to_owned());
        let is_page = header(CONTENT_TYPE.as_str()).to_ascii_lowercase().starts_with("text/html");
        if status.is_success() {
            return match is_page {
                true => Err(Failure::Final(HubError::Portal { host, what: request.what() })),
                false => Ok(answer),
            };
        }
        let (code, mut said) = (header("x-error-code"), header("x-error-message"));
        if said.is_empty() && !is_page {
            said = answer.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
        }
        let said: String = said.trim().chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
        let refused =
            HubError::Refused { host, what: request.what(), status: status.as_u16(), message: said };
        let wait = waits(&answer);
        match status.as_u16() {
            429 => match wait {
                Some(wait) if wait > WAIT_MAX => {
                    let host = host_of(url).to_owned();
                    Err(Failure::Final(HubError::TooMany { host, seconds: wait.as_secs() }))
                }
                wait => {
                    let seconds = wait.map_or(0, |wait| wait.as_secs());
                    let error = HubError::TooMany { host: host_of(url).to_owned(), seconds };
                    Err(Failure::Passing(error, wait))
                }
            },
            408 | 500..=599 => Err(Failure::Passing(refused, wait.filter(|wait| *wait <= WAIT_MAX))),
            // An address that the hub has signed, which is valid for a while: the next one is another.
            401 | 403 if !is_home => Err(Failure::Passing(refused, None)),
            _ => Err(Failure::Final(self.meaning(request, refused, &code))),
        }
    }

    /// What an answer of the hub itself means, as huggingface_hub reads it.
    fn meaning(&self, request: &Request<'_>, refused: HubError, code: &str) -> HubError {
        let HubError::Refused { status, message, .. } = &refused else { return refused };
        let (repo, token) = (request.repo.to_owned(), self.settings.token.as_ref());
        let page = format!("{}/{repo}", self.settings.endpoint);
        let no_repository = || {
            let host = self.settings.host().to_owned();
            HubError::NoRepository { repo: repo.clone(), host, known: token.is_some() }
        };
        let is_wrong_token = message.starts_with("Invalid credentials in Authorization header");
        match (*status, code, token) {
            (_, "RevisionNotFound", _) => {
                HubError::NoRevision { repo, revision: request.revision.to_owned() }
            }
            (_, "EntryNotFound", _) => {
                HubError::NoFile { repo, file: request.file.unwrap_or_default().to_owned() }
            }
            (401, _, Some(token)) if is_wrong_token => HubError::Token { origin: token.origin.clone() },
            (_, "GatedRepo", None) => HubError::NeedsToken { repo, page },
            (_, "GatedRepo", Some(_)) => HubError::NeedsAccess { repo, page },
            (_, "RepoNotFound", _) => no_repository(),
            // The hub says so of what is not there, too, so that nobody learns of private repositories.
            (401, _, None) => no_repository(),
            (401, _, Some(token)) => HubError::Token { origin: token.origin.clone() },
            (404, _, _) if request.file.is_none() => no_repository(),
            (404, _, _) => HubError::NoFile { repo, file: request.file.unwrap_or_default().to_owned() },
            _ => refused,
        }
    }

    /// A connection that could not be made, or has ended.
    fn transport(&self, error: &ureq::Error, url: &str) -> Failure {
        let cause = cause_of(error);
        let error = HubError::Unreachable { host: host_of(url).to_owned(), cause };
        Failure::Passing(error, None)
    }

    /// A line that was cut while something came.
    pub fn unreachable(&self, error: &dyn std::fmt::Display) -> Failure {
        let host = self.settings.host().to_owned();
        Failure::Passing(HubError::Unreachable { host, cause: error.to_string() }, None)
    }
}

/// The certificates of a file.
fn certificates(path: &Path, variable: &str) -> Result<RootCerts, HubError> {
    let wrong = |what: String| HubError::Setting {
        name: variable.to_owned(),
        what: format!("{}: {what}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
            roots.push(certificate);
        }
    }
    match roots.is_empty() {
        true => Err(wrong("there is no certificate in it".to_owned())),
        false => Ok(RootCerts::Specific(Arc::new(roots))),
    }
}

fn cause_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host; is there a network?".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer".to_owned(),
        other => other.to_string(),
    }
}

/// How long an answer asks to wait.
fn waits(answer: &Response<Body>) -> Option<Duration> {
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    if let Some(text) = header(RETRY_AFTER.as_str()) {
        let seconds = || text.trim().parse().ok().map(Duration::from_secs);
        let date = || httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok();
        return seconds().or_else(date);
    }
    // `"api";r=0;t=55`: nothing is left, for 55 seconds.
    let limit = header("ratelimit")?;
    let field = |name: &str| {
        let fields = limit.split(';').map(str::trim);
        fields.filter_map(|f| f.strip_prefix(name)).find_map(|value| value.parse::<u64>().ok())
    };
    (field("r=")? == 0).then(|| field("t=")).flatten().map(|seconds| Duration::from_secs(seconds + 1))
}

/// Scheme, host and port.
fn origin_of(url: &str) -> String {
    let end = url.find("://").map_or(0, |at| at + 3);
    let host = url[end..].find(['/', '?', '#']).map_or(url.len(), |at| end + at);
    let origin = url[..host].to_ascii_lowercase();
    let default = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(default).map_or(origin.clone(), str::to_owned)
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// Where a redirect leads.
fn joined(from: &str, to: &str) -> Option<String> {
    if to.starts_with("https://") || to.starts_with("http://") {
        return Some(to.to_owned());
    }
    let (scheme, rest) = from.split_once("://")?;
    let host = &from[..scheme.len() + 3 + host_of(from).len()];
    match to {
        _ if to.starts_with("//") => Some(format!("{scheme}:{to}")),
        _ if to.starts_with('/') => Some(format!("{host}{to}")),
        _ if to.contains("://") => None,
        _ => {
            let path = rest.split(['?', '#']).next()?;
            let folder = path.rfind('/').map_or("", |at| &path[..at]);
            Some(format!("{scheme}://{folder}/{to}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = "https://hub.co/a/b?c=/d";
        for (to, wanted) in [
            ("https://cdn.co/x", Some("https://cdn.co/x")),
            ("//cdn.co/x", Some("https://cdn.co/x")),
            ("/x?y", Some("https://hub.co/x?y")),
            ("x", Some("https://hub.co/a/x")),
            ("ftp://cdn.co/x", None),
        ] {
            assert_eq!(joined(from, to).as_deref(), wanted, "{to}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (one, other, same) in [
            ("https://hub.co/a", "https://HUB.co:443/b", true),
            ("https://hub.co/a", "http://hub.co/a", false),
            ("http://hub.co:80", "http://hub.co/a", true),
            ("http://127.0.0.1:1/a", "http://127.0.0.1:2/a", false),
            ("https://hub.co/a", "https://hub.co.evil.org/a", false),
            ("https://hub.co/a", "https://hub.co@evil.org/a", false),
        ] {
            assert_eq!(origin_of(one) == origin_of(other), same, "{one} {other}");
        }
    }
}
