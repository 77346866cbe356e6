//! Connections: sockets, TLS, limits on them, and an end that lets answers be finished.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
pub use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How connections are taken.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Connections at once; those beyond wait in the system's queue.
    pub connections_max: usize,
    /// Within which a request's head must have come, and TLS be agreed on. Also how long a connection may be idle.
    pub head_timeout: Duration,
    /// How long answers may take to be finished when the server is to end.
    pub finish: Duration,
}

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request at most.
const HEADERS_MAX: usize = 64;
/// After an error of the system, such as too many open files, so long passes before the next connection is taken.
const PAUSE: Duration = Duration::from_millis(200);

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} {path}: {source}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// Its name.
        path: String,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit together, or are of a kind that is not known.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The file has no certificate.
    #[error("{0} has no certificate")]
    NoCertificate(String),
}

/// TLS from a certificate chain and its private key, both PEM files.
///
/// # Errors
/// If one cannot be read, or they do not fit together.
pub fn tls(certificates: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let pem = |what, path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Pem { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificates)
        .map_err(pem("certificate", certificates))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem("certificate", certificates))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificates.display().to_string()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem("private key", key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections until `ending` is cancelled, then lets running requests be finished for a while.
pub(crate) async fn serve(
    listeners: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    router: Router,
    options: ConnectionOptions,
    ending: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let talks = TaskTracker::new();
    let mut takers = tokio::task::JoinSet::new();
    for listener in listeners {
        let connections = Connections {
            tls: tls.clone(),
            router: router.clone(),
            permits: permits.clone(),
            head_timeout: options.head_timeout,
            talks: talks.clone(),
            ending: ending.clone(),
        };
        let ending = ending.clone();
        takers.spawn(async move {
            tokio::select! {
                () = connections.take_from(listener) => {}
                () = ending.cancelled() => {}
            }
        });
    }
    while takers.join_next().await.is_some() {}
    talks.close();
    if tokio::time::timeout(options.finish, talks.wait()).await.is_err() {
        log::warn!("connections that were not finished in time are cut");
    }
}

struct Connections {
    tls: Option<TlsAcceptor>,
    router: Router,
    permits: Arc<Semaphore>,
    head_timeout: Duration,
    talks: TaskTracker,
    ending: CancellationToken,
}

impl Connections {
    async fn take_from(&self, listener: TcpListener) {
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    log::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (tls, router, head_timeout) = (self.tls.clone(), self.router.clone(), self.head_timeout);
            let ending = self.ending.clone();
            self.talks.spawn(async move {
                let _permit = permit;
                match tls {
                    None => talk(stream, router, head_timeout, ending, peer).await,
                    Some(tls) => match agree(&tls, stream, head_timeout).await {
                        Ok(stream) => talk(stream, router, head_timeout, ending, peer).await,
                        Err(error) => log::debug!("no TLS with {peer}: {error}"),
                    },
                }
            });
        }
    }
}

async fn agree(
    tls: &TlsAcceptor,
    stream: TcpStream,
    within: Duration,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    tokio::time::timeout(within, tls.accept(stream)).await.unwrap_or_else(|late| Err(late.into()))
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    head_timeout: Duration,
    ending: CancellationToken,
    peer: SocketAddr,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.cancelled() => {
            // What has been asked is answered; nothing more is.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        log::debug!("connection with {peer}: {error}");
    }
}
