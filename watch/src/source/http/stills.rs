//! Stills of a server, fetched again and again. One that is as it was is not given again.

use std::io::Read;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::super::feed::{Caught, Feed, MOMENT, Next, Stop};
use super::HttpError;
use super::client::{Client, Since};
use crate::stream::Layout;

/// From still to still if no rate is asked for.
const PERIOD: Duration = Duration::from_secs(1);
/// How pauses grow while the server cannot be had.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Stills of one address.
pub(super) struct Stills {
    client: Client,
    since: Since,
    /// The first one, which has been fetched already.
    first: Option<Vec<u8>>,
    /// Of the last one.
    hash: Option<u64>,
    period: Duration,
    due: Instant,
    pause: Duration,
    bytes_max: usize,
    stop: Stop,
    broken: u64,
}

impl Stills {
    /// `first` is the body of an answer that has come.
    pub fn new(
        client: Client,
        first: Box<dyn Read + Send>,
        since: Since,
        fps: Option<f32>,
        bytes_max: usize,
        stop: Stop,
    ) -> Result<Self, HttpError> {
        let mut picture = Vec::new();
        body(first, bytes_max, &mut picture)?;
        let period = fps.map_or(PERIOD, |fps| Duration::from_secs_f32(1.0 / fps));
        Ok(Self {
            client: client.bound(),
            since,
            hash: None,
            first: Some(picture),
            period,
            due: Instant::now(),
            pause: period,
            bytes_max,
            stop,
            broken: 0,
        })
    }

    /// Fetches one; false if it is as it was.
    fn fetch(&mut self, picture: &mut Vec<u8>) -> Result<bool, HttpError> {
        if let Some(first) = self.first.take() {
            picture.clear();
            picture.extend_from_slice(&first);
        } else {
            let answer = self.client.get(&self.since)?;
            if answer.status().as_u16() == 304 {
                return Ok(false);
            }
            let since = Since::of(&answer);
            if let Some(kind) = answer.body().mime_type().filter(|kind| kind.starts_with("text/")) {
                return Err(HttpError::Content { kind: kind.to_owned() });
            }
            body(answer.into_body().into_reader(), self.bytes_max, picture)?;
            // Only now is it known.
            self.since = since;
        }
        if picture.is_empty() {
            self.broken += 1;
            return Ok(false);
        }
        let hash = xxh3_64(picture);
        Ok(self.hash.replace(hash) != Some(hash))
    }
}

impl Feed for Stills {
    fn next(&mut self, picture: &mut Vec<u8>) -> Next {
        let now = Instant::now();
        if now < self.due {
            self.stop.pause(MOMENT.min(self.due - now));
            return Next::Nothing;
        }
        let fetched = self.fetch(picture);
        let now = Instant::now();
        match fetched {
            Ok(is_new) => {
                // What was late is not made up for.
                self.due = (self.due + self.period).max(now);
                self.pause = self.period;
                match is_new {
                    true => {
                        let layout = Layout::Encoded;
                        Next::Picture(Caught { layout, age: Duration::ZERO, period: None, passed_over: 0 })
                    }
                    false => Next::Well,
                }
            }
            Err(error) => {
                self.broken += u64::from(matches!(error, HttpError::TooLarge { .. }));
                self.pause = (self.pause * 2).clamp(PERIOD / 2, PAUSE_MAX.max(self.period));
                self.due = now + self.pause;
                Next::Missing(error.to_string())
            }
        }
    }

    fn broken(&self) -> u64 {
        self.broken
    }
}

fn body(from: impl Read, bytes_max: usize, picture: &mut Vec<u8>) -> Result<(), HttpError> {
    picture.clear();
    let read = from.take((bytes_max as u64).saturating_add(1)).read_to_end(picture);
    read.map_err(|error| HttpError::Transport(error.to_string()))?;
    match picture.len() <= bytes_max {
        true => Ok(()),
        false => Err(HttpError::TooLarge { bytes_max }),
    }
}
