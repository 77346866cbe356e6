//! Errors in the shape that the clients of each interface read.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use crate::problem::Problem;

/// Whose clients ask at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Palmtop,
    OpenAi,
    Ollama,
    Moondream,
}

/// What there is of OpenAI's and Moondream's interfaces below `/v1`, and what their clients may try.
const OPENAI: [&str; 7] = ["chat", "models", "completions", "responses", "embeddings", "audio", "images"];
const MOONDREAM: [&str; 5] = ["caption", "query", "detect", "point", "segment"];

impl Shape {
    pub fn of(path: &str) -> Self {
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next()) {
            (Some("api"), _) => Self::Ollama,
            (Some("v1"), Some(part)) if OPENAI.contains(&part) => Self::OpenAi,
            (Some("v1"), Some(part)) if MOONDREAM.contains(&part) => Self::Moondream,
            _ => Self::Palmtop,
        }
    }

    /// The body of an error; `None` if it is palmtop's own, which is there already.
    pub fn body(self, problem: &Problem) -> Option<Value> {
        match self {
            Self::Palmtop => None,
            // Moondream took it over.
            Self::OpenAi | Self::Moondream => Some(openai(problem)),
            Self::Ollama => Some(json!({"error": problem.message})),
        }
    }
}

/// OpenAI's: clients look at the status first, then at `code` and `type`.
pub(crate) fn openai(problem: &Problem) -> Value {
    let (kind, code) = match problem.status {
        StatusCode::TOO_MANY_REQUESTS => ("requests", Some("rate_limit_exceeded")),
        status if status.is_server_error() => ("server_error", Some(problem.code)),
        StatusCode::BAD_REQUEST => {
            ("invalid_request_error", Some(problem.code).filter(|code| *code != "invalid_request"))
        }
        _ => ("invalid_request_error", Some(problem.code)),
    };
    json!({"error": {"message": problem.message, "type": kind, "param": problem.field, "code": code}})
}

/// Says what went wrong as the interface does that the path is of.
pub(crate) async fn shape(request: Request, next: Next) -> Response {
    let shape = Shape::of(request.uri().path());
    let response = next.run(request).await;
    let body = response.extensions().get::<Problem>().and_then(|p| Some((p.clone(), shape.body(p)?)));
    match body {
        Some((problem, body)) => problem.respond(body),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_shape_of_their_interface() {
        for (path, shape) in [
            ("/v1/chat/completions", Shape::OpenAi),
            ("/v1/models/a", Shape::OpenAi),
            ("/v1/responses", Shape::OpenAi),
            ("/v1/query", Shape::Moondream),
            ("/api/chat", Shape::Ollama),
            ("/api/nothing", Shape::Ollama),
            ("/v1/looks", Shape::Palmtop),
            ("/v1", Shape::Palmtop),
            ("/", Shape::Palmtop),
            ("", Shape::Palmtop),
        ] {
            assert_eq!(Shape::of(path), shape, "{path}");
        }
    }

    #[test]
    fn errors_are_named_as_openai_does() {
        let bad = openai(&Problem::bad("no").at("n"));
        let right = json!({"message": "no", "type": "invalid_request_error", "param": "n", "code": null});
        assert_eq!(bad["error"], right);
        let busy = openai(&Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "later"));
        assert_eq!(
            (&busy["error"]["type"], &busy["error"]["code"]),
            (&json!("requests"), &json!("rate_limit_exceeded"))
        );
        let broken = openai(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the log"));
        assert_eq!(broken["error"]["type"], "server_error");
    }
}
