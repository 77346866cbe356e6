//! All sinks of a configuration.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::command::Command;
use super::mqtt::Mqtt;
use super::outbox::{Bound, Outbox};
use super::ros2;
use super::snapshots::Snapshots;
use super::webhook::Webhook;
use super::{Message, Sink, SinkError};
use crate::command;
use crate::config::Config;
use crate::record::Record;
use crate::setup::Setup;

/// Those that need to know nothing but their options.
fn plain(config: &Config) -> Result<Vec<Box<dyn Sink>>, SinkError> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(options) = &config.snapshots {
        sinks.push(Box::new(Snapshots::new(options.clone())?));
    }
    for options in &config.webhooks {
        sinks.push(Box::new(Webhook::new(options.clone())?));
    }
    for options in &config.commands {
        sinks.push(Box::new(Command::new(options.clone())?));
    }
    Ok(sinks)
}

/// So often an end that takes long looks whether it is to be sooner.
const STEP: Duration = Duration::from_millis(10);

/// The sinks of a configuration, each behind its queue.
#[derive(Default)]
pub struct Receivers(Vec<Outbox>);

impl Receivers {
    /// Starts them.
    ///
    /// # Errors
    /// For options that make no sense, and files and folders that are named and cannot be used. A receiver that cannot
    /// be reached is none.
    pub fn start(
        config: &Config,
        setup: &Setup,
        commands: &Sender<command::Command>,
    ) -> Result<Self, SinkError> {
        let mut sinks = plain(config)?;
        if let Some(options) = &config.mqtt {
            sinks.push(Box::new(Mqtt::new(options, setup, commands.clone())?));
        }
        if let Some(options) = &config.ros2 {
            sinks.push(ros2::sink(options, setup)?);
        }
        let outbox = |sink: Box<dyn Sink>| {
            let name = sink.name();
            Outbox::start(sink, Bound::default()).map_err(|error| SinkError(format!("{name}: {error}")))
        };
        sinks.into_iter().map(outbox).collect::<Result<_, _>>().map(Self)
    }

    /// Checks all that can be checked without reaching anybody.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn check(config: &Config, setup: &Setup) -> Result<(), SinkError> {
        plain(config)?;
        config.mqtt.as_ref().map_or(Ok(()), |options| options.check(setup))?;
        config.ros2.as_ref().map_or(Ok(()), ros2::check)
    }

    /// True if one of them wants answers that change nothing, too.
    pub fn want_every_answer(config: &Config) -> bool {
        config.snapshots.as_ref().is_some_and(|options| options.records.have_every_answer())
            || config.webhooks.iter().any(|options| options.records.have_every_answer())
            || config.commands.iter().any(|options| options.records.have_every_answer())
            || config.mqtt.as_ref().is_some_and(|options| options.every_answer)
            || config.ros2.is_some()
    }

    /// True if one of them wants the picture of such a record.
    pub fn wants_picture(&self, record: &Record) -> bool {
        self.0.iter().any(|outbox| outbox.wants_picture(record))
    }

    /// Hands a record to those that want it. Waits for none of them.
    pub fn offer(&self, message: &Arc<Message>) {
        for outbox in self.0.iter().filter(|outbox| outbox.wants(&message.record)) {
            outbox.offer(message.clone());
        }
    }

    /// What each has sent, failed to send and dropped.
    pub fn counts(&self) -> impl Iterator<Item = (&str, super::outbox::Counts)> {
        self.0.iter().map(|outbox| (outbox.name(), outbox.counts()))
    }

    /// Lets them send what waits, until then, or until the time that `sooner` gives meanwhile; gives how many records
    /// each lost, if any. `sooner` is asked a hundred times a second.
    pub fn finish(
        self,
        mut deadline: Instant,
        sooner: &mut dyn FnMut() -> Option<Instant>,
    ) -> Vec<(String, u64)> {
        let close = |deadline| self.0.iter().for_each(|outbox| outbox.close(deadline));
        close(deadline);
        while Instant::now() < deadline && !self.0.iter().all(Outbox::is_over) {
            if let Some(sooner) = sooner().filter(|sooner| *sooner < deadline) {
                deadline = sooner;
                close(deadline);
            }
            std::thread::sleep(STEP);
        }
        let finish = |outbox: Outbox| {
            let name = outbox.name().to_owned();
            (name, outbox.finish(deadline))
        };
        self.0.into_iter().map(finish).filter(|(_, lost)| *lost > 0).collect()
    }
}
