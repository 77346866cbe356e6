use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use palmtop_watch::record::{CameraStatus, Phase, Record};
use palmtop_watch::sink::end::End;
use palmtop_watch::sink::interest::{Interest, Kinds};
use palmtop_watch::sink::outbox::{Bound, Counts, Outbox};
use palmtop_watch::sink::{Message, Sink, SinkError};

use crate::given::{LONG, an_event, answer, camera, event, id, keep_log, logged, message, picture, until};

/// A sink that waits for permission before each record.
struct Pretended {
    name: &'static str,
    interest: Interest,
    /// What becomes of the next record.
    next: Receiver<Outcome>,
    /// Says that it has one.
    has_one: Sender<()>,
    got: Arc<Mutex<Vec<String>>>,
    end: Arc<End>,
}

enum Outcome {
    Good,
    Bad,
    Panic,
    /// As a receiver that does not answer until the end of all.
    Stuck,
}

impl Sink for Pretended {
    fn name(&self) -> String {
        self.name.into()
    }

    fn interest(&self) -> Interest {
        self.interest
    }

    fn attach(&mut self, end: Arc<End>) {
        self.end = end;
    }

    fn send(&mut self, message: &Message) -> Result<(), SinkError> {
        // Few tests listen.
        let _ = self.has_one.send(());
        match self.next.recv().unwrap_or(Outcome::Good) {
            Outcome::Good => {
                self.got.lock().unwrap().push(id(message));
                Ok(())
            }
            Outcome::Bad => Err(SinkError("out of order".into())),
            Outcome::Panic => panic!("as the test wants it"),
            Outcome::Stuck => {
                self.end.pause(LONG);
                std::thread::sleep(LONG);
                Ok(())
            }
        }
    }
}

struct Started {
    outbox: Outbox,
    allow: Sender<Outcome>,
    has_one: Receiver<()>,
    got: Arc<Mutex<Vec<String>>>,
}

fn start(name: &'static str, bound: Bound) -> Started {
    keep_log();
    let (allow, next) = channel();
    let (tell, has_one) = channel();
    let got = Arc::default();
    let interest = Interest { records: Kinds::EVENTS, pictures: Kinds::EVENTS };
    let sink = Pretended { name, interest, next, has_one: tell, got: Arc::clone(&got), end: Arc::default() };
    Started { outbox: Outbox::start(Box::new(sink), bound).unwrap(), allow, has_one, got }
}

fn messages(messages: usize) -> Bound {
    Bound { messages, ..Bound::default() }
}

fn got(got: &Mutex<Vec<String>>) -> Vec<String> {
    got.lock().unwrap().clone()
}

#[test]
fn records_arrive_in_order() {
    let Started { outbox, allow, got: kept, .. } = start("in-order", messages(100));
    let ids: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    // None is dropped: what is with the sink does not wait.
    for id in &ids {
        outbox.offer(an_event(id));
    }
    drop(allow);
    assert_eq!(outbox.finish(Instant::now() + LONG), 0);
    assert_eq!(got(&kept), ids);
    assert!(logged("in-order").is_empty());
}

#[test]
fn the_oldest_are_dropped_and_counted() {
    let Started { outbox, allow, has_one, got: kept } = start("too-fast", messages(3));
    outbox.offer(an_event("with the sink"));
    has_one.recv().unwrap();
    for n in 0..5 {
        outbox.offer(an_event(&n.to_string()));
    }
    allow.send(Outcome::Good).unwrap();
    drop(allow);
    until("all are sent", || outbox.counts().sent == 4);
    assert_eq!(outbox.counts(), Counts { sent: 4, failed: 0, dropped: 2 });
    assert_eq!(got(&kept), ["with the sink", "2", "3", "4"]);
    until("it is said that it is well", || logged("too-fast").len() == 2);
    let notes = logged("too-fast");
    assert!(notes[0].contains("WARN") && notes[0].contains("the oldest are dropped"), "{notes:?}");
    assert!(notes[1].contains("is well again; 2 records were lost"), "{notes:?}");
}

#[test]
fn pictures_that_wait_are_bounded_by_their_bytes() {
    const BYTES: usize = 64 * 48 * 3;
    let bound = Bound { messages: 100, picture_bytes: 2 * BYTES };
    let Started { outbox, allow, has_one, got: kept } = start("pictures", bound);
    let with_picture = |id: &str| {
        let record = Record::Event(event("someone", id, Phase::Begin));
        Arc::new(Message { record, picture: Some(picture(Vec::new())) })
    };
    outbox.offer(an_event("with the sink"));
    has_one.recv().unwrap();
    for id in ["a", "b", "c"] {
        outbox.offer(with_picture(id));
        outbox.offer(an_event(&format!("{id} without")));
    }
    drop(allow);
    assert_eq!(outbox.finish(Instant::now() + LONG), 0);
    // Two pictures waited, and what came behind the one that had to go.
    assert_eq!(got(&kept), ["with the sink", "a without", "b", "b without", "c", "c without"]);
}

#[test]
fn what_a_sink_does_not_want_does_not_wait_for_it() {
    let Started { outbox, allow, .. } = start("choosy", messages(1));
    let unwanted = Record::Answer(answer("front", "person", "yes"));
    assert!(!outbox.wants(&unwanted) && !outbox.wants_picture(&unwanted));
    for _ in 0..10 {
        outbox.offer(Arc::new(message(unwanted.clone())));
        outbox.offer(Arc::new(message(Record::Camera(camera("front", CameraStatus::Running)))));
    }
    let wanted = an_event("1");
    assert!(outbox.wants(&wanted.record) && outbox.wants_picture(&wanted.record));
    outbox.offer(wanted);
    drop(allow);
    until("it is sent", || outbox.counts() == Counts { sent: 1, failed: 0, dropped: 0 });
}

#[test]
fn failures_give_two_notes_however_many_they_are() {
    let Started { outbox, allow, .. } = start("failing", messages(100));
    for n in 0..50 {
        outbox.offer(an_event(&n.to_string()));
        allow.send(Outcome::Bad).unwrap();
    }
    until("all have failed", || outbox.counts().failed == 50);
    outbox.offer(an_event("good"));
    allow.send(Outcome::Good).unwrap();
    until("one is sent", || outbox.counts().sent == 1);
    until("it is said that it is well", || logged("failing:").len() == 2);
    let notes = logged("failing:");
    assert!(notes[0].contains("out of order") && notes[1].contains("50 records were lost"), "{notes:?}");
}

#[test]
fn a_panic_costs_the_sink_and_nothing_else() {
    let Started { outbox, allow, .. } = start("panicking", messages(10));
    for id in ["1", "2", "3"] {
        outbox.offer(an_event(id));
    }
    allow.send(Outcome::Panic).unwrap();
    until("it has broken down", || outbox.counts() == Counts { sent: 0, failed: 1, dropped: 2 });
    outbox.offer(an_event("4"));
    assert_eq!(outbox.counts().dropped, 3);
    assert_eq!(logged("panicking: broke down").len(), 1);
    assert_eq!(outbox.finish(Instant::now() + LONG), 3);
}

#[test]
fn the_end_comes_in_time_even_if_the_sink_is_stuck() {
    let Started { outbox, allow, .. } = start("stuck", messages(10));
    for id in ["1", "2", "3"] {
        outbox.offer(an_event(id));
    }
    allow.send(Outcome::Stuck).unwrap();
    let begun = Instant::now();
    let lost = outbox.finish(begun + Duration::from_millis(100));
    assert_eq!(lost, 3);
    // A minute is what the sink would have taken.
    assert!(begun.elapsed() < LONG / 2);
}

#[test]
fn several_end_at_once() {
    let all: Vec<Started> = (0..3).map(|_| start("one-of-several", messages(10))).collect();
    for Started { outbox, allow, .. } in &all {
        outbox.offer(an_event("1"));
        allow.send(Outcome::Good).unwrap();
        outbox.close(Instant::now() + LONG);
    }
    // All end, though nobody has waited for the first.
    for Started { outbox, got: kept, .. } in &all {
        until("it has sent what waited", || got(kept) == ["1"]);
        outbox.offer(an_event("2"));
        assert_eq!(outbox.counts().dropped, 1);
    }
    for Started { outbox, .. } in all {
        assert_eq!(outbox.finish(Instant::now() + LONG), 0);
    }
}

#[test]
fn pauses_end_with_the_sink() {
    let end = Arc::new(End::new());
    assert!(end.pause(Duration::from_millis(1)));
    assert_eq!(end.within(LONG), LONG);
    let waiting = {
        let end = Arc::clone(&end);
        std::thread::spawn(move || end.pause(LONG * 60))
    };
    end.set(Instant::now() + Duration::from_millis(5));
    assert!(!waiting.join().unwrap());
    assert!(end.within(LONG) < LONG);
    assert!(!end.pause(LONG));
}
