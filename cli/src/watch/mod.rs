//! `palmtop watch`: the perception loop as a command.

pub mod args;
pub mod model;
mod print;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use palmtop::CancelToken;
use palmtop::image::DecodeOptions;
use palmtop_present::plain::human_bytes;
use palmtop_serve::cameras::Cameras;
use palmtop_serve::engine::Engine;
use palmtop_watch::command::Command;
use palmtop_watch::config::Config;
use palmtop_watch::record::Record;
use palmtop_watch::run::{Deliver, Loop, LoopError, Prepared, SourceOptions};
use palmtop_watch::setup::Setup;
use palmtop_watch::sink::Message;
use palmtop_watch::sink::receivers::Receivers;
use palmtop_watch::source::{Address, Kind};
use palmtop_watch::watcher::Counts;

use crate::args::ModelArgs;
use crate::output::Console;
use crate::service::{self, Systemd, Wishes};
use crate::{Outcome, errors, interrupt};
use args::WatchArgs;
use model::ModelFile;
use print::Print;

/// So often `-v` says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// So often the model's file is looked at.
const MODEL_EVERY: Duration = Duration::from_secs(5);

/// Watches until all films are over or somebody ends it.
pub fn run(args: &WatchArgs, console: Console) -> anyhow::Result<Outcome> {
    let cancel = interrupt::listen()?;
    args.model.machine.kernels()?;
    let config = args.config()?;
    let (sender, commands) = channel();
    let wishes = Wishes::default();
    service::listen(&wishes, sender.clone(), &cancel)?;
    if config.cameras()?.iter().all(|(_, address)| address.kind != Kind::Stdin) {
        service::read_lines(sender.clone());
    }
    let model = ModelFile::open(&args.model, &config, console)?;
    let mut systemd = Systemd::new();
    let service = Service {
        read_config: &|| args.config(),
        model: &args.model,
        lines: Lines { json: args.json, all: args.all },
        server: None,
        console,
        cancel: &cancel,
        wishes: &wishes,
        sender,
        commands,
        systemd: &mut systemd,
    };
    service.run(config, model)?;
    systemd.stopping();
    let is_interrupted = cancel.is_cancelled() && !wishes.is_over();
    Ok(if is_interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// A loop that goes on until it is over or somebody ends it, and takes another configuration or model meanwhile.
pub struct Service<'a> {
    /// Reads the configuration anew.
    pub read_config: &'a dyn Fn() -> anyhow::Result<Config>,
    pub model: &'a ModelArgs,
    pub lines: Lines,
    /// A server over the same model.
    pub server: Option<Beside>,
    pub console: Console,
    pub cancel: &'a CancelToken,
    pub wishes: &'a Wishes,
    pub sender: Sender<Command>,
    pub commands: Receiver<Command>,
    pub systemd: &'a mut Systemd,
}

/// What is printed of records.
#[derive(Clone, Copy)]
pub struct Lines {
    pub json: bool,
    pub all: bool,
}

/// A server beside the loop: they take turns, and it shows what the loop tells.
pub struct Beside {
    pub engine: Engine,
    pub cameras: Cameras,
    /// What a picture may cost that is shown.
    pub decode: DecodeOptions,
}

impl Service<'_> {
    pub fn run(mut self, mut config: Config, mut model: ModelFile) -> anyhow::Result<()> {
        while let Some(next) = self.watch(&config, &mut model)? {
            (config, model) = next;
        }
        Ok(())
    }

    /// Runs one loop to its end; gives what to go on with, if a new configuration or model is to be used.
    fn watch(
        &mut self,
        config: &Config,
        model: &mut ModelFile,
    ) -> anyhow::Result<Option<(Config, ModelFile)>> {
        let Self {
            read_config,
            model: args,
            lines,
            server,
            console,
            cancel,
            wishes,
            sender,
            commands,
            systemd,
        } = self;
        let console = *console;
        let prepared = Prepared::new(&model.model, config, &args.machine.limits())?;
        let plan = model.model.plan(prepared.limits())?;
        console.note(format_args!(
            "memory: {} of weights, {} for answers, {} for gates",
            human_bytes(plan.weights_bytes as u64),
            human_bytes(plan.session_bytes() as u64),
            human_bytes(prepared.gate_bytes(&model.model) as u64),
        ));
        let setup = prepared.setup(&model.model);
        let prompt_tokens = prepared.limits().prompt_tokens;
        let mut outlets = Outlets::new(*lines, config, &setup, sender)?;
        let options = SourceOptions::default();
        // Boxes that are drawn into live pictures must not be older than the last look.
        let all_answers = lines.all || server.is_some() || Receivers::want_every_answer(config);
        let mut running = Loop::start(&model.model, prepared, &options, all_answers, cancel)?;
        if let Some(Beside { engine, cameras, decode }) = server {
            cameras.begin(&setup, prompt_tokens, *decode, sender.clone());
            running.take_turns(Box::new(engine.turn().clone()));
            running.tap(|camera| cameras.tap(camera));
            outlets.cameras = Some(cameras.clone());
        }
        systemd.ready();
        let (mut next, mut reported, mut looked) = (None, Instant::now(), Instant::now());
        let result = running.run(commands, &mut outlets, &mut |counts| {
            systemd.alive();
            if let Some(server) = server {
                server.cameras.count(counts);
            }
            if console.verbose && reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                console.note(counts);
            }
            let mut reload = wishes.take_reload();
            if server.is_none() && looked.elapsed() >= MODEL_EVERY {
                looked = Instant::now();
                reload |= model.has_changed();
            }
            if reload {
                systemd.reloading();
                match reloaded(*read_config, args, model, server.is_some(), console) {
                    Ok(new) => next = Some(new),
                    Err(error) => console.note(format_args!(
                        "not reloaded, the loop goes on as it was: {}",
                        errors::in_one_line(&error)
                    )),
                }
                systemd.ready();
            }
            let is_whole = server.as_ref().is_none_or(|server| server.engine.broken().is_none());
            next.is_none() && !cancel.is_cancelled() && is_whole
        });
        report(&running, console);
        if let Some(server) = server.as_ref().filter(|_| next.is_none()) {
            server.cameras.end();
        }
        // A film may have ended faster than its events are taken; whoever asked for an end wants it now.
        let is_hurried = || next.is_some() || result.is_err() || cancel.is_cancelled();
        outlets.end(console, &mut || {
            systemd.alive();
            is_hurried()
        })?;
        match result {
            Err(LoopError::Model(palmtop::Error::Cancelled)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(next),
        }
    }
}

/// A new configuration and model, both checked, so that the old ones need not be given up for nothing. A server keeps
/// its model.
fn reloaded(
    read_config: &dyn Fn() -> anyhow::Result<Config>,
    args: &ModelArgs,
    model: &ModelFile,
    keeps_model: bool,
    console: Console,
) -> anyhow::Result<(Config, ModelFile)> {
    let config = read_config()?;
    let model = match keeps_model {
        true => model.kept(args, &config)?,
        false => model.reopened(args, &config, console)?,
    };
    let prepared = Prepared::new(&model.model, &config, &args.machine.limits())?;
    Receivers::check(&config, &prepared.setup(&model.model))?;
    model.model.plan(prepared.limits())?;
    Ok((config, model))
}

fn report(running: &Loop, console: Console) {
    let counts: &Counts = running.watcher().counts();
    let (came, dropped) = running.captured();
    let dropped = if dropped > 0 {
        format!(" (of {came} that came, {dropped} gave way to newer ones)")
    } else {
        String::new()
    };
    console.note(format_args!("{counts}{dropped}"));
    if console.verbose {
        running.watcher().noises().for_each(|noise| console.note(noise));
    }
}

/// So long receivers may take for what waits when somebody has asked for the end.
const FINISH: Duration = Duration::from_millis(800);
/// So long they may take if the sources have ended by themselves.
const FINISH_FILM: Duration = Duration::from_secs(10);

/// Prints what the loop tells, and hands it to the receivers.
struct Outlets {
    print: Print,
    receivers: Receivers,
    cameras: Option<Cameras>,
    failed: Option<anyhow::Error>,
}

impl Outlets {
    fn new(lines: Lines, config: &Config, setup: &Setup, sender: &Sender<Command>) -> anyhow::Result<Self> {
        let cameras = config.cameras()?;
        let is_film = |address: &Address| matches!(&address.kind, Kind::Path(path) if path.is_file());
        let film_time = cameras.iter().all(|(_, address)| is_film(address));
        let print = Print::new(lines.json, lines.all, film_time, cameras.len() > 1);
        let receivers = Receivers::start(config, setup, sender).context("cannot tell what happens")?;
        Ok(Self { print, receivers, cameras: None, failed: None })
    }

    /// Lets receivers take what waits. `is_hurried` is asked until they have.
    fn end(self, console: Console, is_hurried: &mut dyn FnMut() -> bool) -> anyhow::Result<()> {
        let has_failed = self.failed.is_some();
        let mut sooner = || (has_failed || is_hurried()).then(|| Instant::now() + FINISH);
        for (name, lost) in self.receivers.finish(Instant::now() + FINISH_FILM, &mut sooner) {
            console.note(format_args!("{name}: {lost} records were lost"));
        }
        self.failed.map_or(Ok(()), Err)
    }
}

impl Deliver for Outlets {
    fn wants_picture(&self, record: &Record) -> bool {
        self.receivers.wants_picture(record)
    }

    fn deliver(&mut self, message: Message) -> ControlFlow<()> {
        let message = Arc::new(message);
        self.receivers.offer(&message);
        if let Some(cameras) = &self.cameras {
            cameras.tell(&message.record);
        }
        match self.print.record(&message.record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    }
    fn picture(&mut self, camera: usize, size: (u32, u32)) {
        if let Some(cameras) = &self.cameras {
            cameras.looked_at(camera, size);
        }
    }

    fn obeyed(&mut self, command: &Command) {
        if let Some(cameras) = &self.cameras {
            cameras.obeyed(command);
        }
    }
}
