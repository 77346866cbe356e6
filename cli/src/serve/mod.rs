//! `palmtop serve`: an HTTP server.

pub mod args;

use std::net::{TcpListener, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context;
use palmtop_present::plain::human_bytes;
use palmtop_serve::engine::Turn;
use palmtop_serve::listen;
use palmtop_serve::server::{Server, ServerPlan};

use crate::output::{Console, say};
use crate::service::{self, Systemd, Wishes};
use crate::{Outcome, interrupt, models};
use args::ServeArgs;

/// So often it is looked whether the server is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Answers until somebody ends it.
pub fn run(args: &ServeArgs, console: Console) -> anyhow::Result<Outcome> {
    let cancel = interrupt::listen()?;
    args.model.machine.kernels()?;
    let (sender, _commands) = channel();
    let wishes = Wishes::default();
    service::listen(&wishes, sender, &cancel)?;
    let listeners = listeners(args)?;
    let is_loopback =
        listeners.iter().all(|l| l.local_addr().is_ok_and(|address| address.ip().is_loopback()));
    let tls = match (&args.access.tls_cert, &args.access.tls_key) {
        (Some(certificate), Some(key)) => Some(listen::tls(certificate, key)?),
        _ => None,
    };
    let model = models::open_or_demo(&args.model, console)?;
    let options = args.options(&model, is_loopback)?;
    if !is_loopback && options.access.key.is_none() {
        console
            .note("note: other devices reach this server, and no API key is asked for: see --api-key-file");
    }
    let plan = ServerPlan::new(&model, &options)?;
    console.note(format_args!(
        "memory: {} of weights, at most {} for all else ({} for {} answers at once, {} for features of pictures, {} for \
         pixels, {} for requests)",
        human_bytes(plan.session.weights_bytes as u64),
        human_bytes(plan.bytes() as u64),
        human_bytes(plan.session.session_bytes() as u64),
        options.engine.limits.batch,
        human_bytes(plan.features_bytes as u64),
        human_bytes(plan.pixels_bytes as u64),
        human_bytes((plan.bodies_bytes + plan.connections_bytes) as u64),
    ));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = Server::start(&model, options, listeners, tls, Turn::default())?;
    for address in server.addresses() {
        say(format_args!("{} listens on {scheme}://{address}\n", server.app().options.model_name));
    }
    let mut systemd = Systemd::new();
    systemd.ready();
    while !cancel.is_cancelled() {
        std::thread::sleep(LOOK_EVERY);
        systemd.alive();
    }
    systemd.stopping();
    server.end();
    Ok(if wishes.is_over() { Outcome::Done } else { Outcome::Interrupted })
}

/// The sockets that systemd hands over, or those of the addresses.
fn listeners(args: &ServeArgs) -> anyhow::Result<Vec<TcpListener>> {
    let given = service::sockets()?;
    if !given.is_empty() {
        return Ok(given);
    }
    let mut listeners = Vec::new();
    for name in &args.listen {
        let addresses = name.to_socket_addrs().with_context(|| {
            format!("cannot listen on {name}: give an address and a port, such as 127.0.0.1:8080")
        })?;
        for address in addresses {
            let listener = TcpListener::bind(address);
            listeners.push(listener.with_context(|| format!("cannot listen on {address}"))?);
        }
    }
    Ok(listeners)
}
