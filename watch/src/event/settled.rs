//! A value that is believed once enough of the last looks have given it.

use std::collections::VecDeque;

use super::vote::Quorum;

/// The value of a question whose answer is a text.
#[derive(Clone, Debug)]
pub struct Settled {
    quorum: Quorum,
    last: VecDeque<String>,
    value: Option<String>,
}

impl Settled {
    /// Nothing is believed yet.
    pub fn new(quorum: Quorum) -> Self {
        Self { quorum, last: VecDeque::with_capacity(quorum.of()), value: None }
    }

    /// What is believed.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// True while answers like the last one would change what is believed, but too few have come.
    pub fn is_undecided(&self) -> bool {
        self.last.back().is_some_and(|last| self.value.as_ref() != Some(last))
    }

    /// Counts the answer of a look; true if something else is believed from now on.
    pub fn look(&mut self, answer: &str) -> bool {
        // The oldest one's memory is used again.
        let mut text = match self.last.len() == self.quorum.of() {
            true => self.last.pop_front().unwrap_or_default(),
            false => String::new(),
        };
        text.clear();
        text.push_str(answer);
        self.last.push_back(text);
        if self.value.as_deref() == Some(answer)
            || self.last.iter().filter(|a| *a == answer).count() < self.quorum.needed()
        {
            return false;
        }
        self.value = Some(answer.to_owned());
        // What was seen before does not speak against the new value.
        self.last.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_must_be_given_often_enough() {
        let mut settled = Settled::new("2 of 3".parse().unwrap());
        let answers = ["no", "yes", "no", "yes", "no", "yes", "yes", "no", "maybe", "no"];
        let changes: Vec<bool> = answers.iter().map(|a| settled.look(a)).collect();
        let want = [false, false, true, false, false, true, false, false, false, true];
        assert_eq!(changes, want);
        assert_eq!(settled.value(), Some("no"));
    }

    #[test]
    fn every_look_counts_by_default() {
        let mut settled = Settled::new(Quorum::default());
        assert_eq!(["a", "a", "b"].map(|a| settled.look(a)), [true, false, true]);
    }
}
