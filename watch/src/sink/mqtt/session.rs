//! The thread of a connection: it makes one, listens, and makes the next.

use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::desk::{Desk, Ending, Place, QUEUE};
use super::discovery::Discovery;
use super::link::{self, Happened};
use super::options::Broker;
use crate::command::{COMMAND_BYTES_MAX, Command};

/// The longest pause between attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Commands that are taken within a second: more is a fault, or an attack.
const COMMANDS_PER_SECOND: u32 = 20;

/// What the two threads of the sink share.
pub struct Shared {
    desk: Mutex<Desk>,
    /// Something has arrived, or the connection has come or gone.
    pub changed: Condvar,
}

impl Shared {
    pub fn new(desk: Desk) -> Self {
        Self { desk: Mutex::new(desk), changed: Condvar::new() }
    }

    pub fn locked(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; true if the time was over first.
    pub fn wait<'a>(&self, desk: MutexGuard<'a, Desk>, until: Instant) -> (MutexGuard<'a, Desk>, bool) {
        let left = until.saturating_duration_since(Instant::now());
        let (desk, result) = self.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner);
        (desk, result.timed_out() || left.is_zero())
    }
}

/// What the thread knows.
pub struct Session {
    pub broker: Broker,
    pub status: String,
    pub command: String,
    /// And the place of its message.
    pub discovery: Option<(Discovery, Place)>,
    pub commands: Inbox,
}

impl Session {
    /// Until the end.
    pub fn run(mut self, shared: &Shared) {
        let name = self.broker.name();
        let mut pause = self.broker.reconnect_pause;
        // Whether it is known that there is no connection.
        let mut is_noted = false;
        loop {
            let (was_connected, why) = self.connection(shared, &mut is_noted);
            let mut desk = shared.locked();
            desk.disconnected();
            desk.is_unreachable = true;
            shared.changed.notify_all();
            if desk.ending != Ending::No {
                return;
            }
            if !std::mem::replace(&mut is_noted, true) {
                log::warn!("{name}: no connection: {why}; it is tried again, and events wait");
            } else {
                log::debug!("{name}: no connection: {why}");
            }
            if was_connected {
                pause = self.broker.reconnect_pause;
            }
            let until = Instant::now() + pause;
            loop {
                let (waited, is_over) = shared.wait(desk, until);
                desk = waited;
                if desk.ending != Ending::No {
                    return;
                }
                if is_over {
                    break;
                }
            }
            drop(desk);
            pause = (pause * 2).min(PAUSE_MAX.max(self.broker.reconnect_pause));
        }
    }

    /// Makes a connection and listens to its end. Says whether it ever stood, and why it does not any more.
    fn connection(&mut self, shared: &Shared, is_noted: &mut bool) -> (bool, String) {
        let (client, mut connection) = link::connect(&self.broker, (&self.status, "offline"), QUEUE);
        // The client asks after one keep-alive time and gives up after another.
        let longest = self.broker.keep_alive * 3;
        let mut was_connected = false;
        loop {
            let happened = match connection.next(longest) {
                Ok(happened) => happened,
                Err(why) => return (was_connected, why),
            };
            let mut desk = shared.locked();
            match happened {
                Happened::Connected { .. } if desk.ending != Ending::No => {}
                Happened::Connected { packet_bytes_max } => {
                    was_connected = true;
                    if std::mem::take(is_noted) {
                        log::warn!("{}: connected again", self.broker.name());
                    }
                    desk.connected(client.clone(), packet_bytes_max);
                    let mut topics = vec![self.command.as_str()];
                    if let Some((discovery, _)) = &self.discovery {
                        topics.extend([discovery.topic.as_str(), &discovery.birth]);
                    }
                    if client.subscribe(&topics).is_err() {
                        return (was_connected, "the client takes no subscription".into());
                    }
                }
                Happened::Subscribed { is_refused } => {
                    if is_refused {
                        log::warn!("{}: refuses a subscription: no commands can come", self.broker.name());
                    }
                    desk.subscribed();
                }
                Happened::Numbered(number) => desk.numbered(number),
                Happened::Acknowledged(number, refusal) => desk.acknowledged(number, refusal),
                Happened::Message { topic, payload, is_retained } => {
                    self.message(&mut desk, &topic, &payload, is_retained);
                }
                Happened::Disconnecting => return (was_connected, "it is ended".into()),
                Happened::Other => {}
            }
            // A goodbye that has begun is brought to its end, which the client tells.
            let is_over =
                desk.ending == Ending::Abrupt || (desk.ending == Ending::Orderly && !desk.is_connected());
            drop(desk);
            shared.changed.notify_all();
            if is_over {
                return (was_connected, "it is ended".into());
            }
        }
    }

    fn message(&mut self, desk: &mut Desk, topic: &str, payload: &[u8], is_retained: bool) {
        if topic == self.command {
            return self.commands.take(payload, is_retained);
        }
        let Some((discovery, place)) = &self.discovery else { return };
        if topic == discovery.birth && payload == b"online" && !is_retained {
            desk.repeat();
        }
        // What is not retained is our own.
        if topic == discovery.topic
            && is_retained
            && let Some(removal) = discovery.removal(payload)
        {
            let clear = removal.topics.into_iter().map(|topic| (topic, Vec::new()));
            let bare = std::iter::once((discovery.topic.clone(), removal.config));
            desk.correct(*place, bare.chain(clear));
        }
    }
}

/// Where commands come in, from whoever may write to the topic.
pub struct Inbox {
    to: Sender<Command>,
    second: Instant,
    in_second: u32,
}

impl Inbox {
    pub fn new(to: Sender<Command>) -> Self {
        Self { to, second: Instant::now(), in_second: 0 }
    }

    fn take(&mut self, payload: &[u8], is_retained: bool) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.second, self.in_second) = (Instant::now(), 0);
        }
        self.in_second = self.in_second.saturating_add(1);
        if self.in_second > COMMANDS_PER_SECOND {
            if self.in_second == COMMANDS_PER_SECOND + 1 {
                log::warn!(
                    "more than {COMMANDS_PER_SECOND} commands a second by MQTT: the others are left out"
                );
            }
            return;
        }
        if payload.is_empty() {
            // That is how a kept message is cleared.
            return;
        }
        if is_retained {
            // It would be carried out anew with each connection.
            log::warn!("a command by MQTT that is retained is left out: send it without");
            return;
        }
        let text = match payload {
            _ if payload.len() > COMMAND_BYTES_MAX => Err(format!("{} bytes are too long", payload.len())),
            _ => std::str::from_utf8(payload).map_err(|_| "it is no text".to_owned()),
        };
        match text.and_then(|text| text.parse().map_err(|e: crate::command::CommandError| e.to_string())) {
            // Without a loop there is nothing to command.
            Ok(command) => drop(self.to.send(command)),
            Err(why) => log::warn!("a command by MQTT is left out: {why}"),
        }
    }
}
