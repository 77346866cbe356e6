//! Bodies of requests: bounded in bytes, in time, and all together.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, BODY_UNIT};
use crate::problem::Problem;

/// The whole body of a request. As long as it is kept, it counts to what bodies may take.
#[derive(Debug)]
pub struct Received {
    /// The body.
    pub bytes: Bytes,
    /// The request's headers.
    pub headers: HeaderMap,
    _room: OwnedSemaphorePermit,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none, or not what is expected: the problem says where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Problem::bad(format!("the body is not the JSON that is expected here: {error}")))
    }

    /// The media type, without parameters and in lower case; empty if none is named.
    pub fn media_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }

    /// True if the client would take this media type, and names it.
    pub fn accepts(&self, media_type: &str) -> bool {
        let values = self.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|one| one.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(media_type))
    }
}

impl FromRequest<Arc<App>> for Received {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let most = app.options.body_bytes_max;
        let too_large = || {
            let message = format!("the body is longer than {most} bytes; make the picture smaller");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let (parts, body) = request.into_parts();
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > most) {
            discard(body, app).await;
            return Err(too_large());
        }
        let read = async {
            let units = length.unwrap_or(most).div_ceil(BODY_UNIT).max(1) as u32;
            let room = app.bodies.clone().acquire_many_owned(units).await;
            let room = room.map_err(|_| Problem::from(crate::engine::AskError::Ending))?;
            let (mut body, mut bytes) =
                (body.into_data_stream(), BytesMut::with_capacity(length.unwrap_or(0)));
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|_| Problem::bad("the body broke off before its end"))?;
                if bytes.len() + chunk.len() > most {
                    discard(Body::from_stream(body), app).await;
                    return Err(too_large());
                }
                bytes.extend_from_slice(&chunk);
            }
            let bytes = bytes.freeze();
            Ok::<_, Problem>((bytes, room))
        };
        let late = |_| {
            let seconds = app.options.send_timeout.as_secs();
            let message = format!("the body did not come within {seconds} s");
            Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
        };
        let (bytes, room) = tokio::time::timeout(app.options.send_timeout, read).await.map_err(late)??;
        Ok(Self { bytes, headers: parts.headers, _room: room })
    }
}

/// Reads what a client is still sending, within limits, and throws it away: most clients hear nothing before they have
/// sent everything.
pub(crate) async fn discard(body: Body, app: &App) {
    let most = app.options.body_bytes_max.saturating_mul(DISCARD);
    let read = async {
        let (mut body, mut bytes) = (body.into_data_stream(), 0);
        while let Some(Ok(chunk)) = body.next().await {
            bytes += chunk.len();
            if bytes > most {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(app.options.send_timeout, read).await;
}

/// So many times the longest body is read for nothing.
const DISCARD: usize = 4;
