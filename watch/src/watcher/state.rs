//! A question of the loop: when it is due, what its answers are believed to be, and the events that follow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::tasks::{Detection, ReadOptions};
use palmtop::{Answer, Model};

use super::{Exposure, Watched};
use crate::event::{Change, RuleState, Seen, Settled, Sight, Track, TrackOptions, Tracker, Turn};
use crate::record::{AnswerRecord, EventRecord, Moment, ObjectRecord, Phase, Record};
use crate::setup::Reading;

/// Looks in a row that are taken for undecided votes alone, for each look that a vote may need.
const UNDECIDED_LOOKS: usize = 2;

/// What an answer is told with.
pub(super) struct Told<'a> {
    pub model: &'a Model,
    pub exposure: &'a Exposure,
    pub at: Moment,
    /// Width and height in pixels.
    pub picture: (u32, u32),
    pub latency: Duration,
    pub all_answers: bool,
    pub run: u64,
}

/// See the module's documentation.
pub(super) struct QuestionState {
    watched: Watched,
    name: Arc<str>,
    camera_name: Arc<str>,
    /// What is believed: a text, or which objects are there.
    settled: Settled,
    tracker: Tracker,
    rules: Vec<RuleState>,
    /// Cells of the pixel gate, and patches of the feature gate, that are in its zone.
    pixel_cells: Vec<bool>,
    patch_cells: Vec<bool>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// When it was asked last, or would have been if the feature gate had been open.
    looked: Option<Instant>,
    /// The pixel gate was open since.
    has_moved: bool,
    /// It was open at the last picture.
    was_moving: bool,
    /// The feature gate was open since; always, if there is none.
    is_news: bool,
    /// Somebody wants an answer now.
    is_wanted: bool,
    /// Looks that may still be taken because the last ones did not agree.
    undecided_left: usize,
    undecided_max: usize,
    /// Which objects are there, in words.
    summary: String,
}

impl QuestionState {
    /// `grid` is that of the pixel gate, `patches` that of the image encoder.
    pub fn new(
        watched: Watched,
        camera_name: Arc<str>,
        (columns, rows): (usize, usize),
        patches: (usize, usize),
    ) -> Self {
        let rules: Vec<RuleState> = watched.rules.iter().cloned().map(RuleState::new).collect();
        let most =
            |votes: &dyn Fn(&crate::event::Rule) -> usize| watched.rules.iter().map(votes).max().unwrap_or(0);
        let missed_max = most(&|rule| rule.until.of()).max(watched.needed.of()).max(3) - 1;
        let undecided_max = most(&|rule| rule.until.of().max(rule.needed.of())).max(watched.needed.of());
        Self {
            name: watched.question.name.as_str().into(),
            camera_name,
            settled: Settled::new(watched.needed),
            tracker: Tracker::new(TrackOptions { missed_max: missed_max as u32, ..TrackOptions::default() }),
            rules,
            pixel_cells: watched.zones.cells(columns, rows),
            patch_cells: watched.zones.cells(patches.0, patches.1),
            asked: None,
            looked: None,
            has_moved: true,
            was_moving: false,
            is_news: true,
            is_wanted: false,
            undecided_left: 0,
            undecided_max: UNDECIDED_LOOKS * undecided_max.max(missed_max + 1),
            summary: String::new(),
            watched,
        }
    }

    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn camera_name(&self) -> &Arc<str> {
        &self.camera_name
    }

    pub fn pixel_cells(&self) -> &[bool] {
        &self.pixel_cells
    }

    pub fn patch_cells(&self) -> &[bool] {
        &self.patch_cells
    }

    pub fn ask_now(&mut self) {
        self.is_wanted = true;
    }

    /// There is no pixel gate.
    pub fn something_moved(&mut self) {
        self.has_moved = true;
    }

    /// Whether the pixel gate is open in its zone. Once it shuts the question is asked once more: something has gone,
    /// or come to rest.
    pub fn pixels_are(&mut self, open: bool) {
        self.has_moved |= open || self.was_moving;
        self.was_moving = open;
    }

    /// Whether the feature gate is open in its zone.
    pub fn features_are(&mut self, open: bool) {
        self.is_news |= open;
    }

    /// The feature gate saw nothing new: what moved does not count. The next chance comes when its period is over, so
    /// that the encoder does not run more often either.
    pub fn was_spared(&mut self, now: Instant) {
        (self.looked, self.has_moved) = (Some(now), false);
    }

    /// True if it is to be asked about a picture that was taken now.
    pub fn is_due(&self, now: Instant) -> bool {
        let (Some(asked), Some(looked)) = (self.asked, self.looked) else { return true };
        let since = |time| now.saturating_duration_since(time);
        self.is_wanted
            || (since(looked) >= self.watched.every && (self.has_moved || self.undecided_left > 0))
            || self.watched.at_least_every.is_some_and(|most| since(asked) >= most)
    }

    /// True if it is due for another reason than that pixels moved, or if what the encoder sees has changed.
    pub fn has_reason(&self, now: Instant) -> bool {
        let Some(asked) = self.asked else { return true };
        let since = now.saturating_duration_since(asked);
        self.is_wanted
            || self.is_news
            || self.undecided_left > 0
            || self.watched.at_least_every.is_some_and(|most| since >= most)
    }

    /// Takes an answer.
    pub fn answered(
        &mut self,
        answer: &Answer,
        told: &Told<'_>,
        tell: &mut dyn FnMut(Record),
    ) -> palmtop::Result<()> {
        let now = told.exposure.taken;
        if self.has_moved {
            self.undecided_left = self.undecided_max;
        }
        (self.asked, self.looked) = (Some(now), Some(now));
        (self.has_moved, self.is_news, self.is_wanted) = (false, false, false);
        let objects = match self.watched.reading {
            Reading::Objects => self.read(answer, told)?,
            Reading::Text | Reading::Choice(_) => Vec::new(),
        };
        let changed = match self.watched.reading {
            Reading::Objects => self.follow(&objects),
            Reading::Text | Reading::Choice(_) => self.settled.look(&answer.text),
        };
        let records: Vec<ObjectRecord> = match changed || told.all_answers || !self.rules.is_empty() {
            true => objects.into_iter().map(|object| self.record_of(object)).collect(),
            false => Vec::new(),
        };
        self.tell_events(&answer.text, &records, told, tell);
        if changed || told.all_answers {
            let is_choice = matches!(self.watched.reading, Reading::Choice(_));
            tell(Record::Answer(AnswerRecord {
                camera: self.camera_name.clone(),
                question: self.name.clone(),
                at: told.at,
                picture: told.exposure.number,
                changed,
                text: answer.text.clone(),
                is_about_objects: self.watched.reading == Reading::Objects,
                score: is_choice.then(|| answer.likelihood()),
                objects: records,
                latency: told.latency,
            }));
        }
        self.undecided_left = match self.is_undecided() {
            true => self.undecided_left.saturating_sub(1),
            false => 0,
        };
        Ok(())
    }

    /// The objects of an answer that are in the zone.
    fn read(&self, answer: &Answer, told: &Told<'_>) -> palmtop::Result<Vec<Detection>> {
        let mut options = ReadOptions::default();
        options.masks = true;
        let mut objects = told.model.read_answer(answer, told.picture, &options)?.objects;
        let (width, height) = (told.picture.0 as f32, told.picture.1 as f32);
        objects.retain(|object| {
            let b = &object.bounding_box;
            self.watched.zones.contains((b.x_min + b.x_max) / 2.0 / width, (b.y_min + b.y_max) / 2.0 / height)
        });
        Ok(objects)
    }

    /// Brings tracks up to date; true if another set of objects is believed to be there.
    fn follow(&mut self, objects: &[Detection]) -> bool {
        let seen: Vec<Seen<'_>> =
            objects.iter().map(|object| Seen { label: &object.label, at: object.bounding_box }).collect();
        self.tracker.look(&seen, |_, _| {});
        let needed = self.watched.needed.needed() as u32;
        let mut there: Vec<&str> = self
            .tracker
            .tracks()
            .iter()
            .filter(|track| track.looks >= needed && !track.has_left)
            .map(|track| track.label.as_str())
            .collect();
        there.sort_unstable();
        let summary = there.join("\n");
        // The first look says what is there, also if that is nothing.
        let changed = self.asked.is_none_or(|_| self.settled.value().is_none()) || summary != self.summary;
        if changed {
            self.settled.look("told");
            self.summary = summary;
        }
        changed
    }

    fn record_of(&self, detection: Detection) -> ObjectRecord {
        let is_it = |track: &&Track| track.at == detection.bounding_box && track.label == detection.label;
        ObjectRecord {
            track: self.tracker.tracks().iter().find(is_it).map(|track| track.id),
            label: detection.label.clone(),
            score: detection.score,
            bounding_box: (&detection.bounding_box).into(),
            detection,
        }
    }

    fn is_undecided(&self) -> bool {
        let votes = self.rules.iter().any(RuleState::is_undecided);
        let needed = self.watched.needed.needed() as u32;
        let is_open = |track: &Track| !track.has_left && (track.missed > 0 || track.looks < needed);
        votes
            || match self.watched.reading {
                Reading::Objects => self.tracker.tracks().iter().any(is_open),
                Reading::Text | Reading::Choice(_) => self.settled.is_undecided(),
            }
    }

    fn tell_events(
        &mut self,
        text: &str,
        objects: &[ObjectRecord],
        told: &Told<'_>,
        tell: &mut dyn FnMut(Record),
    ) {
        if self.rules.is_empty() {
            return;
        }
        let labels: Vec<&str> = objects.iter().map(|object| object.label.as_str()).collect();
        let sight = Sight {
            text,
            labels: &labels,
            tracks: self.tracker.tracks(),
            picture: told.picture,
            taken: told.exposure.taken,
            wall: told.exposure.wall,
        };
        for (index, state) in self.rules.iter_mut().enumerate() {
            let rule = state.rule().name.clone();
            let event = Event {
                rule: &rule,
                question: &self.name,
                camera: &self.camera_name,
                prefix: (told.run, index),
                at: told.at,
                number: told.exposure.number,
                text,
                objects,
            };
            state.look(&sight, &mut |turn| tell(event.record(&turn)));
        }
    }

    /// Ends all events.
    pub fn end(&mut self, exposure: &Exposure, at: Moment, run: u64, tell: &mut dyn FnMut(Record)) {
        for (index, state) in self.rules.iter_mut().enumerate() {
            let rule = state.rule().name.clone();
            let event = Event {
                rule: &rule,
                question: &self.name,
                camera: &self.camera_name,
                prefix: (run, index),
                at,
                number: exposure.number,
                text: "",
                objects: &[],
            };
            state.end(exposure.taken, &mut |turn| tell(event.record(&turn)));
        }
    }
}

/// What the records of a rule's events have in common.
struct Event<'a> {
    rule: &'a Arc<str>,
    question: &'a Arc<str>,
    camera: &'a Arc<str>,
    prefix: (u64, usize),
    at: Moment,
    number: u64,
    text: &'a str,
    objects: &'a [ObjectRecord],
}

impl Event<'_> {
    fn record(&self, turn: &Turn<'_>) -> Record {
        let (run, rule) = self.prefix;
        let phase = match turn.change {
            Change::Begins => Phase::Begin,
            Change::Ends => Phase::End,
        };
        Record::Event(EventRecord {
            id: format!("{run:x}-{}-{}-{rule}-{}", self.camera, self.question, turn.event),
            phase,
            rule: self.rule.clone(),
            question: self.question.clone(),
            camera: self.camera.clone(),
            at: self.at,
            lasted: (phase == Phase::End).then_some(turn.lasted),
            picture: self.number,
            text: self.text.to_owned(),
            track: turn.track.map(|track| track.id),
            label: turn.track.map(|track| track.label.clone()),
            objects: self.objects.to_vec(),
        })
    }
}
