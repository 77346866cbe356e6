//! `/health`, `/ready` and `/metrics`.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready)).routes(routes!(metrics))
}

/// How the server is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`, or `ending`.
    status: &'static str,
    /// What clients call the model.
    model: String,
    /// True if the small built-in model answers.
    demo: bool,
    /// Requests that wait or are being answered.
    pending: usize,
}

fn state(app: &App) -> Health {
    Health {
        status: if app.engine.is_ready() { "ok" } else { "ending" },
        model: app.options.model_name.clone(),
        demo: app.options.is_demo,
        pending: app.engine.pending(),
    }
}

/// Says that the process lives.
#[utoipa::path(get, path = "/health", tag = "palmtop", responses((status = 200, body = Health)))]
async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(state(&app))
}

/// Says whether requests are answered: 503 as soon as the server is to end.
#[utoipa::path(get, path = "/ready", tag = "palmtop", responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn ready(State(app): State<Arc<App>>) -> Response {
    let status = if app.engine.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(state(&app))).into_response()
}

/// Counts and times in the text format of Prometheus (OpenMetrics).
#[utoipa::path(get, path = "/metrics", tag = "palmtop", responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut text = String::new();
    let registry = app.registry.lock().unwrap_or_else(PoisonError::into_inner);
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written")
    })?;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media_type)], text).into_response())
}
