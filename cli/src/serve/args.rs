//! The options of `palmtop serve`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueHint};
use palmtop::image::DecodeOptions;
use palmtop::model::Model;
use palmtop_serve::access::{Access, ApiKey};
use palmtop_serve::app::AppOptions;
use palmtop_serve::cameras::Cameras;
use palmtop_serve::engine::EngineOptions;
use palmtop_serve::fetch::{Allowed, Fetch, FetchOptions};
use palmtop_serve::listen::ConnectionOptions;
use palmtop_serve::server::ServerOptions;
use palmtop_watch::period::Period;

use crate::args::{ModelArgs, count};
use crate::errors::UsageError;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop serve -m model.palm\n  \
    palmtop serve -m model.palm --watch watch.toml\n  \
    palmtop serve -m model.palm --listen 0.0.0.0:8080 --api-key-file key.txt --tls-cert cert.pem --tls-key key.pem\n\n\
    Then open http://127.0.0.1:8080 in a browser, or give http://127.0.0.1:8080/v1 to an OpenAI client.\n\
    docs/serve.md has the interfaces.")]
pub struct ServeArgs {
    /// Where to listen; repeat the option for more. Other devices reach it if it is 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: Vec<String>,
    /// Watch cameras beside it: a file as `palmtop watch --config` takes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub watch: Option<PathBuf>,
    /// What clients call the model [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub capacity: CapacityArgs,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub fetch: FetchArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Capacity")]
pub struct CapacityArgs {
    /// Requests that are answered together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count(1, 64))]
    pub batch: u64,
    /// Requests that wait beyond those; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count(1, 10_000))]
    pub queue: u64,
    /// Pictures of one prompt [default: as many as have 1024 image tokens]
    #[arg(long, value_name = "N", value_parser = count(1, 64))]
    pub pictures: Option<u64>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(1, 8192))]
    pub max_new_tokens: u64,
    /// Tokens of a prompt at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(8, 4096))]
    pub prompt_tokens: u64,
    /// Megabytes for what the image encoder made of the last pictures, so that they are not encoded again
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = count(0, 1 << 20))]
    pub features_memory: u64,
    /// Megabytes of a request at most
    #[arg(long, value_name = "MB", default_value_t = 16, value_parser = count(1, 1024))]
    pub max_body: u64,
    /// Megabytes that a picture may take once it is decoded
    #[arg(long, value_name = "MB", default_value_t = 128, value_parser = count(1, 4096))]
    pub max_picture: u64,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(1, 10_000))]
    pub connections: u64,
    /// The time for an answer, whatever a client allows
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub timeout: Period,
    /// The time for a client to send its request
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub send_timeout: Period,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// A file with the key that requests must bring [default: what PALMTOP_API_KEY says, or none]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub api_key_file: Option<PathBuf>,
    /// Let pages of this origin ask, such as https://house.example; * for all. Repeat the option for more
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    /// A name by which clients reach this server, beside its addresses. Needed only if it listens on 127.0.0.1 behind a
    /// proxy
    #[arg(long, value_name = "NAME")]
    pub host_name: Vec<String>,
    /// Certificate chain as PEM; then connections are encrypted
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key as PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Pictures by address")]
pub struct FetchArgs {
    /// Fetch pictures whose addresses clients give, from this host: images.example.com, *.example.com, or a network
    /// such as 192.168.1.0/24. Private addresses only if their host or network is named so. Repeat the option for more
    #[arg(long, value_name = "HOST")]
    pub allow_fetch: Vec<String>,
    /// Megabytes of such a picture at most
    #[arg(long, value_name = "MB", default_value_t = 16, value_parser = count(1, 1024))]
    pub max_fetch: u64,
    /// The time for such a picture to come
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub fetch_timeout: Period,
}

impl FetchArgs {
    fn read(&self) -> anyhow::Result<Option<Fetch>> {
        if self.allow_fetch.is_empty() {
            return Ok(None);
        }
        let mut allowed = Allowed::default();
        for text in &self.allow_fetch {
            allowed.add(text).map_err(|error| UsageError(format!("--allow-fetch {error}")))?;
        }
        let bytes_max = megabytes(self.max_fetch);
        Ok(Some(Fetch::new(FetchOptions { allowed, bytes_max, timeout: self.fetch_timeout.0 })))
    }
}

/// The variable of the environment that holds the key.
const KEY_VARIABLE: &str = "PALMTOP_API_KEY";
/// What is given for `--pictures` if nothing is: as many as have so many image tokens.
const IMAGE_TOKENS: usize = 1024;
/// Bodies at once, in the longest ones.
const BODIES: usize = 4;

fn megabytes(n: u64) -> usize {
    n as usize * 1_000_000
}

impl ServeArgs {
    /// What a server of these options is made of.
    pub fn options(
        &self,
        model: &Model,
        path: Option<&Path>,
        is_loopback: bool,
    ) -> anyhow::Result<ServerOptions> {
        let capacity = &self.capacity;
        let mut limits = self.model.machine.limits();
        limits.batch = capacity.batch as usize;
        limits.prompt_tokens = capacity.prompt_tokens as usize;
        limits.new_tokens = capacity.max_new_tokens as usize;
        let pictures = (IMAGE_TOKENS / model.config().image_rows()).max(1);
        limits.pictures = capacity.pictures.map_or(pictures, |n| n as usize);
        let mut decode = DecodeOptions::default();
        decode.limits.encoded_bytes_max = megabytes(capacity.max_body) as u64;
        decode.limits.decoded_bytes_max = megabytes(capacity.max_picture) as u64;
        decode.limits.side_max = limits.image_side as u32;
        Ok(ServerOptions {
            engine: EngineOptions {
                limits,
                waiting_max: capacity.queue as usize,
                features_bytes: megabytes(capacity.features_memory),
            },
            app: AppOptions {
                model_name: self.model_name(path),
                is_demo: path.is_none(),
                decode,
                body_bytes_max: megabytes(capacity.max_body),
                bodies_bytes: BODIES * megabytes(capacity.max_body),
                send_timeout: capacity.send_timeout.0,
                answer_timeout: capacity.timeout.0,
            },
            access: self.access.read(is_loopback)?,
            connections: ConnectionOptions {
                connections_max: capacity.connections as usize,
                head_timeout: capacity.send_timeout.0,
                finish: FINISH,
            },
            fetch: self.fetch.read()?,
            cameras: Cameras::default(),
        })
    }

    fn model_name(&self, path: Option<&Path>) -> String {
        let stem = path.and_then(Path::file_stem);
        let of_file = stem.map(|stem| stem.to_string_lossy().into_owned());
        self.name.clone().or(of_file).unwrap_or_else(|| "palmtop-demo".to_owned())
    }
}

/// How long answers may take to be finished when the server is to end.
const FINISH: std::time::Duration = std::time::Duration::from_secs(10);
/// Names of a server that this machine alone reaches.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl AccessArgs {
    fn read(&self, is_loopback: bool) -> anyhow::Result<Access> {
        let key = match &self.api_key_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the API key in {}", path.display()))?,
            ),
            None => std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()),
        };
        let key = key.map(|key| ApiKey::new(&key)).transpose().context("cannot use the API key")?;
        for origin in &self.cors {
            let is_origin = origin == "*"
                || origin.split_once("://").is_some_and(|(scheme, host)| {
                    !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*'])
                });
            if !is_origin {
                let text =
                    format!("--cors {origin}: an origin is like https://house.example, without a path");
                return Err(UsageError(text).into());
            }
        }
        let mut hosts: Vec<String> = Vec::new();
        if is_loopback {
            hosts.extend(LOOPBACK.map(str::to_owned));
            hosts.extend(self.host_name.iter().cloned());
        }
        Ok(Access { key, origins: self.cors.clone(), hosts })
    }
}
