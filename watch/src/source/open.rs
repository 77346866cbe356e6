//! Opens what an address names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use palmtop::image::FileKind;

use super::address::{Address, Kind, PixelLayout};
use super::bell::Bell;
use super::bytes::{ByteFeed, Readable};
use super::feed::{Feed, Stop};
use super::folder::Folder;
use super::health::HealthOptions;
use super::http::{self, HttpError};
use super::latest::Pace;
#[cfg(target_os = "linux")]
use super::v4l2::{self, CameraError};
use super::{csi, ffmpeg};
use crate::ros2::{Ros2Error, Ros2Options};
use crate::stream::{Any, Mjpeg, Raw, Splitter, StreamError};

/// Why a source gives no pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The system refused.
    #[error("{source_name}: {error}")]
    Io {
        /// The source, without user and password.
        source_name: String,
        /// What the system said.
        error: io::Error,
    },
    /// The stream is not one that is read.
    #[error("{source_name}: {error}")]
    Stream {
        /// The source, without user and password.
        source_name: String,
        /// What is wrong with it.
        error: StreamError,
    },
    /// The server gives no pictures.
    #[error("{source_name}: {error}")]
    Http {
        /// The source, without user and password.
        source_name: String,
        /// What is wrong with it.
        error: HttpError,
    },
    /// The camera gives no pictures.
    #[cfg(target_os = "linux")]
    #[error("{source_name}: {error}")]
    Camera {
        /// The source.
        source_name: String,
        /// What is wrong with it.
        error: CameraError,
    },
    /// A program that is needed is not there.
    #[error(
        "{source_name}: this source is read by the program '{program}', which cannot be started ({error}); install it \
         (on Debian: apt install ffmpeg)"
    )]
    NoProgram {
        /// The source, without user and password.
        source_name: String,
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// A topic of ROS 2 cannot be subscribed to.
    #[error("{source_name}: {error}")]
    Ros2 {
        /// The source.
        source_name: String,
        /// Why.
        error: Ros2Error,
    },
    /// None of the programs is there that read cameras on a board's connector.
    #[error(
        "{source_name}: cameras on the board's connector are read by a program that is not here: rpicam-vid on a \
         Raspberry Pi (apt install rpicam-apps), gst-launch-1.0 with nvarguscamerasrc on a Jetson (apt install \
         gstreamer1.0-tools)"
    )]
    NoCsiProgram {
        /// The source.
        source_name: String,
    },
}

/// How sources are opened, and when a camera is taken to be unwell.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Bytes that a picture may have, as it comes.
    pub picture_bytes_max: usize,
    /// The program for compressed video.
    pub ffmpeg: String,
    /// What it is told before the input, such as `-hwaccel v4l2m2m`.
    pub ffmpeg_input: Vec<String>,
    /// The node that subscribes to topics of ROS 2.
    pub ros2: Ros2Options,
    /// A camera, a stream or a program that gives nothing for so long is closed and opened again; pipes may be silent
    /// as long as they like. `None` waits for ever.
    pub silence: Option<Duration>,
    /// The first pause before a source that broke off is opened again; each next one is twice as long, up to 30
    /// seconds, until pictures come.
    pub pause: Duration,
    /// When pictures are taken to be frozen or black.
    pub health: HealthOptions,
    /// Rings when there is a picture to take, or when none will come any more.
    pub bell: Bell,
}

impl Default for OpenOptions {
    /// 64 MiB a picture, `ffmpeg` as the path has it, 10 seconds of silence, half a second's pause, ROS 2 as the
    /// environment has it.
    fn default() -> Self {
        Self {
            picture_bytes_max: 64 << 20,
            ffmpeg: "ffmpeg".into(),
            ffmpeg_input: Vec::new(),
            ros2: Ros2Options::default(),
            silence: Some(Duration::from_secs(10)),
            pause: Duration::from_millis(500),
            health: HealthOptions::default(),
            bell: Bell::default(),
        }
    }
}

/// An open source.
pub(super) struct Opened {
    pub feed: Box<dyn Feed>,
    pub pace: Pace,
    /// Its end is the end of the film, and nothing to try again after.
    pub ends: bool,
    /// Pictures are dated by the film's own clock.
    pub is_film: bool,
}

impl Opened {
    /// A camera, or a stream of one.
    fn live(feed: impl Feed + 'static) -> Self {
        Self { feed: Box::new(feed), pace: Pace::Live, ends: false, is_film: false }
    }

    /// Read picture by picture to its end.
    fn film(feed: impl Feed + 'static) -> Self {
        Self { feed: Box::new(feed), pace: Pace::Every, ends: true, is_film: true }
    }
}

/// Opens a source once.
pub(super) fn open(address: &Address, options: &OpenOptions, stop: &Stop) -> Result<Opened, SourceError> {
    let io = |error| SourceError::Io { source_name: address.kind.to_string(), error };
    match &address.kind {
        Kind::Stdin => {
            let file = stdin().map_err(io)?;
            let is_file = file.metadata().map_err(io)?.is_file();
            of_bytes(address, file, is_file, true, options)
        }
        Kind::Path(path) => {
            let kind = fs::metadata(path).map_err(io)?;
            if kind.is_dir() {
                let folder =
                    Folder::new(path, address.all, options.picture_bytes_max, stop.clone()).map_err(io)?;
                let pace = Pace::Every;
                return Ok(Opened { feed: Box::new(folder), pace, ends: false, is_film: false });
            }
            let file = open_file(path).map_err(io)?;
            match kind.is_file() && address.format.is_none() && is_video(path) {
                true => Ok(Opened::film(ffmpeg::file(address, path, options)?)),
                false => of_bytes(address, file, kind.is_file(), false, options),
            }
        }
        Kind::Stream(url) => Ok(Opened::live(ffmpeg::stream(address, url, options)?)),
        Kind::Http(url) => {
            let feed = http::open(address, url, options, stop)?;
            Ok(Opened { feed, pace: Pace::Live, ends: false, is_film: false })
        }
        Kind::Camera(path) => camera(address, path, options),
        Kind::Csi(number) => Ok(Opened::live(csi::open(address, *number, options)?)),
        // With the feature a capture subscribes instead: messages are no stream of bytes.
        Kind::Ros2(_) => {
            Err(SourceError::Ros2 { source_name: address.kind.to_string(), error: Ros2Error::NotBuilt })
        }
    }
}

#[cfg(target_os = "linux")]
fn camera(address: &Address, path: &Path, options: &OpenOptions) -> Result<Opened, SourceError> {
    let wish = v4l2::Wish { size: address.size, fps: address.fps, format: address.format };
    let feed = v4l2::open(path, &wish, options.picture_bytes_max, options.silence)
        .map_err(|error| SourceError::Camera { source_name: address.kind.to_string(), error })?;
    Ok(Opened { feed, pace: Pace::Live, ends: false, is_film: false })
}

#[cfg(not(target_os = "linux"))]
fn camera(address: &Address, _: &Path, _: &OpenOptions) -> Result<Opened, SourceError> {
    let error = io::Error::new(io::ErrorKind::Unsupported, "cameras of Video4Linux are read on Linux only");
    Err(SourceError::Io { source_name: address.kind.to_string(), error })
}

/// Standard input without a buffer of the standard library.
fn stdin() -> io::Result<File> {
    #[cfg(unix)]
    return Ok(std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?.into());
    #[cfg(windows)]
    return Ok(std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?.into());
}

/// Opening a pipe does not wait for who writes into it.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    options.read(true).open(path)
}

/// A stream of bytes that says what it is, or that the address describes. A file is a film; a pipe is read as a camera
/// is, unless all of its pictures are wanted.
fn of_bytes(
    address: &Address,
    file: File,
    is_file: bool,
    ends: bool,
    options: &OpenOptions,
) -> Result<Opened, SourceError> {
    let most = options.picture_bytes_max;
    let stream = |error| SourceError::Stream { source_name: address.kind.to_string(), error };
    let splitter: Box<dyn Splitter> = match (address.format, address.size) {
        (Some(PixelLayout::Mjpeg), _) => Box::new(Mjpeg::new(most)),
        (Some(format), Some((width, height))) => {
            Box::new(Raw::new(format.layout(width, height), most).map_err(stream)?)
        }
        _ => Box::new(Any::new(most)),
    };
    let feed = ByteFeed::new(Box::new(Readable(file)), splitter, None);
    if is_file {
        return Ok(Opened::film(feed));
    }
    let pace = if address.all { Pace::Every } else { Pace::Live };
    Ok(Opened { pace, ends, ..Opened::live(feed) })
}

/// True for a file of several pictures that only `ffmpeg` reads, by its first bytes.
fn is_video(path: &Path) -> bool {
    let Ok(start) = first_bytes(path) else { return false };
    // YUV4MPEG2 is read here. A GIF that is opened as a film is wanted with all of its pictures.
    (FileKind::of(&start).is_video() && !start.starts_with(b"YUV4MPEG2 ")) || start.starts_with(b"GIF8")
}

/// So much of a file that its kind shows.
pub(crate) fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(FileKind::BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(all(test, not(feature = "ros2")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_ros2_says_so() {
        let address: Address = "ros2:///camera/image_raw".parse().unwrap();
        let opened = open(&address, &OpenOptions::default(), &Stop::default());
        let error = opened.err().expect("nothing to open").to_string();
        assert!(error.contains("ros2:///camera/image_raw: this palmtop was built without ROS 2"), "{error}");
    }
}
