//! A server without a network, for fuzzing: it answers each connection by bytes that are given, whatever is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::super::feed::Stop;
use super::super::fuzz::Given;
use super::super::open::{OpenOptions, SourceError};
use super::super::secrets::Secrets;
use super::Address;
use super::client::{self, Client};

/// Opens this address at a server that gives one of `answers` to each connection, and nothing to later ones.
///
/// # Panics
/// If it is no address of HTTP.
pub fn answers(url: &str, answers: Vec<Vec<u8>>, picture_bytes_max: usize) -> Given {
    let mut address: Address = url.parse().expect("an address");
    // Stills follow each other as fast as they may.
    address.fps = Some(1000.0);
    let options = OpenOptions {
        picture_bytes_max,
        // No program has such a name, so none is started for video.
        ffmpeg: "\0".into(),
        ..OpenOptions::default()
    };
    let server = Server(Arc::new(Mutex::new(answers.into_iter())));
    let agent = Agent::with_parts(client::config(&options), server, Anywhere);
    let stop = Stop::default();
    let client = Client::new(agent, url, &stop, Secrets::of(url));
    let opened: Result<_, SourceError> = super::begin(client, &address, url, &options, &stop);
    Given::of(opened)
}

#[derive(Debug)]
struct Anywhere;

impl Resolver for Anywhere {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        Ok(addresses)
    }
}

#[derive(Debug)]
struct Server(Arc<Mutex<std::vec::IntoIter<Vec<u8>>>>);

impl Connector for Server {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(answer) = answer else { return Err(Error::ConnectionFailed) };
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { buffers, answer, sent: 0 }))
    }
}

#[derive(Debug)]
struct Connection {
    buffers: LazyBuffers,
    answer: Vec<u8>,
    /// Bytes of the answer.
    sent: usize,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let room = self.buffers.input_append_buf();
        let bytes = room.len().min(self.answer.len() - self.sent);
        room[..bytes].copy_from_slice(&self.answer[self.sent..][..bytes]);
        self.buffers.input_appended(bytes);
        self.sent += bytes;
        Ok(bytes > 0)
    }

    fn is_open(&mut self) -> bool {
        self.sent < self.answer.len()
    }
}
