//! Pictures by address, if that is allowed: from hosts that are named, within limits of bytes and time.
//!
//! What is checked is what is connected to: the checks are in the name resolver of the HTTP client ([`resolve`]), so
//! each redirect meets them, and no name can lead elsewhere between check and connection.

mod allow;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ureq::unversioned::transport::DefaultConnector;

pub use allow::{AllowError, Allowed};
use resolve::{Checked, NotAllowed};

use crate::problem::Problem;

/// What may be fetched.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// From where.
    pub allowed: Allowed,
    /// Bytes of a picture at most.
    pub bytes_max: usize,
    /// Within which a picture must have come, redirects included.
    pub timeout: Duration,
}

/// Fetches pictures.
#[derive(Clone, Debug)]
pub struct Fetch {
    agent: ureq::Agent,
    bytes_max: usize,
    timeout: Duration,
    places: Arc<Semaphore>,
}

/// Room for pictures that are fetched, for as long as it is kept.
pub(crate) type Room = Arc<OwnedSemaphorePermit>;

/// Pictures that are fetched, and kept until their requests are answered, at once.
const AT_ONCE: usize = 4;
/// Redirects that are followed.
const REDIRECTS: u32 = 3;

impl Fetch {
    /// A client of its own.
    pub fn new(options: FetchOptions) -> Self {
        let FetchOptions { allowed, bytes_max, timeout } = options;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .max_redirects(REDIRECTS)
            // A proxy would resolve names itself.
            .proxy(None)
            // A connection that is kept would be used without a check.
            .max_idle_connections(0)
            .user_agent(concat!("palmtop/", env!("CARGO_PKG_VERSION")))
            .accept("image/*")
            .build();
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Checked::new(allowed));
        Self { agent, bytes_max, timeout, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Bytes of all pictures that are fetched at once.
    pub fn bytes(&self) -> usize {
        self.bytes_max.saturating_mul(AT_ONCE)
    }

    /// Waits for room for so many pictures.
    pub(crate) async fn room(&self, pictures: usize) -> Result<Room, Problem> {
        if pictures > AT_ONCE {
            let message =
                format!("{pictures} pictures by address: at most {AT_ONCE} are fetched for a request");
            return Err(Problem::bad(message));
        }
        let room =
            tokio::time::timeout(self.timeout, self.places.clone().acquire_many_owned(pictures as u32));
        match room.await {
            Ok(Ok(room)) => Ok(Arc::new(room)),
            _ => Err(failed("others are being fetched: try again")),
        }
    }

    /// Fetches a picture. What it takes room for is kept until it has come, even if nobody waits any more.
    pub(crate) async fn get(&self, address: String, room: Room) -> Result<Bytes, Problem> {
        let this = self.clone();
        let get = move || {
            let _room = room;
            this.get_now(&address)
        };
        let got = tokio::task::spawn_blocking(get).await;
        got.unwrap_or_else(|_| Err(failed("it could not be fetched")))
    }

    fn get_now(&self, address: &str) -> Result<Bytes, Problem> {
        let mut response = self.agent.get(address).call().map_err(|error| self.problem(&error))?;
        if !response.status().is_success() {
            return Err(failed(format!("its server answers {}", response.status().as_u16())));
        }
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = kind.trim().to_ascii_lowercase();
        // Whether they are a picture's bytes is seen when they are decoded; a page of text need not come so far.
        if !(kind.is_empty() || kind.starts_with("image/") || kind.starts_with("application/octet-stream")) {
            return Err(failed("it is no picture by its media type"));
        }
        let body = response.body_mut().with_config().limit(self.bytes_max as u64).read_to_vec();
        body.map(Bytes::from).map_err(|error| self.problem(&error))
    }

    /// Says what went wrong, and nothing of what was found at an address that is not allowed.
    fn problem(&self, error: &ureq::Error) -> Problem {
        use ureq::Error;
        match error {
            Error::Other(other) if other.is::<NotAllowed>() => {
                Problem::new(StatusCode::BAD_REQUEST, "fetch_not_allowed", other.to_string())
            }
            Error::Timeout(_) => failed(format!("it did not come within {} s", self.timeout.as_secs())),
            Error::BodyExceedsLimit(_) => {
                let message = format!("the picture at the address is longer than {} bytes", self.bytes_max);
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "picture_too_large", message)
            }
            Error::TooManyRedirects => {
                failed(format!("it leads on and on; {REDIRECTS} redirects are followed"))
            }
            Error::BadUri(_) | Error::Http(_) => Problem::bad("the picture's address is none"),
            Error::HostNotFound => failed("there is no such host"),
            _ => failed("its server cannot be reached, or breaks off"),
        }
    }
}

fn failed(why: impl std::fmt::Display) -> Problem {
    let message = format!("the picture cannot be fetched from its address: {why}");
    Problem::new(StatusCode::BAD_REQUEST, "fetch_failed", message)
}

/// Where no address is allowed.
pub(crate) fn not_allowed() -> Problem {
    let message = "this server fetches no pictures: send the picture itself as a data URI \
                   (data:image/jpeg;base64,…), or start the server with --allow-fetch HOST";
    Problem::new(StatusCode::BAD_REQUEST, "fetch_not_allowed", message)
}
