//! What is to be told to a broker, and what of it has arrived. The sink's thread writes here, the connection's thread
//! reads; whoever changes something hands over to the client what can go out.

use std::collections::{HashMap, VecDeque};

use super::link::{Client, PACKET_BYTES_MAX};

/// Messages at most that are handed over and not acknowledged. So a broker sets the pace.
pub const WINDOW: usize = 16;
/// What the client's queue must hold: the window, subscriptions, the end.
pub const QUEUE: usize = WINDOW + 16;
/// Bytes of events that wait at most.
const EVENT_BYTES_MAX: usize = 8 << 20;
/// Bytes of a packet beside topic and payload.
const PACKET_EXTRA: usize = 64;

/// A place in [`Desk::states`].
pub type Place = usize;

/// A topic that says how something is: what counts is the newest.
#[derive(Debug)]
struct State {
    topic: String,
    payload: Vec<u8>,
    is_retained: bool,
    /// Whether the payload is so large that events go first.
    is_large: bool,
    /// How often it has changed; 0 if nothing is known.
    version: u64,
    /// The version that this connection has been told.
    told: u64,
}

#[derive(Debug)]
struct Event {
    number: u64,
    topic: String,
    payload: Vec<u8>,
}

/// What a message that is under way is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    Status,
    Once,
    State,
    Event(u64),
}

/// See above.
pub struct Desk {
    /// That this machine is there: first of all, and last.
    status: String,
    states: Vec<State>,
    /// What is said once, before states.
    once: VecDeque<(String, Vec<u8>)>,
    events: VecDeque<Event>,
    event_bytes: usize,
    events_max: usize,
    next_number: u64,
    /// Of the events, those at the front that this connection has been told.
    events_told: usize,
    link: Option<Link>,
    /// Events that the broker does not take, since this was asked last.
    lost: u64,
    /// The last attempt to connect has failed.
    pub is_unreachable: bool,
    /// Whether the end is near.
    pub ending: Ending,
}

/// How the end comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It does not.
    No,
    /// With a goodbye.
    Orderly,
    /// At once.
    Abrupt,
}

/// A connection that stands.
struct Link {
    client: Client,
    packet_bytes_max: usize,
    /// The broker knows that we are there, and has sent what it had kept.
    is_open: bool,
    /// Handed over; the client has not given it a number.
    unnumbered: VecDeque<Sent>,
    unacknowledged: HashMap<u16, Sent>,
    /// So that each is noted once a connection.
    noted_refusal: bool,
    noted_size: bool,
}

impl Link {
    fn under_way(&self) -> usize {
        self.unnumbered.len() + self.unacknowledged.len()
    }

    /// False if the client does not take it.
    fn publish(&mut self, topic: &str, payload: &[u8], is_retained: bool, what: Sent) -> bool {
        let is_taken = self.client.publish(topic, payload, is_retained).is_ok();
        if is_taken {
            self.unnumbered.push_back(what);
        }
        is_taken
    }

    /// Whether the broker takes packets of this size.
    fn fits(&mut self, topic: &str, payload: &[u8]) -> bool {
        let bytes = topic.len() + payload.len() + PACKET_EXTRA;
        let fits = bytes <= self.packet_bytes_max.min(PACKET_BYTES_MAX);
        if !fits && !std::mem::replace(&mut self.noted_size, true) {
            let most = self.packet_bytes_max;
            log::warn!(
                "{topic}: {bytes} bytes are more than the broker takes ({most}); such messages are left out"
            );
        }
        fits
    }
}

impl Desk {
    /// With room for so many events.
    pub fn new(status: String, events_max: usize) -> Self {
        Self {
            status,
            states: Vec::new(),
            once: VecDeque::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            events_max,
            next_number: 0,
            events_told: 0,
            link: None,
            lost: 0,
            is_unreachable: false,
            ending: Ending::No,
        }
    }

    /// A topic of which nothing is known so far.
    pub fn add_state(&mut self, topic: &str, is_retained: bool, is_large: bool) -> Place {
        let topic = topic.to_owned();
        self.states.push(State { topic, payload: Vec::new(), is_retained, is_large, version: 0, told: 0 });
        self.states.len() - 1
    }

    /// How it is from now on.
    pub fn set_state(&mut self, place: Place, payload: impl Into<Vec<u8>>) {
        let state = &mut self.states[place];
        state.payload = payload.into();
        state.version += 1;
        self.pump();
    }

    /// The topic that says whether this machine is there.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// Says all states again.
    pub fn repeat(&mut self) {
        self.states.iter_mut().for_each(|state| state.told = 0);
        self.pump();
    }

    /// Says a state again, behind what is said once now.
    pub fn correct(&mut self, place: Place, before: impl IntoIterator<Item = (String, Vec<u8>)>) {
        self.once.extend(before);
        self.states[place].told = 0;
        self.pump();
    }

    /// Puts an event behind those that wait. Gives the number of those that were dropped for it.
    pub fn add_event(&mut self, topic: &str, payload: Vec<u8>) -> u64 {
        let mut dropped = 0;
        let bytes = payload.len();
        while self.events.len() >= self.events_max
            || (!self.events.is_empty() && self.event_bytes + bytes > EVENT_BYTES_MAX)
        {
            // Those that are under way may well arrive.
            let oldest = if self.events_told < self.events.len() { self.events_told } else { 0 };
            self.remove_event(oldest);
            dropped += 1;
        }
        self.event_bytes += bytes;
        self.events.push_back(Event { number: self.next_number, topic: topic.to_owned(), payload });
        self.next_number += 1;
        self.pump();
        dropped
    }

    fn remove_event(&mut self, index: usize) {
        if let Some(event) = self.events.remove(index) {
            self.event_bytes -= event.payload.len();
            self.events_told -= usize::from(index < self.events_told);
        }
    }

    /// Events that have not arrived.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether all is told, and has arrived.
    pub fn is_idle(&self) -> bool {
        let is_told = self.states.iter().all(|state| state.told == state.version);
        let is_quiet = self.link.as_ref().is_none_or(|link| link.is_open && link.under_way() == 0);
        is_told && self.once.is_empty() && self.events.is_empty() && is_quiet
    }

    /// A connection stands; nothing goes out before [`subscribed`](Self::subscribed).
    pub fn connected(&mut self, client: Client, packet_bytes_max: usize) {
        self.disconnected();
        self.is_unreachable = false;
        self.link = Some(Link {
            client,
            packet_bytes_max,
            is_open: false,
            unnumbered: VecDeque::new(),
            unacknowledged: HashMap::new(),
            noted_refusal: false,
            noted_size: false,
        });
    }

    /// The connection is no more: all that has not arrived is to be told to the next one.
    pub fn disconnected(&mut self) {
        self.link = None;
        self.events_told = 0;
        // Of what is said once nothing is kept: the next connection begins by asking what the broker has.
        self.once.clear();
        self.states.iter_mut().for_each(|state| state.told = 0);
    }

    /// The broker listens for us. Says that we are there. When that has arrived, what the broker had kept has come.
    pub fn subscribed(&mut self) {
        let status = &self.status;
        if let Some(link) = &mut self.link {
            link.publish(status, b"online", true, Sent::Status);
        }
    }

    /// The client has numbered the next message.
    pub fn numbered(&mut self, number: u16) {
        if let Some(link) = &mut self.link
            && let Some(what) = link.unnumbered.pop_front()
        {
            link.unacknowledged.insert(number, what);
        }
    }

    /// A message has arrived, or was refused.
    pub fn acknowledged(&mut self, number: u16, refusal: Option<String>) {
        let Some(link) = &mut self.link else { return };
        let Some(what) = link.unacknowledged.remove(&number) else { return };
        let is_refused = refusal.is_some();
        if let Some(why) = refusal
            && !std::mem::replace(&mut link.noted_refusal, true)
        {
            log::warn!("the broker refuses a message: {why}");
        }
        match what {
            Sent::Status => link.is_open = true,
            Sent::Event(number) => {
                self.lost += u64::from(is_refused);
                if let Some(index) = self.events.iter().position(|event| event.number == number) {
                    self.remove_event(index);
                }
            }
            Sent::Once | Sent::State => {}
        }
        self.pump();
    }

    /// Says that we go, as the last message; then the connection can be ended.
    pub fn say_goodbye(&mut self) {
        self.ending = Ending::Orderly;
        let status = &self.status;
        if let Some(link) = &mut self.link {
            link.publish(status, b"offline", true, Sent::Status);
        }
    }

    /// Events that the broker did not take, since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.under_way() == 0)
    }

    /// The client, if there is a connection.
    pub fn client(&self) -> Option<&Client> {
        self.link.as_ref().map(|link| &link.client)
    }

    /// Hands over what the window has room for: what is said once, states, events, and then pictures.
    fn pump(&mut self) {
        let Some(link) = &mut self.link else { return };
        if !link.is_open || self.ending != Ending::No {
            return;
        }
        while link.under_way() < WINDOW {
            let next = |large: bool, states: &[State]| {
                states.iter().position(|state| state.is_large == large && state.told < state.version)
            };
            if let Some((topic, payload)) = self.once.front() {
                if link.fits(topic, payload) && !link.publish(topic, payload, true, Sent::Once) {
                    return;
                }
                self.once.pop_front();
            } else if let Some(place) = next(false, &self.states) {
                if !tell(link, &mut self.states[place]) {
                    return;
                }
            } else if let Some(event) = self.events.get(self.events_told) {
                if !link.fits(&event.topic, &event.payload) {
                    let index = self.events_told;
                    self.event_bytes -= self.events.remove(index).map_or(0, |event| event.payload.len());
                    self.lost += 1;
                } else if link.publish(&event.topic, &event.payload, false, Sent::Event(event.number)) {
                    self.events_told += 1;
                } else {
                    return;
                }
            } else if let Some(place) = next(true, &self.states) {
                if !tell(link, &mut self.states[place]) {
                    return;
                }
            } else {
                return;
            }
        }
    }
}

/// False if the client does not take it.
fn tell(link: &mut Link, state: &mut State) -> bool {
    let is_taken = !link.fits(&state.topic, &state.payload)
        || link.publish(&state.topic, &state.payload, state.is_retained, Sent::State);
    if is_taken {
        state.told = state.version;
    }
    is_taken
}
