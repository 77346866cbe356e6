//! A device whose every answer is made of bytes, for fuzzing: what a driver may say, and what none should.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::abi::{Fraction, GREY, MJPG, NV12, UYVY, YU12, YUYV};
use super::device::{Call, Device};
use super::{Camera, Feed, Wish};
use crate::source::fuzz::Given;

/// Larger buffers are refused, as the kernel refuses what is larger than its own.
const MAPPED_BYTES_MAX: usize = 1 << 16;

/// Films with a device that answers by these bytes, and goes away when they are used up.
pub fn film(answers: &[u8], picture_bytes_max: usize) -> Given {
    let wild = Wild { answers: answers.iter().copied().collect(), mapped: Vec::new() };
    let silence = Some(Duration::from_secs(1));
    let camera = Camera::start(wild, &Wish::default(), picture_bytes_max, silence);
    Given::of(camera.map(|camera| Box::new(camera) as Box<dyn Feed>))
}

struct Wild {
    answers: VecDeque<u8>,
    mapped: Vec<Vec<u8>>,
}

impl Wild {
    fn byte(&mut self) -> Option<u8> {
        self.answers.pop_front()
    }

    /// Mostly what makes sense, often small, sometimes anything.
    fn number(&mut self, sense: u32) -> u32 {
        match self.byte().unwrap_or(0) {
            0..128 => sense,
            255 => u32::from_le_bytes(std::array::from_fn(|_| self.byte().unwrap_or(0))),
            254 => u32::from(u16::from_le_bytes(std::array::from_fn(|_| self.byte().unwrap_or(0)))),
            small => u32::from(small - 128),
        }
    }

    fn pixel_format(&mut self, sense: u32) -> u32 {
        let known = [NV12, YU12, YUYV, UYVY, GREY, MJPG];
        match self.byte().unwrap_or(0) {
            n @ 1..=6 => known[usize::from(n) - 1],
            7 => self.number(0),
            _ => sense,
        }
    }

    fn fraction(&mut self) -> Fraction {
        Fraction { numerator: self.number(1), denominator: self.number(30) }
    }
}

impl Device for Wild {
    fn call(&mut self, call: Call<'_>) -> io::Result<()> {
        match self.byte() {
            None => return Err(Errno::NODEV.into()),
            Some(n @ 250..) => {
                let errors = [Errno::INVAL, Errno::BUSY, Errno::IO, Errno::AGAIN, Errno::NOTTY, Errno::NODEV];
                return Err(errors[usize::from(n - 250)].into());
            }
            Some(_) => {}
        }
        match call {
            Call::QueryCapabilities(value) => {
                value.card = std::array::from_fn(|_| self.byte().unwrap_or(0));
                value.capabilities = self.number(super::CAP_DEVICE_CAPS);
                value.device_caps = self.number(super::CAP_VIDEO_CAPTURE | super::CAP_STREAMING);
            }
            Call::EnumFormats(value) => value.pixelformat = self.pixel_format(YUYV),
            Call::EnumFrameSizes(value) => {
                value.kind = self.number(super::TYPE_DISCRETE);
                value.sizes = std::array::from_fn(|_| self.number(16));
            }
            Call::EnumFrameIntervals(value) => {
                value.kind = self.number(super::TYPE_DISCRETE);
                value.intervals = std::array::from_fn(|_| self.fraction());
            }
            Call::SetFormat(value) => {
                let pix = &mut value.pix;
                pix.pixelformat = self.pixel_format(pix.pixelformat);
                (pix.width, pix.height) = (self.number(pix.width), self.number(pix.height));
                (pix.bytesperline, pix.sizeimage) = (self.number(0), self.number(0));
                (pix.colorspace, pix.priv_magic) = (self.number(0), self.number(pix.priv_magic));
                (pix.ycbcr_enc, pix.quantization) = (self.number(0), self.number(0));
            }
            Call::SetParameters(value) => {
                value.capability = self.number(super::CAP_TIMEPERFRAME);
                value.timeperframe = self.fraction();
            }
            Call::RequestBuffers(value) => value.count = self.number(value.count),
            Call::QueryBuffer(value) => {
                value.length = self.number(1 << 12);
                value.m[0] = self.number(value.index << 12);
            }
            Call::Enqueue(value) => {
                assert!((value.index as usize) < self.mapped.len(), "there is no such buffer")
            }
            Call::Dequeue(value) => {
                value.index = self.number(0);
                value.bytesused = self.number(1 << 12);
                value.flags = self.number(super::BUF_FLAG_TIMESTAMP_MONOTONIC);
                value.timestamp = std::array::from_fn(|_| self.number(1) as i32 as _);
                if let Some(memory) = self.mapped.get_mut(value.index as usize) {
                    memory.fill(self.answers.pop_front().unwrap_or(0));
                    let start = [0xff, 0xd8];
                    let n = start.len().min(memory.len());
                    memory[..n].copy_from_slice(&start[..n]);
                }
            }
            Call::StreamOn(_) | Call::StreamOff(_) => {}
        }
        Ok(())
    }

    fn map(&mut self, _: u32, bytes: usize) -> io::Result<()> {
        if bytes > MAPPED_BYTES_MAX {
            return Err(Errno::INVAL.into());
        }
        self.mapped.push(vec![0; bytes]);
        Ok(())
    }

    fn buffer(&self, index: usize) -> Option<&[u8]> {
        self.mapped.get(index).map(Vec::as_slice)
    }

    fn wait(&mut self, _: Duration) -> io::Result<bool> {
        match self.byte() {
            None | Some(255) => Err(Errno::NODEV.into()),
            Some(n) => Ok(n < 200),
        }
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1000)
    }
}
