//! Recorded devices: what they can do is read from the text that `v4l2-ctl --list-formats-ext` prints, and what happens
//! while they film is a list.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use super::abi::{
    BUF_FLAG_TIMESTAMP_MONOTONIC, Buffer, CAP_DEVICE_CAPS, CAP_STREAMING, CAP_TIMEPERFRAME,
    CAP_VIDEO_CAPTURE, Format, Fraction, fourcc,
};
use super::device::{Call, Device};

/// What happens while a camera films.
#[derive(Clone, Debug)]
pub(super) enum Happens {
    /// A frame is ready, all of it this byte (behind the start of a JPEG, if it is one), taken so long ago.
    Frame { byte: u8, age: Duration },
    /// A frame whose buffer is marked or filled otherwise.
    Odd { flags: u32, used: Option<u32> },
    /// Fetching fails.
    Fails(Errno),
    /// Nothing is ready for a moment.
    Silence,
    /// The driver says that a frame is ready, and has none.
    Lie,
    /// A frame in a buffer that there is not.
    Wild,
}

/// What a call was, for tests that look at the conversation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    SetFormat(String, u32, u32),
    Interval(Fraction),
    Enqueued(u32),
    On,
    Off,
}

/// A format of a listing.
#[derive(Clone, Debug, Default)]
struct Listed {
    fourcc: u32,
    /// Width, height, and the intervals.
    sizes: Vec<(u32, u32, Vec<Fraction>)>,
    /// Ranges of sizes, with their steps.
    range: Option<[u32; 6]>,
}

pub(super) struct Recorded {
    pub card: &'static str,
    pub capabilities: u32,
    pub device_caps: u32,
    /// Calls of this name fail so.
    pub refuses: Option<(&'static str, Errno)>,
    /// What the driver makes of a format that is set.
    pub changes: fn(&mut Format),
    pub buffers: u32,
    pub clock: Duration,
    pub happens: VecDeque<Happens>,
    pub said: Arc<Mutex<Vec<Said>>>,
    formats: Vec<Listed>,
    set: Format,
    mapped: Vec<Vec<u8>>,
    /// Buffers that the driver has, in order.
    queue: VecDeque<u32>,
    sequence: u32,
}

/// What a driver does that changes nothing but what it must: rows without gaps.
pub(super) fn tight(format: &mut Format) {
    let pix = &mut format.pix;
    let (row, bytes) = match &pix.pixelformat.to_le_bytes() {
        b"YUYV" | b"UYVY" => (2 * pix.width, 2 * pix.width * pix.height),
        b"NV12" | b"YU12" => (pix.width, pix.width * pix.height * 3 / 2),
        b"GREY" => (pix.width, pix.width * pix.height),
        _ => (0, pix.width * pix.height),
    };
    (pix.bytesperline, pix.sizeimage) = (row, bytes);
}

impl Recorded {
    /// A camera of which `v4l2-ctl --list-formats-ext` says this.
    pub fn new(card: &'static str, listing: &str) -> Self {
        Self {
            card,
            capabilities: CAP_DEVICE_CAPS | CAP_VIDEO_CAPTURE | CAP_STREAMING,
            device_caps: CAP_VIDEO_CAPTURE | CAP_STREAMING,
            refuses: None,
            changes: tight,
            buffers: 4,
            clock: Duration::from_secs(1000),
            happens: VecDeque::new(),
            said: Arc::default(),
            formats: parse(listing),
            set: Format::new(),
            mapped: Vec::new(),
            queue: VecDeque::new(),
            sequence: 0,
        }
    }

    pub fn filming(mut self, happens: impl IntoIterator<Item = Happens>) -> Self {
        self.happens = happens.into_iter().collect();
        self
    }

    fn say(&self, said: Said) {
        self.said.lock().unwrap().push(said);
    }

    fn format(&self, wanted: u32) -> io::Result<&Listed> {
        self.formats.iter().find(|format| format.fourcc == wanted).ok_or(Errno::INVAL.into())
    }

    fn dequeue(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        // What is fetched in one go is what is ready before the next silence.
        let happens = match self.happens.front() {
            None | Some(Happens::Silence) => return Err(Errno::AGAIN.into()),
            Some(_) => self.happens.pop_front().unwrap(),
        };
        let index = match happens {
            Happens::Fails(error) => return Err(error.into()),
            Happens::Lie => return Err(Errno::AGAIN.into()),
            Happens::Wild => {
                buffer.index = 77;
                return Ok(());
            }
            _ => self.queue.pop_front().expect("a camera that films has buffers"),
        };
        let is_jpeg = matches!(&self.set.pix.pixelformat.to_le_bytes(), b"MJPG" | b"JPEG");
        let whole = if is_jpeg { 100 } else { self.set.pix.sizeimage };
        *buffer = Buffer::new(index);
        buffer.flags = BUF_FLAG_TIMESTAMP_MONOTONIC;
        buffer.sequence = self.sequence;
        buffer.bytesused = whole;
        self.sequence += 1;
        let (byte, age) = match happens {
            Happens::Odd { flags, used } => {
                buffer.flags |= flags;
                buffer.bytesused = used.unwrap_or(whole);
                (0xee, Duration::ZERO)
            }
            Happens::Frame { byte, age } => (byte, age),
            other => panic!("{other:?} was handled above"),
        };
        let taken = self.clock - age;
        buffer.timestamp = [taken.as_secs() as _, taken.subsec_micros() as _];
        let memory = &mut self.mapped[index as usize];
        memory.fill(byte);
        if is_jpeg {
            memory[..2].copy_from_slice(&[0xff, 0xd8]);
        }
        Ok(())
    }
}

impl Device for Recorded {
    fn call(&mut self, call: Call<'_>) -> io::Result<()> {
        let name = match call {
            Call::QueryCapabilities(_) => "QUERYCAP",
            Call::SetFormat(_) => "S_FMT",
            Call::RequestBuffers(_) => "REQBUFS",
            Call::StreamOn(_) => "STREAMON",
            Call::SetParameters(_) => "S_PARM",
            _ => "",
        };
        if let Some((refused, error)) = self.refuses
            && refused == name
        {
            return Err(error.into());
        }
        match call {
            Call::QueryCapabilities(value) => {
                value.card[..self.card.len()].copy_from_slice(self.card.as_bytes());
                (value.capabilities, value.device_caps) = (self.capabilities, self.device_caps);
            }
            Call::EnumFormats(value) => {
                let format = self.formats.get(value.index as usize).ok_or(Errno::INVAL)?;
                value.pixelformat = format.fourcc;
            }
            Call::EnumFrameSizes(value) => {
                let format = self.format(value.pixel_format)?;
                match format.range {
                    Some(range) if value.index == 0 => (value.kind, value.sizes) = (3, range),
                    _ => {
                        let &(width, height, _) =
                            format.sizes.get(value.index as usize).ok_or(Errno::INVAL)?;
                        value.kind = 1;
                        value.sizes[..2].copy_from_slice(&[width, height]);
                    }
                }
            }
            Call::EnumFrameIntervals(value) => {
                let format = self.format(value.pixel_format)?;
                let size = format.sizes.iter().find(|size| (size.0, size.1) == (value.width, value.height));
                let intervals = &size.ok_or(Errno::INVAL)?.2;
                value.kind = 1;
                value.intervals[0] = *intervals.get(value.index as usize).ok_or(Errno::INVAL)?;
            }
            Call::SetFormat(value) => {
                let letters = super::letters(value.pix.pixelformat);
                self.say(Said::SetFormat(letters, value.pix.width, value.pix.height));
                (self.changes)(value);
                self.set = *value;
            }
            Call::SetParameters(value) => {
                value.capability = CAP_TIMEPERFRAME;
                self.say(Said::Interval(value.timeperframe));
            }
            Call::RequestBuffers(value) => {
                value.count = self.buffers;
                assert!(self.mapped.is_empty());
            }
            Call::QueryBuffer(value) => {
                value.length = self.set.pix.sizeimage;
                value.m[0] = value.index * 4096;
            }
            Call::Enqueue(value) => {
                assert!(!self.queue.contains(&value.index) && value.index < self.buffers, "{}", value.index);
                self.queue.push_back(value.index);
                self.say(Said::Enqueued(value.index));
            }
            Call::Dequeue(value) => return self.dequeue(value),
            Call::StreamOn(_) => self.say(Said::On),
            Call::StreamOff(_) => self.say(Said::Off),
        }
        Ok(())
    }

    fn map(&mut self, offset: u32, bytes: usize) -> io::Result<()> {
        assert_eq!(offset as usize, self.mapped.len() * 4096);
        self.mapped.push(vec![0; bytes]);
        Ok(())
    }

    fn buffer(&self, index: usize) -> Option<&[u8]> {
        assert!(!self.queue.contains(&(index as u32)), "the driver has buffer {index}");
        self.mapped.get(index).map(Vec::as_slice)
    }

    fn wait(&mut self, _: Duration) -> io::Result<bool> {
        match self.happens.front() {
            None => Ok(false),
            Some(Happens::Silence) => {
                self.happens.pop_front();
                Ok(false)
            }
            Some(_) => Ok(true),
        }
    }

    fn monotonic(&self) -> Duration {
        self.clock
    }
}

/// Reads a listing.
fn parse(listing: &str) -> Vec<Listed> {
    let mut formats = Vec::<Listed>::new();
    for line in listing.lines().map(str::trim) {
        if let Some((_, name)) = line.split_once("]: '") {
            let fourcc = fourcc(name.as_bytes()[..4].try_into().unwrap());
            formats.push(Listed { fourcc, ..Listed::default() });
        } else if let Some(size) = line.strip_prefix("Size: Discrete ") {
            let (width, height) = size.split_once('x').unwrap();
            formats.last_mut().unwrap().sizes.push((width.parse().unwrap(), height.parse().unwrap(), vec![]));
        } else if let Some(range) = line.strip_prefix("Size: Stepwise ") {
            let numbers: Vec<u32> = range
                .split(|c: char| !c.is_ascii_digit())
                .filter(|text| !text.is_empty())
                .map(|text| text.parse().unwrap())
                .collect();
            let &[w_min, h_min, w_max, h_max, w_step, h_step] = numbers.as_slice() else { panic!("{line}") };
            formats.last_mut().unwrap().range = Some([w_min, w_max, w_step, h_min, h_max, h_step]);
        } else if let Some(interval) = line.strip_prefix("Interval: Discrete ") {
            let seconds: f64 = interval.split_once('s').unwrap().0.parse().unwrap();
            // As UVC has them: in units of 100 ns.
            let numerator = (seconds * 1e7).round() as u32;
            let fraction = Fraction { numerator, denominator: 10_000_000 };
            formats.last_mut().unwrap().sizes.last_mut().unwrap().2.push(fraction);
        } else {
            assert!(line.is_empty() || line.starts_with("ioctl") || line.starts_with("Type:"), "{line}");
        }
    }
    formats
}
