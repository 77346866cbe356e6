//! `palmtop serve`: an HTTP server.

pub mod args;

use std::net::{TcpListener, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, anyhow};
use palmtop::Model;
use palmtop_present::plain::human_bytes;
use palmtop_serve::listen;
use palmtop_serve::server::{Server, ServerPlan};
use palmtop_watch::config::Config;
use palmtop_watch::run::Prepared;

use crate::output::{Console, say};
use crate::service::{self, Systemd, Wishes};
use crate::watch::model::ModelFile;
use crate::watch::{self, Beside, Lines, Service};
use crate::{Outcome, interrupt};
use args::ServeArgs;

/// So often it is looked whether the server is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Answers until somebody ends it.
pub fn run(args: &ServeArgs, console: Console) -> anyhow::Result<Outcome> {
    let cancel = interrupt::listen()?;
    args.model.machine.kernels()?;
    let (sender, commands) = channel();
    let wishes = Wishes::default();
    service::listen(&wishes, sender.clone(), &cancel)?;
    let read_config = || args.watch.as_deref().map(watch::args::file_config).transpose();
    let config = read_config()?;
    let listeners = listeners(args)?;
    let is_loopback =
        listeners.iter().all(|l| l.local_addr().is_ok_and(|address| address.ip().is_loopback()));
    let tls = match (&args.access.tls_cert, &args.access.tls_key) {
        (Some(certificate), Some(key)) => Some(listen::tls(certificate, key)?),
        _ => None,
    };
    let model_file = ModelFile::open(&args.model, &config.clone().unwrap_or_default(), console)?;
    let model = model_file.model.clone();
    let options = args.options(&model, model_file.path(), is_loopback)?;
    if !is_loopback && options.access.key.is_none() {
        console
            .note("note: other devices reach this server, and no API key is asked for: see --api-key-file");
    }
    let plan = ServerPlan::new(&model, &options)?;
    let of_loop = config.as_ref().map(|config| loop_bytes(&model, config, args)).transpose()?;
    let of_loop = of_loop
        .map_or(String::new(), |bytes| format!(", and {} for the loop of cameras", human_bytes(bytes)));
    console.note(format_args!(
        "memory: {} of weights, at most {} for all else ({} for {} answers at once, {} for features of pictures, {} for \
         pixels, {} for requests){of_loop}",
        human_bytes(plan.session.weights_bytes as u64),
        human_bytes(plan.bytes() as u64),
        human_bytes(plan.session.session_bytes() as u64),
        options.engine.limits.batch,
        human_bytes(plan.features_bytes as u64),
        human_bytes(plan.pixels_bytes as u64),
        human_bytes((plan.bodies_bytes + plan.connections_bytes) as u64),
    ));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (cameras, decode) = (options.cameras.clone(), options.app.decode);
    let server = Server::start(&model, options, listeners, tls)?;
    let engine = server.app().engine.clone();
    let beside = Beside { engine: engine.clone(), cameras, decode };
    for address in server.addresses() {
        say(format_args!("{} listens on {scheme}://{address}\n", server.app().options.model_name));
    }
    let mut systemd = Systemd::new();
    let mut result = match config {
        Some(config) => {
            let read_config = || Ok(read_config()?.unwrap_or_default());
            let service = Service {
                read_config: &read_config,
                model: &args.model,
                lines: Lines { json: false, all: false },
                server: Some(beside),
                console,
                cancel: &cancel,
                wishes: &wishes,
                sender,
                commands,
                systemd: &mut systemd,
            };
            // When all films are over, the server goes on.
            service.run(config, model_file)
        }
        None => Ok(()),
    };
    if result.is_ok() {
        systemd.ready();
    }
    while result.is_ok() && !cancel.is_cancelled() {
        if let Some(why) = engine.broken() {
            result = Err(anyhow!("the server has ended, since nothing can be answered any more: {why}"));
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        systemd.alive();
        // There is nothing to read anew, and whoever asked is told so.
        if wishes.take_reload() {
            systemd.reloading();
            systemd.ready();
        }
    }
    systemd.stopping();
    server.end();
    result?;
    Ok(if wishes.is_over() { Outcome::Done } else { Outcome::Interrupted })
}

/// What the loop takes beside the server.
fn loop_bytes(model: &Model, config: &Config, args: &ServeArgs) -> anyhow::Result<u64> {
    let prepared = Prepared::new(model, config, &args.model.machine.limits())?;
    let session = model.plan(prepared.limits())?.session_bytes();
    Ok((session + prepared.gate_bytes(model)) as u64)
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
