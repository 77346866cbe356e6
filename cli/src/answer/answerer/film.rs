//! Frames of a film, and windows that go over it.

use std::time::{Duration, Instant};

use palmtop::Error;
use palmtop_convert::Progress;
use palmtop_present::Part;
use palmtop_watch::film::{self, Film, FilmError};
use palmtop_watch::source::{Address, OpenOptions};

use super::{Answerer, Looked};
use crate::answer::Failure;
use crate::answer::together::{Frames, Step};
use crate::output::{Console, Printer};
use crate::progress::Bar;
use crate::save::Saver;

/// Frames are counted so long without a word.
const PATIENCE: Duration = Duration::from_secs(2);

impl Answerer<'_> {
    /// Answers all prompts about frames of a film.
    pub fn about_film(
        &mut self,
        address: &Address,
        frames: Frames,
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> Result<(), Failure> {
        self.forget_pictures();
        let name = address.kind.to_string();
        let open = OpenOptions::default();
        let cancel = self.options.cancel.clone();
        let goes_on = &mut || !cancel.is_cancelled();
        let (numbers, total, slide): (Box<dyn Iterator<Item = u64>>, _, _) = match frames.step {
            Step::Spread => {
                let mut patience = Patience::new(self.console, &name);
                let wait = &mut || {
                    patience.tell();
                    !cancel.is_cancelled()
                };
                let all = film::count(address, &open, wait).map_err(|error| failure(error, &name))?;
                let numbers = film::spread(all, frames.count as u64);
                let total = numbers.len();
                self.console.note(match total {
                    shown if shown == frames.count => {
                        format!("note: {name}: the model is shown {shown} of {all} frames (--frames)")
                    }
                    shown => format!(
                        "note: {name}: {} in it, shown again from the first one on until there are {} (--frames)",
                        if shown == 1 { "1 frame is".into() } else { format!("{shown} frames are") },
                        frames.count
                    ),
                });
                (Box::new(numbers.into_iter()), total, None)
            }
            Step::Every(every) => {
                (Box::new((0..frames.count as u64).map(move |i| i * every)), frames.count, None)
            }
            Step::Sliding { every, slide } => (Box::new((0..).step_by(every as usize)), 0, Some(slide)),
        };
        let mut film = Film::open(address, &open, &self.decode).map_err(|error| failure(error, &name))?;
        let (mut looked, mut new) = (Looked::default(), 0);
        // How many there will be is known, unless a window goes over the film.
        let console = if slide.is_some() { self.console.silent() } else { self.console };
        let bar = Bar::items(console, "encoding", None);
        bar.start(total as u64);
        for number in numbers {
            let start = Instant::now();
            let frame = film.frame(number, goes_on).map_err(|error| failure(error, &name))?;
            let Some(frame) = frame else { break };
            looked.decode += start.elapsed();
            let size = (frame.image.width(), frame.image.height());
            let part = Part {
                source: name.clone(),
                frame: Some((frame.number, frame.time)),
                size,
                is_truncated: false,
            };
            self.encode(&frame.image, part, frames.count, &mut looked)?;
            bar.advance(1);
            new += 1;
            if slide.is_some_and(|slide| self.pictures.len() == frames.count && new >= slide) {
                self.answer_window(&name, looked, printer, saver)?;
                (looked, new) = (Looked::default(), 0);
            }
        }
        bar.finish();
        if new == 0 {
            return Ok(());
        }
        // A film that has fewer frames is shown again from its first one, as in training.
        for i in self.parts.len()..frames.count {
            self.parts.push(self.parts[i % self.pictures.len()].clone());
        }
        self.answer_window(&name, looked, printer, saver)
    }

    /// Answers all prompts about the frames at hand.
    fn answer_window(
        &mut self,
        name: &str,
        looked: Looked,
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> Result<(), Failure> {
        let time = |part: Option<&Part>| part.and_then(|part| part.frame).unwrap_or_default().1.as_secs_f64();
        let (first, last) = (time(self.parts.first()), time(self.parts.last()));
        printer.begin_picture(&format!("{name} from {first:.1} to {last:.1} s"))?;
        self.answer_all(name, looked, printer, saver)?;
        Ok(())
    }
}

/// Says after a while what takes so long.
struct Patience<'a> {
    console: Console,
    name: &'a str,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    fn new(console: Console, name: &'a str) -> Self {
        Self { console, name, until: Some(Instant::now() + PATIENCE) }
    }

    fn tell(&mut self) {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.until = None;
            let name = self.name;
            self.console.note(format_args!("note: {name}: counting its frames; --stride takes some without"));
        }
    }
}

fn failure(error: FilmError, name: &str) -> Failure {
    match error {
        FilmError::Stopped => Failure::Everything(Error::Cancelled.into()),
        error => Failure::Picture(anyhow::Error::new(error).context(format!("cannot use video {name}"))),
    }
}
