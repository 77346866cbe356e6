//! Addresses of sources, as users write them: `/dev/video0?size=1280x720&fps=15`, `rtsp://…`,
//! `-?format=nv12&size=640x480`, `http://camera/still.jpg#fps=0.5`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[cfg(feature = "sources")]
use palmtop::image::{PixelFormat, YuvColor};

use super::secrets::shown;
#[cfg(feature = "sources")]
use crate::stream::Layout;

/// What kind of source an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Standard input: Motion JPEG, YUV4MPEG2, or plain pixels.
    Stdin,
    /// A file, a named pipe or a folder; which of them is seen when it is opened.
    Path(PathBuf),
    /// A camera of Video4Linux.
    Camera(PathBuf),
    /// A camera on the board's own connector, by its number.
    Csi(u32),
    /// Motion JPEG or stills over HTTP.
    Http(String),
    /// Anything that `ffmpeg` reads: RTSP and other streams of compressed video.
    Stream(String),
    /// A topic of ROS 2 with pictures, by its whole name.
    Ros2(String),
}

/// How plain pixels lie in a stream that does not say so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelLayout {
    /// Luma, then U and V in turn.
    Nv12,
    /// Luma, then U, then V.
    I420,
    /// Luma, U, luma, V for two pixels.
    Yuyv,
    /// U, luma, V, luma for two pixels.
    Uyvy,
    /// Three bytes a pixel.
    Rgb,
    /// Three bytes a pixel, blue first.
    Bgr,
    /// One byte a pixel.
    Grey,
    /// No plain pixels: JPEG pictures.
    Mjpeg,
}

impl PixelLayout {
    /// By its name in addresses, such as `nv12`.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "nv12" => Self::Nv12,
            "i420" | "yuv420p" => Self::I420,
            "yuyv" | "yuy2" => Self::Yuyv,
            "uyvy" => Self::Uyvy,
            "rgb" | "rgb24" => Self::Rgb,
            "bgr" | "bgr24" => Self::Bgr,
            "grey" | "gray" => Self::Grey,
            "mjpg" | "mjpeg" => Self::Mjpeg,
            _ => return None,
        })
    }

    /// How the bytes of pictures of so many pixels lie.
    #[cfg(feature = "sources")]
    pub fn layout(self, width: u32, height: u32) -> Layout {
        let color = YuvColor::default();
        let packed = |format| Layout::Packed { format, width, height };
        match self {
            Self::Nv12 => Layout::Nv12 { width, height, color },
            Self::I420 => Layout::I420 { width, height, color },
            Self::Yuyv => Layout::Yuyv { width, height, color },
            Self::Uyvy => Layout::Uyvy { width, height, color },
            Self::Rgb => packed(PixelFormat::Rgb),
            Self::Bgr => packed(PixelFormat::Bgr),
            Self::Grey => packed(PixelFormat::Grey),
            Self::Mjpeg => Layout::Encoded,
        }
    }
}

/// Width and height as in `1280x720`, if they are those of a picture.
pub fn size_of(text: &str) -> Option<(u32, u32)> {
    let side = |text: &str| text.parse().ok().filter(|n| (1..=SIDE_MAX).contains(n));
    text.split_once('x').and_then(|(width, height)| side(width).zip(side(height)))
}

/// A source, and what is wanted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// Where it is.
    pub kind: Kind,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    pub fps: Option<f32>,
    /// Of plain pixels, or what a camera is to give.
    pub format: Option<PixelLayout>,
    /// Nothing is passed over: every picture of a pipe, and what is in a folder already.
    pub all: bool,
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing was written.
    #[error("the address of a source is empty; write a file, a folder, /dev/video0, rtsp://… or -")]
    Empty,
    /// A scheme that is not known.
    #[error(
        "'{scheme}://' is no kind of source; use csi://, rtsp://, rtsps://, http://, https://, ros2:// or a path"
    )]
    Scheme {
        /// The part before `://`.
        scheme: String,
    },
    /// A setting that is not known.
    #[error("'{key}' is no setting of a source; use size, fps, format or all")]
    Key {
        /// The part before `=`.
        key: String,
    },
    /// A setting with a value that makes no sense.
    #[error("'{key}={value}' makes no sense: {what}")]
    Value {
        /// The part before `=`.
        key: &'static str,
        /// The part behind it.
        value: String,
        /// What would.
        what: &'static str,
    },
}

/// The longest side that may be asked for.
const SIDE_MAX: u32 = 1 << 16;

impl FromStr for Address {
    type Err = AddressError;

    /// Reads an address. What is behind the `?` of a server's address belongs to the server and stays in the address;
    /// settings stand behind a `#` there.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let address = |kind| Self { kind, size: None, fps: None, format: None, all: false };
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => {
                    let (url, settings) = split(text, '#');
                    address(Kind::Http(url.to_owned())).with(settings)
                }
                "rtsp" | "rtsps" | "rtmp" | "srt" | "udp" => {
                    let (url, settings) = split(text, '#');
                    address(Kind::Stream(url.to_owned())).with(settings)
                }
                "csi" => {
                    let (number, settings) = split(rest, '?');
                    let number = number.parse().map_err(|_| AddressError::Value {
                        key: "csi",
                        value: number.to_owned(),
                        what: "write the camera's number, as in csi://0",
                    })?;
                    address(Kind::Csi(number)).with(settings)
                }
                "ros2" => match crate::ros2::is_topic(rest) {
                    true => Ok(address(Kind::Ros2(rest.to_owned()))),
                    false => Err(AddressError::Value {
                        key: "ros2",
                        value: rest.to_owned(),
                        what: "write a topic's whole name, as in ros2:///camera/image_raw",
                    }),
                },
                "file" => address(Kind::Path(rest.into())).with(None),
                _ => Err(AddressError::Scheme { scheme: scheme.to_owned() }),
            };
        }
        // A file of this very name is that file.
        let (path, settings) = if Path::new(text).exists() { (text, None) } else { split(text, '?') };
        let kind = match path {
            "-" => Kind::Stdin,
            _ if CAMERAS.iter().any(|folder| path.starts_with(folder)) => Kind::Camera(path.into()),
            _ => Kind::Path(path.into()),
        };
        address(kind).with(settings)
    }
}

/// Where systems keep their cameras; in the second, names stay those of the same camera.
const CAMERAS: [&str; 2] = ["/dev/video", "/dev/v4l/"];

/// What is before a sign, and what is behind it.
fn split(text: &str, sign: char) -> (&str, Option<&str>) {
    match text.split_once(sign) {
        Some((before, settings)) => (before, Some(settings)),
        None => (text, None),
    }
}

impl Address {
    /// True for cameras and streams of them: pictures that stay the same to the byte mean that it hangs. Stills of a
    /// server that stay the same are not given twice.
    #[cfg(feature = "sources")]
    pub(super) fn can_freeze(&self) -> bool {
        !matches!(self.kind, Kind::Stdin | Kind::Path(_))
    }

    fn with(mut self, settings: Option<&str>) -> Result<Self, AddressError> {
        for setting in settings.unwrap_or_default().split('&').filter(|s| !s.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let wrong = |key, what| AddressError::Value { key, value: value.to_owned(), what };
            match key {
                "size" => {
                    let size = size_of(value);
                    self.size =
                        Some(size.ok_or_else(|| wrong("size", "write width and height, as in 1280x720"))?);
                }
                "fps" => {
                    let fps = value.parse::<f32>().ok().filter(|n| *n > 0.0 && *n <= 1000.0);
                    self.fps = Some(fps.ok_or_else(|| wrong("fps", "write a number above 0, up to 1000"))?);
                }
                "format" => {
                    let format = PixelLayout::of_name(value);
                    let what = "use nv12, i420, yuyv, uyvy, rgb, bgr, grey or mjpg";
                    self.format = Some(format.ok_or_else(|| wrong("format", what))?);
                }
                "all" => {
                    self.all = match value {
                        "" | "true" => true,
                        "false" => false,
                        _ => return Err(wrong("all", "write true or false")),
                    };
                }
                _ => return Err(AddressError::Key { key: key.to_owned() }),
            }
        }
        let is_read_as_plain = matches!(self.kind, Kind::Stdin | Kind::Path(_));
        let is_plain = self.format.is_some_and(|format| format != PixelLayout::Mjpeg);
        if is_read_as_plain && is_plain && self.size.is_none() {
            let what = "plain pixels need a size, as in ?format=nv12&size=640x480";
            return Err(AddressError::Value { key: "format", value: "without size".into(), what });
        }
        Ok(self)
    }
}

impl fmt::Display for Kind {
    /// Without user and password of an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("-"),
            Self::Path(path) | Self::Camera(path) => path.display().fmt(f),
            Self::Csi(number) => write!(f, "csi://{number}"),
            Self::Ros2(topic) => write!(f, "ros2://{topic}"),
            Self::Http(url) | Self::Stream(url) => f.write_str(&shown(url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn addresses_are_told_apart() {
        let plain = |kind| Address { kind, size: None, fps: None, format: None, all: false };
        assert_eq!(address("-"), plain(Kind::Stdin));
        assert_eq!(address("shots"), plain(Kind::Path("shots".into())));
        assert_eq!(address("csi://1"), plain(Kind::Csi(1)));
        let topic = address("ros2:///camera/image_raw/compressed");
        assert_eq!(topic, plain(Kind::Ros2("/camera/image_raw/compressed".into())));
        assert_eq!(topic.kind.to_string(), "ros2:///camera/image_raw/compressed");
        let rtsp = "rtsp://u:p@cam:554/s?channel=1&subtype=0";
        assert_eq!(address(rtsp), plain(Kind::Stream(rtsp.into())));
        assert_eq!(address("HTTP://cam/mjpg"), plain(Kind::Http("HTTP://cam/mjpg".into())));
        let camera = address("/dev/video0?size=1280x720&fps=15");
        assert_eq!(camera.kind, Kind::Camera("/dev/video0".into()));
        assert_eq!((camera.size, camera.fps), (Some((1280, 720)), Some(15.0)));
        assert_eq!(
            address("/dev/v4l/by-id/usb-x-index0?format=mjpg").kind,
            Kind::Camera("/dev/v4l/by-id/usb-x-index0".into())
        );
        let still = address("http://cam/still.jpg?a=1#fps=0.5");
        assert_eq!((still.kind, still.fps), (Kind::Http("http://cam/still.jpg?a=1".into()), Some(0.5)));
        assert!(address("shots?all=true").all && address("shots?all").all && !address("shots?all=false").all);
        let pipe = address("-?format=nv12&size=640x480");
        assert_eq!(
            (pipe.kind, pipe.format, pipe.size),
            (Kind::Stdin, Some(PixelLayout::Nv12), Some((640, 480)))
        );
    }

    #[test]
    fn a_file_whose_name_looks_like_settings_is_that_file() {
        let dir = std::env::temp_dir().join(format!("palmtop-watch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a?size=1x1");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(address(path.to_str().unwrap()).kind, Kind::Path(path.clone()));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for (text, says) in [
            ("", "is empty"),
            ("ftp://x", "'ftp://' is no kind of source"),
            ("csi://left", "as in csi://0"),
            ("ros2://camera/image_raw", "as in ros2:///camera/image_raw"),
            ("ros2:///image?size=640x480", "as in ros2:///camera/image_raw"),
            ("/dev/video0?zoom=2", "'zoom' is no setting"),
            ("-?size=640", "as in 1280x720"),
            ("-?size=0x5", "as in 1280x720"),
            ("-?size=99999999x5", "as in 1280x720"),
            ("-?fps=0", "above 0"),
            ("-?fps=NaN", "above 0"),
            ("-?format=h264&size=4x4", "use nv12"),
            ("shots?all=maybe", "true or false"),
            ("http://cam/x#zoom=1", "'zoom' is no setting"),
            ("-?format=nv12", "need a size"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("rtsp://me:se@cret@cam:554/s?a=b@c", "rtsp://cam:554/s?a=b@c"),
            ("http://cam/x@y", "http://cam/x@y"),
            ("https://token@cam", "https://cam"),
            ("http://cam/x?user=me&pwd=secret", "http://cam/x?user=me&pwd=***"),
        ] {
            assert_eq!(address(text).kind.to_string(), shown);
        }
    }
}
