//! Motion JPEG: one JPEG file behind another, with anything between them.
//!
//! What stands between pictures is skipped, so the parts of an HTTP stream (`multipart/x-mixed-replace`) need no reader
//! of their own. Pictures are followed marker by marker (ITU-T T.81, B.1): the thumbnail inside a picture's metadata is
//! not taken for a picture.

use super::{Layout, Splitter, StreamError, Taken};

/// Cuts Motion JPEG into JPEG files.
#[derive(Debug)]
pub struct Mjpeg {
    state: State,
    bytes_max: usize,
    broken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between pictures; the byte before was 0xff or not.
    Between { behind_ff: bool },
    /// Within a picture, where a marker must come; the byte before was 0xff or not.
    Marker { behind_ff: bool },
    /// The first and the second byte of a segment's length are missing; which marker it has.
    Length { marker: u8, first: Option<u8> },
    /// So many bytes of a segment are missing; a scan follows it or not.
    Segment { left: usize, then_scan: bool },
    /// Compressed data; the byte before was 0xff or not.
    Scan { behind_ff: bool },
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const BETWEEN: State = State::Between { behind_ff: false };

impl Mjpeg {
    /// Gives up pictures of more than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { state: BETWEEN, bytes_max, broken: 0 }
    }

    fn give_up(&mut self, picture: &mut Vec<u8>) {
        self.broken += 1;
        self.state = BETWEEN;
        picture.clear();
    }

    /// A picture begins.
    fn begin(&mut self, picture: &mut Vec<u8>) {
        picture.clear();
        picture.extend_from_slice(&[0xff, SOI]);
        self.state = State::Marker { behind_ff: false };
    }

    /// Takes the byte behind 0xff within a picture; true if the picture ends with it.
    fn marker(&mut self, marker: u8, in_scan: bool, picture: &mut Vec<u8>) -> bool {
        match marker {
            // A picture that was never ended.
            SOI => {
                self.broken += 1;
                self.begin(picture);
                return false;
            }
            EOI => {
                self.state = BETWEEN;
                picture.push(marker);
                return true;
            }
            0xff if in_scan => self.state = State::Scan { behind_ff: true },
            0xff => self.state = State::Marker { behind_ff: true },
            // Within a scan: 0xff as data, and restarts.
            0x00 | 0xd0..=0xd7 if in_scan => self.state = State::Scan { behind_ff: false },
            // None that the standard has: bytes of something else, such as the boundary behind a picture that was cut.
            0x00 | 0x02..=0xbf => {
                self.give_up(picture);
                return false;
            }
            // Markers without a segment.
            0x01 | 0xd0..=0xd7 => self.state = State::Marker { behind_ff: false },
            _ => self.state = State::Length { marker, first: None },
        }
        picture.push(marker);
        false
    }
}

impl Splitter for Mjpeg {
    fn take(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> Result<Taken, StreamError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = &bytes[at..];
            at += 1;
            if self.state != BETWEEN
                && self.state != (State::Between { behind_ff: true })
                && picture.len() >= self.bytes_max
            {
                self.give_up(picture);
            }
            match self.state {
                State::Between { behind_ff: true } if byte == SOI => self.begin(picture),
                State::Between { .. } => {
                    let skipped =
                        if byte == 0xff { 0 } else { rest.iter().take_while(|&&b| b != 0xff).count() - 1 };
                    at += skipped;
                    self.state = State::Between { behind_ff: byte == 0xff };
                }
                State::Marker { behind_ff: true } => {
                    if self.marker(byte, false, picture) {
                        return Ok(Taken { bytes: at, is_complete: true });
                    }
                }
                State::Marker { behind_ff: false } if byte == 0xff => {
                    picture.push(byte);
                    self.state = State::Marker { behind_ff: true };
                }
                // No marker where one must be.
                State::Marker { behind_ff: false } => self.give_up(picture),
                State::Length { marker, first: None } => {
                    picture.push(byte);
                    self.state = State::Length { marker, first: Some(byte) };
                }
                State::Length { marker, first: Some(first) } => {
                    picture.push(byte);
                    match usize::from(u16::from_be_bytes([first, byte])).checked_sub(2) {
                        Some(left) => {
                            self.state = State::Segment { left, then_scan: marker == SOS }.entered()
                        }
                        None => self.give_up(picture),
                    }
                }
                State::Segment { left, then_scan } => {
                    let n = left.min(rest.len()).min(self.bytes_max - picture.len());
                    picture.extend_from_slice(&rest[..n]);
                    at += n - 1;
                    self.state = State::Segment { left: left - n, then_scan }.entered();
                }
                State::Scan { behind_ff: true } => {
                    if self.marker(byte, true, picture) {
                        return Ok(Taken { bytes: at, is_complete: true });
                    }
                }
                State::Scan { behind_ff: false } => {
                    let data = rest.iter().position(|&b| b == 0xff).unwrap_or(rest.len());
                    let n = data.min(self.bytes_max - picture.len());
                    picture.extend_from_slice(&rest[..n]);
                    at += n.max(1) - 1;
                    if data == 0 {
                        picture.push(byte);
                        self.state = State::Scan { behind_ff: true };
                    }
                }
            }
        }
        Ok(Taken { bytes: at, is_complete: false })
    }

    fn layout(&self) -> Option<Layout> {
        Some(Layout::Encoded)
    }

    fn broken(&self) -> u64 {
        self.broken
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

impl State {
    /// What follows a segment of which nothing is missing.
    fn entered(self) -> Self {
        match self {
            Self::Segment { left: 0, then_scan: true } => Self::Scan { behind_ff: false },
            Self::Segment { left: 0, then_scan: false } => Self::Marker { behind_ff: false },
            other => other,
        }
    }
}
