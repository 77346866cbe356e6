//! A server on loopback.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use palmtop::{Limits, Model};
use palmtop_serve::access::Access;
use palmtop_serve::app::AppOptions;
use palmtop_serve::cameras::Cameras;
use palmtop_serve::engine::EngineOptions;
use palmtop_serve::listen::ConnectionOptions;
use palmtop_serve::server::{Server, ServerOptions};

/// So many requests are answered together, with so many tokens each.
pub fn options(batch: usize, new_tokens: usize) -> ServerOptions {
    let mut limits = Limits::default();
    limits.batch = batch;
    limits.new_tokens = new_tokens;
    ServerOptions {
        engine: EngineOptions { limits, waiting_max: 64, features_bytes: 0 },
        app: AppOptions {
            model_name: "model".to_owned(),
            is_demo: false,
            decode: Default::default(),
            body_bytes_max: 4 << 20,
            bodies_bytes: 16 << 20,
            send_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(3600),
        },
        access: Access::default(),
        connections: ConnectionOptions {
            connections_max: 256,
            head_timeout: Duration::from_secs(30),
            finish: Duration::from_secs(10),
        },
        fetch: None,
        cameras: Cameras::default(),
    }
}

pub fn server(model: &Arc<Model>, options: ServerOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    Server::start(model, options, vec![listener], None).expect("the server starts")
}
