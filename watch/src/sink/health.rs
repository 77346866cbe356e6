//! When a sink is worth a note: when it begins to lose records, and when it is well again.

/// Successes in a row that a sink that fails now and then must have at most before it counts as well.
const NEEDED_MAX: u32 = 1024;

/// How a sink does. One that fails every other time would give a note for each record: after each failure it must
/// succeed longer, in a row, before it counts as well.
#[derive(Debug)]
pub(super) struct Health {
    /// Lost since it began to lose; none while it is well.
    lost: Option<u64>,
    successes: u32,
    needed: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { lost: None, successes: 0, needed: 1 }
    }
}

impl Health {
    /// Counts records that are lost. True if it was well until now: say so.
    pub fn loses(&mut self, records: u64) -> bool {
        self.successes = 0;
        let begins = self.lost.is_none();
        *self.lost.get_or_insert(0) += records;
        begins
    }

    /// Counts a record that got there, when none waits. If it is well again, how many were lost: say so.
    pub fn delivers(&mut self) -> Option<u64> {
        self.lost?;
        self.successes += 1;
        if self.successes < self.needed {
            return None;
        }
        self.needed = (self.needed * 2).min(NEEDED_MAX);
        self.successes = 0;
        self.lost.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_note_as_it_begins_and_one_with_the_number_as_it_ends() {
        let mut health = Health::default();
        assert_eq!(health.delivers(), None);
        assert!(health.loses(1));
        assert!(!health.loses(1) && !health.loses(3));
        assert_eq!(health.delivers(), Some(5));
        assert_eq!(health.delivers(), None);
    }

    #[test]
    fn a_sink_that_fails_every_other_time_gives_few_notes() {
        let mut health = Health::default();
        let mut notes = 0;
        for _ in 0..10_000 {
            notes += u32::from(health.loses(1));
            notes += u32::from(health.delivers().is_some());
        }
        assert!((2..=4).contains(&notes), "{notes}");
        // It is well again in the end, with all that was lost since.
        let lost = (0..NEEDED_MAX).find_map(|_| health.delivers());
        assert_eq!(lost, Some(9_999));
    }
}
