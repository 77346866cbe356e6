//! Answers, events and cameras as topics of an MQTT broker, told to Home Assistant as entities of a device; and
//! commands from there.
//!
//! How something is (an answer, a rule, a camera) is kept here, as much as the set-up has places for, and told anew to
//! each connection; events wait, up to a number, until the broker has acknowledged them. So a record counts as
//! delivered when it is kept here, and what is lost is lost here.

mod desk;
mod discovery;
mod link;
mod options;
mod session;
mod tls;
mod topics;

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::end::End;
use super::interest::{Interest, Kinds, Picture};
use super::{Message, Sink, SinkError, Versioned};
use crate::command::Command;
use crate::record::{AnswerRecord, CameraRecord, CameraStatus, EventRecord, Phase, Record};
use crate::setup::{Reading, Setup};
use desk::{Desk, Ending, Place};
use discovery::Discovery;
pub use options::{MqttOptions, Version};
use session::{Inbox, Session, Shared};
use topics::Topics;

/// Events of one rule at a time whose end is waited for: a rule about single objects has one for each.
const OPEN_EVENTS_MAX: usize = 256;
/// What of the time to the deadline is for saying goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
/// So often a wait looks whether the end has become a sooner one.
const STEP: Duration = Duration::from_millis(50);

/// A broker.
pub struct Mqtt {
    name: String,
    interest: Interest,
    picture: Picture,
    every_answer: bool,
    cameras: HashMap<Arc<str>, Camera>,
    /// By camera and question.
    questions: HashMap<(Arc<str>, Arc<str>), Question>,
    shared: Arc<Shared>,
    end: Arc<End>,
}

struct Camera {
    status: Place,
    event: String,
    /// Whether the loop has said how it is.
    is_told: bool,
}

struct Question {
    reading: Reading,
    state: Place,
    attributes: Place,
    image: Place,
    rules: HashMap<Arc<str>, Rule>,
}

struct Rule {
    state: Place,
    /// Events that have begun, the oldest first.
    open: VecDeque<String>,
}

impl MqttOptions {
    /// Whether [`Mqtt::new`] would take them, without connecting: before an old connection is given up for a new one.
    ///
    /// # Errors
    /// As [`Mqtt::new`].
    pub fn check(&self, setup: &Setup) -> Result<(), SinkError> {
        self.broker()?;
        let topics = Topics::new(&self.prefix, &self.node(), setup)?;
        Discovery::new(self, setup, &topics).map(drop)
    }
}

impl Mqtt {
    /// The sink, which begins to connect at once. Commands that come in go to `commands`.
    ///
    /// # Errors
    /// If the options do not fit together, a file cannot be read, or names of the set-up cannot be told apart as
    /// topics. That the broker is not there is no error.
    pub fn new(options: &MqttOptions, setup: &Setup, commands: Sender<Command>) -> Result<Self, SinkError> {
        let broker = options.broker()?;
        let topics = Topics::new(&options.prefix, &options.node(), setup)?;
        let discovery = Discovery::new(options, setup, &topics)?;
        let mut desk = Desk::new(topics.status.clone(), options.events);
        let discovery = discovery.map(|discovery| {
            let place = desk.add_state(&discovery.topic, true, false);
            desk.set_state(place, discovery.config());
            (discovery, place)
        });
        let mut cameras = HashMap::new();
        for camera in &topics.cameras {
            let status = desk.add_state(&camera.status, options.retain, false);
            // Until the loop says something else: there is no picture yet.
            desk.set_state(status, CameraStatus::Waiting.name());
            let event = camera.event.clone();
            cameras.insert(Arc::clone(&camera.name), Camera { status, event, is_told: false });
        }
        let mut questions = HashMap::new();
        for (question, topics) in setup.questions.iter().zip(&topics.questions) {
            let mut rules = HashMap::new();
            for (rule, topic) in question.rules.iter().zip(&topics.rules) {
                let state = desk.add_state(topic, options.retain, false);
                // What an earlier run began, nobody ends.
                desk.set_state(state, "OFF");
                rules.insert(Arc::clone(rule), Rule { state, open: VecDeque::new() });
            }
            let own = Question {
                reading: question.reading.clone(),
                state: desk.add_state(&topics.state, options.retain, false),
                attributes: desk.add_state(&topics.attributes, options.retain, false),
                image: desk.add_state(&topics.image, options.retain, true),
                rules,
            };
            questions.insert((Arc::clone(&question.camera), Arc::clone(&question.name)), own);
        }
        let name = broker.name();
        let shared = Arc::new(Shared::new(desk));
        let commands = Inbox::new(commands);
        let session = Session { broker, status: topics.status, command: topics.command, discovery, commands };
        let listener = Arc::clone(&shared);
        thread::Builder::new()
            .name("palmtop-mqtt".into())
            .spawn(move || session.run(&listener))
            .map_err(|e| SinkError(format!("no thread for {name}: {e}")))?;
        let answers = if options.every_answer { Kinds::ANSWERS } else { Kinds::CHANGES };
        let records = Kinds::EVENTS.and(answers).and(Kinds::CAMERAS);
        let pictures =
            if options.picture == Picture::None { Kinds::NONE } else { answers.and(Kinds::EVENTS) };
        let interest = Interest { records, pictures };
        let (picture, every_answer) = (options.picture, options.every_answer);
        let end = Arc::default();
        Ok(Self { name, interest, picture, every_answer, cameras, questions, shared, end })
    }

    fn camera(&mut self, record: &CameraRecord) {
        if let Some(camera) = self.cameras.get_mut(&record.camera) {
            camera.is_told = true;
            self.shared.locked().set_state(camera.status, record.status.name());
        }
    }

    fn answer(&mut self, message: &Message, answer: &AnswerRecord) -> Result<(), SinkError> {
        let key = (Arc::clone(&answer.camera), Arc::clone(&answer.question));
        let Some(question) = self.questions.get(&key) else {
            return Err(unknown(&answer.camera, &answer.question));
        };
        let state = match question.reading {
            Reading::Objects => answer.objects.len().to_string(),
            Reading::Choice(_) | Reading::Text => answer.text.trim().to_owned(),
        };
        let attributes = json(&message.record)?;
        let image = self.image(message)?;
        let (state_place, attributes_place, image_place) =
            (question.state, question.attributes, question.image);
        let mut desk = self.shared.locked();
        if answer.changed {
            desk.set_state(state_place, state);
        }
        if answer.changed || self.every_answer {
            desk.set_state(attributes_place, attributes);
            if let Some(image) = image {
                desk.set_state(image_place, image);
            }
        }
        // A camera whose pictures are answered runs, even if the loop has not said so.
        if let Some(camera) = self.cameras.get_mut(&answer.camera)
            && !std::mem::replace(&mut camera.is_told, true)
        {
            desk.set_state(camera.status, CameraStatus::Running.name());
        }
        Ok(())
    }

    fn event(&mut self, message: &Message, event: &EventRecord) -> Result<(), SinkError> {
        let payload = json(&message.record)?;
        let image = self.image(message)?;
        let key = (Arc::clone(&event.camera), Arc::clone(&event.question));
        let unknown = || unknown(&event.camera, &event.question);
        let camera = self.cameras.get(&event.camera).ok_or_else(unknown)?;
        let question = self.questions.get_mut(&key).ok_or_else(unknown)?;
        let mut desk = self.shared.locked();
        if let Some(rule) = question.rules.get_mut(&event.rule) {
            rule.open.retain(|id| *id != event.id);
            if event.phase == Phase::Begin {
                rule.open.push_back(event.id.clone());
                if rule.open.len() > OPEN_EVENTS_MAX {
                    rule.open.pop_front();
                }
            }
            desk.set_state(rule.state, if rule.open.is_empty() { "OFF" } else { "ON" });
        }
        if let Some(image) = image {
            desk.set_state(question.image, image);
        }
        match desk.add_event(&camera.event, payload) {
            0 => Ok(()),
            dropped => Err(SinkError(format!(
                "the broker takes no events, and the oldest are dropped ({dropped} now)"
            ))),
        }
    }

    fn image(&self, message: &Message) -> Result<Option<Vec<u8>>, SinkError> {
        let Some(picture) = &message.picture else { return Ok(None) };
        let jpeg = picture.jpeg_of(self.picture).map_err(|e| SinkError(format!("no picture: {e}")))?;
        Ok(jpeg.map(<[u8]>::to_vec))
    }

    /// Waits until it holds, or the time is over, which may become sooner meanwhile.
    fn wait<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        until: impl Fn() -> Instant,
        holds: impl Fn(&Desk) -> bool,
    ) -> MutexGuard<'a, Desk> {
        while !holds(&desk) && Instant::now() < until() {
            desk = self.shared.wait(desk, until().min(Instant::now() + STEP)).0;
        }
        desk
    }
}

fn unknown(camera: &str, question: &str) -> SinkError {
    SinkError(format!("the question '{question}' of the camera '{camera}' is not of the set-up"))
}

fn json(record: &Record) -> Result<Vec<u8>, SinkError> {
    serde_json::to_vec(&Versioned::from(record)).map_err(|e| SinkError(e.to_string()))
}

impl Sink for Mqtt {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn interest(&self) -> Interest {
        self.interest
    }

    fn attach(&mut self, end: Arc<End>) {
        self.end = end;
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        match &message.record {
            Record::Camera(camera) => self.camera(camera),
            Record::Answer(answer) => self.answer(message, answer)?,
            Record::Event(event) => self.event(message, event)?,
        }
        match self.shared.locked().take_lost() {
            0 => Ok(()),
            lost => Err(SinkError(format!(
                "the broker refuses events, or they are too large for it ({lost} now)"
            ))),
        }
    }

    /// Waits for what is under way, says goodbye, and ends the connection.
    fn finish(&mut self, deadline: Instant) -> u64 {
        let begun = Instant::now();
        let deadline = || self.end.deadline().map_or(deadline, |sooner| sooner.min(deadline));
        let goodbye = || {
            let left = deadline().saturating_duration_since(begun);
            deadline().checked_sub(GOODBYE.min(left / 4)).unwrap_or(begun)
        };
        let desk = self.shared.locked();
        // If the broker cannot be reached, only events are worth the wait for it.
        let mut desk =
            self.wait(desk, goodbye, |desk| desk.is_idle() || (desk.is_unreachable && desk.events() == 0));
        let lost = desk.events() as u64 + desk.take_lost();
        desk.say_goodbye();
        let desk = self.wait(desk, deadline, |desk| desk.is_quiet());
        if let Some(client) = desk.client() {
            client.disconnect();
        }
        self.shared.changed.notify_all();
        lost
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        let mut desk = self.shared.locked();
        if desk.ending == Ending::No {
            desk.ending = Ending::Abrupt;
            if let Some(client) = desk.client() {
                client.unsubscribe(desk.status());
            }
        }
        self.shared.changed.notify_all();
    }
}
