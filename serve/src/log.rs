//! One line of the log for each request: `key=value`, without pictures, prompts or keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::app::App;

/// Names a request in answers and in the log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What answers are counted by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Labels {
    path: String,
    status: u16,
}

/// Answers by path and status.
pub(crate) type Answers = Family<Labels, Counter>;

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Logs and counts a request. The time is that to the answer's head; streams go on.
pub(crate) async fn log(
    State((_, answers)): State<(Arc<App>, Answers)>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Never the path as it came: it may hold anything, and metrics would grow with it.
    let path = request.extensions().get::<MatchedPath>().map_or("-", |path| path.as_str()).to_owned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    ::log::info!("request={number} method={method} path={path} status={status} ms={ms:.1}");
    answers.get_or_create(&Labels { path, status }).inc();
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from(number));
    response
}
