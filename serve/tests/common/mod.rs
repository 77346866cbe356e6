//! A server on loopback, and what is right.
#![allow(dead_code)]

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use palmtop::image::{ImageLimits, decode};
use palmtop::{Answer, GenerateOptions, Limits, Model, Session};
use palmtop_serve::access::Access;
use palmtop_serve::app::AppOptions;
use palmtop_serve::cameras::Cameras;
use palmtop_serve::engine::EngineOptions;
use palmtop_serve::listen::{ConnectionOptions, TlsAcceptor};
use palmtop_serve::server::{Server, ServerOptions};
use serde_json::Value;

/// No test waits longer for what comes at once.
pub const LONG: Duration = Duration::from_secs(60);

/// A file of the folder `demo`.
pub fn demo(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../demo", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn model() -> Arc<Model> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../demo/demo.palm"].iter().collect();
    Model::open(&path).unwrap()
}

pub fn options() -> ServerOptions {
    let mut limits = Limits::default();
    limits.batch = 4;
    limits.pictures = 2;
    limits.threads = Some(2);
    ServerOptions {
        engine: EngineOptions { limits, waiting_max: 64, features_bytes: 1 << 20 },
        app: AppOptions {
            model_name: "demo".to_owned(),
            is_demo: true,
            decode: Default::default(),
            body_bytes_max: 4 << 20,
            bodies_bytes: 16 << 20,
            send_timeout: Duration::from_secs(5),
            answer_timeout: LONG,
        },
        access: Access::default(),
        connections: ConnectionOptions {
            connections_max: 64,
            head_timeout: Duration::from_secs(5),
            finish: Duration::from_secs(5),
        },
        fetch: None,
        cameras: Cameras::default(),
    }
}

pub struct Running {
    server: Option<Server>,
    pub address: SocketAddr,
    pub agent: ureq::Agent,
}

/// A status, the headers and the body.
pub struct Got {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Running {
    pub fn start(options: ServerOptions) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), options, None)
    }

    pub fn start_with(options: ServerOptions, tls: Option<TlsAcceptor>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), options, tls)
    }

    /// At a given address, for servers that come back.
    pub fn start_at(address: SocketAddr, options: ServerOptions, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Server::start(&model(), options, vec![listener], tls).unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONG))
            .build()
            .new_agent();
        Self { address: server.addresses()[0], server: Some(server), agent }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Got {
        got(self.agent.get(self.url(path)).call())
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        got(request.send(body))
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Got {
        self.post(path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Ends the server as a signal does.
    pub fn end(&mut self) {
        if let Some(server) = self.server.take() {
            server.end();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn got(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Got {
    let mut response = response.expect("the server answers");
    let body = response.body_mut().read_to_string().unwrap();
    Got { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

/// What a session of its own answers.
pub fn right_answers(picture: &[u8], prompts: &[&str]) -> Vec<Answer> {
    let model = model();
    let mut session = Session::new(&model, &Limits::default()).unwrap();
    let mut features = session.new_features().unwrap();
    let options = GenerateOptions::default();
    let picture = decode(picture, &ImageLimits::default()).unwrap();
    session.encode(picture.view(), &mut features, &options).unwrap();
    let answer = |prompt: &&str| {
        let answers = session.answer(&features, &[*prompt], &options, &mut |_| ControlFlow::Continue(()));
        answers.unwrap()[0].clone()
    };
    prompts.iter().map(answer).collect()
}

/// Events of an answer to `Accept: text/event-stream`: name and data.
pub fn events(body: &str) -> Vec<(String, String)> {
    let field = |block: &str, name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.strip_prefix(' ').unwrap_or(rest)).collect::<Vec<_>>().join("\n")
    };
    let blocks = body.split("\n\n").filter(|block| block.lines().any(|line| line.starts_with("data:")));
    blocks.map(|block| (field(block, "event:"), field(block, "data:"))).collect()
}

/// A picture as OpenAI's and Moondream's clients send it.
pub fn data_uri(picture: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(picture))
}
