//! One of the two is gone: we, or the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop_watch::record::{EventRecord, Phase, Record};
use palmtop_watch::sink::Sink;
use palmtop_watch::sink::mqtt::{MqttOptions, Version};
use palmtop_watch::sink::outbox::{Bound, Counts, Outbox};
use serde_json::Value;

use crate::broker::{Broker, Listener};
use crate::given::{self, LONG, answer, event, logged, message, until};
use crate::{options, setup, start, tell};

fn the_broker_says_it_if_we_vanish(version: Version) {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (sink, _commands) = start(&MqttOptions { version, ..options(&broker) }, &setup());
    listener.expect("palmtop/pi/status", "online");
    // The connection breaks without a goodbye, as it does when the process dies.
    drop(sink);
    listener.expect("palmtop/pi/status", "offline");
    let later = Listener::with(rumqttc::MqttOptions::new("later", "127.0.0.1", broker.port));
    later.expect("palmtop/pi/status", "offline");
}

#[test]
fn the_broker_says_it_if_we_vanish_from_version_5() {
    the_broker_says_it_if_we_vanish(Version::V5);
}

#[test]
fn the_broker_says_it_if_we_vanish_from_version_3() {
    the_broker_says_it_if_we_vanish(Version::V3);
}

fn a_broker_that_comes_back_is_told_how_it_is(version: Version) {
    let Some(mut broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (sink, _commands) = start(&MqttOptions { version, events: 5, ..options(&broker) }, &setup());
    let name = sink.name();
    let outbox = Outbox::start(Box::new(sink), Bound::default()).unwrap();
    let offer = |record: Record| outbox.offer(Arc::new(message(record)));
    offer(Record::Answer(answer("front", "person", "no")));
    offer(Record::Event(event("someone", "before", Phase::Begin)));
    listener.expect("palmtop/pi/front/person/state", "no");
    until("the event has arrived", || listener.all("front/event").len() == 1);
    // By then the broker has acknowledged the event.
    offer(Record::Answer(answer("front", "door", "unclear")));
    listener.expect("palmtop/pi/front/door/state", "unclear");
    broker.stop();
    let noted = || logged(&format!("WARN palmtop_watch::sink::mqtt::session: {name}: no connection")).len();
    until("it is noted", || noted() == 1);

    offer(Record::Event(event("someone", "before", Phase::End)));
    for n in 0..7 {
        offer(Record::Event(event("someone", &n.to_string(), Phase::Begin)));
        offer(Record::Answer(answer("front", "door", if n % 2 == 0 { "open" } else { "shut" })));
    }
    offer(Record::Answer(answer("front", "person", "yes")));
    // Eight events, of which five can wait; what is only a state is not lost.
    until("all are with the sink", || {
        let Counts { sent, failed, dropped } = outbox.counts();
        sent + failed + dropped == 3 + 16
    });
    assert_eq!(outbox.counts(), Counts { sent: 3 + 13, failed: 3, dropped: 0 });

    broker.start_again();
    let listener = Listener::new(&broker);
    listener.expect("palmtop/pi/front/person/state", "yes");
    listener.expect("palmtop/pi/front/door/state", "open");
    listener.expect("palmtop/pi/front/person/someone/state", "ON");
    listener.expect("palmtop/pi/status", "online");
    assert_eq!(outbox.finish(Instant::now() + LONG), 0);
    listener.expect("palmtop/pi/status", "offline");
    let _ = listener.discovery();
    let ids = |payload: &Vec<u8>| serde_json::from_slice::<Value>(payload).unwrap()["id"].clone();
    let heard: Vec<Value> = listener.all("front/event").iter().map(ids).collect();
    // The listener may have come after the first of them.
    let kept = ["2", "3", "4", "5", "6"].map(Value::from);
    assert!(kept.ends_with(&heard), "{heard:?}");
    assert_eq!(noted(), 1);
    assert_eq!(logged(&format!("{name}: connected again")).len(), 1);
}

#[test]
fn a_broker_that_comes_back_is_told_how_it_is_by_version_5() {
    a_broker_that_comes_back_is_told_how_it_is(Version::V5);
}

#[test]
fn a_broker_that_comes_back_is_told_how_it_is_by_version_3() {
    a_broker_that_comes_back_is_told_how_it_is(Version::V3);
}

#[test]
fn without_a_broker_the_end_comes_in_time_and_says_what_is_lost() {
    let Some(mut broker) = Broker::open("") else { return };
    broker.stop();
    let (mut sink, _commands) = start(&options(&broker), &setup());
    tell(&mut sink, Record::Answer(answer("front", "person", "no")));
    let begun = Instant::now();
    // Nothing but states: there is nothing to wait for.
    assert_eq!(sink.finish(begun + LONG), 0);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    for n in 0..3 {
        tell(&mut sink, Record::Event(event("someone", &n.to_string(), Phase::Begin)));
    }
    assert_eq!(sink.finish(Instant::now() + Duration::from_millis(100)), 3);
    assert!(begun.elapsed() < LONG);
}

#[test]
fn events_that_wait_are_bounded_by_their_bytes() {
    let Some(mut broker) = Broker::open("") else { return };
    broker.stop();
    let (mut sink, _commands) = start(&options(&broker), &setup());
    let long = |id: &str| {
        let event = EventRecord { text: "x".repeat(3 << 20), ..event("someone", id, Phase::Begin) };
        message(Record::Event(event))
    };
    // Two are more than six megabytes, three are more than eight.
    sink.send(&long("1")).unwrap();
    sink.send(&long("2")).unwrap();
    let text = given::error(&mut sink, &long("3"));
    assert_eq!(text, "the broker takes no events, and the oldest are dropped (1 now)");
    assert_eq!(sink.finish(Instant::now() + Duration::from_millis(50)), 2);
}
