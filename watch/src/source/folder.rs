//! A folder that is watched for new pictures.
//!
//! It is looked at twice a second instead of by inotify: that sees nothing of what other machines write into a folder
//! of the network, and cameras write from other machines. A look costs one call while nothing comes or goes, since the
//! folder's own time then stays as it was. If it does not, names, sizes and times of all files are compared with those
//! that were seen.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::FileKind;
use xxhash_rust::xxh3::xxh3_64;

use super::feed::{Caught, Feed, Next, Stop};
use crate::stream::Layout;

/// From look to look.
const LOOK: Duration = Duration::from_millis(500);
/// File systems date by clocks as coarse as this: a change within it may leave the folder's time as it was.
const COARSE: Duration = Duration::from_secs(3);
/// Names of files that are gone are remembered so long: a folder of the network may be empty for a while.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A watched folder.
pub(super) struct Folder {
    path: PathBuf,
    stop: Stop,
    picture_bytes_max: usize,
    /// The files that need not be looked at any more, by hashes of their names.
    seen: HashMap<u64, Seen>,
    /// Files that are new.
    fresh: Vec<Fresh>,
    /// What the folder's time was at the last listing, and when that was seen first.
    listed: Option<(SystemTime, Instant)>,
    next_look: Instant,
    broken: u64,
}

/// Size and time of a file: if both are as they were, so is the file.
type State = (u64, SystemTime);

struct Seen {
    state: State,
    /// Since when it is not there any more.
    gone: Option<Instant>,
}

struct Fresh {
    path: PathBuf,
    key: u64,
    /// As it was at the last look: a file that is still being written changes.
    state: State,
    is_complete: bool,
}

impl Folder {
    /// Watches a folder. Those files that are there now are only looked at if `all`.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn new(path: &Path, all: bool, picture_bytes_max: usize, stop: Stop) -> io::Result<Self> {
        let mut folder = Self {
            path: path.to_owned(),
            stop,
            picture_bytes_max,
            seen: HashMap::new(),
            fresh: Vec::new(),
            listed: None,
            next_look: Instant::now(),
            broken: 0,
        };
        folder.list()?;
        if !all {
            for fresh in folder.fresh.drain(..) {
                folder.seen.insert(fresh.key, Seen { state: fresh.state, gone: None });
            }
        }
        Ok(folder)
    }

    /// Finds what is new, if anything came or went.
    fn list(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let changed = fs::metadata(&self.path)?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if self.listed.is_some_and(|(then, at)| then == changed && now - at >= COARSE) {
            return Ok(());
        }
        // The time of the first listing that saw this state counts: until the clock has moved on there may be more.
        let first = self.listed.filter(|&(then, _)| then == changed).map_or(now, |(_, at)| at);
        for seen in self.seen.values_mut() {
            seen.gone.get_or_insert(now);
        }
        let waiting: HashSet<u64> = self.fresh.iter().map(|fresh| fresh.key).collect();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            // What begins so is hidden, or a name that programs write under until a file is whole.
            if name.as_encoded_bytes().first() == Some(&b'.') {
                continue;
            }
            let key = xxh3_64(name.as_encoded_bytes());
            let path = entry.path();
            // Through links, and whatever became of it since it was listed.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if waiting.contains(&key) || !metadata.is_file() {
                continue;
            }
            let state = state(&metadata);
            match self.seen.get_mut(&key) {
                Some(seen) if seen.state == state => seen.gone = None,
                _ => self.fresh.push(Fresh { path, key, state, is_complete: false }),
            }
        }
        self.seen.retain(|_, seen| seen.gone.is_none_or(|gone| now - gone < REMEMBERED));
        self.listed = Some((changed, first));
        Ok(())
    }

    /// Looks whether new files are complete: those that are as they were at the last look.
    fn check(&mut self) {
        self.fresh.retain_mut(|fresh| {
            if fresh.is_complete {
                return true;
            }
            // Gone, or something else by now: the next listing sees what it is.
            let Ok(metadata) = fs::metadata(&fresh.path) else { return false };
            let now = state(&metadata);
            fresh.is_complete = now.0 > 0 && fresh.state == now;
            fresh.state = now;
            metadata.is_file()
        });
        // By time, then by name; the first comes last, to be taken from the end.
        self.fresh.sort_by(|a, b| (b.state.1, &b.path).cmp(&(a.state.1, &a.path)));
    }

    /// The next complete picture.
    fn take(&mut self, picture: &mut Vec<u8>) -> bool {
        while let Some(at) = self.fresh.iter().rposition(|fresh| fresh.is_complete) {
            let fresh = self.fresh.remove(at);
            self.seen.insert(fresh.key, Seen { state: fresh.state, gone: None });
            match read(&fresh.path, self.picture_bytes_max, picture) {
                Ok(true) => return true,
                Ok(false) => log::info!("{}: passed over, it is no picture", fresh.path.display()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.broken += 1;
                    log::warn!("{}: {error}", fresh.path.display());
                }
            }
        }
        false
    }
}

impl Feed for Folder {
    fn next(&mut self, picture: &mut Vec<u8>) -> Next {
        if !self.take(picture) {
            let now = Instant::now();
            if now < self.next_look {
                self.stop.pause(super::feed::MOMENT.min(self.next_look - now));
                return Next::Nothing;
            }
            self.next_look = now + LOOK;
            // Before new files are found: they are complete at the next look at the earliest.
            self.check();
            if let Err(error) = self.list() {
                return Next::Missing(format!("the folder cannot be read: {error}"));
            }
            if !self.take(picture) {
                return Next::Well;
            }
        }
        Next::Picture(Caught { layout: Layout::Encoded, age: Duration::ZERO, period: None, passed_over: 0 })
    }

    fn broken(&self) -> u64 {
        self.broken
    }
}

fn state(metadata: &Metadata) -> State {
    (metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Reads a file that is a picture by its first bytes.
fn read(path: &Path, bytes_max: usize, picture: &mut Vec<u8>) -> io::Result<bool> {
    let mut file = File::open(path)?;
    picture.clear();
    file.by_ref().take(FileKind::BYTES as u64).read_to_end(picture)?;
    if FileKind::of(picture) != FileKind::Picture {
        return Ok(false);
    }
    file.take((bytes_max as u64).saturating_add(1).saturating_sub(picture.len() as u64))
        .read_to_end(picture)?;
    match picture.len() <= bytes_max {
        true => Ok(true),
        false => Err(io::Error::other(format!("it has more bytes than the limit of {bytes_max}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_given_when_it_has_not_changed_from_look_to_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), false, 1000, Stop::default()).unwrap();
        let mut picture = Vec::new();
        let mut look = || {
            folder.next_look = Instant::now();
            match folder.next(&mut picture) {
                Next::Picture(_) => Some(picture.clone()),
                Next::Well => None,
                other => panic!("{other:?}"),
            }
        };
        let path = dir.path().join("a.jpg");
        let mut file = File::create(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(look(), None);
            file.write_all(b"\xff\xd8\xff\xe0 more").unwrap();
        }
        // It has changed since the last look, and then it has not.
        assert_eq!(look(), None);
        let whole = fs::read(&path).unwrap();
        assert_eq!(look(), Some(whole.clone()));
        assert_eq!((look(), look()), (None, None));
        // Other bytes under the same name, as soon as anything comes or goes.
        file.write_all(b"and more").unwrap();
        fs::write(dir.path().join("note"), "").unwrap();
        assert_eq!(look(), None);
        assert_eq!(look(), Some([&whole[..], b"and more"].concat()));
        assert_eq!(look(), None);
        // One that goes before it is complete is no error.
        let gone = dir.path().join("gone.jpg");
        fs::write(&gone, b"\xff\xd8\xff\xe0").unwrap();
        assert_eq!(look(), None);
        fs::remove_file(gone).unwrap();
        assert_eq!((look(), look()), (None, None));
        assert_eq!(folder.broken(), 0);
    }
}
