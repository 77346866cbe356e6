//! Cameras of Video4Linux: what they can do is asked, the cheapest of it that fits is chosen, and the newest frame is
//! taken from the driver's queue.
//!
//! The conversation is that of the kernel's "Video for Linux API", chapter "Streaming I/O (Memory Mapping)". It is kept
//! behind the trait [`Device`], so that tests hold it with recorded devices.

mod abi;
mod choose;
mod device;
mod layout;
#[cfg(feature = "fuzz")]
pub(super) mod wild;

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

pub(super) use choose::Wish;

use super::feed::{Caught, Feed, MOMENT, Next};
use abi::{
    BUF_FLAG_ERROR, BUF_FLAG_TIMESTAMP_MASK, BUF_FLAG_TIMESTAMP_MONOTONIC, BUF_TYPE_VIDEO_CAPTURE, Buffer,
    CAP_DEVICE_CAPS, CAP_STREAMING, CAP_TIMEPERFRAME, CAP_VIDEO_CAPTURE, CAP_VIDEO_CAPTURE_MPLANE,
    Capability, Format, FormatDescription, Fraction, FrameIntervals, FrameSizes, MEMORY_MMAP, RequestBuffers,
    StreamParameters, TYPE_DISCRETE, letters,
};
use choose::{Offer, Pixels, in_range, sort};
use device::{Call, Device};
use layout::FrameLayout;

/// Why a camera gives no pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CameraError {
    /// The system refused a call.
    #[error("{call}: {error}")]
    Call {
        /// Which.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Another program has it.
    #[error("another program uses the camera; 'fuser -v' with its path tells which")]
    Busy,
    /// The file is no device of Video4Linux.
    #[error("it is no camera: it does not speak Video4Linux")]
    NoDevice,
    /// It is a node for something else: metadata, output, memory to memory.
    #[error(
        "this node of '{card}' gives no pictures; a camera often has several, of which the first does (v4l2-ctl \
         --list-devices shows them)"
    )]
    NoCapture {
        /// What the device calls itself.
        card: String,
    },
    /// Frames come in several memories, which is not read.
    #[error(
        "'{card}' has only the multiplanar interface of Video4Linux, which is not read; if it is on the board's own \
         connector, use csi://0"
    )]
    Multiplanar {
        /// What the device calls itself.
        card: String,
    },
    /// None of its formats is read, or not the one that was asked for.
    #[error(
        "'{card}' gives {found}, and of these {wanted} is read; a sensor on the board's own connector gives raw Bayer \
         here: use csi://0"
    )]
    NoFormat {
        /// What the device calls itself.
        card: String,
        /// Its formats.
        found: String,
        /// Which would be taken.
        wanted: &'static str,
    },
    /// The driver says something that makes no sense.
    #[error("the driver of '{card}' says that {what}")]
    Nonsense {
        /// What the device calls itself.
        card: String,
        /// What it says.
        what: String,
    },
}

/// Formats, sizes and intervals that are asked for at most: some drivers never say that there are no more.
const FORMATS_MAX: u32 = 64;
const SIZES_MAX: u32 = 128;
const INTERVALS_MAX: u32 = 64;
/// One is filled, one is full, one is copied, and one is for delays.
const BUFFERS: u32 = 4;
const BUFFERS_MAX: u32 = 32;
/// So many times in a row the driver may say that a frame failed, or that there is one and have none.
const FAILURES_MAX: u32 = 50;
/// A frame is not older; if it seems so, the driver has another clock.
const AGE_MAX: Duration = Duration::from_secs(10);

/// A camera that films.
struct Camera<D: Device> {
    device: D,
    frame: FrameLayout,
    buffers: u32,
    silence_max: Option<Duration>,
    waited: Duration,
    failures: u32,
    broken: u64,
}

/// Opens a camera and lets it film.
#[cfg(target_os = "linux")]
pub(super) fn open(
    path: &Path,
    wish: &Wish,
    picture_bytes_max: usize,
    silence_max: Option<Duration>,
) -> Result<Box<dyn Feed>, CameraError> {
    let node = device::Node::open(path).map_err(|error| refused("opening it", error))?;
    Ok(Box::new(Camera::start(node, wish, picture_bytes_max, silence_max)?))
}

fn refused(call: &'static str, error: io::Error) -> CameraError {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => CameraError::Busy,
        _ => CameraError::Call { call, error },
    }
}

impl<D: Device> Camera<D> {
    fn start(
        mut device: D,
        wish: &Wish,
        picture_bytes_max: usize,
        silence_max: Option<Duration>,
    ) -> Result<Self, CameraError> {
        let card = card(&mut device)?;
        let nonsense = |what: String| CameraError::Nonsense { card: card.clone(), what };
        let (format, pixels, interval) = set_format(&mut device, wish, &card)?;
        let frame = FrameLayout::new(&format.pix, pixels, picture_bytes_max).map_err(nonsense)?;
        if let Some(interval) = interval {
            // A wish: a driver that cannot choose rates says so, and films all the same.
            let mut parameters = StreamParameters::new(interval);
            let set = device.call(Call::SetParameters(&mut parameters));
            if set.is_err() || parameters.capability & CAP_TIMEPERFRAME == 0 {
                log::debug!("{card}: the rate cannot be chosen");
            }
        }
        let buffers = map_buffers(&mut device, &card, &frame)?;
        for index in 0..buffers {
            let queue = device.call(Call::Enqueue(&mut Buffer::new(index)));
            queue.map_err(|error| refused("VIDIOC_QBUF", error))?;
        }
        let on = device.call(Call::StreamOn(BUF_TYPE_VIDEO_CAPTURE));
        on.map_err(|error| refused("VIDIOC_STREAMON", error))?;
        log::info!("{card}: {:?}", frame.layout());
        Ok(Self { device, frame, buffers, silence_max, waited: Duration::ZERO, failures: 0, broken: 0 })
    }

    /// Takes all frames that are there; the newest good one is kept, the others go back. Gives it, and how many good
    /// ones were passed over.
    fn drain(&mut self) -> Result<(Option<Buffer>, u64), String> {
        let (mut newest, mut passed_over) = (None::<Buffer>, 0);
        // While frames are fetched others may come; but not for ever.
        for _ in 0..2 * self.buffers {
            let mut buffer = Buffer::new(0);
            match self.device.call(Call::Dequeue(&mut buffer)) {
                Ok(()) if buffer.index >= self.buffers => {
                    return Err(format!("the driver gave a buffer {} of {}", buffer.index, self.buffers));
                }
                Ok(()) if self.is_good(&buffer) => {
                    self.failures = 0;
                    if let Some(older) = newest.replace(buffer) {
                        passed_over += 1;
                        self.give_back(older)?;
                    }
                }
                Ok(()) => {
                    self.broken += 1;
                    self.give_back(buffer)?;
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => break,
                    // A frame was lost; the driver goes on.
                    Some(Errno::IO) if self.failures < FAILURES_MAX => {
                        self.failures += 1;
                        self.broken += 1;
                        break;
                    }
                    _ => return Err(ended(&error)),
                },
            }
        }
        Ok((newest, passed_over))
    }

    fn is_good(&self, buffer: &Buffer) -> bool {
        let bytes = self.device.buffer(buffer.index as usize).unwrap_or_default();
        buffer.flags & BUF_FLAG_ERROR == 0 && self.frame.holds(bytes, buffer.bytesused as usize)
    }

    fn give_back(&mut self, buffer: Buffer) -> Result<(), String> {
        let queue = self.device.call(Call::Enqueue(&mut Buffer::new(buffer.index)));
        queue.map_err(|error| ended(&error))
    }

    /// How long ago the frame was exposed, if the driver dates frames by a clock that is known.
    fn age(&self, buffer: &Buffer) -> Duration {
        if buffer.flags & BUF_FLAG_TIMESTAMP_MASK != BUF_FLAG_TIMESTAMP_MONOTONIC {
            return Duration::ZERO;
        }
        let [seconds, micros] = buffer.timestamp;
        let part = |n: std::ffi::c_long| u64::try_from(n).unwrap_or(0);
        let taken = Duration::from_secs(part(seconds)) + Duration::from_micros(part(micros));
        let age = self.device.monotonic().saturating_sub(taken);
        if age <= AGE_MAX { age } else { Duration::ZERO }
    }
}

impl<D: Device> Feed for Camera<D> {
    fn next(&mut self, picture: &mut Vec<u8>) -> Next {
        match self.device.wait(MOMENT) {
            Err(error) => return Next::End(ended(&error)),
            Ok(false) => {
                self.waited += MOMENT;
                return match self.silence_max {
                    Some(most) if self.waited >= most => {
                        Next::End(format!("the camera gave no frame for {} s", most.as_secs_f32()))
                    }
                    _ => Next::Nothing,
                };
            }
            Ok(true) => {}
        }
        let (newest, passed_over) = match self.drain() {
            Ok(drained) => drained,
            Err(why) => return Next::End(why),
        };
        let Some(newest) = newest else {
            self.failures += 1;
            if self.failures > FAILURES_MAX {
                return Next::End("the driver gives only frames that failed".into());
            }
            return Next::Nothing;
        };
        self.waited = Duration::ZERO;
        let age = self.age(&newest);
        let bytes = self.device.buffer(newest.index as usize).unwrap_or_default();
        self.frame.copy(bytes, newest.bytesused as usize, picture);
        match self.give_back(newest) {
            Ok(()) => Next::Picture(Caught { layout: self.frame.layout(), age, period: None, passed_over }),
            Err(why) => Next::End(why),
        }
    }

    fn broken(&self) -> u64 {
        self.broken
    }
}

impl<D: Device> Drop for Camera<D> {
    fn drop(&mut self) {
        // If it was unplugged there is nothing to stop.
        let _ = self.device.call(Call::StreamOff(BUF_TYPE_VIDEO_CAPTURE));
    }
}

/// Why filming ended.
fn ended(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NODEV) => "the camera was unplugged".into(),
        _ => format!("the camera ended: {error}"),
    }
}

/// What the device calls itself, if it is one that gives pictures.
fn card(device: &mut impl Device) -> Result<String, CameraError> {
    let mut capability = Capability {
        driver: [0; 16],
        card: [0; 32],
        bus_info: [0; 32],
        version: 0,
        capabilities: 0,
        device_caps: 0,
        reserved: [0; 3],
    };
    device.call(Call::QueryCapabilities(&mut capability)).map_err(|error| {
        match Errno::from_io_error(&error) {
            Some(Errno::NOTTY | Errno::INVAL) => CameraError::NoDevice,
            _ => refused("VIDIOC_QUERYCAP", error),
        }
    })?;
    let end = capability.card.iter().position(|&b| b == 0).unwrap_or(capability.card.len());
    let card = String::from_utf8_lossy(&capability.card[..end]).replace(char::is_control, "");
    let can = match capability.capabilities & CAP_DEVICE_CAPS {
        0 => capability.capabilities,
        _ => capability.device_caps,
    };
    if can & CAP_VIDEO_CAPTURE == 0 {
        return Err(match can & CAP_VIDEO_CAPTURE_MPLANE {
            0 => CameraError::NoCapture { card },
            _ => CameraError::Multiplanar { card },
        });
    }
    match can & CAP_STREAMING {
        0 => Err(CameraError::Nonsense { card, what: "it cannot stream into memory".into() }),
        _ => Ok(card),
    }
}

/// Sets the best format that the driver agrees to.
fn set_format(
    device: &mut impl Device,
    wish: &Wish,
    card: &str,
) -> Result<(Format, Pixels, Option<Fraction>), CameraError> {
    let (mut offers, found) = offers(device, wish);
    sort(&mut offers, wish);
    let mut refusal = None;
    for offer in offers {
        let mut format = Format::new();
        (format.pix.width, format.pix.height) = (offer.width, offer.height);
        format.pix.pixelformat = offer.fourcc;
        match device.call(Call::SetFormat(&mut format)) {
            // Drivers may change everything, the format too.
            Ok(()) => match Pixels::of(format.pix.pixelformat).filter(|&pixels| wish.allows(pixels)) {
                Some(pixels) => return Ok((format, pixels, offer.interval)),
                None => continue,
            },
            Err(error) => match refused("VIDIOC_S_FMT", error) {
                CameraError::Busy => return Err(CameraError::Busy),
                error => refusal = refusal.or(Some(error)),
            },
        }
    }
    Err(refusal.unwrap_or_else(|| CameraError::NoFormat {
        card: card.to_owned(),
        found: if found.is_empty() { "no format".into() } else { found.join(", ") },
        wanted: match wish.format {
            Some(_) => "only the one that ?format= names",
            None => "only NV12, YU12, YUYV, UYVY, GREY or MJPG",
        },
    }))
}

/// What the camera can do of what is read and wanted, and the names of all its formats.
fn offers(device: &mut impl Device, wish: &Wish) -> (Vec<Offer>, Vec<String>) {
    let (mut offers, mut found) = (Vec::new(), Vec::new());
    for index in 0..FORMATS_MAX {
        let mut described = FormatDescription {
            index,
            kind: BUF_TYPE_VIDEO_CAPTURE,
            flags: 0,
            description: [0; 32],
            pixelformat: 0,
            mbus_code: 0,
            reserved: [0; 3],
        };
        if device.call(Call::EnumFormats(&mut described)).is_err() {
            break;
        }
        let fourcc = described.pixelformat;
        found.push(letters(fourcc));
        let Some(pixels) = Pixels::of(fourcc).filter(|&pixels| wish.allows(pixels)) else { continue };
        for (width, height) in sizes(device, fourcc, wish) {
            let interval = interval(device, fourcc, (width, height), wish);
            offers.push(Offer { fourcc, pixels, width, height, interval });
        }
    }
    (offers, found)
}

/// The sizes of a format; of a range the one that fits; if the driver does not say, the one that is wanted.
fn sizes(device: &mut impl Device, pixel_format: u32, wish: &Wish) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for index in 0..SIZES_MAX {
        let mut sizes = FrameSizes { index, pixel_format, kind: 0, sizes: [0; 6], reserved: [0; 2] };
        if device.call(Call::EnumFrameSizes(&mut sizes)).is_err() {
            break;
        }
        if sizes.kind != TYPE_DISCRETE {
            found.push(in_range(sizes.sizes, wish.size()));
            break;
        }
        found.push((sizes.sizes[0], sizes.sizes[1]));
    }
    if found.is_empty() { vec![wish.size()] } else { found }
}

/// The interval that fits, if the driver says which there are.
fn interval(
    device: &mut impl Device,
    pixel_format: u32,
    (width, height): (u32, u32),
    wish: &Wish,
) -> Option<Fraction> {
    let mut found = Vec::new();
    for index in 0..INTERVALS_MAX {
        let intervals = [Fraction::default(); 3];
        let mut asked =
            FrameIntervals { index, pixel_format, width, height, kind: 0, intervals, reserved: [0; 2] };
        if device.call(Call::EnumFrameIntervals(&mut asked)).is_err() {
            break;
        }
        if asked.kind != TYPE_DISCRETE {
            let [shortest, longest, _] = asked.intervals;
            found.extend([shortest, longest]);
            // The driver takes what is between, in its steps.
            if let Some(fps) = wish.fps {
                let micros = (1e6 / fps) as u32;
                let between = Fraction { numerator: micros.max(1), denominator: 1_000_000 };
                let seconds = |i: Fraction| f64::from(i.numerator) / f64::from(i.denominator);
                if (seconds(shortest)..=seconds(longest)).contains(&seconds(between)) {
                    found.push(between);
                }
            }
            break;
        }
        found.push(asked.intervals[0]);
    }
    wish.interval(found.into_iter())
}

/// Asks for buffers and maps them; gives how many there are.
fn map_buffers(device: &mut impl Device, card: &str, frame: &FrameLayout) -> Result<u32, CameraError> {
    let nonsense = |what: String| CameraError::Nonsense { card: card.to_owned(), what };
    let mut request = RequestBuffers {
        count: BUFFERS,
        kind: BUF_TYPE_VIDEO_CAPTURE,
        memory: MEMORY_MMAP,
        capabilities: 0,
        flags: 0,
    };
    let asked = device.call(Call::RequestBuffers(&mut request));
    asked.map_err(|error| refused("VIDIOC_REQBUFS", error))?;
    if !(1..=BUFFERS_MAX).contains(&request.count) {
        return Err(nonsense(format!("it has {} buffers", request.count)));
    }
    for index in 0..request.count {
        let mut buffer = Buffer::new(index);
        let asked = device.call(Call::QueryBuffer(&mut buffer));
        asked.map_err(|error| refused("VIDIOC_QUERYBUF", error))?;
        if (buffer.length as usize) < frame.bytes_least() {
            let (have, need) = (buffer.length, frame.bytes_least());
            return Err(nonsense(format!("a buffer has {have} bytes, and a frame needs {need}")));
        }
        let map = device.map(buffer.m[0], buffer.length as usize);
        map.map_err(|error| refused("mapping a buffer", error))?;
    }
    Ok(request.count)
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
