//! What the loop told: the last records, numbered, and those to come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use palmtop_watch::record::{Line, Record};
use tokio::sync::broadcast;

/// A record, as events have it.
#[derive(Debug)]
pub(crate) struct Item {
    /// Names it: the run of the program, and the record's number.
    pub id: String,
    /// `answer`, `event` or `camera`.
    pub kind: &'static str,
    /// The camera's name.
    pub camera: Arc<str>,
    /// False for answers that change nothing.
    pub is_news: bool,
    /// The object of docs/json.md.
    pub json: String,
    number: u64,
}

/// Records for somebody who listens.
pub(crate) struct Since {
    /// True if some were told meanwhile that are not kept any more.
    pub is_gap: bool,
    /// Those that were told meanwhile.
    pub missed: Vec<Arc<Item>>,
    /// Those to come.
    pub next: broadcast::Receiver<Arc<Item>>,
}

/// Keeps the last records that are news, and sends all to those who listen.
pub(super) struct Told {
    run: String,
    ring: Mutex<Ring>,
    sender: broadcast::Sender<Arc<Item>>,
}

#[derive(Default)]
struct Ring {
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    next: u64,
    /// The number of the last one that gave way.
    gone: Option<u64>,
}

/// Records that are kept at most.
const ITEMS_MAX: usize = 512;
/// Bytes of records that are kept at most.
const BYTES_MAX: usize = 1 << 20;
/// Records that wait for somebody who reads slowly; then they are lost to them.
const WAITING_MAX: usize = 256;

impl Default for Told {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let run = format!("{:x}", since.map_or(0, |time| time.as_millis()));
        Self { run, ring: Mutex::default(), sender: broadcast::Sender::new(WAITING_MAX) }
    }
}

impl Told {
    pub fn tell(&self, record: &Record) {
        let (kind, camera, is_news) = match record {
            Record::Answer(answer) => ("answer", &answer.camera, answer.changed),
            Record::Event(event) => ("event", &event.camera, true),
            Record::Camera(camera) => ("camera", &camera.camera, true),
        };
        let json = match serde_json::to_string(&Line::from(record)) {
            Ok(json) => json,
            Err(error) => return log::error!("a record cannot be told: {error}"),
        };
        // Whoever begins to listen does so before or behind it.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.next;
        ring.next += 1;
        let id = format!("{}-{number}", self.run);
        let item = Arc::new(Item { id, kind, camera: camera.clone(), is_news, json, number });
        if is_news {
            ring.bytes += item.json.len();
            ring.items.push_back(item.clone());
            while ring.items.len() > ITEMS_MAX || (ring.bytes > BYTES_MAX && ring.items.len() > 1) {
                let Some(old) = ring.items.pop_front() else { break };
                ring.bytes -= old.json.len();
                ring.gone = Some(old.number);
            }
        }
        // Nobody may listen.
        let _ = self.sender.send(item);
    }

    /// `last` is the id of the last record that somebody had.
    pub fn listen(&self, last: Option<&str>) -> Since {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.sender.subscribe();
        let Some(last) = last else { return Since { is_gap: false, missed: Vec::new(), next } };
        // Of another run: all that is kept came later, and what came before it is not known.
        let last = last.strip_prefix(&self.run).and_then(|rest| rest.strip_prefix('-')?.parse::<u64>().ok());
        let is_gap = last.is_none_or(|last| ring.gone.is_some_and(|gone| gone > last));
        let is_later = |item: &&Arc<Item>| last.is_none_or(|last| item.number > last);
        Since { is_gap, missed: ring.items.iter().filter(is_later).cloned().collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palmtop_watch::record::{CameraRecord, CameraStatus, Moment};

    use super::*;

    fn record(why: &str) -> Record {
        let at = Moment { since_start: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
        Record::Camera(CameraRecord {
            camera: "door".into(),
            at,
            status: CameraStatus::Waiting,
            why: Some(why.into()),
        })
    }

    #[test]
    fn what_was_missed_is_given_once_and_in_order() {
        let told = Told::default();
        (0..5).for_each(|n| told.tell(&record(&n.to_string())));
        let all = told.listen(Some("another run"));
        assert!(all.is_gap && all.missed.len() == 5);
        let id = all.missed[2].id.clone();
        let mut rest = told.listen(Some(&id));
        assert!(!rest.is_gap);
        assert_eq!(rest.missed.iter().map(|item| item.number).collect::<Vec<_>>(), [3, 4]);
        told.tell(&record("5"));
        assert_eq!(rest.next.try_recv().unwrap().number, 5);
        assert!(told.listen(None).missed.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_gap_is_told() {
        let told = Told::default();
        (0..ITEMS_MAX + 10).for_each(|_| told.tell(&record("")));
        let first = format!("{}-0", told.run);
        let since = told.listen(Some(&first));
        assert!(since.is_gap && since.missed.len() == ITEMS_MAX);
        let last = since.missed[0].id.clone();
        assert!(!told.listen(Some(&last)).is_gap);
        let long = "x".repeat(BYTES_MAX / 4);
        (0..20).for_each(|_| told.tell(&record(&long)));
        assert!(told.listen(Some(&first)).missed.len() <= 4);
    }
}
