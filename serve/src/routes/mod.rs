//! The interfaces, a file or folder each, and the page.

mod cameras;
mod health;
mod looks;
mod moondream;
mod ollama;
mod openai;
mod page;
mod stream;

use std::sync::{Arc, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::problem::Problem;
use crate::received::discard;
use crate::{access, log, shape};

pub(crate) use looks::from_base64;

pub(crate) use stream::STREAMS_MAX;

/// What `/openapi.json` says of the whole; its paths are those of the routes themselves.
#[derive(OpenApi)]
#[openapi(info(
    title = "palmtop",
    description = "PaliGemma's answers about pictures. `/v1/chat/completions` is as OpenAI's clients expect it, `/api/…` as \
                   Ollama's, `/v1/caption` to `/v1/segment` as Moondream's; the rest is palmtop's own.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// All routes of a server.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    let answers = log::Answers::default();
    {
        let mut registry = app.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.sub_registry_with_prefix("palmtop").register(
            "http_answers",
            "Answers by path and status",
            answers.clone(),
        );
    }
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(health::routes())
        .merge(looks::routes())
        .merge(openai::routes())
        .merge(ollama::routes())
        .merge(moondream::routes())
        .merge(stream::routes())
        .merge(cameras::routes())
        .split_for_parts();
    let document = Arc::new(document);
    let router = router
        .route("/openapi.json", get(move || async move { Json(document.as_ref().clone()) }))
        .merge(page::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(app.clone(), access::check))
        .layer(middleware::from_fn(shape::shape));
    let router = match app.access.cors() {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(middleware::from_fn_with_state((app.clone(), answers), log::log)).with_state(app.clone())
}

async fn no_such_path(State(app): State<Arc<App>>, request: Request) -> Problem {
    discard(request.into_body(), &app).await;
    Problem::not_found("there is nothing at this path; /openapi.json says what there is")
}

async fn no_such_method(State(app): State<Arc<App>>, request: Request) -> Problem {
    let message = format!("{} is not for this path; /openapi.json says what is", request.method());
    discard(request.into_body(), &app).await;
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
