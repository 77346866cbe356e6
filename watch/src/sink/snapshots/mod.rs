//! Pictures and masks as files of a folder, of which the oldest go when there are too many.

mod folder;

use std::path::PathBuf;
use std::time::SystemTime;

use palmtop_present::encode;
use serde::Deserialize;

use super::interest::{Interest, Kind, Kinds, Picture};
use super::{Message, Sink, SinkError};
use crate::period::Period;
use crate::record::{Moment, Phase, Record};
use folder::{Folder, Limits};

/// Characters of a name of a camera, a rule or an event that a file's name has.
const PART_MAX: usize = 40;

/// The table `[snapshots]` of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// The folder. It is made if it is not there.
    pub folder: PathBuf,
    /// For which records.
    pub records: Kinds,
    /// Which picture.
    pub picture: Picture,
    /// Whether masks are written, each object's as a PNG.
    pub masks: bool,
    /// Files, masks included.
    pub max_files: usize,
    /// Megabytes (10⁶ bytes) of files.
    pub max_megabytes: u64,
    /// The age of a file.
    pub max_age: Option<Period>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            records: Kinds::EVENTS,
            picture: Picture::Annotated,
            masks: false,
            max_files: 1000,
            max_megabytes: 1000,
            max_age: None,
        }
    }
}

/// A folder of snapshots.
pub struct Snapshots {
    folder: Folder,
    options: SnapshotOptions,
}

impl Snapshots {
    /// The sink. Files of earlier runs count.
    ///
    /// # Errors
    /// If the folder can be neither made nor read, or nothing is to be written.
    pub fn new(options: SnapshotOptions) -> Result<Self, SinkError> {
        if options.folder.as_os_str().is_empty() {
            return Err(SinkError("snapshots need `folder`, where they are written to".into()));
        }
        if options.picture == Picture::None && !options.masks {
            return Err(SinkError("snapshots without pictures and without masks are nothing".into()));
        }
        if options.max_files == 0 || options.max_megabytes == 0 {
            return Err(SinkError("max_files and max_megabytes of snapshots must be 1 at least".into()));
        }
        let limits = Limits {
            files: options.max_files,
            bytes: options.max_megabytes.saturating_mul(1_000_000),
            age: options.max_age.map(|age| age.0),
        };
        let folder = Folder::open(&options.folder, limits)?;
        Ok(Self { folder, options })
    }
}

impl Sink for Snapshots {
    fn name(&self) -> String {
        format!("snapshots in {}", self.options.folder.display())
    }

    fn interest(&self) -> Interest {
        Interest { records: self.options.records, pictures: self.options.records }
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        let Some(picture) = &message.picture else { return Ok(()) };
        let Some(name) = name(&message.record) else { return Ok(()) };
        let unmade = |e: encode::EncodeError| SinkError(format!("{name}: {e}"));
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        if let Some(jpeg) = picture.jpeg_of(self.options.picture).map_err(unmade)? {
            files.push((format!("{name}.jpg"), jpeg.to_vec()));
        }
        if self.options.masks {
            let masks = picture.objects().iter().map(|object| &object.detection.mask);
            for (number, mask) in
                masks.enumerate().filter_map(|(number, mask)| Some((number, mask.as_ref()?)))
            {
                let mut png = Vec::new();
                encode::mask(mask, &mut png).map_err(unmade)?;
                files.push((format!("{name}-mask{number}.png"), png));
            }
        }
        self.folder.add(&files, SystemTime::now())
    }
}

/// The name of a record's files without its ending: they sort by time. None for a record about no picture.
fn name(record: &Record) -> Option<String> {
    let (at, camera, what, id) = match record {
        Record::Event(e) => {
            let phase = match e.phase {
                Phase::Begin => "begin",
                Phase::End => "end",
            };
            (e.at, &e.camera, &e.rule, format!("{}-{phase}", part(&e.id)))
        }
        Record::Answer(a) => (a.at, &a.camera, &a.question, format!("p{}", a.picture)),
        Record::Camera(_) => return None,
    };
    Some(format!("{}{}-{}-{}-{id}", folder::PREFIX, stamp(at), part(camera), part(what)))
}

/// `20261129T093000125Z`: in UTC, to the millisecond.
fn stamp(at: Moment) -> String {
    crate::record::rfc3339(at.wall).chars().filter(|c| c.is_ascii_alphanumeric()).collect()
}

/// A name as a part of a file's name: letters, digits and `_`, and never empty.
fn part(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let part: String = name.chars().take(PART_MAX).map(kept).collect();
    if part.is_empty() { "_".into() } else { part }
}

impl SnapshotOptions {
    /// Those of a folder, for these kinds of records.
    pub fn new(folder: impl Into<PathBuf>, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let records = Kinds::from(kinds.into_iter().collect::<Vec<_>>());
        Self { folder: folder.into(), records, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_of_names_hold_nothing_odd() {
        for (name, want) in [
            ("front", "front"),
            ("front door/2", "front_door_2"),
            ("../..", "_____"),
            ("küche", "k_che"),
            ("a-b\0c", "a_b_c"),
            ("", "_"),
        ] {
            assert_eq!(part(name), want);
        }
        assert_eq!(part(&"x".repeat(500)).len(), PART_MAX);
    }

    #[test]
    fn stamps_sort_as_times_do() {
        let at = |milliseconds| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            stamp(Moment { since_start: Duration::ZERO, wall })
        };
        assert_eq!(at(1_795_944_600_125), "20261129T093000125Z");
        let stamps: Vec<String> = [0, 1, 999, 1000, 1_795_944_600_125, 4_000_000_000_000].map(at).to_vec();
        assert!(stamps.is_sorted(), "{stamps:?}");
        assert!(stamps.iter().all(|stamp| stamp.len() == 19), "{stamps:?}");
    }
}
