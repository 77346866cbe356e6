//! Posts records as JSON to a web address.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER};
use ureq::http::{HeaderName, HeaderValue, Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::end::End;
use super::interest::{Interest, Kinds, Picture};
use super::secret::{Place, Secret};
use super::{Message, Sink, SinkError, Versioned};
use crate::period::Period;

/// Bytes of an answer that are read, so that its connection can be used again. Nobody looks at them.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The table `[webhook]` of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookOptions {
    /// Where to: `http://` or `https://`.
    pub url: Secret,
    /// Which records.
    pub records: Kinds,
    /// Which picture goes with them, as `picture_jpeg_base64`.
    pub picture: Picture,
    /// Further headers.
    pub headers: BTreeMap<String, Secret>,
    /// A file that holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds the bearer token.
    pub token_env: Option<String>,
    /// The user, for basic authentication.
    pub user: Option<String>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the user's password.
    pub password_env: Option<String>,
    /// Certificates (PEM) to trust instead of those of the web.
    pub ca_file: Option<PathBuf>,
    /// For a whole attempt, from the connection to the answer.
    pub timeout: Period,
    /// Attempts behind the first.
    pub retries: u32,
    /// The pause before the second attempt; each further one is twice as long, up to a minute.
    pub retry_pause: Period,
    /// The longest pause that a receiver may ask for.
    pub retry_after_max: Period,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            records: Kinds::EVENTS,
            picture: Picture::None,
            headers: BTreeMap::new(),
            token_file: None,
            token_env: None,
            user: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            timeout: Period(Duration::from_secs(10)),
            retries: 3,
            retry_pause: Period(Duration::from_secs(1)),
            retry_after_max: Period(Duration::from_secs(60)),
        }
    }
}

/// A web address that gets records.
pub struct Webhook {
    url: Uri,
    /// The address without user, path and query: a path often is the key to the receiver.
    place: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    agent: ureq::Agent,
    options: WebhookOptions,
    end: Arc<End>,
}

/// What is posted: the record, and beside its fields the picture.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    record: Versioned<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture_jpeg_base64: Option<String>,
}

/// How an attempt ended, if not well.
enum Refusal {
    /// No use to try it again.
    Final(String),
    /// It may go better later, and perhaps not before this time.
    Passing(String, Option<Duration>),
}

impl Webhook {
    /// The sink.
    ///
    /// # Errors
    /// If the address, a header or a file is not what it should be.
    pub fn new(options: WebhookOptions) -> Result<Self, SinkError> {
        let (url, place) = address(options.url.reveal())?;
        let headers = headers(&options)?;
        let mut tls = TlsConfig::builder();
        if let Some(path) = &options.ca_file {
            let unread = |e: &dyn std::fmt::Display| SinkError(format!("ca_file {}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| unread(&e))?;
            let mut roots: Vec<Certificate<'static>> = Vec::new();
            for item in ureq::tls::parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|e| unread(&e))? {
                    roots.push(certificate);
                }
            }
            if roots.is_empty() {
                return Err(unread(&"there is no certificate in it"));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Another host must not get the token, and a POST that is redirected seldom arrives as one.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build())
            .user_agent(concat!("palmtop/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { url, place, headers, agent, options, end: Arc::default() })
    }

    fn attempt(&self, body: &[u8]) -> Result<(), Refusal> {
        let timeout = self.end.within(self.options.timeout.0).max(Duration::from_millis(1));
        let mut request = self.agent.post(&self.url).config().timeout_global(Some(timeout)).build();
        request = request.header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send(body).map_err(of_connection)?;
        let status = response.status();
        if status.is_success() {
            use_up(response);
            return Ok(());
        }
        let text = format!("it answers {status}");
        if status.is_redirection() {
            return Err(Refusal::Final(format!(
                "{text}: redirects are not followed; give the address that it leads to"
            )));
        }
        match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => Err(Refusal::Passing(text, retry_after(&response))),
            false => Err(Refusal::Final(text)),
        }
    }
}

impl Sink for Webhook {
    fn name(&self) -> String {
        format!("webhook {}", self.place)
    }

    fn interest(&self) -> Interest {
        let pictures = if self.options.picture == Picture::None { Kinds::NONE } else { Kinds::ALL };
        Interest { records: self.options.records, pictures }
    }

    fn attach(&mut self, end: Arc<End>) {
        self.end = end;
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        let jpeg = match &message.picture {
            Some(picture) => picture.jpeg_of(self.options.picture).map_err(|e| SinkError(e.to_string()))?,
            None => None,
        };
        let body = Body {
            record: Versioned::from(&message.record),
            picture_jpeg_base64: jpeg.map(|jpeg| BASE64.encode(jpeg)),
        };
        let body = serde_json::to_vec(&body).map_err(|e| SinkError(e.to_string()))?;
        let mut pause = self.options.retry_pause.0;
        let mut attempts = 1;
        loop {
            let (why, asked) = match self.attempt(&body) {
                Ok(()) => return Ok(()),
                Err(Refusal::Final(why)) => return Err(SinkError(why)),
                Err(Refusal::Passing(why, asked)) => (why, asked),
            };
            let pause_now = pause.max(asked.unwrap_or_default().min(self.options.retry_after_max.0));
            if attempts > self.options.retries || !self.end.pause(pause_now) {
                let plural = if attempts == 1 { "" } else { "s" };
                return Err(SinkError(format!("{why} ({attempts} attempt{plural})")));
            }
            attempts += 1;
            pause = (pause * 2).min(Duration::from_secs(60)).max(self.options.retry_pause.0);
        }
    }
}

/// The address, and what of it may be shown.
fn address(url: &str) -> Result<(Uri, String), SinkError> {
    if url.is_empty() {
        return Err(SinkError("a webhook needs `url`, where records are posted to".into()));
    }
    // Not the reason that the parser gives, which might repeat the address.
    let wrong = |why: &str| SinkError(format!("the url of the webhook {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("is no web address"))?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(wrong("must begin with http:// or https://")),
    };
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("has a user in it; give `user`, and `password_file` or `password_env`"));
    }
    let place = format!("{scheme}://{authority}");
    Ok((uri, place))
}

fn headers(options: &WebhookOptions) -> Result<Vec<(HeaderName, HeaderValue)>, SinkError> {
    let mut headers = Vec::new();
    let hidden = |text: &str| {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    for (name, value) in &options.headers {
        let key =
            HeaderName::try_from(name).map_err(|_| SinkError(format!("'{name}' is no name of a header")))?;
        let no_value =
            || SinkError(format!("the value of the header '{name}' has characters that no header may have"));
        headers.push((key, hidden(value.reveal()).ok_or_else(no_value)?));
    }
    let token = Place { name: "token", file: &options.token_file, variable: &options.token_env }.read()?;
    let password =
        Place { name: "password", file: &options.password_file, variable: &options.password_env }.read()?;
    let authorization = match (token, &options.user, password) {
        (None, None, None) => None,
        (Some(token), None, None) => Some(format!("Bearer {}", token.reveal())),
        (None, Some(user), password) => {
            let password = password.unwrap_or_default();
            Some(format!("Basic {}", BASE64.encode(format!("{user}:{}", password.reveal()))))
        }
        (None, None, Some(_)) => return Err(SinkError("the webhook has a password, but no `user`".into())),
        (Some(_), ..) => {
            return Err(SinkError("the webhook has a token and a user or password: give one of them".into()));
        }
    };
    if let Some(text) = authorization {
        if headers.iter().any(|(name, _)| name == AUTHORIZATION) {
            return Err(SinkError(
                "the webhook has a header 'authorization' beside its token or user".into(),
            ));
        }
        let value = hidden(&text)
            .ok_or_else(|| SinkError("the token has characters that no header may have".into()))?;
        headers.push((AUTHORIZATION, value));
    }
    Ok(headers)
}

/// Why there is no answer. All of this may pass.
fn of_connection(error: ureq::Error) -> Refusal {
    use ureq::Error;
    let text = match error {
        Error::Io(e) => e.to_string(),
        Error::Timeout(_) => "it does not answer in time".into(),
        Error::HostNotFound => "its name cannot be resolved".into(),
        Error::ConnectionFailed => "no connection".into(),
        Error::Tls(why) => format!("no secure connection: {why}"),
        Error::Rustls(why) => format!("no secure connection: {why}"),
        Error::Protocol(why) => format!("what it answers is no HTTP: {why}"),
        Error::LargeResponseHeader(..) => "the headers of its answer are too long".into(),
        // The others show addresses, or cannot be.
        _ => "the request failed".into(),
    };
    Refusal::Passing(text, None)
}

/// How long the receiver asks to wait: as seconds, or as a date.
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    until.duration_since(jiff::Timestamp::now()).try_into().ok()
}

/// Reads a short answer, so that the connection can be used again. A longer one ends the connection.
fn use_up(response: Response<ureq::Body>) {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length <= ANSWER_BYTES_MAX) {
        // The record has been taken, whatever becomes of this.
        let _ = std::io::copy(
            &mut response.into_body().into_reader().take(ANSWER_BYTES_MAX),
            &mut std::io::sink(),
        );
    }
}
