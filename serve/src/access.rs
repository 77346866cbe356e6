//! Who may ask: keys, origins of web pages, and names by which the server is called.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::app::App;
use crate::problem::Problem;

/// A secret that requests must bring. Never shown, not even by `{:?}`.
#[derive(Clone)]
pub struct ApiKey(Vec<u8>);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Keys are of 8 to 512 visible ASCII characters: as they can be written in a header, and not guessed at once.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=512;

/// The text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key must be of 8 to 512 visible ASCII characters without spaces")]
pub struct KeyError;

impl ApiKey {
    /// A key; white space around it is left out.
    ///
    /// # Errors
    /// [`KeyError`] if it is too short, too long or of other characters.
    pub fn new(key: &str) -> Result<Self, KeyError> {
        let key = key.trim();
        let fits = KEY_BYTES.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(key.as_bytes().to_vec())) } else { Err(KeyError) }
    }

    /// Compares in a time that depends on the lengths alone.
    fn is(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What requests must bring; anybody may ask if absent.
    pub key: Option<ApiKey>,
    /// Origins of web pages, such as `https://house.example`, beside the server's own; `*` for all.
    pub origins: Vec<String>,
    /// Names that requests may call the server by, without port; any if empty. A server that listens on loopback alone
    /// names itself here, so that no page of another site can reach it through a name that leads to 127.0.0.1.
    pub hosts: Vec<String>,
}

impl Access {
    /// Answers to preflight requests, and headers for pages of the origins that are allowed.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        if self.origins.is_empty() {
            return None;
        }
        let origins = match self.allows_all() {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.origins.iter().filter_map(|o| HeaderValue::from_str(o).ok())),
        };
        let exposed = [header::RETRY_AFTER, crate::log::REQUEST_ID, WARNING];
        Some(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods([Method::GET, Method::POST])
                // OpenAI's client sends a dozen of its own, and none does more than the origin may.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(exposed),
        )
    }

    fn allows_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// A problem if the name that the request calls the server by is none of its own.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        // A proxy may have looked at the other one (RFC 9112, 3.2).
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Problem::bad("the request has more than one Host header"));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        let name = without_port(host);
        if self.hosts.is_empty() || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let message = "this server is not known by that name; start it with --host-name if it should be";
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
    }

    /// A problem if a web page of another origin asks. Browsers send a page's origin with whatever could do harm.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("");
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        let own = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
        if own || self.allows_all() || self.origins.iter().any(|known| known == origin) {
            return Ok(());
        }
        let message = "pages of this origin may not ask; start the server with --cors to allow it";
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", message))
    }

    fn check_key(&self, headers: &HeaderMap, query: Option<&str>, path: &str) -> Result<(), Problem> {
        let Some(key) = &self.key else { return Ok(()) };
        if OPEN.contains(&path) {
            return Ok(());
        }
        let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        let own = headers.get(MOONDREAM_KEY).map(HeaderValue::as_bytes);
        // Pictures and event streams of a page cannot bring headers.
        // As it is, or as browsers write what is no letter or digit.
        let query = query.unwrap_or("");
        let plain = query.split('&').find_map(|pair| pair.strip_prefix("key="));
        let encoded = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
        let encoded = encoded.as_ref().map(|(_, value)| value.as_bytes());
        let given = [bearer, own, plain.map(str::as_bytes), encoded];
        if given.into_iter().flatten().any(|given| key.is(given)) {
            return Ok(());
        }
        let message = "an API key is needed: send it as \"Authorization: Bearer KEY\"";
        Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
    }
}

/// What needs no key: signs of life, and the page, which asks for one.
const OPEN: [&str; 3] = ["/", "/health", "/ready"];
/// The header that Moondream's clients send their key in.
const MOONDREAM_KEY: HeaderName = HeaderName::from_static("x-moondream-auth");
/// What was ignored of a request.
pub(crate) const WARNING: HeaderName = HeaderName::from_static("warning");

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// The name of `name:port`, `[::1]:port` and the like.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    }
}

/// Lets requests through that may ask.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (headers, uri, access) = (request.headers(), request.uri(), &app.access);
    let may_ask = access
        .check_host(headers)
        .and_then(|()| access.check_origin(headers))
        .and_then(|()| access.check_key(headers, uri.query(), uri.path()));
    if let Err(problem) = may_ask {
        crate::received::discard(request.into_body(), &app).await;
        return Err(problem);
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn keys_are_taken_from_each_of_their_places() {
        let access = Access { key: Some(ApiKey::new(" secret-key\n").unwrap()), ..Access::default() };
        let none = HeaderMap::new();
        assert!(access.check_key(&none, None, "/health").is_ok());
        assert_eq!(access.check_key(&none, None, "/v1/looks").unwrap_err().status, StatusCode::UNAUTHORIZED);
        let right = headers(&[(header::AUTHORIZATION, "bearer secret-key")]);
        assert!(access.check_key(&right, None, "/v1/looks").is_ok());
        assert!(access.check_key(&headers(&[(MOONDREAM_KEY, "secret-key")]), None, "/v1/query").is_ok());
        assert!(access.check_key(&none, Some("a=b&key=secret-key"), "/v1/events").is_ok());
        assert!(
            access.check_key(&none, Some("key=%73ecret%2Dkey"), "/v1/events").is_ok(),
            "as browsers write it"
        );
        for wrong in ["Bearer secret-ke", "Bearer secret-key2", "Basic secret-key", "Bearer ", "ä"] {
            let wrong = headers(&[(header::AUTHORIZATION, wrong)]);
            assert!(access.check_key(&wrong, None, "/v1/looks").is_err());
        }
        assert!(access.check_key(&none, Some("key="), "/v1/looks").is_err());
    }

    #[test]
    fn keys_are_long_enough_and_never_shown() {
        assert!(ApiKey::new("short").is_err() && ApiKey::new("with a space").is_err());
        assert!(!format!("{:?}", ApiKey::new("secret-key").unwrap()).contains("secret"));
    }

    #[test]
    fn pages_of_other_sites_and_other_names_are_refused() {
        let mut access = Access { hosts: vec!["localhost".into(), "::1".into()], ..Access::default() };
        let call = |host: &str, origin: Option<&str>| {
            let mut all = headers(&[(header::HOST, host)]);
            origin.map(|origin| all.insert(header::ORIGIN, origin.parse().unwrap()));
            all
        };
        for host in ["localhost", "LOCALHOST:8080", "[::1]:80"] {
            assert!(access.check_host(&call(host, None)).is_ok(), "{host}");
        }
        for host in ["evil.example", "", "localhost.evil.example:80", "[::2]"] {
            assert!(access.check_host(&call(host, None)).is_err(), "{host}");
        }
        let own = call("localhost:8080", Some("http://localhost:8080"));
        assert!(access.check_origin(&own).is_ok());
        for origin in ["http://evil.example", "http://localhost:8081", "null", "localhost:8080"] {
            assert!(access.check_origin(&call("localhost:8080", Some(origin))).is_err(), "{origin}");
        }
        access.origins.push("http://evil.example".into());
        assert!(access.check_origin(&call("localhost:8080", Some("http://evil.example"))).is_ok());
    }
}
