//! The node that publishes, and its topics.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::record::{AnswerRecord, EventRecord, Record};
use crate::ros2::messages::{CompressedImage, Detection2D, Detection2DArray, Header, Text};
use crate::ros2::node::{Node, Quality, Writer};
use crate::ros2::{Names, Ros2Error, Ros2Options};
use crate::setup::{Reading, Setup};
use crate::sink::interest::{Interest, Kinds};
use crate::sink::{Message, Sink, SinkError, Snapshot, Versioned};

/// A node that publishes answers, events and annotated pictures.
pub struct Ros2Sink {
    name: String,
    cameras: HashMap<Arc<str>, Camera>,
}

/// The topics of a camera.
struct Camera {
    questions: HashMap<Arc<str>, Question>,
    events: Writer,
    annotated: Option<Writer>,
    /// The picture that was published last: answers to several questions about one come one by one.
    shown: Weak<Snapshot>,
}

/// The topic of a question.
enum Question {
    Detections(Writer),
    Text(Writer),
}

impl Ros2Sink {
    /// Joins ROS 2 and announces all topics.
    ///
    /// # Errors
    /// If a setting is no name or domain of ROS, or there are no sockets.
    pub fn new(options: &Ros2Options, setup: &Setup) -> Result<Self, Ros2Error> {
        let node = Node::join(options)?;
        let mut names = Names::default();
        let mut cameras = HashMap::new();
        for camera in &setup.cameras {
            let folder = names.part("camera", camera);
            let topic = |rest: &str| node.topic_below(&format!("{folder}/{rest}"));
            let mut names = Names::default();
            let mut questions = HashMap::new();
            for question in setup.questions.iter().filter(|question| question.camera == *camera) {
                let part = names.part("question", &question.name);
                let below = |kind: &str| topic(&format!("{part}/{kind}"));
                let writer = match question.reading {
                    Reading::Objects => Question::Detections(
                        node.publish::<Detection2DArray<'_>>(&below("detections"), Quality::Reliable)?,
                    ),
                    Reading::Text | Reading::Choice(_) => {
                        Question::Text(node.publish::<Text<'_>>(&below("text"), Quality::Reliable)?)
                    }
                };
                questions.insert(question.name.clone(), writer);
            }
            let events = node.publish::<Text<'_>>(&topic("events"), Quality::Reliable)?;
            let annotated = match options.annotated {
                true => {
                    let topic = topic("annotated/compressed");
                    Some(node.publish::<CompressedImage<'_>>(&topic, Quality::Sensor)?)
                }
                false => None,
            };
            cameras.insert(camera.clone(), Camera { questions, events, annotated, shown: Weak::new() });
        }
        Ok(Self { name: format!("ROS 2 {}", node.topic_below("*")), cameras })
    }
}

impl Sink for Ros2Sink {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn interest(&self) -> Interest {
        let shows = self.cameras.values().any(|camera| camera.annotated.is_some());
        let pictures = if shows { Kinds::ANSWERS } else { Kinds::NONE };
        Interest { records: Kinds::ANSWERS.and(Kinds::EVENTS), pictures }
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        let (Record::Answer(AnswerRecord { camera, .. }) | Record::Event(EventRecord { camera, .. })) =
            &message.record
        else {
            return Ok(());
        };
        let unknown =
            |what: &str, name: &str| SinkError(format!("there is no topic for the {what} '{name}'"));
        let topics = self.cameras.get_mut(camera).ok_or_else(|| unknown("camera", camera))?;
        let sent = match &message.record {
            Record::Answer(answer) => {
                let question = topics.questions.get(&answer.question);
                let question = question.ok_or_else(|| unknown("question", &answer.question))?;
                let sent = question.send(answer);
                // The picture is of use even if the answer was not sent.
                let shown = message.picture.as_ref().map_or(Ok(()), |picture| topics.show(answer, picture));
                sent.and(shown)
            }
            record => match serde_json::to_string(&Versioned::from(record)) {
                Ok(json) => topics.events.send(&Text { data: &json }),
                Err(error) => Err(error.to_string()),
            },
        };
        sent.map_err(SinkError)
    }

    /// Waits until subscribers have acknowledged the last messages; gives on how many topics some have not.
    fn finish(&mut self, deadline: Instant) -> u64 {
        let topics = self.cameras.values().flat_map(|camera| {
            let questions = camera.questions.values().map(|question| match question {
                Question::Detections(writer) | Question::Text(writer) => writer,
            });
            questions.chain([&camera.events])
        });
        topics.filter(|topic| !topic.is_acknowledged_by(deadline)).count() as u64
    }
}

impl Question {
    fn send(&self, answer: &AnswerRecord) -> Result<(), String> {
        let writer = match self {
            Self::Text(writer) => return writer.send(&Text { data: &answer.text }),
            Self::Detections(writer) => writer,
        };
        let header = Header::new(answer.at.wall, &answer.camera);
        let detections = answer
            .objects
            .iter()
            .map(|o| Detection2D::new(header, &o.label, o.score, &o.detection.bounding_box, o.track))
            .collect();
        writer.send(&Detection2DArray { header, detections })
    }
}

impl Camera {
    /// Publishes the picture of an answer with what was found in it, once.
    fn show(&mut self, answer: &AnswerRecord, picture: &Arc<Snapshot>) -> Result<(), String> {
        let Some(writer) = &self.annotated else { return Ok(()) };
        let is_new = !std::ptr::eq(self.shown.as_ptr(), Arc::as_ptr(picture));
        if !is_new || !writer.has_readers() {
            return Ok(());
        }
        self.shown = Arc::downgrade(picture);
        let jpeg = picture.annotated_jpeg().map_err(|e| e.to_string())?;
        writer.send(&CompressedImage::jpeg(Header::new(answer.at.wall, &answer.camera), jpeg))
    }
}
