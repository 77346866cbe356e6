//! The loop: takes the newest picture of each source, decides what to ask, and tells what has changed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{Frame, ImageLimits, RgbImage, decode};
use palmtop::tasks::{Detection, ReadOptions};
use palmtop::{Answer, CancelToken, Error, Model, Session};

use crate::event::{Fate, Quorum, Seen, Settled, TrackOptions, Tracker};
use crate::gate::{PixelGate, PixelOptions};
use crate::look::{Latencies, LookReport, Looker, Question};
use crate::source::{Capture, Shot, Taken};

/// What answers to a question are read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A text; it is news if it is another one than before.
    Text,
    /// Objects; it is news if one comes or goes.
    Objects,
}

/// A question of the loop.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What is asked.
    pub question: Question,
    /// What answers are.
    pub reading: Reading,
    /// It is asked at most so often.
    pub every: Duration,
    /// It is asked at least so often, whether or not anything moves.
    pub at_least_every: Option<Duration>,
    /// So many looks must agree before something is news.
    pub quorum: Quorum,
}

/// How a [`Watcher`] works.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// The pixel gate.
    pub gate: PixelOptions,
    /// The time from a picture's exposure to its answers; what does not fit is late.
    pub budget: Option<Duration>,
    /// What an encoded picture may cost.
    pub images: ImageLimits,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// Which question, by its place.
    pub question: usize,
    /// What happened.
    pub what: What<'a>,
    /// The picture's time, from the first picture on.
    pub at: Duration,
    /// The same by the clock on the wall.
    pub wall: SystemTime,
    /// The picture's number.
    pub picture: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What<'a> {
    /// The answer is another one; `before` is none for the first.
    Text {
        /// What it was.
        before: Option<&'a str>,
        /// What it is.
        now: &'a str,
    },
    /// An object came.
    Appeared {
        /// Its number, which no other has.
        track: u64,
        /// What it is and where.
        object: &'a Detection,
    },
    /// An object went.
    Left {
        /// Its number.
        track: u64,
        /// What it was.
        label: &'a str,
    },
}

/// What a loop has done so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Pictures that came.
    pub pictures: u64,
    /// Of those, that could not be used.
    pub broken: u64,
    /// Of those, that nothing moved in.
    pub still: u64,
    /// Pictures that were asked about.
    pub looks: u64,
    /// Questions that were answered.
    pub answers: u64,
    /// Questions that there was no time for.
    pub late: u64,
    /// Tokens of answers, and those of them that drafts had right.
    pub tokens: [u64; 2],
    /// From exposure to answers.
    pub latencies: Latencies,
}

/// Watches one source.
pub struct Watcher {
    looker: Looker,
    watched: Vec<State>,
    gate: PixelGate,
    options: WatchOptions,
    counts: Counts,
    model: Arc<Model>,
    /// The first picture's time, and the last one's.
    first: Option<Instant>,
    last: Option<Instant>,
    was_open: bool,
}

struct State {
    watched: Watched,
    settled: Settled,
    tracker: Tracker,
    /// Tracks that have been told of.
    told: Vec<u64>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// Something moved since.
    pending: bool,
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        let Some(asked) = self.asked else { return true };
        let since = now.saturating_duration_since(asked);
        (self.pending && since >= self.watched.every)
            || self.watched.at_least_every.is_some_and(|most| since >= most)
    }
}

impl Watcher {
    /// A loop with these questions.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(
        session: Session,
        watched: Vec<Watched>,
        options: WatchOptions,
        cancel: &CancelToken,
    ) -> palmtop::Result<Self> {
        let model = session.model().clone();
        let questions = watched.iter().map(|w| w.question.clone()).collect();
        let state = |watched: Watched| State {
            settled: Settled::new(watched.quorum),
            tracker: Tracker::new(TrackOptions {
                missed_max: (watched.quorum.of() as u32).max(2),
                ..TrackOptions::default()
            }),
            told: Vec::new(),
            asked: None,
            pending: false,
            watched,
        };
        Ok(Self {
            looker: Looker::new(session, questions, cancel)?,
            watched: watched.into_iter().map(state).collect(),
            gate: PixelGate::new(options.gate.clone()),
            counts: Counts { latencies: Latencies::new(), ..Counts::default() },
            options,
            model,
            first: None,
            last: None,
            was_open: false,
        })
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Watches a source until it ends or `goes_on` says no, which is asked before each picture.
    ///
    /// # Errors
    /// As [`Looker::look`]. Pictures that cannot be decoded are counted.
    pub fn run(
        &mut self,
        capture: &Capture,
        mut goes_on: impl FnMut(&Counts) -> bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> palmtop::Result<()> {
        const WAIT: Duration = Duration::from_millis(100);
        let mut spare = None;
        while goes_on(&self.counts) {
            match capture.take(spare.take(), WAIT) {
                Taken::End => return Ok(()),
                Taken::Nothing => {}
                Taken::Shot(shot) => {
                    self.picture(&shot, on_event)?;
                    spare = Some(shot.bytes);
                }
            }
        }
        Ok(())
    }

    /// Takes one picture.
    ///
    /// # Errors
    /// As [`Looker::look`].
    pub fn picture(&mut self, shot: &Shot, on_event: &mut dyn FnMut(Event<'_>)) -> palmtop::Result<()> {
        self.counts.pictures += 1;
        let decoded: RgbImage;
        let frame = match shot.layout.frame(&shot.bytes) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                self.counts.broken += 1;
                return Ok(());
            }
            None => match decode(&shot.bytes, &self.options.images) {
                Ok(image) => {
                    decoded = image;
                    Frame::from(decoded.view())
                }
                Err(_) => {
                    self.counts.broken += 1;
                    return Ok(());
                }
            },
        };
        let now = shot.taken;
        let first = *self.first.get_or_insert(now);
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let is_open = self.gate.look(&frame, since).is_open;
        // Once more when it shuts: something has gone.
        if is_open || self.was_open {
            self.watched.iter_mut().for_each(|state| state.pending = true);
        } else {
            self.counts.still += 1;
        }
        self.was_open = is_open;
        let watched = &mut self.watched;
        if !watched.iter().any(|state| state.is_due(now)) {
            return Ok(());
        }
        let due: Vec<bool> = watched.iter().map(|state| state.is_due(now)).collect();
        let started = Instant::now();
        // A film's pictures have times of their own; their looks are measured from when they begin.
        let exposed =
            if now > started { started } else { now.max(started - since.min(Duration::from_secs(1))) };
        let deadline = self.options.budget.map(|budget| exposed + budget);
        let (size, model) = ((frame.width(), frame.height()), &self.model);
        let mut wrong = None;
        let at = now.saturating_duration_since(first);
        let report = self.looker.look(frame, |i| due[i], deadline, &mut |i, answer| {
            let state = &mut watched[i];
            (state.asked, state.pending) = (Some(now), false);
            let mut tell = |what: What<'_>| {
                on_event(Event { question: i, what, at, wall: shot.wall, picture: shot.number });
            };
            if let Err(error) = state.read(model, answer, size, &mut tell) {
                wrong = Some(error);
            }
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
        self.count(report, exposed.elapsed());
        Ok(())
    }

    fn count(&mut self, report: LookReport, latency: Duration) {
        self.counts.looks += 1;
        self.counts.answers += report.answered as u64;
        self.counts.late += report.late as u64;
        self.counts.tokens[0] += report.tokens as u64;
        self.counts.tokens[1] += report.drafted as u64;
        self.counts.latencies.add(latency);
    }
}

impl State {
    fn read(
        &mut self,
        model: &Model,
        answer: &Answer,
        size: (u32, u32),
        tell: &mut dyn FnMut(What<'_>),
    ) -> Result<(), Error> {
        match self.watched.reading {
            Reading::Text => {
                let before = self.settled.value().map(str::to_owned);
                if self.settled.look(&answer.text) {
                    tell(What::Text { before: before.as_deref(), now: &answer.text });
                }
            }
            Reading::Objects => {
                let found = model.read_answer(answer, size, &ReadOptions::default())?.objects;
                let seen: Vec<Seen<'_>> =
                    found.iter().map(|o| Seen { label: &o.label, at: o.bounding_box }).collect();
                let told = &mut self.told;
                self.tracker.look(&seen, |fate, track| {
                    if fate == Fate::Left
                        && let Some(place) = told.iter().position(|id| *id == track.id)
                    {
                        told.remove(place);
                        tell(What::Left { track: track.id, label: &track.label });
                    }
                });
                for track in self.tracker.tracks() {
                    let is_new = track.missed == 0 && track.looks as usize >= self.watched.quorum.needed();
                    if is_new && !self.told.contains(&track.id) {
                        self.told.push(track.id);
                        let is_it = |o: &&Detection| o.bounding_box == track.at && o.label == track.label;
                        if let Some(object) = found.iter().find(is_it) {
                            tell(What::Appeared { track: track.id, object });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
