//! From looks to a state: a condition must hold in some of the last looks before it counts.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

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
/// As many looks are needed for the end as for the beginning, and only those since the last change count. So a
/// condition that is seen in every second look begins once and does not end and begin again all the time.
#[derive(Clone, Debug)]
pub struct Vote {
    quorum: Quorum,
    /// At least so long from one beginning to the next.
    cooldown: Duration,
    holds: bool,
    /// The last looks since the last change: whether each spoke for another one.
    against: VecDeque<bool>,
    began: Option<Instant>,
}

impl Vote {
    /// A condition that does not hold yet. All memory is taken here.
    pub fn new(quorum: Quorum, cooldown: Duration) -> Self {
        let against = VecDeque::with_capacity(quorum.of as usize);
        Self { quorum, cooldown, holds: false, against, began: None }
    }

    /// Counts a look. `seen` says whether the condition held in it.
    pub fn look(&mut self, seen: bool, now: Instant) -> Option<Change> {
        if self.against.len() == self.quorum.of as usize {
            self.against.pop_front();
        }
        self.against.push_back(seen != self.holds);
        let votes = self.against.iter().filter(|&&against| against).count();
        if votes < self.quorum.needed as usize {
            return None;
        }
        let is_early = |began| now.saturating_duration_since(began) < self.cooldown;
        if !self.holds && self.began.is_some_and(is_early) {
            return None;
        }
        self.against.clear();
        self.holds = !self.holds;
        if self.holds {
            self.began = Some(now);
            return Some(Change::Begins);
        }
        Some(Change::Ends)
    }

    /// True between a beginning and its end.
    pub fn holds(&self) -> bool {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes of a row of looks, one a second: `#` seen, `.` not; and where they were.
    fn changes(quorum: &str, cooldown: u64, looks: &str) -> Vec<(usize, Change)> {
        let mut vote = Vote::new(quorum.parse().unwrap(), Duration::from_secs(cooldown));
        let start = Instant::now();
        let change = |(i, look)| {
            let change = vote.look(look == '#', start + Duration::from_secs(i as u64))?;
            assert_eq!(vote.holds(), change == Change::Begins);
            Some((i, change))
        };
        looks.chars().enumerate().filter_map(change).collect()
    }

    #[test]
    fn quorums_decide() {
        use Change::{Begins, Ends};
        assert_eq!(changes("1", 0, "..##.#"), [(2, Begins), (4, Ends), (5, Begins)]);
        assert_eq!(changes("3 of 5", 0, "#.#...#.##"), [(9, Begins)]);
        assert_eq!(changes("3 of 5", 0, "##.#..#.."), [(3, Begins), (7, Ends)]);
        // What is seen every second time begins once.
        assert_eq!(changes("2 of 4", 0, "#.#.#.#.").first(), Some(&(2, Begins)));
        assert_eq!(changes("3 of 4", 0, "#.##.#.#.#.#.#.#"), [(3, Begins)]);
        assert_eq!(changes("2 of 2", 0, "#.#.#.#"), []);
    }

    #[test]
    fn a_cooldown_holds_back_the_next_beginning_and_no_end() {
        use Change::{Begins, Ends};
        let got = changes("1", 5, "#.#.#.#.");
        assert_eq!(got, [(0, Begins), (1, Ends), (6, Begins), (7, Ends)]);
        // It begins late if it still holds then.
        assert_eq!(changes("1", 5, "#.######"), [(0, Begins), (1, Ends), (5, Begins)]);
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
