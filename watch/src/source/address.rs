//! Addresses of sources, as users write them: `/dev/video0?size=1280x720&fps=15`, `rtsp://…`,
//! `-?format=nv12&size=640x480`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

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
    /// Three bytes a pixel.
    Rgb,
    /// Three bytes a pixel, blue first.
    Bgr,
    /// One byte a pixel.
    Grey,
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
    /// Of plain pixels.
    pub format: Option<PixelLayout>,
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
    #[error("'{key}' is no setting of a source; use size, fps or format")]
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

    /// Reads an address. The settings of streams belong to their servers, so what is behind a `?` there stays in the
    /// address.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let address = |kind| Self { kind, size: None, fps: None, format: None };
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(address(Kind::Http(text.to_owned()))),
                "rtsp" | "rtsps" | "rtmp" | "srt" | "udp" => Ok(address(Kind::Stream(text.to_owned()))),
                "csi" => {
                    let (number, settings) = settings_of(rest);
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
        let (path, settings) = if Path::new(text).exists() { (text, None) } else { settings_of(text) };
        let kind = match path {
            "-" => Kind::Stdin,
            _ if path.starts_with("/dev/video") => Kind::Camera(path.into()),
            _ => Kind::Path(path.into()),
        };
        address(kind).with(settings)
    }
}

/// What is before a `?`, and what is behind it.
fn settings_of(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((before, settings)) => (before, Some(settings)),
        None => (text, None),
    }
}

impl Address {
    fn with(mut self, settings: Option<&str>) -> Result<Self, AddressError> {
        for setting in settings.unwrap_or_default().split('&').filter(|s| !s.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let wrong = |key, what| AddressError::Value { key, value: value.to_owned(), what };
            match key {
                "size" => {
                    let side = |text: &str| text.parse().ok().filter(|n| (1..=SIDE_MAX).contains(n));
                    let size = value.split_once('x').and_then(|(w, h)| side(w).zip(side(h)));
                    self.size =
                        Some(size.ok_or_else(|| wrong("size", "write width and height, as in 1280x720"))?);
                }
                "fps" => {
                    let fps = value.parse::<f32>().ok().filter(|n| *n > 0.0 && *n <= 1000.0);
                    self.fps = Some(fps.ok_or_else(|| wrong("fps", "write a number above 0, up to 1000"))?);
                }
                "format" => {
                    self.format = Some(match value {
                        "nv12" => PixelLayout::Nv12,
                        "i420" | "yuv420p" => PixelLayout::I420,
                        "rgb" | "rgb24" => PixelLayout::Rgb,
                        "bgr" | "bgr24" => PixelLayout::Bgr,
                        "grey" | "gray" => PixelLayout::Grey,
                        _ => return Err(wrong("format", "use nv12, i420, rgb, bgr or grey")),
                    });
                }
                _ => return Err(AddressError::Key { key: key.to_owned() }),
            }
        }
        if self.format.is_some() && self.size.is_none() {
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
            Self::Http(url) | Self::Stream(url) => f.write_str(&without_user(url)),
        }
    }
}

/// An address whose user and password are left out: it is shown, logged and sent.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn addresses_are_told_apart() {
        let plain = |kind| Address { kind, size: None, fps: None, format: None };
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
            ("-?format=yuyv&size=4x4", "use nv12"),
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
        ] {
            assert_eq!(address(text).kind.to_string(), shown);
        }
    }
}
