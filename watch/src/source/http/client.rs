//! Requests to one address: with its password, if the server asks for one, and within limits of time.

use std::time::Duration;

use http_auth::{PasswordClient, PasswordParams};
use ureq::config::{Config, RedirectAuthHeaders};
use ureq::http::Response;
use ureq::http::header::{
    AUTHORIZATION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, WWW_AUTHENTICATE,
};
use ureq::{Agent, Body, ResponseExt};

use super::super::feed::Stop;
use super::super::open::OpenOptions;
use super::super::secrets::{Login, Secrets, split_login};
use super::HttpError;

/// To find the host and to reach it.
const CONNECT: Duration = Duration::from_secs(10);
/// For the whole of a still.
const STILL: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: u32 = 5;

/// What a server is told of the picture that is known, so that it need not send it again.
#[derive(Clone, Debug, Default)]
pub(super) struct Since {
    tag: Option<String>,
    time: Option<String>,
}

impl Since {
    /// Of an answer.
    pub fn of(answer: &Response<Body>) -> Self {
        let header = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        Self { tag: header(ETAG), time: header(LAST_MODIFIED) }
    }
}

/// Asks one address.
pub(super) struct Client {
    agent: Agent,
    /// Without user and password, and without a part behind `#`.
    url: String,
    login: Option<Login>,
    /// What the server asked for.
    password: Option<PasswordClient>,
    secrets: Secrets,
    /// Its answers are stills.
    still: bool,
}

/// How it is asked.
pub(super) fn config(options: &OpenOptions) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("palmtop/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(CONNECT))
        .timeout_per_read(options.silence)
        .build()
}

impl Client {
    /// For this address, by an agent of this [`config`]; `stop` shuts its connections down.
    pub fn new(agent: Agent, url: &str, stop: &Stop, secrets: Secrets) -> Self {
        let (url, login) = split_login(url);
        stop.shuts_down(&agent);
        Self { agent, url, login, password: None, secrets, still: false }
    }

    /// Lets no request take longer than a still may.
    pub fn bound(mut self) -> Self {
        self.still = true;
        self
    }

    /// Asks; an answer is one that has a body, or says that nothing has changed (304).
    pub fn get(&mut self, since: &Since) -> Result<Response<Body>, HttpError> {
        let answer = self.ask(since)?;
        let answer = match answer.status().as_u16() {
            // The first time, or what it asked for before is out of date.
            401 if self.login.is_some() => {
                self.prepare(&answer)?;
                self.ask(since)?
            }
            _ => answer,
        };
        match answer.status().as_u16() {
            200..=299 | 304 => Ok(answer),
            status => Err(HttpError::Status { status, advice: self.advice(status) }),
        }
    }

    fn advice(&self, status: u16) -> &'static str {
        match (status, &self.login) {
            (401, None) => ": it asks for a password; write http://user:password@host/…",
            (401, Some(_)) => ": user or password are wrong",
            (403, _) => ": this user may not see it",
            (404, _) => ": there is nothing at this address",
            (503, _) => ": it has too much to do; perhaps too many look at it already",
            _ => "",
        }
    }

    fn ask(&mut self, since: &Since) -> Result<Response<Body>, HttpError> {
        let mut request = self.agent.get(&self.url);
        if self.still {
            request = request.config().timeout_global(Some(STILL)).build();
        }
        for (name, value) in [(IF_NONE_MATCH, &since.tag), (IF_MODIFIED_SINCE, &since.time)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let (Some(password), Some(login)) = (&mut self.password, &self.login) {
            let uri = path_of(&self.url);
            let Login { user, password: word } = login;
            let parameters =
                PasswordParams { username: user, password: word, uri, method: "GET", body: Some(&[]) };
            let answer = password.respond(&parameters).map_err(|scheme| HttpError::Scheme { scheme })?;
            request = request.header(AUTHORIZATION, answer);
        }
        let failed = |error: ureq::Error| HttpError::Transport(self.secrets.hidden_in(&error.to_string()));
        request.call().map_err(failed)
    }

    /// Takes up what the server asks for.
    fn prepare(&mut self, answer: &Response<Body>) -> Result<(), HttpError> {
        // Another host must not get the password; where on this host a redirect leads is where to ask.
        let to = answer.get_uri().to_string();
        if host_of(&to) != host_of(&self.url) {
            return Err(HttpError::OtherHost { host: host_of(&to) });
        }
        self.url = to;
        let asked = answer.headers().get_all(WWW_AUTHENTICATE);
        let asked: Vec<&str> = asked.iter().filter_map(|value| value.to_str().ok()).collect();
        let client = PasswordClient::try_from(asked.join(", ").as_str());
        self.password = Some(client.map_err(|_| HttpError::Scheme { scheme: asked.join(", ") })?);
        Ok(())
    }
}

/// Scheme and host.
fn host_of(url: &str) -> String {
    let end = url.find("://").map_or(0, |at| at + 3);
    let host = url[end..].find(['/', '?', '#']).map_or(url.len(), |at| end + at);
    url[..host].to_ascii_lowercase()
}

/// What a request asks for: path and query.
fn path_of(url: &str) -> &str {
    let path = &url[host_of(url).len()..];
    if path.is_empty() { "/" } else { path }
}
