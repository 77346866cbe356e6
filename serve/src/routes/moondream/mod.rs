//! Moondream's interface: captions, questions, boxes, points and outlines, in coordinates from 0 to 1.

mod outline;
mod request;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use palmtop::tasks::BoundingBox;
use palmtop_present::Found;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::chat::start::{Begun, start};
use crate::engine::{Event, Finished};
use crate::problem::Problem;
use crate::received::Received;
use crate::{answer, chat, shape};
use outline::outline;
use request::{CaptionRequest, ObjectRequest, QueryRequest, Read};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(caption))
        .routes(routes!(query))
        .routes(routes!(detect))
        .routes(routes!(point))
        .routes(routes!(segment))
}

/// Describes a picture: `caption en`, or `describe en` if it is to be long.
#[utoipa::path(
    post, path = "/v1/caption", tag = "Moondream",
    request_body = CaptionRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 429, body = Value))
)]
async fn caption(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: CaptionRequest = received.json()?;
    text(app, "caption", request.read()?).await
}

/// Answers a question: `answer en …`, or a prompt in one of the official forms.
#[utoipa::path(
    post, path = "/v1/query", tag = "Moondream",
    request_body = QueryRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 429, body = Value))
)]
async fn query(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: QueryRequest = received.json()?;
    text(app, "answer", request.read()?).await
}

/// Finds objects: `detect …`. Boxes are in parts of the picture.
#[utoipa::path(
    post, path = "/v1/detect", tag = "Moondream",
    request_body = ObjectRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 429, body = Value))
)]
async fn detect(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: ObjectRequest = received.json()?;
    objects(app, request.read("detect")?, |boxes| json!({"objects": boxes})).await
}

/// Finds objects: the centres of their boxes.
#[utoipa::path(
    post, path = "/v1/point", tag = "Moondream",
    request_body = ObjectRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 429, body = Value))
)]
async fn point(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: ObjectRequest = received.json()?;
    let centre = |region: &Region| json!({"x": (region.x_min + region.x_max) / 2.0, "y": (region.y_min + region.y_max) / 2.0});
    objects(app, request.read("detect")?, |boxes| {
        let points: Vec<Value> = boxes.iter().map(centre).collect();
        json!({"points": points, "count": points.len()})
    })
    .await
}

/// Outlines the first object that is found: `segment …`. The path is in parts of its box.
#[utoipa::path(
    post, path = "/v1/segment", tag = "Moondream",
    request_body = ObjectRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 429, body = Value))
)]
async fn segment(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let request: ObjectRequest = received.json()?;
    let mut read = request.read("segment")?;
    let begun = start(&app, &mut read.wanted).await?;
    let finished = begun.finish().await?;
    let found = answer::found(app.model(), &finished, true)?;
    let (path, region) = match found.first() {
        Some(found) => {
            let (path, region) = drawn(found, &finished);
            (path, json!(region))
        }
        None => (String::new(), Value::Null),
    };
    let mut response = if read.stream {
        let events = [
            json!({"type": "bbox", "bbox": region}),
            json!({"type": "path_delta", "chunk": path, "completed": false}),
            json!({"type": "final", "path": path, "bbox": region, "completed": true, "request_id": request_id()}),
        ];
        let events = events.map(|event| Ok::<_, Infallible>(SseEvent::default().data(event.to_string())));
        Sse::new(stream::iter(events)).into_response()
    } else {
        Json(json!({"request_id": request_id(), "path": path, "bbox": region})).into_response()
    };
    chat::warn(&mut response, &read.ignored);
    Ok(response)
}

/// Edges of a box in parts of the picture.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
struct Region {
    x_min: f64,
    y_min: f64,
    x_max: f64,
    y_max: f64,
}

impl Region {
    /// Of the box of an object.
    fn of(found: &Found) -> Self {
        let of_whole = BoundingBox::from_locations(found.detection.locations, 1, 1);
        let [x_min, y_min, x_max, y_max] =
            [of_whole.x_min, of_whole.y_min, of_whole.x_max, of_whole.y_max].map(f64::from);
        Self { x_min, y_min, x_max, y_max }
    }
}

/// The outline of an object's mask, or of its box if there is no mask.
fn drawn(found: &Found, finished: &Finished) -> (String, Region) {
    let (width, height) = finished.sizes.first().copied().unwrap_or((1, 1));
    let drawn = found.detection.mask.as_ref().and_then(outline);
    drawn.map_or_else(
        || ("M0,0L1,0L1,1L0,1Z".to_owned(), Region::of(found)),
        |(path, [x0, y0, x1, y1])| {
            let part = |edge: u32, side: u32| f64::from(edge) / f64::from(side.max(1));
            let region = Region {
                x_min: part(x0, width),
                y_min: part(y0, height),
                x_max: part(x1, width),
                y_max: part(y1, height),
            };
            (path, region)
        },
    )
}

/// Answers with what is found, in parts of the picture.
async fn objects(
    app: Arc<App>,
    mut read: Read,
    body: impl Fn(&[Region]) -> Value,
) -> Result<Response, Problem> {
    let begun = start(&app, &mut read.wanted).await?;
    let finished = begun.finish().await?;
    let found = answer::found(app.model(), &finished, false)?;
    let most = read.max_objects.unwrap_or(usize::MAX);
    let regions: Vec<Region> = found.iter().take(most).map(Region::of).collect();
    let mut value = body(&regions);
    value["request_id"] = request_id().into();
    let mut response = Json(value).into_response();
    chat::warn(&mut response, &read.ignored);
    Ok(response)
}

/// Answers with a text, at once or as it comes.
async fn text(app: Arc<App>, field: &'static str, mut read: Read) -> Result<Response, Problem> {
    let begun = start(&app, &mut read.wanted).await?;
    let mut response = if read.stream {
        let events =
            stream(begun).map(|event| Ok::<_, Infallible>(SseEvent::default().data(event.to_string())));
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    } else {
        let finished = begun.finish().await?;
        let reason = if chat::format::is_whole(&finished) { "stop" } else { "length" };
        Json(json!({"request_id": request_id(), (field): finished.text, "finish_reason": reason}))
            .into_response()
    };
    chat::warn(&mut response, &read.ignored);
    Ok(response)
}

fn stream(begun: Begun) -> impl Stream<Item = Value> {
    stream::unfold(Some(begun), |begun| async move {
        let mut begun = begun?;
        Some(loop {
            match begun.next().await {
                Ok(Event::Begun { .. }) => {}
                Ok(Event::More { text, .. }) if text.is_empty() => {}
                Ok(Event::More { text, .. }) => {
                    break (json!({"chunk": text, "completed": false}), Some(begun));
                }
                Ok(Event::Done(_)) => {
                    break (json!({"chunk": "", "completed": true, "request_id": request_id()}), None);
                }
                Err(error) => {
                    let mut value = shape::openai(&error.into());
                    value["completed"] = true.into();
                    break (value, None);
                }
            }
        })
    })
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

fn request_id() -> String {
    format!("palmtop-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}
