//! Ollama's interface: chats, prompts and what its clients ask about models.

mod models;
mod reply;
mod request;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::chat;
use crate::chat::start::{Begun, Wanted, start};
use crate::engine::Event;
use crate::problem::Problem;
use crate::received::Received;
use reply::{Kind, Reply};
use request::{ChatRequest, GenerateRequest, How};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(chat)).routes(routes!(generate)).merge(models::routes())
}

/// Answers a chat about pictures, as Ollama does.
///
/// The last text of a user becomes PaliGemma's prompt, as in `/v1/chat/completions`. The answer comes as lines of JSON
/// unless `stream` is false. Without messages it only says that the model is there.
#[utoipa::path(
    post, path = "/api/chat", tag = "Ollama",
    request_body = ChatRequest,
    responses(
        (status = 200, body = Value, description = "A line of JSON for what is new, or one object"),
        (status = 400, body = Value, description = "Something of the request cannot be used"),
        (status = 429, body = Value, description = "Too many requests wait; see Retry-After"),
    )
)]
async fn chat(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: ChatRequest = received.json()?;
    drop(received.bytes);
    answer(app, Kind::Chat, request.read()?).await
}

/// Answers a prompt about pictures, as Ollama does.
///
/// The prompt becomes PaliGemma's, as in `/v1/chat/completions`; with `raw` it is given to the model as it is. Without
/// a prompt it only says that the model is there.
#[utoipa::path(
    post, path = "/api/generate", tag = "Ollama",
    request_body = GenerateRequest,
    responses(
        (status = 200, body = Value, description = "A line of JSON for what is new, or one object"),
        (status = 400, body = Value, description = "Something of the request cannot be used"),
        (status = 429, body = Value, description = "Too many requests wait; see Retry-After"),
    )
)]
async fn generate(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: GenerateRequest = received.json()?;
    drop(received.bytes);
    answer(app, Kind::Generate, request.read()?).await
}

async fn answer(
    app: Arc<App>,
    kind: Kind,
    (wanted, how): (Option<Wanted>, How),
) -> Result<Response, Problem> {
    let Some(mut wanted) = wanted else {
        return Ok(Json(reply::loaded(&app, kind, how.unload)).into_response());
    };
    let begun = start(&app, &mut wanted).await?;
    let reply = Reply::new(&app, kind, &begun, wanted.format);
    let mut response = if how.stream {
        let lines = stream(app, reply, begun).map(|line| Ok::<_, Infallible>(format!("{line}\n")));
        ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
    } else {
        let finished = begun.finish().await?;
        Json(reply.whole(app.model(), &finished)?).into_response()
    };
    chat::warn(&mut response, &how.ignored);
    Ok(response)
}

/// A value for what is new, and one for the end.
fn stream(app: Arc<App>, reply: Reply, begun: Begun) -> impl Stream<Item = Value> {
    let error = |problem: Problem| (json!({"error": problem.message}), None);
    stream::unfold(Some((begun, reply)), move |going| {
        let app = app.clone();
        async move {
            let (mut begun, reply) = going?;
            Some(loop {
                match begun.next().await {
                    Ok(Event::Begun { .. }) => {}
                    Ok(Event::More { text, .. }) => {
                        if let Some(value) = reply.more(&text) {
                            break (value, Some((begun, reply)));
                        }
                    }
                    Ok(Event::Done(finished)) => match reply.last(app.model(), &finished) {
                        Ok(value) => break (value, None),
                        Err(problem) => break error(problem),
                    },
                    // The status has been sent: clients look for errors in the lines.
                    Err(why) => break error(why.into()),
                }
            })
        }
    })
}
