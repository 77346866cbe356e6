//! OpenAI's interface, as far as it is about pictures: chats, and the list of models.

mod reply;
mod request;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::chat;
use crate::chat::start::{Begun, start};
use crate::engine::Event;
use crate::problem::Problem;
use crate::received::Received;
use crate::shape;
use reply::Reply;
use request::ChatRequest;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(completions)).routes(routes!(models)).routes(routes!(model))
}

/// Answers a chat about pictures, as OpenAI's servers do.
///
/// The last text of a user becomes PaliGemma's prompt: `caption en`, `detect cat ; dog` and the other official forms as
/// they are, anything else as `answer en …`. What is ignored of a request, such as system texts, is named in the header
/// `Warning`. With `stream` the answer comes as events, ended by `[DONE]`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, body = Value, description = "A `chat.completion`, or events of `chat.completion.chunk`"),
        (status = 400, body = Value, description = "Something of the request cannot be used"),
        (status = 429, body = Value, description = "Too many requests wait; see Retry-After"),
    )
)]
async fn completions(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: ChatRequest = received.json()?;
    drop(received.bytes);
    let (mut wanted, how) = request.read()?;
    let begun = start(&app, &mut wanted).await?;
    let reply = Reply::new(&app, &begun, wanted.format, how.logprobs);
    let mut response = if how.stream {
        let events = stream(app, reply, begun, how.usage).map(Ok::<_, Infallible>);
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    } else {
        let finished = begun.finish().await?;
        Json(reply.whole(app.model(), &finished)?).into_response()
    };
    chat::warn(&mut response, &how.ignored);
    Ok(response)
}

/// What is still to be sent.
enum Next {
    Begin,
    More,
    Usage(Box<Value>),
    Done,
}

fn stream(app: Arc<App>, reply: Reply, begun: Begun, usage: bool) -> impl Stream<Item = SseEvent> {
    let data = |value: &Value| SseEvent::default().data(value.to_string());
    stream::unfold((begun, reply, Some(Next::Begin)), move |(mut begun, reply, next)| {
        let app = app.clone();
        async move {
            let (event, next) = match next? {
                Next::Begin => (data(&reply.first_chunk(usage)), Some(Next::More)),
                Next::More => loop {
                    match begun.next().await {
                        Ok(Event::Begun { .. }) => {}
                        Ok(Event::More { text, tokens }) => {
                            if let Some(chunk) = reply.chunk(&text, &tokens, usage) {
                                break (data(&chunk), Some(Next::More));
                            }
                        }
                        Ok(Event::Done(finished)) => match reply.last_chunk(app.model(), &finished, usage) {
                            Ok(chunk) if usage => {
                                let usage = reply.usage_chunk(&finished);
                                break (data(&chunk), Some(Next::Usage(Box::new(usage))));
                            }
                            Ok(chunk) => break (data(&chunk), Some(Next::Done)),
                            Err(problem) => break (data(&shape::openai(&problem)), None),
                        },
                        // The status has been sent: clients look for errors among the events.
                        Err(error) => break (data(&shape::openai(&error.into())), None),
                    }
                },
                Next::Usage(usage) => (data(&usage), Some(Next::Done)),
                Next::Done => (SseEvent::default().data("[DONE]"), None),
            };
            Some((event, (begun, reply, next)))
        }
    })
}

/// A model, as lists have it.
#[derive(Serialize, ToSchema)]
struct Model {
    id: String,
    /// `model`
    object: &'static str,
    /// When the server began, in seconds since 1970.
    created: u64,
    /// `palmtop`
    owned_by: &'static str,
    /// Tokens of pictures, prompt and answer together, as vLLM's clients ask for it.
    max_model_len: usize,
}

/// All models: one.
#[derive(Serialize, ToSchema)]
struct Models {
    /// `list`
    object: &'static str,
    data: Vec<Model>,
}

fn the_model(app: &App) -> Model {
    let limits = app.engine.limits();
    let rows = limits.pictures * app.model().config().image_rows();
    Model {
        id: app.options.model_name.clone(),
        object: "model",
        created: reply::seconds(app.started),
        owned_by: "palmtop",
        max_model_len: rows + limits.prompt_tokens + limits.new_tokens,
    }
}

/// Lists the model that answers.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses((status = 200, body = Models)))]
async fn models(State(app): State<Arc<App>>) -> Json<Models> {
    Json(Models { object: "list", data: vec![the_model(&app)] })
}

/// Says what model this is.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "OpenAI",
    params(("id" = String, Path, description = "The model's name")),
    responses((status = 200, body = Model), (status = 404, body = Value))
)]
async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Model>, Problem> {
    if id != app.options.model_name {
        let message = format!("there is no model {id:?}; {:?} answers", app.options.model_name);
        let problem = Problem::new(axum::http::StatusCode::NOT_FOUND, "model_not_found", message);
        return Err(problem.at("model"));
    }
    Ok(Json(the_model(&app)))
}
