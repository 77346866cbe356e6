//! Frames of a film for one prompt: so many of them, spread over the whole film or some frames apart.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use palmtop::image::{DecodeOptions, FileKind, ImageError, RgbImage, decode_with};

use crate::source::{Address, Capture, Kind, OpenOptions, SourceError, Taken, first_bytes};
use crate::stream::to_rgb;

/// Why a film gives no frames.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilmError {
    /// It cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It was opened, and there is no frame in it.
    #[error("{source_name} has no frame{}", .why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Empty {
        /// The film, without user and password.
        source_name: String,
        /// Why, if that is known.
        why: Option<String>,
    },
    /// Frames cannot be spread over it, since it can be read only once.
    #[error("{source_name}: how many frames it has shows only at its end, and it can be read only once")]
    NoLength {
        /// The film, without user and password.
        source_name: String,
    },
    /// A frame that is wanted cannot be decoded.
    #[error("{source_name}: frame {number} cannot be used")]
    Frame {
        /// The film, without user and password.
        source_name: String,
        /// Counted from 0 on.
        number: u64,
        /// What is wrong with it.
        #[source]
        error: ImageError,
    },
    /// The caller wants no more.
    #[error("it was stopped")]
    Stopped,
}

/// A frame of a film.
#[derive(Clone, Debug)]
pub struct FilmFrame {
    /// Its pixels.
    pub image: RgbImage,
    /// Counted from 0 on.
    pub number: u64,
    /// Since the first frame that was read, by the film's clock; for a camera, by the clock of this machine.
    pub time: Duration,
}

/// A film that is read from its beginning: a file, a pipe, or a camera from now on.
pub struct Film {
    name: String,
    capture: Capture,
    decode: DecodeOptions,
    spare: Option<Vec<u8>>,
    begin: Option<Instant>,
}

/// So long a film is waited for before the caller is asked whether to go on.
const WAIT: Duration = Duration::from_millis(100);

impl Film {
    /// Opens a film. Of a pipe all frames are read; a camera drops those for which there is no time.
    ///
    /// # Errors
    /// [`FilmError::Source`]
    pub fn open(address: &Address, open: &OpenOptions, decode: &DecodeOptions) -> Result<Self, FilmError> {
        let address = Address { all: true, ..address.clone() };
        let name = address.kind.to_string();
        let capture = Capture::start(address, open.clone())?;
        Ok(Self { name, capture, decode: *decode, spare: None, begin: None })
    }

    /// The first frame of this number or a later one; `None` if the film ends before. `goes_on` is asked at least ten
    /// times a second.
    ///
    /// # Errors
    /// [`FilmError::Empty`], [`FilmError::Frame`], [`FilmError::Stopped`]
    pub fn frame(
        &mut self,
        number: u64,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<FilmFrame>, FilmError> {
        loop {
            if !goes_on() {
                return Err(FilmError::Stopped);
            }
            let shot = match self.capture.take(self.spare.take(), WAIT) {
                Taken::Shot(shot) => shot,
                Taken::Nothing => continue,
                Taken::End if self.begin.is_none() => {
                    let why = self.capture.failure();
                    return Err(FilmError::Empty { source_name: self.name.clone(), why });
                }
                Taken::End => return Ok(None),
            };
            let begin = *self.begin.get_or_insert(shot.taken);
            if shot.number < number {
                self.spare = Some(shot.bytes);
                continue;
            }
            let image = match shot.layout.frame(&shot.bytes) {
                None => decode_with(&shot.bytes, &self.decode).map(|decoded| decoded.image),
                Some(frame) => frame.and_then(|frame| to_rgb(&frame)),
            };
            let (number, time) = (shot.number, shot.taken.saturating_duration_since(begin));
            let image =
                image.map_err(|error| FilmError::Frame { source_name: self.name.clone(), number, error })?;
            self.spare = Some(shot.bytes);
            return Ok(Some(FilmFrame { image, number, time }));
        }
    }
}

/// True for a file that is a film, by its first bytes. Motion JPEG begins as a picture does, so it must be named as a
/// film too (`.mjpeg`, `.mjpg`): photos may have further pictures behind the first one. Pipes are not touched, since
/// what is read of them is gone.
pub fn is_one(path: &Path) -> bool {
    let Some(start) = path.is_file().then(|| first_bytes(path).ok()).flatten() else { return false };
    let is_named_so = || {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|e| ["mjpeg", "mjpg"].iter().any(|film| e.eq_ignore_ascii_case(film)))
    };
    FileKind::of(&start).is_video() || (start.starts_with(b"\xff\xd8\xff") && is_named_so())
}

/// How many frames a film has: it is read to its end, and no frame is decoded but by a program that it takes.
///
/// # Errors
/// [`FilmError::NoLength`] for what can be read only once; else as [`Film::frame`].
pub fn count(
    address: &Address,
    open: &OpenOptions,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<u64, FilmError> {
    let name = || address.kind.to_string();
    let is_file = match &address.kind {
        // What cannot be opened is told by opening it.
        Kind::Path(path) => fs::metadata(path).is_ok_and(|m| m.is_file()) || !path.exists(),
        _ => false,
    };
    if !is_file {
        return Err(FilmError::NoLength { source_name: name() });
    }
    // Small ones, if a program scales them: they are only counted.
    let size = match address.format {
        None => address.size.or(Some((16, 16))),
        // Plain pixels are of the size that was said.
        Some(_) => address.size,
    };
    let capture = Capture::start(Address { size, ..address.clone() }, open.clone())?;
    let mut spare = None;
    loop {
        if !goes_on() {
            return Err(FilmError::Stopped);
        }
        match capture.take(spare.take(), WAIT) {
            Taken::Shot(shot) => spare = Some(shot.bytes),
            Taken::Nothing => {}
            Taken::End => break,
        }
    }
    match capture.counts().0 {
        0 => Err(FilmError::Empty { source_name: name(), why: capture.failure() }),
        frames => Ok(frames),
    }
}

/// The frames in the middles of `n` equal parts of a film: each frame once if there are not more than `n`.
pub fn spread(frames: u64, n: u64) -> Vec<u64> {
    let n = n.min(frames);
    (0..n).map(|i| ((2 * i + 1) * frames) / (2 * n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A film of grey frames, each brighter than the one before, at 10 a second.
    fn film(frames: u8) -> Vec<u8> {
        let mut film = b"YUV4MPEG2 W16 H16 F10:1 C420\n".to_vec();
        for n in 0..frames {
            film.extend(b"FRAME\n");
            film.extend([16 + 10 * n; 256]);
            film.extend([128; 128]);
        }
        film
    }

    fn address(folder: &std::path::Path, bytes: &[u8]) -> Address {
        let path = folder.join("film.y4m");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().parse().unwrap()
    }

    fn open(address: &Address) -> Film {
        Film::open(address, &OpenOptions::default(), &DecodeOptions::default()).unwrap()
    }

    #[test]
    fn frames_are_those_that_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let address = address(folder.path(), &film(10));
        assert_eq!(count(&address, &OpenOptions::default(), &mut || true).unwrap(), 10);
        let mut film = open(&address);
        let mut brightness = Vec::new();
        for number in [0, 3, 9] {
            let frame = film.frame(number, &mut || true).unwrap().expect("it has ten");
            assert_eq!((frame.number, frame.time), (number, Duration::from_millis(100 * number)));
            assert_eq!((frame.image.width(), frame.image.height()), (16, 16));
            brightness.push(frame.image.data()[0]);
        }
        assert!(brightness.is_sorted_by(|a, b| a < b), "{brightness:?}");
        assert!(film.frame(10, &mut || true).unwrap().is_none());
    }

    #[test]
    fn frames_are_spread_over_the_whole() {
        assert_eq!(spread(240, 8), [15, 45, 75, 105, 135, 165, 195, 225]);
        assert_eq!(spread(10, 4), [1, 3, 6, 8]);
        assert_eq!(spread(3, 3), [0, 1, 2]);
        assert_eq!(spread(2, 16), [0, 1]);
        assert_eq!(spread(1, 16), [0]);
        assert!(spread(0, 16).is_empty());
    }

    #[test]
    fn films_are_told_from_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let mut packets = vec![0; 3 * 188];
        packets.chunks_mut(188).for_each(|packet| packet[0] = 0x47);
        for (name, bytes, is_film) in [
            ("a.y4m", &film(1)[..], true),
            ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42", true),
            ("a.ts", &packets, true),
            ("a.mjpeg", b"\xff\xd8\xff\xe0", true),
            ("A.MJPG", b"\xff\xd8\xff\xe0", true),
            // A photo, whatever else may be behind its picture.
            ("a.jpg", b"\xff\xd8\xff\xe0", false),
            ("b.mjpeg", b"GIF89a", false),
            ("a.gif", b"GIF89a", false),
            ("a.txt", b"Gone with the wind", false),
            ("empty.mjpeg", b"", false),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(is_one(&path), is_film, "{name}");
        }
        assert!(!is_one(folder.path()) && !is_one(&folder.path().join("gone.mp4")));
    }

    #[test]
    fn what_gives_no_frames_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (options, on) = (OpenOptions::default(), &mut || true);
        let empty = address(folder.path(), b"YUV4MPEG2 W16 H16 F10:1 C420\n");
        assert!(matches!(count(&empty, &options, on), Err(FilmError::Empty { .. })));
        assert!(matches!(open(&empty).frame(0, on), Err(FilmError::Empty { .. })));
        let missing: Address = folder.path().join("gone.y4m").to_str().unwrap().parse().unwrap();
        assert!(matches!(count(&missing, &options, on), Err(FilmError::Source(_))));
        let pipe: Address = "-".parse().unwrap();
        assert!(matches!(count(&pipe, &options, on), Err(FilmError::NoLength { .. })));
        let whole = address(folder.path(), &film(3));
        assert!(matches!(open(&whole).frame(2, &mut || false), Err(FilmError::Stopped)));
        let mut broken = b"\xff\xd8\xff\xe0\0\x04ab".to_vec();
        broken.extend(b"\xff\xda\0\x02xx\xff\xd9");
        let broken = address(folder.path(), &broken);
        assert!(matches!(open(&broken).frame(0, on), Err(FilmError::Frame { number: 0, .. })));
    }
}
