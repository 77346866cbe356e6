//! The loop for apps that have frames of their own: a robot, a phone, a program with its own capture.
//!
//! [`FrameWatch`] makes a session and a [`Watcher`] of a configuration's text, and keeps the times and numbers of
//! pictures. It starts no thread but the session's and reads no clock but the system's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::Frame;
use palmtop::{CancelToken, Limits, Model, Plan, Session, ThreadHints};

use crate::command::Command;
use crate::config::{Config, ConfigError};
use crate::record::Record;
use crate::setup::Setup;
use crate::watcher::{Camera, CommandError, Counts, Exposure, WatchOptions, Watched, Watcher};

/// Why a loop cannot be made, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramesError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model, the session, or a picture.
    #[error(transparent)]
    Model(#[from] palmtop::Error),
    /// There is no such camera.
    #[error("there is no camera {camera}: the configuration names {cameras}, counted from 0")]
    NoSuchCamera {
        /// The number that was given.
        camera: usize,
        /// How many there are.
        cameras: usize,
    },
    /// A command cannot be obeyed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// How pictures are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameOptions {
    /// Tell of every answer, not only of those that change something.
    pub all_answers: bool,
    /// Pictures come from a recording: rules and periods go by its times, budget and latencies count from when a
    /// picture is given.
    pub recording: bool,
}

/// A loop that is checked, and has no memory yet.
pub struct PreparedFrames {
    cameras: Vec<Camera>,
    watched: Vec<Watched>,
    limits: Limits,
    options: WatchOptions,
    recording: bool,
}

impl PreparedFrames {
    /// Reads a configuration ([`Config::parse_questions`]) for a model. `limits` say how to use the machine; what the
    /// questions need is filled in.
    ///
    /// # Errors
    /// [`FramesError::Config`]
    pub fn new(
        model: &Model,
        text: &str,
        limits: &Limits,
        options: FrameOptions,
    ) -> Result<Self, FramesError> {
        let config = Config::parse_questions(text)?;
        let watched = config.watched(model)?;
        let limits = config.limits(&watched, limits);
        let mut watch_options = config.options();
        watch_options.all_answers = options.all_answers;
        if let Some(pixels) = &mut watch_options.pixels {
            pixels.side_max = limits.image_side;
        }
        let cameras = config.named_cameras()?;
        Ok(Self { cameras, watched, limits, options: watch_options, recording: options.recording })
    }

    /// What the session will take, and the bytes that the gates take beside it.
    ///
    /// # Errors
    /// [`FramesError::Model`] for limits that no session can have.
    pub fn plan(&self, model: &Model) -> Result<(Plan, usize), FramesError> {
        let gates = Watcher::gate_bytes(model, self.cameras.len(), &self.options);
        Ok((model.plan(&self.limits)?, gates))
    }
}

/// A loop that is given its pictures.
pub struct FrameWatch {
    watcher: Watcher,
    /// Numbers of the cameras' next pictures.
    numbers: Vec<u64>,
    recording: bool,
    last: Option<Exposure>,
}

impl FrameWatch {
    /// Takes all memory, and starts the session's threads.
    ///
    /// # Errors
    /// [`FramesError::Model`] if memory or threads cannot be had.
    pub fn new(
        model: &Arc<Model>,
        prepared: PreparedFrames,
        hints: &ThreadHints,
        cancel: &CancelToken,
    ) -> Result<Self, FramesError> {
        let session = Session::with_threads(model, &prepared.limits, hints)?;
        let numbers = vec![0; prepared.cameras.len()];
        let watcher = Watcher::new(session, prepared.cameras, prepared.watched, prepared.options, cancel)?;
        Ok(Self { watcher, numbers, recording: prepared.recording, last: None })
    }

    /// Takes a picture of camera number `camera`, which was exposed at `taken`, or now. `tell` hears of what follows,
    /// and when the picture was taken.
    ///
    /// # Errors
    /// [`FramesError::NoSuchCamera`]. [`FramesError::Model`] if it was cancelled, or the picture is too large. The loop
    /// can go on after any of them; a picture that was cancelled is not looked at again.
    pub fn frame(
        &mut self,
        camera: usize,
        frame: &Frame<'_>,
        taken: Option<Instant>,
        tell: &mut dyn FnMut(Record, &Exposure),
    ) -> Result<(), FramesError> {
        let cameras = self.numbers.len();
        let number = self.numbers.get_mut(camera).ok_or(FramesError::NoSuchCamera { camera, cameras })?;
        let exposure = exposure(*number, taken, self.recording);
        *number += 1;
        self.last = Some(exposure);
        Ok(self.watcher.picture(camera, frame, &exposure, &mut |record| tell(record, &exposure))?)
    }

    /// Ends all events, at the time of the last picture. Later pictures may begin new ones.
    pub fn end(&mut self, tell: &mut dyn FnMut(Record, &Exposure)) {
        // Before the first picture there is none.
        let Some(last) = self.last else { return };
        self.watcher.end(&last, &mut |record| tell(record, &last));
    }

    /// Does what it is told.
    ///
    /// # Errors
    /// [`FramesError::Command`]
    pub fn command(&mut self, command: &Command) -> Result<(), FramesError> {
        Ok(self.watcher.command(command)?)
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        self.watcher.counts()
    }

    /// What is watched.
    pub fn setup(&self) -> Setup {
        self.watcher.setup()
    }
}

/// When a picture was taken, by all clocks.
fn exposure(number: u64, taken: Option<Instant>, recording: bool) -> Exposure {
    let now = Exposure::now(number);
    let Some(taken) = taken else { return now };
    let ago = now.taken.saturating_duration_since(taken);
    let ahead = taken.saturating_duration_since(now.taken);
    // A time that no clock shows is as good as none.
    let wall =
        now.wall.checked_sub(ago).and_then(|wall: SystemTime| wall.checked_add(ahead)).unwrap_or(now.wall);
    let counts_from = if recording || ahead > Duration::ZERO { now.taken } else { taken };
    Exposure { taken, wall, counts_from, ..now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_count_from_exposure_but_not_in_a_recording() {
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(5)).unwrap_or(now);
        let live = exposure(3, Some(past), false);
        assert_eq!((live.number, live.taken, live.counts_from), (3, past, past));
        let since = SystemTime::now().duration_since(live.wall).unwrap();
        assert!(since >= now - past, "{since:?}");
        let film = exposure(3, Some(past), true);
        assert_eq!(film.taken, past);
        assert!(film.counts_from >= now);
        // What will be exposed in an hour is late an hour later.
        let future = now + Duration::from_secs(3600);
        let early = exposure(0, Some(future), false);
        assert_eq!(early.taken, future);
        assert!(early.counts_from < future && early.wall > SystemTime::now());
    }
}
