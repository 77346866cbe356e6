//! A server: an engine, the routes, and what listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use palmtop::Plan;
use palmtop::model::Model;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::app::{App, AppOptions};
use crate::cameras::Cameras;
use crate::engine::{Engine, EngineOptions, EngineThread};
use crate::fetch::Fetch;
use crate::listen::{self, ConnectionOptions};
use crate::{engine, routes};

/// All that a server is made of.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What the engine may use.
    pub engine: EngineOptions,
    /// What clients may ask for.
    pub app: AppOptions,
    /// Who may ask.
    pub access: Access,
    /// How connections are taken.
    pub connections: ConnectionOptions,
    /// Fetches pictures by address, if that is allowed.
    pub fetch: Option<Fetch>,
    /// What the loop of cameras beside the engine tells; empty if there is none.
    pub cameras: Cameras,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] palmtop::Error),
    /// Threads, or sockets.
    #[error("cannot start the server")]
    System(#[source] io::Error),
}

/// The most that a server will take, in bytes.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Weights and session.
    pub session: Plan,
    /// Features of pictures that are kept.
    pub features_bytes: usize,
    /// Pixels of pictures while they are decoded and encoded.
    pub pixels_bytes: usize,
    /// Bodies of requests, what is made of them, and pictures that are fetched.
    pub bodies_bytes: usize,
    /// Buffers of connections.
    pub connections_bytes: usize,
}

/// A body, what JSON makes of it, and the picture in it.
const BODY_COPIES: usize = 3;
/// Buffers of a connection: a head of 32 KiB, what is written, and those of TLS.
const CONNECTION_BYTES: usize = 128 << 10;

impl ServerPlan {
    /// Of a server with these options.
    ///
    /// # Errors
    /// As [`Model::plan`].
    pub fn new(model: &Model, options: &ServerOptions) -> palmtop::Result<Self> {
        let (session, features_bytes) = Engine::plan(model, &options.engine)?;
        let pixels = usize::try_from(options.app.decode.limits.decoded_bytes_max).unwrap_or(usize::MAX);
        let fetched = options.fetch.as_ref().map_or(0, Fetch::bytes);
        Ok(Self {
            session,
            features_bytes,
            pixels_bytes: pixels.saturating_mul(engine::DECODED_MAX),
            bodies_bytes: options
                .app
                .bodies_bytes
                .saturating_mul(BODY_COPIES)
                .saturating_add(routes::STREAMS_MAX.saturating_mul(options.app.body_bytes_max))
                .saturating_add(fetched),
            connections_bytes: options.connections.connections_max.saturating_mul(CONNECTION_BYTES),
        })
    }

    /// All of it but the weights.
    pub fn bytes(&self) -> usize {
        let Self { session, features_bytes, pixels_bytes, bodies_bytes, connections_bytes } = self;
        [session.session_bytes(), *features_bytes, *pixels_bytes, *bodies_bytes, *connections_bytes]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

/// A server that runs on threads of its own.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    app: Arc<App>,
    engine: EngineThread,
    addresses: Vec<SocketAddr>,
    taking: tokio::task::JoinHandle<()>,
    stop_taking: CancellationToken,
    finish: Duration,
}

/// Threads that take requests in and decode pictures; computing has its own.
const HTTP_THREADS: usize = 2;
/// Pictures decoded, masks and fetches at once.
const BLOCKING_THREADS: usize = 8;

impl Server {
    /// Takes all memory, and answers on these sockets from now on.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn start(
        model: &Arc<Model>,
        options: ServerOptions,
        listeners: Vec<TcpListener>,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self, ServerError> {
        let (engine, thread) = Engine::start(model, &options.engine)?;
        let app = App::new(engine, options.app, options.access, options.fetch, options.cameras);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("http")
            .enable_io()
            .enable_time()
            .build()
            .map_err(ServerError::System)?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>();
        let addresses = addresses.map_err(ServerError::System)?;
        let sockets = {
            let _runtime = runtime.enter();
            let sockets = listeners.into_iter().map(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            sockets.collect::<io::Result<Vec<_>>>().map_err(ServerError::System)?
        };
        let stop_taking = CancellationToken::new();
        let finish = options.connections.finish;
        let router = routes::routes(&app);
        let taking = listen::serve(sockets, tls, router, options.connections, stop_taking.clone());
        let taking = runtime.spawn(taking);
        Ok(Self { runtime, app, engine: thread, addresses, taking, stop_taking, finish })
    }

    /// What it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What its routes share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Ends: takes nothing new, lets what runs be finished for a while, and cuts off the rest.
    pub fn end(self) {
        let Self { runtime, app, engine, taking, stop_taking, finish, .. } = self;
        app.engine.close();
        app.ending.cancel();
        stop_taking.cancel();
        let cut_off = app.clone();
        runtime.spawn(async move {
            tokio::time::sleep(finish).await;
            cut_off.engine.cut_off();
        });
        let streams = app.streams.clone();
        let _ = runtime.block_on(async {
            let _ = taking.await;
            // Connections of streams of frames are no requests any more.
            tokio::time::timeout(finish, streams.acquire_many(routes::STREAMS_MAX as u32)).await.map(drop)
        });
        app.engine.cut_off();
        engine.join();
        runtime.shutdown_timeout(Duration::from_millis(200));
    }
}
