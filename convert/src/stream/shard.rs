//! One weight file on its way: a thread reads and hashes it, another one converts what has been read.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::making::{Making, Point};
use super::route::Piece;
use super::sum::hex;
use super::{ByteSource, RemoteFile};
use crate::{ConvertError, Progress};

/// Pieces that are read ahead.
const AHEAD: usize = 2;
/// How often a thread that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// A piece that was read, and the place behind it.
type Arrival = Result<(Piece, Vec<u8>, Point), ConvertError>;

/// Reads the rest of a weight file into the target, and compares its hash.
pub fn run(
    shard: usize,
    making: &Making<'_>,
    source: &Arc<dyn ByteSource>,
    progress: &dyn Progress,
) -> Result<(), ConvertError> {
    let mut point = making.point(shard);
    let file = &making.given.files[shard];
    let pieces: Vec<Piece> = making.given.routes.pieces[shard]
        .iter()
        .filter(|piece| piece.start >= point.position)
        .cloned()
        .collect();
    let mut left = pieces.len();
    if left > 0 {
        let arrivals = read_beside(pieces, source.clone(), file.clone(), point.clone());
        while left > 0 {
            making.out.go_on()?;
            match arrivals.recv_timeout(LOOK) {
                Ok(arrival) => {
                    let (piece, bytes, behind) = arrival?;
                    making.take(shard, &piece, &bytes, point, behind.clone())?;
                    progress.advance(bytes.len() as u64);
                    (point, left) = (behind, left - 1);
                    making.note()?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(fetch(std::io::Error::other("the thread that reads it has ended")));
                }
            }
        }
    }
    let found = point.sum.finish();
    if found == file.sha256 {
        return Ok(());
    }
    making.write_journal(Some(shard))?;
    Err(ConvertError::WrongHash { name: file.name.clone(), found: hex(&found), wanted: hex(&file.sha256) })
}

/// An error of a source as one of a conversion.
pub fn fetch(error: std::io::Error) -> ConvertError {
    match error.kind() {
        // What a source has to say stands inside.
        ErrorKind::Other => match error.into_inner() {
            Some(inner) => ConvertError::Fetch(inner),
            None => ConvertError::Fetch("it cannot be read".into()),
        },
        _ => ConvertError::Fetch(error.into()),
    }
}

/// Reads pieces on a thread of its own, which ends with the next one that nobody takes: it may wait for the network,
/// and whoever stops does not wait for it.
fn read_beside(
    pieces: Vec<Piece>,
    source: Arc<dyn ByteSource>,
    file: RemoteFile,
    point: Point,
) -> Receiver<Arrival> {
    let (to, from) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        if let Err(error) = read(pieces, &*source, &file, point, &to) {
            let _ = to.send(Err(error));
        }
    });
    from
}

fn read(
    pieces: Vec<Piece>,
    source: &dyn ByteSource,
    file: &RemoteFile,
    mut point: Point,
    to: &SyncSender<Arrival>,
) -> Result<(), ConvertError> {
    let mut reader = source.open(&file.name, point.position, file.bytes).map_err(ConvertError::Fetch)?;
    for piece in pieces {
        let mut bytes = vec![0; (piece.end - piece.start) as usize];
        reader.read_exact(&mut bytes).map_err(fetch)?;
        point.sum.update(&bytes);
        point.position = piece.end;
        if to.send(Ok((piece, bytes, point.clone()))).is_err() {
            break;
        }
    }
    Ok(())
}
