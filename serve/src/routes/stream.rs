//! Frames in, results out: a WebSocket on which the newest frame wins.
//!
//! ```text
//!  client ─▶ read: prompts, frames ─▶ the newest frame ─▶ work: ask, events ─▶ write ─▶ client
//!                                     (one place)                 (a few messages)
//! ```
//!
//! Three loops of one task. If the engine is busy, frames replace one another in their place; if the client reads
//! slowly, the work waits, and so frames replace one another as well. Nothing grows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use palmtop_watch::source::{PixelLayout, size_of};
use palmtop_watch::stream::Layout;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{interval, sleep, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::looks::{self, LookRequest};
use crate::app::{App, BODY_UNIT};
use crate::engine::Answering;
use crate::problem::{ErrorBody, Problem};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// Connections at once.
pub(crate) const STREAMS_MAX: usize = 8;
/// Bytes of a message with prompts at most.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Results that wait for a client.
const WAITING_MAX: usize = 16;
/// So often a client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// After so long without a word a client is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// If there is no place for a frame, so long passes before the next one is tried, at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For the last message.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Answers prompts about the frames of a camera: a WebSocket.
///
/// The client sends a text message with the fields of `/v1/looks` but `picture`, as JSON; then each binary message is a
/// frame: a JPEG or PNG file, or with `"format": "nv12"` and `"size": "640x480"` plain pixels (`i420`, `yuyv`, `uyvy`,
/// `rgb`, `bgr`, `grey`). Results are text messages: the data of the events of `/v1/looks`, with `event`, `frame` (the
/// frame's number, from 0) and `dropped` (frames that gave way to this one). `done` ends a frame. A frame that waits is
/// replaced by a newer one; a new text message changes the prompts from the next frame on, and is answered by `ready`.
#[utoipa::path(
    get, path = "/v1/stream", tag = "palmtop",
    responses(
        (status = 101, description = "The connection is a WebSocket from now on"),
        (status = 400, body = ErrorBody, description = "The handshake cannot be understood"),
        (status = 426, body = ErrorBody, description = "This is no handshake of a WebSocket"),
        (status = 429, body = ErrorBody, description = "Too many streams already"),
    )
)]
async fn stream(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| match rejection.status() {
        StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST => Problem::new(
            rejection.status(),
            "no_websocket",
            "this is for WebSockets: send a handshake of version 13",
        ),
        status => Problem::new(status, "no_websocket", "this is for WebSockets, with GET"),
    })?;
    let busy = || Problem::busy(format!("there are {STREAMS_MAX} streams already"), Duration::from_secs(10));
    let place = app.streams.clone().try_acquire_owned().map_err(|_| busy())?;
    let most = app.options.body_bytes_max;
    let upgrade = upgrade.max_message_size(most).max_frame_size(most);
    Ok(upgrade.on_upgrade(move |socket| talk(socket, app, place)))
}

async fn talk(socket: WebSocket, app: Arc<App>, _place: OwnedSemaphorePermit) {
    let (mut sink, mut stream) = socket.split();
    let newest = Newest::default();
    let (out, outbox) = mpsc::channel(WAITING_MAX);
    let close = tokio::select! {
        close = read(&mut stream, &app, &newest, out.clone()) => close,
        close = work(&app, &newest, out) => close,
        close = write(&mut sink, outbox, app.options.send_timeout) => close,
    };
    if let Some((code, reason)) = close {
        let frame = CloseFrame { code, reason: reason.into() };
        let close = async {
            if sink.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            // If the connection were cut while something of the client's is still unread, its system would throw away
            // what it has not read yet, the reason included.
            let is_broken = matches!(code, close_code::SIZE | close_code::INVALID | close_code::PROTOCOL);
            while let Some(Ok(_)) = stream.next().await {}
            if is_broken {
                // Nothing more can be read of it.
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, close).await;
    }
}

/// A close code and a reason; none if nobody is there to hear it.
type Close = Option<(u16, &'static str)>;

/// What is asked about frames.
struct Settings {
    wanted: Arc<LookRequest>,
    /// How frames lie; files in a picture format if absent.
    layout: Option<Layout>,
}

impl Settings {
    fn read(text: &str, app: &App) -> Result<Self, Problem> {
        let not_expected =
            |error| Problem::bad(format!("the message is not the JSON that is expected here: {error}"));
        let mut value: Value = serde_json::from_str(text).map_err(not_expected)?;
        let fields = value.as_object_mut().ok_or_else(|| Problem::bad("the message is no JSON object"))?;
        let mut text_of = |name: &str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::bad(format!("{name} is a text"))),
        };
        let (format, size) = (text_of("format")?, text_of("size")?);
        if text_of("picture")?.is_some() {
            return Err(Problem::bad("pictures are binary messages here"));
        }
        let wanted: LookRequest = serde_json::from_value(value).map_err(not_expected)?;
        wanted.check(app)?;
        let format = format.map(|name| {
            let message = "format is nv12, i420, yuyv, uyvy, rgb, bgr or grey";
            PixelLayout::of_name(&name).ok_or_else(|| Problem::bad(message))
        });
        let layout = match (format.transpose()?, size.as_deref().map(size_of)) {
            (None | Some(PixelLayout::Mjpeg), _) => None,
            (Some(format), Some(Some((width, height)))) => Some(format.layout(width, height)),
            (Some(_), _) => return Err(Problem::bad("plain pixels need a size, such as 640x480")),
        };
        Ok(Self { wanted: Arc::new(wanted), layout })
    }
}

impl Settings {
    async fn ask(&self, app: &App, frame: Bytes) -> Result<Vec<Answering>, Problem> {
        let Some(layout) = self.layout else {
            return looks::ask(app, &self.wanted, app.pictures.take(frame)).await;
        };
        let (bytes, came) = (layout.bytes().unwrap_or(usize::MAX), frame.len());
        if bytes != came {
            return Err(Problem::bad(format!(
                "a frame of this format and size has {bytes} bytes, and {came} came"
            )));
        }
        looks::ask(app, &self.wanted, app.pictures.take_frame(frame, layout)).await
    }
}

/// A frame that waits.
struct Frame {
    bytes: Bytes,
    number: u64,
    /// Bodies may take so much in all.
    _room: OwnedSemaphorePermit,
}

/// The place between those who read and those who work.
#[derive(Default)]
struct Newest {
    state: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    frame: Option<Frame>,
    settings: Option<Arc<Settings>>,
    next: u64,
    dropped: u64,
}

impl Newest {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in the place of the one that waits. False if nobody said what to ask.
    fn put(&self, bytes: Bytes, app: &App) -> bool {
        let units = bytes.len().div_ceil(BODY_UNIT).max(1) as u32;
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        if waiting.settings.is_none() {
            return false;
        }
        // The old one's room may be what the new one needs.
        let had_one = waiting.frame.take().is_some();
        waiting.dropped += u64::from(had_one);
        match app.bodies.clone().try_acquire_many_owned(units) {
            Ok(room) => waiting.frame = Some(Frame { bytes, number, _room: room }),
            Err(_) => waiting.dropped += 1,
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Waits for a frame; gives how many were dropped for it, too.
    async fn take(&self) -> (Frame, Arc<Settings>, u64) {
        loop {
            {
                let mut waiting = self.lock();
                if let (Some(settings), Some(frame)) = (waiting.settings.clone(), waiting.frame.take()) {
                    return (frame, settings, std::mem::take(&mut waiting.dropped));
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Takes what the client sends.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    app: &App,
    newest: &Newest,
    out: mpsc::Sender<Value>,
) -> Close {
    loop {
        let message = match timeout(SILENCE_MAX, stream.next()).await {
            Err(_) => return Some((close_code::POLICY, "nothing came for a minute")),
            Ok(None) => return None,
            Ok(Some(Err(error))) => return broken(error),
            Ok(Some(Ok(message))) => message,
        };
        let reply = match message {
            Message::Text(text) if text.len() > TEXT_BYTES_MAX => {
                return Some((close_code::SIZE, "a text message has 64 KiB at most"));
            }
            Message::Text(text) => match Settings::read(&text, app) {
                Ok(settings) => {
                    newest.lock().settings = Some(Arc::new(settings));
                    json!({"event": "ready"})
                }
                Err(problem) => error(&problem),
            },
            Message::Binary(bytes) => match newest.put(bytes, app) {
                true => continue,
                false => error(&Problem::new(
                    StatusCode::BAD_REQUEST,
                    "no_prompts",
                    "send the prompts first, as a text message in JSON",
                )),
            },
            Message::Ping(_) | Message::Pong(_) => continue,
            // It is answered by itself.
            Message::Close(_) => return None,
        };
        if out.send(reply).await.is_err() {
            return None;
        }
    }
}

/// The client did what no client may, or is gone.
fn broken(error: axum::Error) -> Close {
    use tungstenite::error::{CapacityError, Error, ProtocolError};
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
            Some((close_code::SIZE, "the message is too long"))
        }
        Ok(Error::Utf8(_)) => Some((close_code::INVALID, "a text message is in UTF-8")),
        Ok(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => None,
        Ok(Error::Protocol(_)) => Some((close_code::PROTOCOL, "that is against the protocol")),
        _ => None,
    }
}

/// Asks about frames, one after the other.
async fn work(app: &Arc<App>, newest: &Newest, out: mpsc::Sender<Value>) -> Close {
    loop {
        let (frame, settings, dropped) = tokio::select! {
            taken = newest.take() => taken,
            () = app.ending.cancelled() => return Some((close_code::AWAY, "the server is ending")),
        };
        let number = frame.number;
        let of_frame = |name: &str, mut data: Value| {
            data["event"] = name.into();
            data["frame"] = number.into();
            data["dropped"] = dropped.into();
            data
        };
        match settings.ask(app, frame.bytes).await {
            Ok(asked) => {
                let mut events = std::pin::pin!(looks::events(app.clone(), settings.wanted.clone(), asked));
                while let Some((name, data)) = events.next().await {
                    if out.send(of_frame(name, data)).await.is_err() {
                        return None;
                    }
                }
                if out.send(of_frame("done", json!({}))).await.is_err() {
                    return None;
                }
            }
            Err(problem) => {
                if out.send(of_frame("error", error(&problem))).await.is_err() {
                    return None;
                }
                if let Some(pause) = problem.retry_after {
                    sleep(pause.min(PAUSE_MAX)).await;
                }
            }
        }
    }
}

fn error(problem: &Problem) -> Value {
    let mut value = json!(problem.body());
    value["event"] = "error".into();
    value
}

/// Sends results, and asks now and then whether the client is there.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    mut outbox: mpsc::Receiver<Value>,
    within: Duration,
) -> Close {
    let mut pings = interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            value = outbox.recv() => match value {
                Some(value) => Message::Text(value.to_string().into()),
                None => std::future::pending().await,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(within, sink.send(message)).await {
            Ok(Ok(())) => {}
            // It is gone, or reads nothing.
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}
