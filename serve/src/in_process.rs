//! Requests without a network and without answers: for tests that send much, such as fuzzing.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use palmtop::model::Model;
use tokio::runtime::Runtime;

use crate::app::App;
use crate::engine::Engine;
use crate::routes;
use crate::server::{ServerError, ServerOptions};

/// The routes of a server whose engine takes nothing any more: requests are read, checked and refused.
pub struct InProcess {
    runtime: Runtime,
    service: TowerToHyperService<Router>,
}

/// Bytes of an answer at most; each is made in memory.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl InProcess {
    /// Routes as of a server with these options. The engine has come to its end when this is back.
    ///
    /// # Errors
    /// As [`Server::start`](crate::server::Server::start).
    pub fn new(model: &Arc<Model>, options: ServerOptions) -> Result<Self, ServerError> {
        let (engine, thread) = Engine::start(model, &options.engine)?;
        engine.close();
        thread.join();
        let app = App::new(engine, options.app, options.access, options.fetch, options.cameras);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let service = TowerToHyperService::new(routes::routes(&app));
        Ok(Self { runtime: runtime.map_err(ServerError::System)?, service })
    }

    /// The status and the answer of a request, as far as it does not come in events; `None` if it is no request that
    /// HTTP has.
    pub fn ask(
        &self,
        method: &str,
        address: &str,
        headers: &[(&str, &[u8])],
        body: Vec<u8>,
    ) -> Option<(u16, Vec<u8>)> {
        let request = Request::builder().method(method).uri(address);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::from(body)).ok()?;
        self.runtime.block_on(async {
            let response = match self.service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let status = response.status().as_u16();
            let media_type = response.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
            let has_end = media_type.is_none_or(|value| !value.starts_with(b"text/event-stream"));
            let body = match has_end {
                true => to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.ok()?.to_vec(),
                false => Vec::new(),
            };
            Some((status, body))
        })
    }
}
