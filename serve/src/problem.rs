//! What goes wrong, as answers say it: a status, a word for programs and a sentence for people.
//!
//! Each interface has a shape of its own for errors; they are made of this.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::AskError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people, which says what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The field of the request that it is about, if it is about one.
    pub field: Option<&'static str>,
}

/// The shape of errors in palmtop's own interface.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorText,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorText {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Problem {
    /// A problem with a status, a word and a sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, field: None }
    }

    /// The request cannot be understood or followed.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// There are as many as may be; after this time there may be room.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message) }
    }

    /// There is nothing of this name.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The same, about this field of the request.
    #[must_use]
    pub fn at(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// The answer, with this body.
    pub fn respond(&self, body: impl Serialize) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The body of palmtop's own interface.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: ErrorText { code: self.code, message: self.message.clone() } }
    }
}

impl IntoResponse for Problem {
    /// In palmtop's own shape. The problem goes with the answer, so that [`crate::shape`] can say it as the interface
    /// does that the path is of.
    fn into_response(self) -> Response {
        let mut response = self.respond(self.body());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let message = error.to_string();
        match error {
            AskError::Busy { retry_after, .. } => Self::busy(message, retry_after),
            AskError::Ending => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", message),
            AskError::Late => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message),
            // Nobody hears it; as nginx has it.
            AskError::Cancelled => {
                Self::new(StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), "cancelled", message)
            }
            AskError::Request(ref request) => match error.is_callers_fault() {
                true => Self::from_request(request),
                // Its words may name files of the server.
                false => {
                    log::error!("a request failed: {request}");
                    Self::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal",
                        "the server cannot answer; its log says why",
                    )
                }
            },
            AskError::Broken(why) => {
                log::error!("a request failed: {why}");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the server cannot answer; its log says why",
                )
            }
        }
    }
}

impl Problem {
    fn from_request(error: &palmtop::Error) -> Self {
        use palmtop::image::ImageError;
        let message = error.to_string();
        match error {
            palmtop::Error::Image(ImageError::FileTooLarge { .. } | ImageError::SideTooLarge { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "picture_too_large", message)
            }
            palmtop::Error::Image(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_picture", message),
            _ => Self::bad(message),
        }
    }
}

impl From<palmtop::Error> for Problem {
    fn from(error: palmtop::Error) -> Self {
        AskError::Request(error).into()
    }
}

impl From<palmtop::GrammarError> for Problem {
    fn from(error: palmtop::GrammarError) -> Self {
        AskError::Request(error.into()).into()
    }
}
