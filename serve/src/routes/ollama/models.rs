//! What Ollama's clients ask about models: there is one, it is loaded, and it stays.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use palmtop::format::{Storage, checksum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::problem::Problem;
use crate::received::Received;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(tags))
        .routes(routes!(ps))
        .routes(routes!(show))
        .routes(routes!(version))
}

/// The version of Ollama whose interface this is. Clients compare it with the one that they need.
const VERSION: &str = "0.12.6";
/// What a name without a tag means.
const TAG: &str = ":latest";
/// When a model is unloaded that never is.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// The model's name, with a tag.
pub(super) fn name(app: &App) -> String {
    let name = &app.options.model_name;
    if name.contains(':') { name.clone() } else { format!("{name}{TAG}") }
}

/// What a model is made of.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaDetails)]
struct Details {
    parent_model: &'static str,
    /// `palm`
    format: &'static str,
    /// `paligemma` or `paligemma2`
    family: &'static str,
    families: [&'static str; 1],
    parameter_size: String,
    /// How most of the weights are stored.
    quantization_level: String,
}

/// A model, as lists have it.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaModel)]
struct Listed {
    name: String,
    model: String,
    modified_at: String,
    /// Bytes of the file.
    size: u64,
    /// Of the tensors' checksums.
    digest: String,
    details: Details,
    /// Only of models that are loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_vram: Option<u64>,
    /// Tokens of pictures, prompt and answer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<usize>,
}

/// All models: one.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaModels)]
struct List {
    models: [Listed; 1],
}

fn family(app: &App) -> &'static str {
    match app.model().config().text.generation {
        palmtop::model::config::Generation::Gemma1 => "paligemma",
        palmtop::model::config::Generation::Gemma2 => "paligemma2",
    }
}

fn details(app: &App) -> Details {
    let mut by_storage: HashMap<&str, u64> = HashMap::new();
    let tensors = app.model().file().tensors().iter().filter(|tensor| tensor.storage != Storage::Bytes);
    for tensor in tensors {
        *by_storage.entry(tensor.storage.name()).or_default() += values(&tensor.shape);
    }
    let most = by_storage.iter().max_by_key(|(_, values)| **values).map_or("", |(name, _)| *name);
    let family = family(app);
    Details {
        parent_model: "",
        format: "palm",
        family,
        families: [family],
        parameter_size: human(parameters(app)),
        quantization_level: most.split(' ').next().unwrap_or("").to_owned(),
    }
}

fn values(shape: &[usize]) -> u64 {
    shape.iter().map(|side| *side as u64).product()
}

fn parameters(app: &App) -> u64 {
    let tensors = app.model().file().tensors().iter().filter(|tensor| tensor.storage != Storage::Bytes);
    tensors.map(|tensor| values(&tensor.shape)).sum()
}

fn human(parameters: u64) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.1}B", parameters as f64 / 1e9),
        1_000_000.. => format!("{:.1}M", parameters as f64 / 1e6),
        _ => format!("{:.1}K", parameters as f64 / 1e3),
    }
}

fn digest(app: &App) -> String {
    let checksums = app.model().file().tensors().iter().flat_map(|tensor| tensor.checksum.to_le_bytes());
    format!("{:016x}", checksum(&checksums.collect::<Vec<_>>()))
}

fn context_length(app: &App) -> usize {
    let limits = app.engine.limits();
    limits.pictures * app.model().config().image_rows() + limits.prompt_tokens + limits.new_tokens
}

/// When the server began.
fn began(app: &App) -> String {
    jiff::Timestamp::try_from(app.started).unwrap_or_default().to_string()
}

fn list(app: &App, is_loaded: bool) -> List {
    let listed = Listed {
        name: name(app),
        model: name(app),
        modified_at: began(app),
        size: app.model().file().bytes(),
        digest: digest(app),
        details: details(app),
        expires_at: is_loaded.then_some(NEVER),
        size_vram: is_loaded.then_some(0),
        context_length: is_loaded.then(|| context_length(app)),
    };
    List { models: [listed] }
}

/// Lists the model that answers.
#[utoipa::path(get, path = "/api/tags", tag = "Ollama", responses((status = 200, body = List)))]
async fn tags(State(app): State<Arc<App>>) -> Json<List> {
    Json(list(&app, false))
}

/// Lists the model that is loaded: the same.
#[utoipa::path(get, path = "/api/ps", tag = "Ollama", responses((status = 200, body = List)))]
async fn ps(State(app): State<Arc<App>>) -> Json<List> {
    Json(list(&app, true))
}

/// Says whose interface this is.
#[utoipa::path(get, path = "/api/version", tag = "Ollama", responses((status = 200, body = Value)))]
async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}

/// Which model is meant.
#[derive(Debug, Deserialize, ToSchema)]
struct ShowRequest {
    #[serde(default)]
    model: Option<String>,
    /// Its old place.
    #[serde(default)]
    name: Option<String>,
}

/// Says what a model is.
#[utoipa::path(
    post, path = "/api/show", tag = "Ollama",
    request_body = ShowRequest,
    responses((status = 200, body = Value), (status = 400, body = Value), (status = 404, body = Value))
)]
async fn show(State(app): State<Arc<App>>, received: Received) -> Result<Json<Value>, Problem> {
    let request: ShowRequest = received.json()?;
    let asked = request.model.or(request.name).unwrap_or_default();
    let name = name(&app);
    if asked != name && asked != app.options.model_name {
        return Err(Problem::not_found(format!("model '{asked}' not found; '{name}' is here")));
    }
    let config = app.model().config();
    let family = family(&app);
    let about = json!({
        "general.architecture": family,
        "general.parameter_count": parameters(&app),
        (format!("{family}.context_length")): context_length(&app),
        (format!("{family}.block_count")): config.text.layers,
        (format!("{family}.embedding_length")): config.text.hidden,
        (format!("{family}.vision.block_count")): config.vision.layers,
        (format!("{family}.vision.image_size")): config.vision.image_size,
    });
    Ok(Json(json!({
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": details(&app),
        "model_info": about,
        "capabilities": ["completion", "vision"],
        "modified_at": began(&app),
    })))
}
