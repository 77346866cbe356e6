//! Cameras on the board's own connector. Their picture is made by the board's image processor, which a program of the
//! board's maker drives: `rpicam-vid` of a Raspberry Pi (`libcamera-vid` on older systems), or GStreamer with
//! `nvarguscamerasrc` of a Jetson. The first that is there is taken.

use std::io;
use std::process::Command;

use super::address::Address;
use super::bytes::ByteFeed;
use super::open::{OpenOptions, SourceError};
use super::program::Program;
use super::secrets::Secrets;
use crate::stream::Any;

const RPICAM: [&str; 2] = ["rpicam-vid", "libcamera-vid"];
const GSTREAMER: &str = "gst-launch-1.0";
/// Pixels if none are asked for: the image processor scales, and more is only copied.
const SIZE: (u32, u32) = (640, 480);
/// Frames a second for the Jetson, which must be told.
const FPS: f32 = 15.0;

/// Opens camera `number`.
pub(super) fn open(address: &Address, number: u32, options: &OpenOptions) -> Result<ByteFeed, SourceError> {
    let (width, height) = address.size.unwrap_or(SIZE);
    for command in RPICAM.map(|program| rpicam(program, number, width, height, address.fps)) {
        if let Some(feed) = run(address, command, options)? {
            return Ok(feed);
        }
    }
    let fps = address.fps.unwrap_or(FPS);
    run(address, gstreamer(number, width, height, fps), options)?
        .ok_or_else(|| SourceError::NoCsiProgram { source_name: address.kind.to_string() })
}

/// Motion JPEG on standard output.
fn rpicam(program: &str, number: u32, width: u32, height: u32, fps: Option<f32>) -> Command {
    let mut command = Command::new(program);
    command.args(["--nopreview", "--timeout", "0", "--codec", "mjpeg", "--flush", "--output", "-"]);
    command.args(["--camera", &number.to_string()]);
    command.args(["--width", &width.to_string(), "--height", &height.to_string()]);
    if let Some(fps) = fps {
        command.args(["--framerate", &fps.to_string()]);
    }
    command
}

/// YUV4MPEG2 on standard output.
fn gstreamer(number: u32, width: u32, height: u32, fps: f32) -> Command {
    // Thousandths: 29.97 is no whole number.
    let rate = format!("{}/1000", (fps * 1000.0).round() as u32);
    let pipeline = format!(
        "nvarguscamerasrc sensor-id={number} ! video/x-raw(memory:NVMM),framerate={rate} ! nvvidconv ! \
         video/x-raw,format=I420,width={width},height={height} ! y4menc ! fdsink fd=1 sync=false"
    );
    let mut command = Command::new(GSTREAMER);
    // Quiet: what it says goes to standard output.
    command.arg("-q").args(pipeline.split(' '));
    command
}

/// `None` if there is no such program.
fn run(address: &Address, command: Command, options: &OpenOptions) -> Result<Option<ByteFeed>, SourceError> {
    match Program::start(command, Secrets::default()) {
        Ok(program) => {
            let splitter = Box::new(Any::new(options.picture_bytes_max));
            Ok(Some(ByteFeed::new(Box::new(program), splitter, options.silence)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SourceError::Io { source_name: address.kind.to_string(), error }),
    }
}
