//! What all routes share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use palmtop::Grammar;
use palmtop::image::DecodeOptions;
use palmtop::model::Model;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::cameras::Cameras;
use crate::engine::{Engine, Pictures};
use crate::fetch::Fetch;
use crate::problem::Problem;

/// What a server answers with, and what clients may ask for.
#[derive(Clone, Debug)]
pub struct AppOptions {
    /// What clients call the model.
    pub model_name: String,
    /// The small built-in model answers: people are told.
    pub is_demo: bool,
    /// What a picture may cost.
    pub decode: DecodeOptions,
    /// Longest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are in memory at once.
    pub bodies_bytes: usize,
    /// Within which a body must have come.
    pub send_timeout: Duration,
    /// Within which an answer must be done, whatever the client allows.
    pub answer_timeout: Duration,
}

/// The state of all routes.
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Takes pictures in.
    pub pictures: Pictures,
    /// What clients may ask for.
    pub options: AppOptions,
    /// Who may ask.
    pub access: Access,
    /// Fetches pictures by address, if that is allowed.
    pub fetch: Option<Fetch>,
    /// The loop of cameras, if there is one.
    pub cameras: Cameras,
    /// What `/metrics` shows.
    pub registry: Mutex<Registry>,
    /// When the server began, for clients that want to know since when there is a model.
    pub started: SystemTime,
    /// KiB of bodies that can still be taken.
    pub(crate) bodies: Arc<Semaphore>,
    /// Places for streams of frames.
    pub(crate) streams: Arc<Semaphore>,
    /// Streams end when this is cancelled.
    pub ending: CancellationToken,
    grammars: Mutex<HashMap<Vec<String>, Grammar>>,
}

/// Bodies are counted in these.
pub(crate) const BODY_UNIT: usize = 1024;
/// So many sets of choices are kept.
const GRAMMARS_MAX: usize = 64;

impl App {
    /// For an engine.
    pub fn new(
        engine: Engine,
        options: AppOptions,
        access: Access,
        fetch: Option<Fetch>,
        cameras: Cameras,
    ) -> Arc<Self> {
        let pictures = Pictures::new(&engine, options.decode);
        let mut registry = Registry::default();
        let of_palmtop = registry.sub_registry_with_prefix("palmtop");
        engine.counts().register(of_palmtop);
        cameras.register(of_palmtop);
        let bodies =
            Arc::new(Semaphore::new(options.bodies_bytes.max(options.body_bytes_max).div_ceil(BODY_UNIT)));
        Arc::new(Self {
            engine,
            pictures,
            options,
            access,
            fetch,
            cameras,
            registry: Mutex::new(registry),
            started: SystemTime::now(),
            bodies,
            streams: Arc::new(Semaphore::new(crate::routes::STREAMS_MAX)),
            ending: CancellationToken::new(),
            grammars: Mutex::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// When an answer must be done, if the client wants it within `wanted`.
    pub fn deadline(&self, wanted: Option<Duration>) -> Instant {
        Instant::now() + wanted.unwrap_or(self.options.answer_timeout).min(self.options.answer_timeout)
    }

    /// A grammar of choices; the last ones are kept, since the same are asked for again and again.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn choices(&self, choices: &[String]) -> Result<Grammar, Problem> {
        let lock = || self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grammar) = lock().get(choices) {
            return Ok(grammar.clone());
        }
        let grammar = Grammar::choices(self.model(), choices)?;
        let mut grammars = lock();
        if grammars.len() >= GRAMMARS_MAX {
            grammars.clear();
        }
        grammars.insert(choices.to_vec(), grammar.clone());
        Ok(grammar)
    }
}
