//! palmtop's own interface: many prompts about one picture, answered together.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use palmtop::Sampling;
use palmtop_present::json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer;
use crate::app::App;
use crate::engine::{Answering, Ask, AskError, Event, Finished, Picture};
use crate::problem::{ErrorBody, Problem};
use crate::received::Received;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(looks))
}

/// Prompts of one request at most.
const PROMPTS_MAX: usize = 64;

/// Prompts about a picture, and how to answer them. As a form, `prompt`, `choose` and `stop` are repeated, and
/// `picture` is a file; next to the picture's own bytes as the body, they are parameters of the address.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LookRequest {
    /// The picture in base64, or as a data URI.
    picture: String,
    /// Whole prompts, such as `caption en` or `detect cat ; dog`.
    #[schema(min_items = 1, max_items = 64)]
    prompts: Vec<String>,
    /// All that answers may be; anything if empty.
    choose: Vec<String>,
    /// Texts that end an answer.
    stop: Vec<String>,
    /// Tokens of an answer at most.
    max_new_tokens: Option<usize>,
    /// 0, or absent: always the likeliest token.
    temperature: Option<f32>,
    /// Only the so many likeliest tokens.
    top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability.
    top_p: Option<f32>,
    /// The same seed gives the same answer.
    seed: Option<u64>,
    /// False leaves masks out, which saves some milliseconds.
    masks: Option<bool>,
    /// Milliseconds within which the answers must be done; what there is then is given.
    timeout_ms: Option<u64>,
}

/// The answers to all prompts.
#[derive(Serialize, ToSchema)]
struct Looks {
    /// The model's name.
    model: String,
    /// An answer for each prompt, in their order: the objects of docs/json.md.
    #[schema(value_type = Vec<json::Answer<'static>>)]
    answers: Vec<Value>,
}

/// Answers prompts about a picture.
///
/// The body is a form (`multipart/form-data`) with the file `picture` and fields, or JSON, or the picture's own bytes
/// (`image/jpeg` or another type) with the fields in the address. With `Accept: text/event-stream` the answers come as
/// they arise: events `begun`, `text` and `answer`, each with the number of its prompt, or `error`.
#[utoipa::path(
    post, path = "/v1/looks", tag = "palmtop",
    params(
        ("prompt" = Option<Vec<String>>, Query, description = "With the picture's own bytes as the body: the prompts"),
    ),
    request_body(content(
        (LookRequest = "application/json"),
        (LookRequest = "multipart/form-data"),
        (Vec<u8> = "image/jpeg"),
    )),
    responses(
        (status = 200, body = Looks),
        (status = 400, body = ErrorBody, description = "Something of the request cannot be used"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "Body or picture are too large"),
        (status = 429, body = ErrorBody, description = "Too many requests wait; see Retry-After"),
        (status = 503, body = ErrorBody, description = "The server is ending"),
        (status = 504, body = ErrorBody, description = "The time is over, and there is no answer yet"),
    )
)]
async fn looks(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    received: Received,
) -> Result<Response, Problem> {
    let (wanted, picture) = read(&received, query.as_deref()).await?;
    wanted.check(&app)?;
    let asked = ask(&app, &wanted, app.pictures.take(picture)).await?;
    if received.accepts("text/event-stream") {
        let events = events(app, Arc::new(wanted), asked);
        let events = events.map(|(name, data)| SseEvent::default().event(name).data(data.to_string()));
        return Ok(Sse::new(events.map(Ok::<_, Infallible>))
            .keep_alive(KeepAlive::default())
            .into_response());
    }
    let mut answers = Vec::with_capacity(asked.len());
    for (index, answering) in asked.into_iter().enumerate() {
        answers.push(wanted.answer(&app, index, &answering.finish().await?)?);
    }
    Ok(Json(Looks { model: app.options.model_name.clone(), answers }).into_response())
}

/// Puts all prompts into the queue, next to one another: they share the picture, and run together. The picture is taken
/// in once there are places for them.
pub(super) async fn ask(
    app: &App,
    wanted: &LookRequest,
    picture: impl Future<Output = Result<Picture, AskError>>,
) -> Result<Vec<Answering>, Problem> {
    let count = wanted.prompts.len();
    let grammar = (!wanted.choose.is_empty()).then(|| app.choices(&wanted.choose)).transpose()?;
    let sampling = Sampling {
        temperature: wanted.temperature.unwrap_or(0.0),
        top_k: wanted.top_k.unwrap_or(0),
        top_p: wanted.top_p.unwrap_or(0.0),
        seed: wanted.seed.unwrap_or(0),
    };
    let deadline = app.deadline(wanted.timeout_ms.map(Duration::from_millis));
    let mut places = app.engine.enter(count)?;
    let picture = picture.await?;
    let asks = wanted.prompts.iter().map(|prompt| {
        let mut ask = Ask::new(vec![picture.clone()], prompt);
        ask.max_new_tokens = wanted.max_new_tokens;
        ask.sampling = sampling;
        ask.grammar = grammar.clone();
        ask.stop = wanted.stop.clone();
        ask.deadline = Some(deadline);
        ask
    });
    let mut asked = Vec::with_capacity(count);
    for ask in asks {
        let place = places.split().expect("there is a place for each prompt");
        asked.push(app.engine.ask(place, ask)?);
    }
    Ok(asked)
}

/// The events of all answers as they arise: names and data.
pub(super) fn events(
    app: Arc<App>,
    wanted: Arc<LookRequest>,
    asked: Vec<Answering>,
) -> impl Stream<Item = (&'static str, Value)> {
    let each = asked.into_iter().enumerate().map(|(index, answering)| {
        let (app, wanted) = (app.clone(), wanted.clone());
        stream::unfold(Some(answering), move |answering| {
            let (app, wanted) = (app.clone(), wanted.clone());
            async move {
                let mut answering = answering?;
                let next = answering.next().await;
                let is_last = matches!(next, Ok(Event::Done(_)) | Err(_));
                let event = event(&app, &wanted, index, next);
                Some((event, (!is_last).then_some(answering)))
            }
        })
        .boxed()
    });
    stream::select_all(each.collect::<Vec<_>>())
}

fn event(
    app: &App,
    wanted: &LookRequest,
    index: usize,
    next: Result<Event, AskError>,
) -> (&'static str, Value) {
    match next {
        Ok(Event::Begun { prompt_tokens, cached_pictures }) => {
            ("begun", json!({"prompt": index, "prompt_tokens": prompt_tokens, "cached": cached_pictures > 0}))
        }
        Ok(Event::More { text, tokens }) => {
            ("text", json!({"prompt": index, "text": text, "tokens": tokens.len()}))
        }
        Ok(Event::Done(finished)) => match wanted.answer(app, index, &finished) {
            Ok(answer) => ("answer", json!({"prompt": index, "answer": answer})),
            Err(problem) => ("error", error_data(index, &problem)),
        },
        Err(error) => ("error", error_data(index, &error.into())),
    }
}

fn error_data(index: usize, problem: &Problem) -> Value {
    let mut value = json!(problem.body());
    value["prompt"] = index.into();
    value
}

/// The command that asks with this prompt.
fn task_of(prompt: &str) -> &'static str {
    match prompt.split(' ').next().unwrap_or("") {
        "cap" | "caption" | "describe" => "caption",
        "answer" => "ask",
        "ocr" => "ocr",
        "detect" => "detect",
        "segment" => "segment",
        _ => "run",
    }
}

/// The request, and the picture's bytes.
async fn read(received: &Received, query: Option<&str>) -> Result<(LookRequest, Bytes), Problem> {
    match received.media_type().as_str() {
        "application/json" => {
            let wanted: LookRequest = received.json()?;
            let picture = from_base64(&wanted.picture)?;
            Ok((LookRequest { picture: String::new(), ..wanted }, picture))
        }
        "multipart/form-data" => read_form(received).await,
        _ => {
            let mut wanted = LookRequest::default();
            for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
                wanted.set(&name, &value)?;
            }
            Ok((wanted, received.bytes.clone()))
        }
    }
}

async fn read_form(received: &Received) -> Result<(LookRequest, Bytes), Problem> {
    let bad = |error: multer::Error| Problem::bad(format!("the form cannot be read: {error}"));
    let media_type = received.headers.get(axum::http::header::CONTENT_TYPE);
    let boundary = multer::parse_boundary(media_type.and_then(|value| value.to_str().ok()).unwrap_or(""));
    let body = stream::iter([Ok::<_, Infallible>(received.bytes.clone())]);
    let mut form = multer::Multipart::new(body, boundary.map_err(bad)?);
    let (mut wanted, mut picture) = (LookRequest::default(), None);
    while let Some(field) = form.next_field().await.map_err(bad)? {
        match field.name().unwrap_or("").to_owned().as_str() {
            "picture" => picture = Some(field.bytes().await.map_err(bad)?),
            // Not `text`, which knows every encoding there is, at 200 kB of tables: browsers send UTF-8.
            name => wanted.set(name, &String::from_utf8_lossy(&field.bytes().await.map_err(bad)?))?,
        }
    }
    let picture = picture.ok_or_else(|| Problem::bad("the form has no file named picture"))?;
    Ok((wanted, picture))
}

impl LookRequest {
    /// A problem if there are too many prompts, or none.
    pub(super) fn check(&self, app: &App) -> Result<(), Problem> {
        let (count, most) = (self.prompts.len(), PROMPTS_MAX.min(app.engine.places_max()));
        match (1..=most).contains(&count) {
            true => Ok(()),
            false => Err(Problem::bad(format!("{count} prompts: give 1 to {most}"))),
        }
    }

    /// The answer to one of the prompts, as docs/json.md has it.
    fn answer(&self, app: &App, index: usize, finished: &Finished) -> Result<Value, Problem> {
        let (prompt, chosen) = (&self.prompts[index], !self.choose.is_empty());
        let found = answer::found(app.model(), finished, self.masks.unwrap_or(true))?;
        Ok(answer::to_json(finished, &found, "request", task_of(prompt), prompt, chosen))
    }

    /// Takes a field of a form or of an address.
    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<Option<T>, Problem> {
            let number = value.parse().map(Some);
            number.map_err(|_| {
                Problem::bad(format!("{name} is {value:?}, which is not what is expected there"))
            })
        }
        match name {
            "prompt" => self.prompts.push(value.to_owned()),
            "choose" => self.choose.push(value.to_owned()),
            "stop" => self.stop.push(value.to_owned()),
            "max_new_tokens" => self.max_new_tokens = number(name, value)?,
            "temperature" => self.temperature = number(name, value)?,
            "top_k" => self.top_k = number(name, value)?,
            "top_p" => self.top_p = number(name, value)?,
            "seed" => self.seed = number(name, value)?,
            "masks" => self.masks = number(name, value)?,
            "timeout_ms" => self.timeout_ms = number(name, value)?,
            // Where a page of the server's own sends its key.
            "key" => {}
            _ => return Err(Problem::bad(format!("there is no field {name:?}; /openapi.json names them"))),
        }
        Ok(())
    }
}

/// Bytes in base64, perhaps as a data URI.
pub(crate) fn from_base64(text: &str) -> Result<Bytes, Problem> {
    let encoded = match text.strip_prefix("data:") {
        Some(rest) => match rest.split_once(',') {
            Some((kind, encoded)) if kind.ends_with(";base64") => encoded,
            _ => return Err(Problem::bad("the data URI of the picture is not in base64")),
        },
        None => text,
    };
    if encoded.trim().is_empty() {
        return Err(Problem::bad("there is no picture"));
    }
    // Many encoders break lines.
    let one_line: String;
    let encoded = match encoded.contains(|c: char| c.is_ascii_whitespace()) {
        true => {
            one_line = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            &one_line
        }
        false => encoded,
    };
    let bytes = BASE64_STANDARD.decode(encoded);
    bytes.map(Bytes::from).map_err(|error| Problem::bad(format!("the picture is not in base64: {error}")))
}
