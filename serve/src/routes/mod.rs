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

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::problem::Problem;
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

async fn no_such_path(State(_): State<Arc<App>>, uri: Uri) -> impl IntoResponse {
    let _ = uri;
    Problem::not_found("there is nothing at this path; /openapi.json says what there is")
}

async fn no_such_method(method: Method) -> impl IntoResponse {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not for this path; /openapi.json says what is"),
    )
}
