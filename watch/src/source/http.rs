//! Cameras over HTTP: streams of JPEG pictures (`multipart/x-mixed-replace`), and stills, which are fetched again and
//! again. What else a server gives is left to `ffmpeg`.

mod client;
#[cfg(feature = "fuzz")]
pub(super) mod pretend;
mod stills;

use std::io::{self, Read};
use std::time::Duration;

use ureq::Agent;

use super::address::Address;
use super::bytes::{ByteFeed, Trickle, read};
use super::feed::{Feed, Stop};
use super::ffmpeg;
use super::open::{OpenOptions, SourceError};
use super::secrets::Secrets;
use crate::stream::{Any, Mjpeg, Splitter};
use client::{Client, Since};
use stills::Stills;

/// Why a server gives no pictures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It cannot be reached, or does not answer as servers do.
    #[error("{0}")]
    Transport(String),
    /// It refuses.
    #[error("the server answers {status}{advice}")]
    Status {
        /// The number of the answer.
        status: u16,
        /// What can be done.
        advice: &'static str,
    },
    /// It asks for a password in a way that is not known.
    #[error("the server asks for a password in a way that is not known: {scheme}")]
    Scheme {
        /// What it asks for.
        scheme: String,
    },
    /// It sends on to another server, which asks for a password.
    #[error("the address leads to another server, {host}, which asks for a password; use the address there")]
    OtherHost {
        /// The other one.
        host: String,
    },
    /// It gives something that is neither pictures nor video.
    #[error(
        "the server gives {kind}, which is no picture; take the address of the camera's picture or stream itself"
    )]
    Content {
        /// What it says that it is.
        kind: String,
    },
    /// A picture is larger than the limit.
    #[error("a picture has more bytes than the limit of {bytes_max}")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

/// What a server's answer is.
enum Content {
    /// JPEG pictures one behind the other.
    Mjpeg,
    Still,
    /// Only the first bytes can tell.
    Unknown,
    Video,
    Other,
}

impl Content {
    fn of(mime: Option<&str>) -> Self {
        let Some(mime) = mime else { return Self::Unknown };
        let mime = mime.trim().to_ascii_lowercase();
        match mime.split_once('/').unwrap_or((&mime, "")) {
            ("multipart", _) => Self::Mjpeg,
            ("video", "x-motion-jpeg" | "x-mjpeg" | "mjpeg" | "x-jpeg") => Self::Mjpeg,
            ("image", "svg+xml") => Self::Other,
            ("image", _) => Self::Still,
            ("application" | "binary", "octet-stream") | ("", _) => Self::Unknown,
            (_, kind) if kind.contains("mpegurl") => Self::Video,
            ("text", _) | ("application", "json" | "xml" | "xhtml+xml" | "javascript" | "pdf") => Self::Other,
            _ => Self::Video,
        }
    }
}

/// Enough of an answer to see what it is.
const BEGINNING: u64 = 4;

/// Opens an address.
pub(super) fn open(
    address: &Address,
    url: &str,
    options: &OpenOptions,
    stop: &Stop,
) -> Result<Box<dyn Feed>, SourceError> {
    let agent = Agent::new_with_config(client::config(options));
    begin(Client::new(agent, url, stop, Secrets::of(url)), address, url, options, stop)
}

/// Asks once, and goes on as the answer wants.
fn begin(
    mut client: Client,
    address: &Address,
    url: &str,
    options: &OpenOptions,
    stop: &Stop,
) -> Result<Box<dyn Feed>, SourceError> {
    let failed = |error| SourceError::Http { source_name: address.kind.to_string(), error };
    let answer = client.get(&Since::default()).map_err(failed)?;
    let mime = answer.body().mime_type().map(str::to_owned);
    let has_length = answer.body().content_length().is_some();
    let since = Since::of(&answer);
    let most = options.picture_bytes_max;
    let still = |client, first: Box<dyn Read + Send>, since| {
        let stills = Stills::new(client, first, since, address.fps, most, stop.clone()).map_err(failed)?;
        Ok(Box::new(stills) as Box<dyn Feed>)
    };
    let stream = |bytes: Box<dyn Read + Send>, splitter: Box<dyn Splitter>| {
        // Silence is the connection's to see.
        let patience = options.silence.map(|most| most * 3);
        Ok(Box::new(ByteFeed::new(
            Box::new(Blocking { body: bytes, silence_max: options.silence.unwrap_or_default() }),
            splitter,
            patience,
        )) as Box<dyn Feed>)
    };
    match Content::of(mime.as_deref()) {
        Content::Mjpeg => stream(Box::new(answer.into_body().into_reader()), Box::new(Mjpeg::new(most))),
        Content::Still => still(client, Box::new(answer.into_body().into_reader()), since),
        Content::Video => Ok(Box::new(ffmpeg::stream(address, url, options)?)),
        Content::Other => Err(failed(HttpError::Content { kind: mime.unwrap_or_default() })),
        Content::Unknown => {
            let mut bytes = answer.into_body().into_reader();
            let mut begun = Vec::new();
            let beginning = bytes.by_ref().take(BEGINNING).read_to_end(&mut begun);
            beginning.map_err(|error| failed(HttpError::Transport(error.to_string())))?;
            let is_y4m = begun == b"YUV4";
            let is_jpeg = begun.starts_with(&[0xff, 0xd8]);
            // A stream of parts begins with its boundary.
            let is_parts = begun.trim_ascii_start().starts_with(b"-");
            let all: Box<dyn Read + Send> = Box::new(io::Cursor::new(begun).chain(bytes));
            match (is_jpeg && has_length, is_jpeg || is_y4m || is_parts) {
                (true, _) => still(client, all, since),
                (false, true) => stream(all, Box::new(Any::new(most))),
                (false, false) => Ok(Box::new(ffmpeg::stream(address, url, options)?)),
            }
        }
    }
}

/// The body of an answer. The connection ends it when nothing comes for long, and when the capture stops.
struct Blocking {
    body: Box<dyn Read + Send>,
    silence_max: Duration,
}

impl Trickle for Blocking {
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        read(&mut self.body, buffer).map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
            match cause {
                Some(ureq::Error::Timeout(_)) => {
                    let seconds = self.silence_max.as_secs_f32();
                    io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("the server sent nothing for {seconds} s"),
                    )
                }
                _ => error,
            }
        })
    }

    fn why_ended(&mut self) -> String {
        "the server has ended the stream".into()
    }
}
