//! The engine's thread: requests that run together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::{Error, GenerateOptions, ImageFeatures, Request, Result, SequenceId, Session, StopReason};

use super::answering::{Event, Finished, Stop, Times, tokens_from};
use super::queue::{Job, Next};
use super::{AskError, Shared};

pub(super) struct Batch {
    session: Session,
    features: Vec<ImageFeatures>,
    running: Vec<Running>,
    shared: Arc<Shared>,
    /// Where the pictures of the request at hand are.
    slots: Vec<usize>,
}

/// A request that is being answered.
struct Running {
    job: Box<Job>,
    id: SequenceId,
    cached_pictures: usize,
    sizes: Vec<(u32, u32)>,
    times: Times,
    /// Tokens that were told.
    tokens_told: usize,
    /// Bytes of the text that were told.
    bytes_told: usize,
}

impl Batch {
    pub fn new(session: Session, features: Vec<ImageFeatures>, shared: Arc<Shared>) -> Self {
        let (batch, pictures) = (session.limits().batch, session.limits().pictures);
        let (running, slots) = (Vec::with_capacity(batch), Vec::with_capacity(pictures));
        Self { session, features, running, shared, slots }
    }

    /// Answers until the queue is closed and all is done.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        // Whatever ends this thread, requests hear of it.
        let _guard = Guard(&shared);
        loop {
            let (is_idle, has_room) = (self.running.is_empty(), self.session.free_sequences() > 0);
            match shared.queue.next(is_idle, has_room, &shared.counts) {
                Next::End => return,
                Next::Nothing => {}
                Next::Job(job) => shared.turn.take(|| self.begin(job)),
            }
            // One request is begun between two steps, so that those that run do not wait for all that come.
            if !self.running.is_empty()
                && let Err(error) = shared.turn.take(|| self.step())
            {
                self.fail(error);
            }
            shared.counts.running.set(self.running.len() as i64);
        }
    }

    fn begin(&mut self, job: Box<Job>) {
        let waited = job.came.elapsed();
        if let Err(error) = self.still_wanted(&job) {
            return job.tell(Err(error));
        }
        match self.begin_wanted(&job, waited) {
            Ok((id, cached_pictures, times)) => {
                let sizes = job.ask.pictures.iter().map(|picture| picture.size()).collect();
                self.running.push(Running {
                    job,
                    id,
                    cached_pictures,
                    sizes,
                    times,
                    tokens_told: 0,
                    bytes_told: 0,
                });
                let batch = self.running.len();
                self.running
                    .iter_mut()
                    .for_each(|running| running.times.batch = running.times.batch.max(batch));
                self.shared.counts.running.set(batch as i64);
                let last = self.running.last().expect("it was just put there");
                if let Ok(answer) = self.session.sequence(last.id) {
                    let prompt_tokens = answer.prompt_tokens;
                    self.shared.counts.prompt_tokens.inc_by(prompt_tokens as u64);
                    last.job.tell(Ok(Event::Begun { prompt_tokens, cached_pictures }));
                }
                self.collect();
            }
            // Nor can what runs be trusted any more.
            Err(error @ Error::FileChanged { .. }) => {
                self.shared.counts.failed.inc();
                job.tell(Err(AskError::Broken(error.to_string())));
                self.fail(error);
            }
            Err(error) => {
                self.shared.counts.failed.inc();
                job.tell(Err(self.why(error, &job)));
            }
        }
    }

    /// An error for a request that is not to be begun any more.
    fn still_wanted(&self, job: &Job) -> Result<(), AskError> {
        if self.shared.cut_off.is_cancelled() {
            return Err(AskError::Ending);
        }
        if job.cancel.is_cancelled() {
            self.shared.counts.cancelled.inc();
            return Err(AskError::Cancelled);
        }
        if job.ask.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.shared.counts.late.inc();
            return Err(AskError::Late);
        }
        Ok(())
    }

    fn begin_wanted(&mut self, job: &Job, waited: Duration) -> Result<(SequenceId, usize, Times)> {
        let ask = &job.ask;
        let mut options = GenerateOptions::default();
        options.max_new_tokens = ask.max_new_tokens;
        options.sampling = ask.sampling;
        options.grammar = ask.grammar.clone();
        options.deadline = ask.deadline;
        options.cancel = job.cancel.clone();
        self.shared.model.check_unchanged()?;
        let start = Instant::now();
        let cached = self.encode(job, &options)?;
        let encode = start.elapsed();
        // A request has few pictures.
        let pictures: Vec<&ImageFeatures> = self.slots.iter().map(|&slot| &self.features[slot]).collect();
        let request = Request { pictures: &pictures, prompt: &ask.prompt, draft: &[] };
        let start = Instant::now();
        let id = self.session.begin(&request, &options, &mut |_| ControlFlow::Continue(()))?;
        let prefill = start.elapsed();
        for running in &mut self.running {
            running.times.decode += encode + prefill;
        }
        Ok((id, cached, Times { waited, encode, prefill, ..Times::default() }))
    }

    /// Finds or makes the features of the request's pictures; gives how many were there.
    fn encode(&mut self, job: &Job, options: &GenerateOptions) -> Result<usize> {
        self.slots.clear();
        let (cache, counts) = (&self.shared.cache, &self.shared.counts);
        let mut cached = 0;
        for picture in &job.ask.pictures {
            let slot = match cache.find(picture.key()) {
                Some(slot) => {
                    cached += 1;
                    counts.pictures_cached.inc();
                    picture.release();
                    slot
                }
                None => {
                    let slot = cache.make_room(&self.slots);
                    let (session, features) = (&mut self.session, &mut self.features[slot]);
                    picture.with_pixels(|frame| session.encode(frame, features, options))?;
                    cache.keep(slot, picture.key(), picture.size());
                    counts.pictures_encoded.inc();
                    slot
                }
            };
            self.slots.push(slot);
        }
        Ok(cached)
    }

    /// One pass for all that run.
    fn step(&mut self) -> Result<()> {
        if self.shared.cut_off.is_cancelled() {
            self.running.iter().for_each(|running| running.job.cancel.cancel());
        }
        let start = Instant::now();
        self.session.step(&mut |_| ControlFlow::Continue(()))?;
        let took = start.elapsed();
        self.shared.counts.steps.inc();
        for running in &mut self.running {
            running.times.decode += took;
            running.times.decode_steps += 1;
        }
        self.collect();
        Ok(())
    }

    /// Tells what is new, and ends what is done.
    fn collect(&mut self) {
        let Self { session, running, shared, .. } = self;
        let mut at = 0;
        while at < running.len() {
            match running[at].tell_news(session) {
                Ok(None) => at += 1,
                Ok(Some(finished)) => {
                    let done = running.swap_remove(at);
                    shared.counts.add(&finished);
                    done.job.tell(Ok(Event::Done(Box::new(finished))));
                    let _ = session.end(done.id);
                }
                Err(error) => {
                    let done = running.swap_remove(at);
                    done.job.tell(Err(AskError::Request(error)));
                    let _ = session.end(done.id);
                }
            }
        }
    }

    /// A pass failed, or the model is not what it was: nothing that runs can go on.
    fn fail(&mut self, error: Error) {
        let why = error.to_string();
        log::error!("the engine has failed: {why}");
        for running in self.running.drain(..) {
            running.job.tell(Err(AskError::Broken(why.clone())));
            let _ = self.session.end(running.id);
        }
        // The file under a mapped model was changed: no later answer can be trusted.
        if matches!(error, Error::FileChanged { .. }) {
            self.shared.queue.close(Some(why));
        }
    }

    fn why(&self, error: Error, job: &Job) -> AskError {
        match error {
            Error::Cancelled if self.shared.cut_off.is_cancelled() => AskError::Ending,
            Error::Cancelled => AskError::Cancelled,
            Error::DeadlinePassed => AskError::Late,
            error => {
                log::debug!("cannot answer about {:?}: {error}", job.ask.pictures);
                AskError::Request(error)
            }
        }
    }
}

impl Running {
    /// Tells what came since it was last told; gives the whole answer if it is done.
    fn tell_news(&mut self, session: &Session) -> Result<Option<Finished>> {
        let answer = session.sequence(self.id)?;
        let is_running = session.is_running(self.id)?;
        let stop_at = first_stop(&answer.text, self.bytes_told, &self.job.ask.stop);
        let shown = match stop_at {
            Some(at) => at,
            None if is_running => answer.text.len() - held_back(&answer.text, &self.job.ask.stop),
            None => answer.text.len(),
        }
        .max(self.bytes_told);
        let tokens = tokens_from(answer, self.tokens_told);
        self.tokens_told = answer.tokens.len();
        if shown > self.bytes_told || !tokens.is_empty() {
            let text = answer.text[self.bytes_told..shown].to_owned();
            self.bytes_told = shown;
            self.job.tell(Ok(Event::More { text, tokens }));
        }
        if is_running && stop_at.is_none() {
            return Ok(None);
        }
        let stop = match (stop_at, answer.stop) {
            (Some(_), _) => Stop::Text,
            (_, StopReason::EndOfSequence) => Stop::End,
            (_, StopReason::TokenLimit) => Stop::Limit,
            (_, StopReason::DeadlinePassed) => Stop::Deadline,
            (_, StopReason::Cancelled | StopReason::Callback) => Stop::Cancelled,
        };
        Ok(Some(Finished {
            answer: answer.clone(),
            text: answer.text[..stop_at.unwrap_or(answer.text.len())].to_owned(),
            stop,
            sizes: std::mem::take(&mut self.sizes),
            cached_pictures: self.cached_pictures,
            times: self.times,
        }))
    }
}

/// Where the first stop text begins, none of which begins before `from`.
fn first_stop(text: &str, from: usize, stops: &[String]) -> Option<usize> {
    let at = |stop: &String| text[from..].find(stop.as_str()).map(|at| from + at);
    stops.iter().filter(|stop| !stop.is_empty()).filter_map(at).min()
}

/// Bytes at the end of a text that may be the beginning of a stop text.
fn held_back(text: &str, stops: &[String]) -> usize {
    let begins = |stop: &str| {
        let ends = stop.char_indices().map(|(at, _)| at).skip(1);
        ends.filter(|&length| text.ends_with(&stop[..length])).max().unwrap_or(0)
    };
    stops.iter().map(|stop| begins(stop)).max().unwrap_or(0)
}

/// Closes the queue as the thread ends; if it panicked, with that as the reason.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let broken = std::thread::panicking().then(|| "a bug: the engine's thread panicked".to_owned());
        self.0.queue.close(broken);
        self.0.counts.running.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_are_found_and_their_beginnings_held_back() {
        let stops = ["; ".to_owned(), "end".to_owned(), String::new()];
        assert_eq!(first_stop("a ; b end", 0, &stops), Some(2));
        assert_eq!(first_stop("a ; b end", 3, &stops), Some(6));
        assert_eq!(first_stop("a b", 0, &stops), None);
        assert_eq!(held_back("this is the e", &stops), 1);
        assert_eq!(held_back("this is the en", &stops), 2);
        assert_eq!(held_back("this is the ent", &stops), 0);
        assert_eq!(held_back("a;", &stops), 1);
        assert_eq!(held_back("ä", &["äö".to_owned()]), 2);
        assert_eq!(held_back("", &stops), 0);
    }
}
