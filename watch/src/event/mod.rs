//! From answers to events: what is the same object, and what has lasted long enough to count.

mod hours;
mod rule;
mod settled;
mod track;
mod vote;

pub use hours::Hours;
pub use rule::{Condition, Objects, Rule, RuleState, Sight, Turn};
pub use settled::Settled;
pub use track::{Fate, Seen, Track, TrackOptions, Tracker};
pub use vote::{Change, Quorum, Vote};
