//! What `palmtop watch` prints: a line a change, and nothing while nothing changes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use palmtop_present::plain::printable;
use palmtop_watch::record::{CameraStatus, Line, Moment, ObjectRecord, Phase, Record, local_time};

use crate::output::Stdout;

/// Prints records.
pub struct Print {
    out: Stdout,
    json: bool,
    /// Answers that change nothing are printed, too.
    all: bool,
    /// Times are those of a film, and not of the day.
    film_time: bool,
    /// Lines say which camera they are about.
    several_cameras: bool,
    /// Cameras that did not run when they were told of last.
    in_trouble: BTreeSet<Arc<str>>,
}

impl Print {
    pub fn new(json: bool, all: bool, film_time: bool, several_cameras: bool) -> Self {
        Self { out: Stdout::new(), json, all, film_time, several_cameras, in_trouble: BTreeSet::new() }
    }

    /// Prints a record, if it is something to print.
    pub fn record(&mut self, record: &Record) -> anyhow::Result<()> {
        if matches!(record, Record::Answer(answer) if !answer.changed && !self.all) {
            return Ok(());
        }
        if self.json {
            return self.out.print_json(&Line::from(record));
        }
        match self.line(record) {
            Some(line) => self.out.print(format_args!("{line}\n")),
            None => Ok(()),
        }
    }

    fn line(&mut self, record: &Record) -> Option<String> {
        let (camera, at) = match record {
            Record::Answer(answer) => (&answer.camera, &answer.at),
            Record::Event(event) => (&event.camera, &event.at),
            Record::Camera(camera) => (&camera.camera, &camera.at),
        };
        let mut line = self.time(at);
        if self.several_cameras || matches!(record, Record::Camera(_)) {
            let _ = write!(line, "  {}", printable(camera));
        }
        match record {
            Record::Camera(camera) => {
                // That a camera runs is what everybody expects, unless it did not.
                let is_news = match camera.status {
                    CameraStatus::Ended => false,
                    CameraStatus::Running => self.in_trouble.remove(&camera.camera),
                    _ => {
                        self.in_trouble.insert(camera.camera.clone());
                        true
                    }
                };
                if !is_news {
                    return None;
                }
                let _ = write!(line, ": {}", camera.status.name());
                if let Some(why) = &camera.why {
                    let _ = write!(line, " ({})", printable(why));
                }
            }
            Record::Answer(answer) if answer.is_about_objects => {
                if answer.changed {
                    return None;
                }
                let _ = write!(line, "  {}: {}", printable(&answer.question), objects(&answer.objects));
            }
            Record::Answer(answer) => {
                let _ = write!(line, "  {}: {}", printable(&answer.question), printable(&answer.text));
                if let Some(score) = answer.score {
                    let _ = write!(line, " ({score:.2})");
                }
            }
            Record::Event(event) => {
                let sign = if event.phase == Phase::Begin { '+' } else { '-' };
                let _ = write!(line, "  {sign} {}", printable(&event.rule));
                if let (Some(label), Some(track)) = (&event.label, event.track) {
                    let _ = write!(line, ": {} {track}", printable(label));
                } else if !event.text.is_empty() && event.objects.is_empty() {
                    let _ = write!(line, ": {}", printable(&event.text));
                }
                if let Some(lasted) = event.lasted {
                    let _ = write!(line, ", after {:.1} s", lasted.as_secs_f64());
                }
            }
        }
        Some(line)
    }

    fn time(&self, at: &Moment) -> String {
        match self.film_time {
            true => format!("{:7.1} s", at.since_start.as_secs_f64()),
            false => local_time(at.wall),
        }
    }
}

/// Objects in a line.
fn objects(objects: &[ObjectRecord]) -> String {
    let labels: Vec<String> = objects.iter().map(|object| printable(&object.label)).collect();
    if labels.is_empty() { "nothing".into() } else { labels.join(", ") }
}
