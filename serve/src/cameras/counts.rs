//! What the loop of cameras has done, for `/metrics`: its gates, its looks, its events.

use std::sync::atomic::Ordering;

use palmtop_watch::watcher::Counts;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Name and help of what is shown, and its number.
type Shown = (&'static str, &'static str, fn(&Counts) -> u64);

const SHOWN: [Shown; 11] = [
    ("pictures", "Pictures that came to the loop", |counts| counts.pictures),
    ("pictures_broken", "Pictures that could not be decoded", |counts| counts.broken),
    ("pictures_still", "Pictures that the pixel gate stayed shut for", |counts| counts.still),
    ("pictures_encoded", "Pictures that the image encoder saw", |counts| counts.encoded),
    ("pictures_same", "Encoded pictures in which the feature gate saw nothing new", |counts| counts.same),
    ("answers", "Answers of the decoder", |counts| counts.answers),
    ("answers_spared", "Answers that the feature gate spared", |counts| counts.spared),
    ("answers_late", "Answers that the budget left no time for", |counts| counts.late),
    ("tokens", "Tokens of the answers", |counts| counts.tokens),
    ("tokens_drafted", "Tokens that drafts had right", |counts| counts.drafted),
    ("events", "Events that began", |counts| counts.events),
];

/// Numbers of the loop that runs; zero without one. With another configuration they begin anew, as after a restart.
#[derive(Default)]
pub(super) struct LoopCounts([Counter; SHOWN.len()]);

impl LoopCounts {
    pub fn set(&self, counts: &Counts) {
        for (counter, (_, _, number)) in self.0.iter().zip(SHOWN) {
            counter.inner().store(number(counts), Ordering::Relaxed);
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("loop");
        for (counter, (name, help, _)) in self.0.iter().zip(SHOWN) {
            registry.register(name, help, counter.clone());
        }
    }
}
