//! Weights that are read from the disk ahead of the layers that use them.
//!
//! A mapped file that is not in memory comes page by page as it is touched, and every thread waits for its own pages.
//! So before a layer computes, the system is asked for what follows it, and reads that meanwhile: the first answer
//! takes as long as the disk or the arithmetic, whichever is slower, and not both. A file lies in the order in which
//! answering reads it, so that this is one pass from front to back. The threads that compute share the asking, since
//! finding memory for what is read is work too; what takes time is the disk's, which nobody waits for here. No other
//! memory is needed than the file's own pages, which the system drops again as it likes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::compute::Compute;
use crate::format::PalmFile;
use crate::model::weights::{Matrix, TextLayer, VisionLayer, Weights};

/// The system is asked for so many bytes behind the layer that computes next: some time of any disk.
const AHEAD_BYTES: usize = 64 << 20;
/// A thread asks for so many at once.
const PIECE_BYTES: usize = 2 << 20;

/// How far the system has been asked for a file.
pub(crate) struct Ahead {
    /// Everything from where a picture's way began has been asked for up to here.
    asked: usize,
    /// Where the decoder's layers end, and where the LM head does. A session without answers has no use for the latter.
    layers_end: usize,
    head_end: usize,
    /// The system does not tell what is in memory: then it is asked once, and not for every picture.
    is_blind: bool,
}

impl Ahead {
    /// For a session with a model of these weights.
    pub fn new(weights: &Weights) -> Self {
        let matrices = weights.encoder_matrices().chain(weights.decoder_matrices());
        let layers_end = span(matrices).end;
        let head_end = layers_end.max(weights.head().place().end);
        Self { asked: 0, layers_end, head_end, is_blind: false }
    }

    /// A picture comes, and all weights will be used once more: the system may have dropped some.
    pub fn begin(&mut self) {
        if !self.is_blind {
            self.asked = 0;
        }
    }

    /// What lies at `place` is used next, and then what follows; in the end the whole head, if it is so.
    pub fn reach(&mut self, compute: &mut Compute, file: &PalmFile, place: Range<usize>, whole_head: bool) {
        if !file.is_mapped() {
            return;
        }
        let Some(part) = self.step(place, whole_head) else { return };
        let is_blind = AtomicBool::new(self.is_blind);
        compute.pool.run(&mut compute.scratch, part.len().div_ceil(PIECE_BYTES), |i, _| {
            let start = part.start + i * PIECE_BYTES;
            if !file.read_ahead(start..part.end.min(start + PIECE_BYTES)) {
                is_blind.store(true, Ordering::Relaxed);
            }
        });
        self.is_blind = is_blind.into_inner();
    }

    /// What is to be asked for, if anything.
    fn step(&mut self, place: Range<usize>, whole_head: bool) -> Option<Range<usize>> {
        let end = if whole_head { self.head_end } else { self.layers_end };
        let from = self.asked.max(place.start);
        // Behind the last layer comes one product with all of the head.
        let to =
            if place.end < self.layers_end { place.end.saturating_add(AHEAD_BYTES).min(end) } else { end };
        (from < to).then(|| {
            self.asked = to;
            from..to
        })
    }
}

/// From the first byte of some matrices to the last one.
fn span<'a>(matrices: impl Iterator<Item = &'a Matrix>) -> Range<usize> {
    matrices.map(Matrix::place).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
}

/// Where a layer's matrices lie.
pub(super) trait Place {
    fn place(&self) -> Range<usize>;
}

impl Place for VisionLayer {
    fn place(&self) -> Range<usize> {
        span(self.matrices().into_iter())
    }
}

impl Place for TextLayer {
    fn place(&self) -> Range<usize> {
        span(self.matrices().into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn ahead() -> Ahead {
        Ahead { asked: 0, layers_end: 300 * MIB, head_end: 400 * MIB, is_blind: false }
    }

    /// Layers of 25 MiB from `from` on.
    fn layers(from: usize) -> impl Iterator<Item = Range<usize>> {
        (from..300).step_by(25).map(|at| at * MIB..(at + 25) * MIB)
    }

    #[test]
    fn every_byte_is_asked_for_once_in_order_and_before_it_is_used() {
        for whole_head in [true, false] {
            let (mut ahead, mut asked) = (ahead(), 0);
            let end = if whole_head { 400 } else { 300 } * MIB;
            for _ in 0..2 {
                for place in layers(0) {
                    if let Some(part) = ahead.step(place.clone(), whole_head) {
                        assert_eq!(part.start, asked);
                        asked = part.end;
                        let is_last = place.end == 300 * MIB;
                        assert_eq!(asked, if is_last { end } else { end.min(place.end + AHEAD_BYTES) });
                    }
                    assert!(asked >= place.end);
                }
            }
            assert_eq!(asked, end);
        }
    }

    /// A question without a picture has no use for the encoder.
    #[test]
    fn what_is_not_used_is_not_asked_for() {
        let mut ahead = ahead();
        let parts: Vec<_> = layers(100).filter_map(|place| ahead.step(place, false)).collect();
        assert_eq!((parts[0].start, parts.last().unwrap().end), (100 * MIB, 300 * MIB));
    }

    #[test]
    fn the_next_picture_asks_again_where_the_system_tells_what_is_there() {
        let mut ahead = ahead();
        let all = |ahead: &mut Ahead| layers(0).filter_map(|place| ahead.step(place, true)).count();
        let first = all(&mut ahead);
        assert!(first > 1 && all(&mut ahead) == 0);
        ahead.begin();
        assert_eq!(all(&mut ahead), first);
        ahead.is_blind = true;
        ahead.begin();
        assert_eq!(all(&mut ahead), 0);
    }
}
