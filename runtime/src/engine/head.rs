//! Which rows of the LM head a pass needs. All of them are a fifth of what a token reads.

use std::ops::Range;

use palmtop_kernels::PANEL_STRIPES;
use palmtop_kernels::layout::LANES;

use crate::error::Result;
use crate::system::memory::Reserve;

/// The stripes of the head that are multiplied.
pub(crate) struct HeadPart {
    all: bool,
    /// A bit for each stripe.
    marked: Vec<u64>,
    /// Marked stripes, ascending, in runs of up to a panel.
    runs: Vec<Range<u32>>,
}

impl HeadPart {
    /// Runs that there can be: where every second stripe is marked.
    fn runs_max(vocab: usize) -> usize {
        vocab.div_ceil(LANES).div_ceil(2)
    }

    fn words(vocab: usize) -> usize {
        vocab.div_ceil(LANES).div_ceil(64)
    }

    /// Room for any part of a head of `vocab` rows; all of it at first.
    pub fn new(reserve: &mut Reserve, vocab: usize) -> Result<Self> {
        let marked = reserve.filled(Self::words(vocab), 0)?;
        Ok(Self { all: true, marked, runs: reserve.list(Self::runs_max(vocab))? })
    }

    /// Everything is needed.
    pub fn select_all(&mut self) {
        self.all = true;
    }

    /// What is needed to choose from each of the sets of tokens: nothing for a set of one.
    pub fn select<'a>(&mut self, sets: impl Iterator<Item = &'a [u32]>) {
        self.all = false;
        self.marked.fill(0);
        for &token in sets.filter(|set| set.len() > 1).flatten() {
            let stripe = token as usize / LANES;
            self.marked[stripe / 64] |= 1 << (stripe % 64);
        }
        self.runs.clear();
        for (word, &marked) in (0..).zip(&self.marked) {
            let mut left = marked;
            while left != 0 {
                let stripe = word * 64 + left.trailing_zeros();
                left &= left - 1;
                match self.runs.last_mut() {
                    Some(run) if run.end == stripe && run.len() < PANEL_STRIPES => run.end += 1,
                    _ => self.runs.push(stripe..stripe + 1),
                }
            }
        }
    }

    /// The runs of stripes that are needed; `None` for all stripes.
    pub fn runs(&self) -> Option<&[Range<u32>]> {
        (!self.all).then_some(&self.runs)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "runs are lists of ranges, of one too")]
mod tests {
    use super::*;

    fn runs(sets: &[&[u32]]) -> Vec<Range<u32>> {
        let mut part = HeadPart::new(&mut Reserve::taking(false), 16 * 200).unwrap();
        part.select([&[5, 3000][..]].into_iter());
        let room = part.runs.capacity();
        part.select(sets.iter().copied());
        assert_eq!(part.runs.capacity(), room);
        part.runs().unwrap().to_vec()
    }

    #[test]
    fn stripes_of_all_sets_are_taken_once_in_runs_of_a_panel() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[&[7]]), [], "a single token needs no logit");
        assert_eq!(runs(&[&[0, 15]]), [0..1]);
        assert_eq!(runs(&[&[15, 16]]), [0..2]);
        assert_eq!(runs(&[&[0, 3199], &[1, 2], &[99]]), [0..1, 199..200]);
        let ten: Vec<u32> = (0..10).map(|stripe| 16 * (60 + stripe) + 3).collect();
        assert_eq!(runs(&[&ten[..6], &ten[3..]]), [60..64, 64..68, 68..70]);
        let seconds: Vec<u32> = (0..200).step_by(2).map(|stripe| 16 * stripe).collect();
        assert_eq!(runs(&[&seconds]).len(), 100);
        assert_eq!(HeadPart::runs_max(16 * 200), 100);
    }

    #[test]
    fn without_sets_everything_is_needed() {
        let mut part = HeadPart::new(&mut Reserve::taking(false), 40).unwrap();
        assert_eq!(part.runs(), None);
        part.select([&[39, 0][..]].into_iter());
        assert_eq!(part.runs(), Some(&[0..1, 2..3][..]));
        part.select_all();
        assert_eq!(part.runs(), None);
    }
}
