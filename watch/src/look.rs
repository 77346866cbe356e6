//! A look: all questions that are due about one picture, answered together.
//!
//! The picture is encoded once. Questions are begun one after the other and then go on in common passes; each brings
//! the answer of its last look as a draft, which costs little where the scene is as it was. What is answered is what
//! each question alone would be answered, to the bit.

use std::time::{Duration, Instant};

use palmtop::image::Frame;
use palmtop::session::SequenceId;
use palmtop::{
    Answer, CancelToken, Error, GenerateOptions, Grammar, ImageFeatures, Request, Result, Session, StopReason,
};

/// Something that is asked of pictures again and again.
#[derive(Clone, Debug)]
pub struct Question {
    /// What results and events call it.
    pub name: String,
    /// The whole prompt, without the newline that ends it.
    pub prompt: String,
    /// What answers are made of; everything if absent.
    pub grammar: Option<Grammar>,
    /// Tokens of an answer; as many as the session allows if absent.
    pub max_new_tokens: Option<usize>,
}

/// What became of the questions of a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookReport {
    /// Questions that were answered to the end.
    pub answered: usize,
    /// Questions for which there was no time, or not enough; they are due again, and come first.
    pub late: usize,
    /// Tokens of the answers.
    pub tokens: usize,
    /// Those of them that their drafts had right.
    pub drafted: usize,
}

/// Says when a session may compute: others may have sessions of their own on the same cores.
pub trait Turns: Send {
    /// Waits for a turn, calls `compute` once, and lets the next one go on.
    fn take(&self, compute: &mut dyn FnMut());
}

/// Computes in a turn, or at once if nobody gives turns.
fn in_turn<T>(turns: &Option<Box<dyn Turns>>, compute: impl FnOnce() -> T) -> T {
    let Some(turns) = turns else { return compute() };
    let (mut compute, mut result) = (Some(compute), None);
    turns.take(&mut || result = compute.take().map(|compute| compute()));
    result.expect("a turn is there to compute in")
}

/// Answers questions about pictures. Allocates nothing after it is made.
pub struct Looker {
    session: Session,
    turns: Option<Box<dyn Turns>>,
    features: ImageFeatures,
    encoding: GenerateOptions,
    asked: Vec<Asked>,
    /// Questions of this look that have been begun.
    running: Vec<(usize, SequenceId)>,
    /// In which order questions come: those that were late first.
    order: Vec<usize>,
}

struct Asked {
    question: Question,
    options: GenerateOptions,
    /// The last answer.
    draft: Vec<u32>,
    was_late: bool,
}

impl Looker {
    /// For these questions. As many are answered together as the session's batch has room for, the others behind them.
    ///
    /// # Errors
    /// If memory for the features cannot be had.
    pub fn new(session: Session, questions: Vec<Question>, cancel: &CancelToken) -> Result<Self> {
        let (batch, tokens) = (session.limits().batch, session.limits().new_tokens);
        let features = session.new_features()?;
        let asked = |question: Question| {
            let mut options = GenerateOptions::default();
            options.cancel = cancel.clone();
            options.grammar = question.grammar.clone();
            options.max_new_tokens = question.max_new_tokens;
            Asked { question, options, draft: Vec::with_capacity(tokens), was_late: false }
        };
        let asked: Vec<Asked> = questions.into_iter().map(asked).collect();
        let order = Vec::with_capacity(asked.len());
        let mut encoding = GenerateOptions::default();
        encoding.cancel = cancel.clone();
        let running = Vec::with_capacity(batch);
        Ok(Self { session, turns: None, features, encoding, asked, running, order })
    }

    /// The questions, in the order given.
    pub fn questions(&self) -> impl ExactSizeIterator<Item = &Question> {
        self.asked.iter().map(|a| &a.question)
    }

    /// The session, for its plan and its model.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Takes a turn for each pass over the model from now on: the encoder, a prefill, a step. Between them others can
    /// have theirs. The time spent waiting counts towards deadlines.
    pub fn take_turns(&mut self, turns: Box<dyn Turns>) {
        self.turns = Some(turns);
    }

    /// Asks another prompt from now on.
    pub fn set_prompt(&mut self, index: usize, prompt: &str) {
        self.asked[index].question.prompt = prompt.to_owned();
    }

    /// True if there was no time for this question when it was last due.
    pub fn was_late(&self, index: usize) -> bool {
        self.asked[index].was_late
    }

    /// Encodes a picture, to be asked about. False if the deadline passed before it was done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was cancelled, and as [`Session::encode`].
    pub fn encode(&mut self, frame: Frame<'_>, deadline: Option<Instant>) -> Result<bool> {
        self.encoding.deadline = deadline;
        let Self { session, turns, features, encoding, .. } = self;
        match in_turn(turns, || session.encode(frame, features, encoding)) {
            Ok(()) => Ok(true),
            Err(Error::DeadlinePassed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the encoder made of the last picture: `[image rows, decoder width]`.
    pub fn features(&self) -> &[f32] {
        self.features.values()
    }

    /// There was no time for these questions: they come first next time. Gives how many they are.
    pub fn postpone(&mut self, is_due: impl Fn(usize) -> bool) -> usize {
        self.put_in_order(&is_due);
        let mut report = LookReport::default();
        self.mark_late(0, &mut report);
        report.late
    }

    /// Looks at a picture: encodes it, and answers those questions that `is_due` names; see [`answer`](Self::answer).
    ///
    /// # Errors
    /// As [`encode`](Self::encode) and [`answer`](Self::answer).
    pub fn look(
        &mut self,
        frame: Frame<'_>,
        is_due: impl Fn(usize) -> bool,
        deadline: Option<Instant>,
        on_answer: &mut dyn FnMut(usize, &Answer),
    ) -> Result<LookReport> {
        if !(0..self.asked.len()).any(&is_due) {
            return Ok(LookReport::default());
        }
        match self.encode(frame, deadline)? {
            true => self.answer(is_due, deadline, on_answer),
            false => Ok(LookReport { late: self.postpone(is_due), ..LookReport::default() }),
        }
    }

    /// Answers those questions that `is_due` names about the picture that was encoded last. `on_answer` hears of each
    /// answer that is whole, as soon as it is.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was cancelled, and as [`Session::begin`]. A deadline that passes is none: what was
    /// late then is in the report.
    pub fn answer(
        &mut self,
        is_due: impl Fn(usize) -> bool,
        deadline: Option<Instant>,
        on_answer: &mut dyn FnMut(usize, &Answer),
    ) -> Result<LookReport> {
        let mut report = LookReport::default();
        self.put_in_order(&is_due);
        self.asked.iter_mut().for_each(|a| a.options.deadline = deadline);
        let mut next = 0;
        while next < self.order.len() || !self.running.is_empty() {
            if next < self.order.len() && self.session.free_sequences() > 0 {
                let index = self.order[next];
                let asked = &self.asked[index];
                let request = Request {
                    pictures: &[&self.features],
                    prompt: &asked.question.prompt,
                    draft: &asked.draft,
                };
                let session = &mut self.session;
                let begin =
                    || session.begin(&request, &asked.options, &mut |_| std::ops::ControlFlow::Continue(()));
                match in_turn(&self.turns, begin) {
                    Ok(id) => self.running.push((index, id)),
                    Err(Error::DeadlinePassed) => {
                        self.mark_late(next, &mut report);
                        next = self.order.len();
                        continue;
                    }
                    Err(error) => {
                        self.give_up();
                        return Err(error);
                    }
                }
                next += 1;
                // An answer may be whole with its first token.
                self.collect(&mut report, on_answer)?;
                continue;
            }
            let session = &mut self.session;
            let step = || session.step(&mut |_| std::ops::ControlFlow::Continue(()));
            if let Err(error) = in_turn(&self.turns, step) {
                self.give_up();
                return Err(error);
            }
            self.collect(&mut report, on_answer)?;
        }
        Ok(report)
    }

    /// Questions that are due, those that were late first.
    fn put_in_order(&mut self, is_due: &impl Fn(usize) -> bool) {
        self.order.clear();
        self.order.extend((0..self.asked.len()).filter(|&i| is_due(i) && self.asked[i].was_late));
        self.order.extend((0..self.asked.len()).filter(|&i| is_due(i) && !self.asked[i].was_late));
    }

    /// Takes the answers that are done.
    fn collect(&mut self, report: &mut LookReport, on_answer: &mut dyn FnMut(usize, &Answer)) -> Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            let (index, id) = self.running[at];
            if self.session.is_running(id)? {
                at += 1;
                continue;
            }
            let answer = self.session.sequence(id)?;
            let asked = &mut self.asked[index];
            asked.was_late = answer.stop == StopReason::DeadlinePassed;
            if asked.was_late {
                report.late += 1;
            } else if answer.stop == StopReason::Cancelled {
                self.give_up();
                return Err(Error::Cancelled);
            } else {
                report.answered += 1;
                report.tokens += answer.tokens.len();
                report.drafted += answer.accepted_draft_tokens;
                asked.draft.clear();
                asked.draft.extend_from_slice(&answer.tokens);
                on_answer(index, answer);
            }
            self.session.end(id)?;
            self.running.swap_remove(at);
        }
        Ok(())
    }

    /// There was no time for the questions from this place on.
    fn mark_late(&mut self, from: usize, report: &mut LookReport) {
        for &index in &self.order[from..] {
            self.asked[index].was_late = true;
            report.late += 1;
        }
    }

    /// Ends what is running.
    fn give_up(&mut self) {
        for (_, id) in self.running.drain(..) {
            // Whatever went wrong, the places must be free for the next look.
            let _ = self.session.end(id);
        }
    }
}

/// Looks, by how long they took from the picture's exposure to its answers.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// The last ones, in a ring.
    last: Vec<Duration>,
    next: usize,
    count: u64,
    most: Duration,
}

/// So many looks are kept to take percentiles of.
const LATENCIES_KEPT: usize = 4096;

impl Latencies {
    /// None yet; all memory is taken here.
    pub fn new() -> Self {
        Self { last: Vec::with_capacity(LATENCIES_KEPT), ..Self::default() }
    }

    /// Counts a look.
    pub fn add(&mut self, latency: Duration) {
        self.count += 1;
        self.most = self.most.max(latency);
        match self.last.len() < LATENCIES_KEPT {
            true => self.last.push(latency),
            false => self.last[self.next] = latency,
        }
        self.next = (self.next + 1) % LATENCIES_KEPT;
    }

    /// How many looks there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest of all.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// Within which so many of 100 of the last looks were done; `None` if there were none.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some(sorted[((percent / 100.0 * sorted.len() as f64).ceil() as usize).saturating_sub(1).min(last)])
    }
}
