//! YUV4MPEG2, which `ffmpeg -f yuv4mpegpipe` and `mplayer` write: a header line, then frames of planes, each behind a
//! line of its own (yuv4mpeg(5) of mjpegtools).

use std::time::Duration;

use palmtop::image::{PixelFormat, YuvColor};

use super::{Layout, Raw, Splitter, StreamError, Taken, beginning};

/// No line of a header is longer.
const LINE_BYTES_MAX: usize = 1024;
const MAGIC: &[u8] = b"YUV4MPEG2 ";
const FRAME: &[u8] = b"FRAME";

/// Cuts YUV4MPEG2 into pictures.
#[derive(Debug)]
pub struct Y4m {
    bytes_max: usize,
    line: Vec<u8>,
    frames: Option<Raw>,
    period: Option<Duration>,
    in_frame: bool,
}

impl Y4m {
    /// Refuses pictures of more than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::with_capacity(LINE_BYTES_MAX),
            frames: None,
            period: None,
            in_frame: false,
        }
    }

    /// Takes bytes up to the end of a line; the line is then whole without its end.
    fn line(&mut self, bytes: &[u8]) -> Result<(usize, bool), StreamError> {
        let end = bytes.iter().position(|&b| b == b'\n');
        let n = end.unwrap_or(bytes.len());
        self.line.extend_from_slice(&bytes[..n.min(LINE_BYTES_MAX - self.line.len())]);
        let expected = if self.frames.is_some() { FRAME } else { MAGIC };
        let known = self.line.len().min(expected.len());
        if self.line[..known] != expected[..known] || self.line.len() == LINE_BYTES_MAX {
            let expected =
                if self.frames.is_some() { "YUV4MPEG2 at the start of a frame" } else { "YUV4MPEG2" };
            return Err(StreamError::OtherKind { expected, found: beginning(&self.line) });
        }
        Ok((n + usize::from(end.is_some()), end.is_some()))
    }

    fn header(&mut self) -> Result<Raw, StreamError> {
        let text = String::from_utf8_lossy(&self.line);
        let wrong = |entry: &str, what| StreamError::Header { entry: beginning(entry.as_bytes()), what };
        let (mut width, mut height, mut kind, mut full_range) = (None, None, "420", false);
        for entry in text.split(' ').skip(1).filter(|e| !e.is_empty()) {
            let value = entry.get(1..).unwrap_or_default();
            let side =
                || value.parse::<u32>().ok().filter(|&n| n > 0).ok_or_else(|| wrong(entry, "is no size"));
            match entry.as_bytes()[0] {
                b'W' => width = Some(side()?),
                b'H' => height = Some(side()?),
                b'C' => kind = value,
                b'X' if value == "COLORRANGE=FULL" => full_range = true,
                b'F' => self.period = period(value),
                b'I' if !matches!(value, "p" | "?" | "") => {
                    return Err(wrong(
                        entry,
                        "pictures are interlaced; make them progressive (ffmpeg -vf yadif)",
                    ));
                }
                _ => {}
            }
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err(wrong(&text, "has no W and H"));
        };
        let color = if full_range { YuvColor::Bt601Full } else { YuvColor::Bt601Limited };
        let layout = match kind {
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => Layout::I420 { width, height, color },
            "mono" => Layout::Packed { format: PixelFormat::Grey, width, height },
            _ => return Err(wrong(kind, "only 4:2:0 and mono of 8 bits are read (ffmpeg -pix_fmt yuv420p)")),
        };
        Raw::new(layout, self.bytes_max)
    }
}

/// Of pictures a second as a fraction; `0:0` is unknown, and what is not between a millisecond and an hour no rate.
fn period(rate: &str) -> Option<Duration> {
    let (pictures, seconds) = rate.split_once(':')?;
    let (pictures, seconds) = (pictures.parse::<u32>().ok()?, seconds.parse::<u32>().ok()?);
    let period = f64::from(seconds) / f64::from(pictures);
    (1e-3..=3600.0).contains(&period).then(|| Duration::from_secs_f64(period))
}

impl Splitter for Y4m {
    fn take(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> Result<Taken, StreamError> {
        let mut at = 0;
        loop {
            if self.in_frame
                && let Some(frames) = &mut self.frames
            {
                let taken = frames.take(&bytes[at..], picture)?;
                self.in_frame = !taken.is_complete;
                return Ok(Taken { bytes: at + taken.bytes, ..taken });
            }
            let (n, is_whole) = self.line(&bytes[at..])?;
            at += n;
            if !is_whole {
                return Ok(Taken { bytes: at, is_complete: false });
            }
            match &self.frames {
                Some(_) => self.in_frame = true,
                None => self.frames = Some(self.header()?),
            }
            self.line.clear();
        }
    }

    fn layout(&self) -> Option<Layout> {
        self.frames.as_ref()?.layout()
    }

    fn period(&self) -> Option<Duration> {
        self.period
    }

    fn broken(&self) -> u64 {
        0
    }

    fn bytes_max(&self) -> usize {
        self.frames.as_ref().map_or(self.bytes_max, Raw::bytes_max)
    }
}
