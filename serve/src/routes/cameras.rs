//! The loop of cameras: how they are, their pictures, what happens, and commands.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use palmtop_watch::command::{COMMAND_BYTES_MAX, Command};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::cameras::{Camera, CameraInfo, Eye, Item};
use crate::problem::{ErrorBody, Problem};
use crate::received::Received;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(cameras))
        .routes(routes!(picture))
        .routes(routes!(live))
        .routes(routes!(events))
        .routes(routes!(commands))
}

/// The cameras of the loop.
#[derive(Serialize, ToSchema)]
struct CameraList {
    /// True while the loop looks at nothing.
    paused: bool,
    /// All of them; none if the server was started without `--watch`.
    cameras: Vec<CameraInfo>,
}

/// How the cameras are, and what was last answered about them.
#[utoipa::path(get, path = "/v1/cameras", tag = "cameras", responses((status = 200, body = CameraList)))]
async fn cameras(State(app): State<Arc<App>>) -> Json<CameraList> {
    Json(CameraList { paused: app.cameras.is_paused(), cameras: app.cameras.list() })
}

fn find(app: &App, name: &str) -> Result<Arc<Camera>, Problem> {
    app.cameras
        .find(name)
        .ok_or_else(|| Problem::not_found("there is no camera of this name; /v1/cameras names them"))
}

/// The newest picture of a camera, with what was found drawn in.
#[utoipa::path(
    get, path = "/v1/cameras/{name}/picture", tag = "cameras",
    params(("name" = String, Path, description = "The camera's name")),
    responses(
        (status = 200, content_type = "image/jpeg", body = Vec<u8>),
        (status = 404, body = ErrorBody, description = "There is no such camera"),
        (status = 503, body = ErrorBody, description = "There is no picture yet, or it cannot be decoded"),
    )
)]
async fn picture(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let eye = find(&app, &name)?.look();
    let (_, jpeg) = eye.now().await.ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_picture",
            "the camera gives no picture at the moment",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")], jpeg).into_response())
}

/// Pictures of a stream a second.
const FPS: f32 = 10.0;
/// The bounds of what may be asked for.
const FPS_BOUNDS: std::ops::RangeInclusive<f32> = 0.1..=30.0;
/// Browsers show a picture when the next one begins: if there is none so soon, it is sent once more.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// What stands between pictures.
const BOUNDARY: &str = "picture";

/// Live pictures of a camera, with what was found drawn in: Motion JPEG, as `<img>` shows it.
///
/// The newest picture is sent; if the reader is slow, those between are left out.
#[utoipa::path(
    get, path = "/v1/cameras/{name}/stream", tag = "cameras",
    params(
        ("name" = String, Path, description = "The camera's name"),
        ("fps" = Option<f32>, Query, description = "Pictures a second at most, from 0.1 to 30; 10 if absent", minimum = 0.1, maximum = 30),
    ),
    responses(
        (status = 200, content_type = "multipart/x-mixed-replace; boundary=picture", body = Vec<u8>),
        (status = 400, body = ErrorBody, description = "That is no rate"),
        (status = 404, body = ErrorBody, description = "There is no such camera"),
        (status = 429, body = ErrorBody, description = "Too many look already"),
    )
)]
async fn live(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fps = FPS;
    for (key, value) in form_urlencoded::parse(query.as_deref().unwrap_or("").as_bytes()) {
        if key == "fps" {
            let wanted = value.parse().ok().filter(|fps| FPS_BOUNDS.contains(fps));
            fps = wanted.ok_or_else(|| Problem::bad("fps is a number from 0.1 to 30"))?;
        }
    }
    let camera = find(&app, &name)?;
    let place = app.cameras.viewer().ok_or_else(|| {
        let message = format!("{} look at live pictures already", crate::cameras::VIEWERS_MAX);
        Problem::busy(message, Duration::from_secs(10))
    })?;
    // One picture waits here, one in the connection: no more, however slowly they are read.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(app, camera.look(), place, Duration::from_secs_f32(1.0 / fps), sender));
    let parts = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
        Some((Ok::<_, Infallible>(receiver.recv().await?), receiver))
    });
    let media_type = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    let headers = [(header::CONTENT_TYPE, media_type.as_str()), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// Sends pictures until the reader goes, stops reading, or there will be no more. The place is free afterwards.
async fn send(
    app: Arc<App>,
    eye: Eye,
    _place: OwnedSemaphorePermit,
    period: Duration,
    sender: mpsc::Sender<Bytes>,
) {
    let mut number = 0;
    let mut is_shown = true;
    let mut due = Instant::now();
    let pictures = async {
        loop {
            let newer = eye.newer_than(number);
            match is_shown {
                true => newer.await,
                // Or it comes once more.
                false => _ = tokio::time::timeout(REPEAT_AFTER, newer).await,
            }
            sleep_until(due).await;
            due = Instant::now() + period;
            let Some((newest, jpeg)) = eye.newest().await else {
                // One that cannot be decoded; the next one may be better.
                number += 1;
                is_shown = true;
                continue;
            };
            is_shown = newest == number;
            number = newest;
            let sent = sender.send_timeout(part(&jpeg), app.options.send_timeout);
            if sent.await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = pictures => {}
        () = sender.closed() => {}
        () = eye.camera().over().cancelled() => {}
        () = app.ending.cancelled() => {}
    }
}

/// A picture with what stands around it.
fn part(jpeg: &[u8]) -> Bytes {
    let head = format!("--{BOUNDARY}\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n", jpeg.len());
    let mut part = BytesMut::with_capacity(head.len() + jpeg.len() + 2);
    part.extend_from_slice(head.as_bytes());
    part.extend_from_slice(jpeg);
    part.extend_from_slice(b"\r\n");
    part.freeze()
}

/// What the loop tells, as it happens.
///
/// Events `answer`, `event` and `camera` have the objects of docs/json.md. With the header `Last-Event-ID` those that
/// were told since come first, as far as they are kept; `gap` says that some are not.
#[utoipa::path(
    get, path = "/v1/events", tag = "cameras",
    params(
        ("camera" = Option<String>, Query, description = "Only what is about this camera"),
        ("all" = Option<bool>, Query, description = "True: answers that change nothing, too"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the reader has"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = ErrorBody, description = "A parameter cannot be used"),
        (status = 404, body = ErrorBody, description = "There is no such camera"),
    )
)]
async fn events(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut wanted = Wanted { camera: None, all: false };
    for (key, value) in form_urlencoded::parse(query.as_deref().unwrap_or("").as_bytes()) {
        match &*key {
            "camera" => wanted.camera = Some(find(&app, &value)?.name().into()),
            "all" => wanted.all = value.parse().map_err(|_| Problem::bad("all is true or false"))?,
            _ => {}
        }
    }
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or(""));
    let since = app.cameras.listen(last);
    let lost = since.is_gap.then(gap);
    let missed: Vec<SseEvent> =
        since.missed.iter().filter(|item| wanted.has(item)).map(|item| event(item)).collect();
    let next = stream::unfold((since.next, wanted), |(mut next, wanted)| async {
        loop {
            match next.recv().await {
                Ok(item) if wanted.has(&item) => return Some((event(&item), (next, wanted))),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some((gap(), (next, wanted))),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let all = stream::iter(lost).chain(stream::iter(missed)).chain(next);
    let until_end = all.take_until(app.ending.clone().cancelled_owned());
    let response = Sse::new(ok(until_end)).keep_alive(KeepAlive::default());
    Ok(([(header::CACHE_CONTROL, "no-store")], response).into_response())
}

fn ok(events: impl Stream<Item = SseEvent>) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    events.map(Ok)
}

struct Wanted {
    camera: Option<Box<str>>,
    all: bool,
}

impl Wanted {
    fn has(&self, item: &Item) -> bool {
        (self.all || item.is_news) && self.camera.as_deref().is_none_or(|camera| camera == &*item.camera)
    }
}

fn event(item: &Item) -> SseEvent {
    SseEvent::default().id(&item.id).event(item.kind).data(&item.json)
}

/// Some events are not to be had any more.
fn gap() -> SseEvent {
    SseEvent::default().event("gap").data("{}")
}

/// A command in JSON, as it is described; it is read as MQTT's are.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "a description")]
enum Told {
    /// Ask now, whether or not anything moves.
    Ask {
        /// All questions, if absent.
        question: Option<String>,
        /// All cameras, if absent.
        camera: Option<String>,
    },
    /// Another prompt for a question, from the next look on.
    Prompt {
        /// The question's name.
        question: String,
        /// The whole prompt.
        #[schema(min_length = 1)]
        prompt: String,
    },
    /// Look at nothing.
    Pause,
    /// Go on.
    Resume,
}

/// A command was taken.
#[derive(Serialize, ToSchema)]
struct Accepted {
    /// Always true: the loop obeys before its next look.
    accepted: bool,
}

/// Tells the loop something.
///
/// In words `ask`, `ask QUESTION`, `pause` or `resume`; in JSON `{"ask": {"question": …, "camera": …}}`, of which
/// either may be absent, and `{"prompt": {"question": …, "prompt": …}}`.
#[utoipa::path(
    post, path = "/v1/commands", tag = "cameras",
    request_body(content((String = "text/plain"), (Told = "application/json"))),
    responses(
        (status = 202, body = Accepted),
        (status = 400, body = ErrorBody, description = "That is no command"),
        (status = 404, body = ErrorBody, description = "There is no such question or camera"),
        (status = 413, body = ErrorBody, description = "It is too long"),
        (status = 503, body = ErrorBody, description = "The loop has ended"),
    )
)]
async fn commands(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    if received.bytes.len() > COMMAND_BYTES_MAX {
        let message = format!("a command has {COMMAND_BYTES_MAX} bytes at most");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
    }
    let text =
        std::str::from_utf8(&received.bytes).map_err(|_| Problem::bad("a command is text in UTF-8"))?;
    let command: Command = text.parse().map_err(|error| Problem::bad(format!("{error}")))?;
    app.cameras.command(app.model(), command)?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: true })).into_response())
}
