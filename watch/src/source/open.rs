//! Opens what an address names, as a stream of bytes and what cuts it into pictures.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use palmtop::image::{PixelFormat, YuvColor};

use super::address::{Address, Kind, PixelLayout};
use crate::ros2::{Ros2Error, Ros2Options};
use crate::stream::{Layout, Mjpeg, Raw, Splitter, StreamError, Y4m};

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
}

/// How sources are opened.
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
}

impl Default for OpenOptions {
    /// 64 MiB a picture, `ffmpeg` as the path has it, ROS 2 as the environment has it.
    fn default() -> Self {
        Self {
            picture_bytes_max: 64 << 20,
            ffmpeg: "ffmpeg".into(),
            ffmpeg_input: Vec::new(),
            ros2: Ros2Options::default(),
        }
    }
}

/// An open source.
pub(super) struct Opened {
    pub bytes: Box<dyn Read + Send>,
    pub splitter: Box<dyn Splitter>,
    /// Its end is the end of the film, and nothing to try again after.
    pub ends: bool,
}

/// A program that writes pictures. It is ended with this.
struct Program(Child);

impl Read for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0.stdout {
            Some(out) => out.read(buffer),
            None => Ok(0),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that were read to see what a stream is come first.
struct Behind {
    begun: io::Cursor<Vec<u8>>,
    rest: Box<dyn Read + Send>,
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.begun.read(buffer)? {
            0 => self.rest.read(buffer),
            n => Ok(n),
        }
    }
}

/// Enough of a stream to see what it is.
const BEGINNING: usize = 16;

/// Opens a source once.
pub(super) fn open(address: &Address, options: &OpenOptions) -> Result<Opened, SourceError> {
    let name = || address.kind.to_string();
    let io = |error| SourceError::Io { source_name: name(), error };
    match &address.kind {
        Kind::Stdin => of_bytes(address, Box::new(io::stdin()), true, options),
        Kind::Path(path) => {
            let file = File::open(path).map_err(io)?;
            let is_pipe = !file.metadata().map_err(io)?.is_file();
            match is_video(path) && address.format.is_none() {
                true => of_ffmpeg(address, &path.to_string_lossy(), true, options),
                false => of_bytes(address, Box::new(file), !is_pipe, options),
            }
        }
        Kind::Stream(url) => of_ffmpeg(address, url, false, options),
        Kind::Http(url) => of_ffmpeg(address, url, false, options),
        Kind::Camera(path) => of_ffmpeg(address, &path.to_string_lossy(), false, options),
        Kind::Csi(number) => of_rpicam(address, *number, options),
        // With the feature a capture subscribes instead: messages are no stream of bytes.
        Kind::Ros2(_) => Err(SourceError::Ros2 { source_name: name(), error: Ros2Error::NotBuilt }),
    }
}

/// A stream of bytes that says what it is, or that the address describes.
fn of_bytes(
    address: &Address,
    mut bytes: Box<dyn Read + Send>,
    ends: bool,
    options: &OpenOptions,
) -> Result<Opened, SourceError> {
    let source_name = || address.kind.to_string();
    let io = |error| SourceError::Io { source_name: source_name(), error };
    let stream = |error| SourceError::Stream { source_name: source_name(), error };
    let most = options.picture_bytes_max;
    if let (Some(format), Some((width, height))) = (address.format, address.size) {
        let splitter = Box::new(Raw::new(layout(format, width, height), most).map_err(stream)?);
        return Ok(Opened { bytes, splitter, ends });
    }
    let mut begun = Vec::with_capacity(BEGINNING);
    bytes.by_ref().take(BEGINNING as u64).read_to_end(&mut begun).map_err(io)?;
    let splitter: Box<dyn Splitter> = match begun.starts_with(b"YUV4") {
        true => Box::new(Y4m::new(most)),
        false => Box::new(Mjpeg::new(most)),
    };
    Ok(Opened { bytes: Box::new(Behind { begun: io::Cursor::new(begun), rest: bytes }), splitter, ends })
}

fn layout(format: PixelLayout, width: u32, height: u32) -> Layout {
    let color = YuvColor::default();
    let packed = |format| Layout::Packed { format, width, height };
    match format {
        PixelLayout::Nv12 => Layout::Nv12 { width, height, color },
        PixelLayout::I420 => Layout::I420 { width, height, color },
        PixelLayout::Rgb => packed(PixelFormat::Rgb),
        PixelLayout::Bgr => packed(PixelFormat::Bgr),
        PixelLayout::Grey => packed(PixelFormat::Grey),
    }
}

/// True for a file that is compressed video by its first bytes.
fn is_video(path: &std::path::Path) -> bool {
    let mut start = [0; 12];
    if !path.is_file() || File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_err() {
        return false;
    }
    let [.., b'f', b't', b'y', b'p', _, _, _, _] = start else {
        // Matroska and WebM, RIFF (AVI), MPEG's program and transport streams, Flash.
        return [&[0x1a, 0x45, 0xdf, 0xa3][..], b"RIFF", &[0, 0, 1, 0xba], b"\x47\x40", b"FLV"]
            .iter()
            .any(|magic| start.starts_with(magic));
    };
    true
}

/// Frames of anything that `ffmpeg` reads, as YUV4MPEG2.
fn of_ffmpeg(
    address: &Address,
    input: &str,
    ends: bool,
    options: &OpenOptions,
) -> Result<Opened, SourceError> {
    let mut command = Command::new(&options.ffmpeg);
    command.args(["-nostdin", "-loglevel", "error"]).args(&options.ffmpeg_input);
    match &address.kind {
        Kind::Camera(_) => {
            command.args(["-f", "v4l2"]);
            if let Some((width, height)) = address.size {
                command.args(["-video_size", &format!("{width}x{height}")]);
            }
            if let Some(fps) = address.fps {
                command.args(["-framerate", &fps.to_string()]);
            }
        }
        Kind::Stream(url) if url.starts_with("rtsp") => {
            // Over UDP pictures arrive in pieces on most networks.
            command.args(["-rtsp_transport", "tcp", "-fflags", "nobuffer"]);
        }
        _ => {}
    }
    command.args(["-i", input, "-an", "-sn", "-f", "yuv4mpegpipe", "-pix_fmt", "yuv420p", "pipe:1"]);
    run(address, command, Box::new(Y4m::new(options.picture_bytes_max)), ends)
}

/// A camera of a Raspberry Pi, as Motion JPEG.
fn of_rpicam(address: &Address, number: u32, options: &OpenOptions) -> Result<Opened, SourceError> {
    let mut command = Command::new("rpicam-vid");
    command.args(["--nopreview", "--timeout", "0", "--codec", "mjpeg", "--output", "-"]);
    command.args(["--camera", &number.to_string()]);
    if let Some((width, height)) = address.size {
        command.args(["--width", &width.to_string(), "--height", &height.to_string()]);
    }
    if let Some(fps) = address.fps {
        command.args(["--framerate", &fps.to_string()]);
    }
    run(address, command, Box::new(Mjpeg::new(options.picture_bytes_max)), false)
}

fn run(
    address: &Address,
    mut command: Command,
    splitter: Box<dyn Splitter>,
    ends: bool,
) -> Result<Opened, SourceError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|error| SourceError::NoProgram {
        source_name: address.kind.to_string(),
        program: command.get_program().to_string_lossy().into_owned(),
        error,
    })?;
    Ok(Opened { bytes: Box::new(Program(child)), splitter, ends })
}

#[cfg(all(test, not(feature = "ros2")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_ros2_says_so() {
        let address: Address = "ros2:///camera/image_raw".parse().unwrap();
        let error = open(&address, &OpenOptions::default()).err().expect("nothing to open").to_string();
        assert!(error.contains("ros2:///camera/image_raw: this palmtop was built without ROS 2"), "{error}");
    }
}
