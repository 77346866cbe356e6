//! Pictures cut out of bytes: of files, pipes, programs and servers.

use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::feed::{Caught, Feed, MOMENT, Next};
use crate::stream::Splitter;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 18;
/// So many times the longest silence, bytes may come without a picture in them.
const SILENCES_WITHOUT_PICTURE: u32 = 3;

/// Bytes that come when they come.
pub(super) trait Trickle: Send {
    /// Reads what is there; waits for a [`MOMENT`] at most, if the system can. `None` if nothing came, 0 at the end.
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Why it ended.
    fn why_ended(&mut self) -> String {
        "the stream has ended".into()
    }
}

/// Pictures out of bytes.
pub(super) struct ByteFeed {
    bytes: Box<dyn Trickle>,
    splitter: Box<dyn Splitter>,
    chunk: Vec<u8>,
    /// What of the chunk has not been cut yet.
    left: Range<usize>,
    silence_max: Option<Duration>,
    /// How long nothing has come. Only waiting counts: while nobody reads, nothing can come.
    waited: Duration,
    /// Since when bytes come without a picture in them.
    without_picture: Option<Instant>,
}

impl ByteFeed {
    /// Bytes may stay away for `silence_max`.
    pub fn new(bytes: Box<dyn Trickle>, splitter: Box<dyn Splitter>, silence_max: Option<Duration>) -> Self {
        Self {
            bytes,
            splitter,
            chunk: vec![0; READ_BYTES],
            left: 0..0,
            silence_max,
            waited: Duration::ZERO,
            without_picture: None,
        }
    }

    /// Fills the chunk.
    fn read(&mut self) -> Result<(), Next> {
        let begun = Instant::now();
        match self.bytes.some(&mut self.chunk) {
            Ok(Some(0)) => Err(Next::End(self.bytes.why_ended())),
            Ok(Some(n)) => {
                self.left = 0..n.min(self.chunk.len());
                self.waited = Duration::ZERO;
                Ok(())
            }
            Ok(None) => {
                self.waited += begun.elapsed();
                match self.silence_max {
                    Some(most) if self.waited >= most => {
                        let said = self.bytes.why_ended();
                        Err(Next::End(format!("nothing came for {} s ({said})", most.as_secs_f32())))
                    }
                    _ => Err(Next::Nothing),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Next::Nothing),
            Err(error) => Err(Next::End(error.to_string())),
        }
    }
}

impl Feed for ByteFeed {
    fn next(&mut self, picture: &mut Vec<u8>) -> Next {
        if self.left.is_empty()
            && let Err(next) = self.read()
        {
            return next;
        }
        while !self.left.is_empty() {
            let taken = match self.splitter.take(&self.chunk[self.left.clone()], picture) {
                Ok(taken) => taken,
                Err(error) => return Next::End(error.to_string()),
            };
            self.left.start += taken.bytes;
            if let Some(layout) = self.splitter.layout().filter(|_| taken.is_complete) {
                self.without_picture = None;
                let period = self.splitter.period();
                return Next::Picture(Caught { layout, age: Duration::ZERO, period, passed_over: 0 });
            }
        }
        let since = *self.without_picture.get_or_insert_with(Instant::now);
        match self.silence_max.map(|most| most * SILENCES_WITHOUT_PICTURE) {
            Some(most) if since.elapsed() >= most => {
                Next::End(format!("bytes came for {} s, but no picture in them", most.as_secs_f32()))
            }
            _ => Next::Nothing,
        }
    }

    fn broken(&self) -> u64 {
        self.splitter.broken()
    }
}

/// A file, a pipe or standard input.
pub(super) struct Readable<T>(pub T);

#[cfg(unix)]
impl<T: Read + Send + std::os::fd::AsFd> Trickle for Readable<T> {
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match wait([self.0.as_fd()])? {
            [true] => read(&mut self.0, buffer),
            [false] => Ok(None),
        }
    }
}

#[cfg(not(unix))]
impl<T: Read + Send> Trickle for Readable<T> {
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        read(&mut self.0, buffer)
    }
}

/// Reads; that nothing is there is no error.
pub(super) fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Waits for a moment until one of these can be read, or has ended; says of which that is true.
#[cfg(unix)]
pub(super) fn wait<const N: usize>(files: [std::os::fd::BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = files.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN));
    let most = Timespec::try_from(MOMENT).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&most)) {
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(polled.map(|file| !file.revents().is_empty())),
    }
}
