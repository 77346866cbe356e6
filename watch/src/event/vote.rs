//! From looks to a state: a condition must hold in some of the last looks before it counts.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// So many of the last looks: `3 of 5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    needed: u32,
    of: u32,
}

/// No rule needs to remember more looks.
const LOOKS_MAX: u32 = 1000;

impl Quorum {
    /// `needed` of the last `of` looks; `None` unless 1 ≤ `needed` ≤ `of` ≤ 1000.
    pub fn new(needed: u32, of: u32) -> Option<Self> {
        (1 <= needed && needed <= of && of <= LOOKS_MAX).then_some(Self { needed, of })
    }
}

impl Quorum {
    /// How many looks are needed.
    pub fn needed(self) -> usize {
        self.needed as usize
    }

    /// Of how many.
    pub fn of(self) -> usize {
        self.of as usize
    }
}

impl Default for Quorum {
    /// Every look counts: 1 of 1.
    fn default() -> Self {
        Self { needed: 1, of: 1 }
    }
}

impl FromStr for Quorum {
    type Err = String;

    /// Reads `3 of 5`, and `3` for `3 of 3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (needed, of) = text.split_once(" of ").unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let quorum = number(needed).zip(number(of)).and_then(|(needed, of)| Self::new(needed, of));
        quorum.ok_or_else(|| format!("'{text}' is no number of looks: write '3 of 5', or '3'"))
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.needed, self.of)
    }
}

/// What a look changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The condition has come to hold.
    Begins,
    /// It holds no more.
    Ends,
}

/// Whether a condition holds, by votes of looks.
///
/// Unless [`until`](Self::until) says otherwise, as many looks are needed for the end as for the beginning, and only
/// those since the last change count. So a condition that is seen in every second look begins once and does not end
/// and begin again all the time.
#[derive(Clone, Debug)]
pub struct Vote {
    quorum: Quorum,
    /// Of looks that do not see the condition, for its end.
    until: Quorum,
    holds: bool,
    /// The last looks since the last change: whether each spoke for another one.
    against: VecDeque<bool>,
}

impl Vote {
    /// A condition that does not hold yet. All memory is taken here.
    pub fn new(quorum: Quorum) -> Self {
        let against = VecDeque::with_capacity(quorum.of());
        Self { quorum, until: quorum, holds: false, against }
    }

    /// So many looks must not see the condition for its end.
    pub fn until(mut self, until: Quorum) -> Self {
        self.against.reserve(until.of().max(self.quorum.of()));
        self.until = until;
        self
    }

    /// Counts a look. `seen` says whether the condition held in it, and `may_begin` that a beginning is not
    /// too early.
    pub fn look(&mut self, seen: bool, may_begin: bool) -> Option<Change> {
        let quorum = if self.holds { self.until } else { self.quorum };
        while self.against.len() >= quorum.of() {
            self.against.pop_front();
        }
        self.against.push_back(seen != self.holds);
        let votes = self.against.iter().filter(|&&against| against).count();
        if votes < quorum.needed() || !(self.holds || may_begin) {
            return None;
        }
        self.against.clear();
        self.holds = !self.holds;
        Some(if self.holds { Change::Begins } else { Change::Ends })
    }

    /// The condition holds no more, whatever looks have seen.
    pub fn end(&mut self) {
        self.holds = false;
        self.against.clear();
    }

    /// True between a beginning and its end.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// True while looks like the last one would change it, but too few have come.
    pub fn is_undecided(&self) -> bool {
        self.against.back() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes of a row of looks, `#` seen, `.` not, and where they were. None begins before `from`.
    fn changes_from(from: usize, quorum: &str, until: &str, looks: &str) -> Vec<(usize, Change)> {
        let mut vote = Vote::new(quorum.parse().unwrap()).until(until.parse().unwrap());
        let change = |(i, look)| {
            let change = vote.look(look == '#', i >= from)?;
            assert_eq!(vote.holds(), change == Change::Begins);
            Some((i, change))
        };
        looks.chars().enumerate().filter_map(change).collect()
    }

    fn changes(quorum: &str, looks: &str) -> Vec<(usize, Change)> {
        changes_from(0, quorum, quorum, looks)
    }

    #[test]
    fn quorums_decide() {
        use Change::{Begins, Ends};
        assert_eq!(changes("1", "..##.#"), [(2, Begins), (4, Ends), (5, Begins)]);
        assert_eq!(changes("3 of 5", "#.#...#.##"), [(9, Begins)]);
        assert_eq!(changes("3 of 5", "##.#..#.."), [(3, Begins), (7, Ends)]);
        // What is seen every second time begins once.
        assert_eq!(changes("2 of 4", "#.#.#.#.").first(), Some(&(2, Begins)));
        assert_eq!(changes("3 of 4", "#.##.#.#.#.#.#.#"), [(3, Begins)]);
        assert_eq!(changes("2 of 2", "#.#.#.#"), []);
    }

    #[test]
    fn an_end_may_need_more_looks_than_a_beginning() {
        use Change::{Begins, Ends};
        assert_eq!(changes_from(0, "1", "3", "#..#.#...#"), [(0, Begins), (8, Ends), (9, Begins)]);
        assert_eq!(changes_from(0, "2 of 3", "1", "#.#.##"), [(2, Begins), (3, Ends), (5, Begins)]);
    }

    #[test]
    fn a_beginning_that_is_too_early_comes_later_if_it_still_holds() {
        use Change::{Begins, Ends};
        assert_eq!(changes_from(5, "1", "1", "#.#.####.."), [(5, Begins), (8, Ends)]);
        assert_eq!(changes_from(5, "2", "2", "##.....##"), [(8, Begins)]);
    }

    #[test]
    fn quorums_are_read_and_written() {
        for (text, written) in [("3 of 5", "3 of 5"), ("2", "2 of 2"), (" 1 of 1 ", "1 of 1")] {
            assert_eq!(text.parse::<Quorum>().unwrap().to_string(), written);
        }
        for text in ["", "0", "0 of 3", "4 of 3", "-1 of 2", "3/5", "three of five", "1 of 1001"] {
            assert!(text.parse::<Quorum>().is_err(), "{text}");
        }
    }
}
