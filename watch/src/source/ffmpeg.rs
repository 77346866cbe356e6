//! Compressed video, which `ffmpeg` reads and writes as YUV4MPEG2.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use super::address::Address;
use super::bytes::ByteFeed;
use super::open::{OpenOptions, SourceError};
use super::program::Program;
use super::secrets::Secrets;
use crate::stream::Y4m;

/// A stream of the network.
pub(super) fn stream(address: &Address, url: &str, options: &OpenOptions) -> Result<ByteFeed, SourceError> {
    let mut command = begun(options);
    if url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rtsp")) {
        // Over UDP pictures arrive in pieces on most networks.
        command.args(["-rtsp_transport", "tcp"]);
    }
    run(address, command, url.into(), Secrets::of(url), options)
}

/// A file.
pub(super) fn file(address: &Address, path: &Path, options: &OpenOptions) -> Result<ByteFeed, SourceError> {
    // So that no name looks like an option or another protocol.
    let mut input = OsString::from("file:");
    input.push(path);
    run(address, begun(options), input, Secrets::default(), options)
}

fn begun(options: &OpenOptions) -> Command {
    let mut command = Command::new(&options.ffmpeg);
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]).args(&options.ffmpeg_input);
    command
}

fn run(
    address: &Address,
    mut command: Command,
    input: OsString,
    secrets: Secrets,
    options: &OpenOptions,
) -> Result<ByteFeed, SourceError> {
    command.arg("-i").arg(input).args(["-an", "-sn", "-dn"]);
    let fps = address.fps.map(|fps| format!("fps={fps}"));
    let size = address.size.map(|(width, height)| format!("scale={width}:{height}"));
    let filters: Vec<String> = fps.into_iter().chain(size).collect();
    if !filters.is_empty() {
        command.args(["-vf", &filters.join(",")]);
    }
    command.args(["-f", "yuv4mpegpipe", "-pix_fmt", "yuv420p", "pipe:1"]);
    let program = Program::start(command, secrets).map_err(|error| SourceError::NoProgram {
        source_name: address.kind.to_string(),
        program: options.ffmpeg.clone(),
        error,
    })?;
    let splitter = Box::new(Y4m::new(options.picture_bytes_max));
    Ok(ByteFeed::new(Box::new(program), splitter, options.silence))
}
