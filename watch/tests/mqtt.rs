//! The sink for MQTT against a mosquitto of its own: what it tells, to whom, and what becomes of it when one of the two
//! is gone.
#![cfg(unix)]

#[path = "mqtt/broker.rs"]
mod broker;
#[path = "sinks/given.rs"]
mod given;
#[path = "mqtt/secure.rs"]
mod secure;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use palmtop_watch::command::Command;
use palmtop_watch::period::Period;
use palmtop_watch::record::{AnswerRecord, CameraStatus, EventRecord, Phase, Record};
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::sink::mqtt::{Mqtt, MqttOptions, Version};
use palmtop_watch::sink::outbox::{Bound, Counts, Outbox};
use palmtop_watch::sink::{Message, Sink, Versioned};
use serde_json::{Value, json};

use broker::{Broker, Listener};
use given::{LONG, answer, camera, event, keep_log, logged, message, objects, picture, until};

fn question(camera: &str, name: &str, reading: Reading, rules: &[&str]) -> QuestionSetup {
    let rules = rules.iter().map(|&rule| rule.into()).collect();
    QuestionSetup { name: name.into(), camera: camera.into(), prompt: "p".into(), reading, rules }
}

fn choice(choices: &[&str]) -> Reading {
    Reading::Choice(choices.iter().map(|&choice| choice.to_owned()).collect())
}

fn setup() -> Setup {
    Setup {
        model: "model-3b".into(),
        cameras: vec!["front".into(), "back yard".into()],
        questions: vec![
            question("front", "person", choice(&["yes", "no"]), &["someone"]),
            question("front", "door", choice(&["open", "shut", "unclear"]), &[]),
            question("front", "cats", Reading::Objects, &["a cat"]),
            question("back yard", "scene", Reading::Text, &[]),
        ],
    }
}

fn options(broker: &Broker) -> MqttOptions {
    MqttOptions {
        node: Some("pi".into()),
        reconnect_pause: Period(Duration::from_millis(10)),
        ..MqttOptions::new(broker.url())
    }
}

fn start(options: &MqttOptions, setup: &Setup) -> (Mqtt, Receiver<Command>) {
    keep_log();
    let (sender, commands) = channel();
    (Mqtt::new(options, setup, sender).unwrap(), commands)
}

fn tell(sink: &mut Mqtt, record: Record) {
    sink.send(&message(record)).unwrap();
}

fn counted(question: &str, labels: &[&str]) -> AnswerRecord {
    AnswerRecord { is_about_objects: true, objects: objects(labels), ..answer("front", question, "") }
}

#[track_caller]
fn finish(mut sink: Mqtt) -> u64 {
    sink.finish(Instant::now() + LONG)
}

fn everything_is_told(version: Version) {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&MqttOptions { version, ..options(&broker) }, &setup());
    listener.expect("palmtop/pi/status", "online");
    listener.expect("palmtop/pi/front/status", "waiting");
    listener.expect("palmtop/pi/front/person/someone/state", "OFF");
    assert_eq!(listener.text("palmtop/pi/front/person/state"), "");

    tell(&mut sink, Record::Camera(camera("back yard", CameraStatus::Black)));
    let person = Record::Answer(answer("front", "person", "yes"));
    let snapshot = picture(objects(&["cat"]));
    sink.send(&Message { record: person.clone(), picture: Some(Arc::clone(&snapshot)) }).unwrap();
    tell(&mut sink, Record::Answer(answer("front", "door", "unclear")));
    tell(&mut sink, Record::Answer(counted("cats", &["cat", "cat"])));
    let long = "a long text, ".repeat(100);
    tell(&mut sink, Record::Answer(answer("back yard", "scene", &long)));
    let begin = Record::Event(event("someone", "id-1", Phase::Begin));
    tell(&mut sink, begin.clone());

    listener.expect("palmtop/pi/back_yard/status", "black");
    // An answer says that a camera runs, unless the loop has said something else.
    listener.expect("palmtop/pi/front/status", "running");
    listener.expect("palmtop/pi/front/person/state", "yes");
    listener.expect("palmtop/pi/front/door/state", "unclear");
    listener.expect("palmtop/pi/front/cats/state", "2");
    listener.expect("palmtop/pi/back_yard/scene/state", long.trim());
    listener.expect("palmtop/pi/front/person/someone/state", "ON");
    let json_of = |record: &Record| serde_json::to_value(Versioned::from(record)).unwrap();
    until("the event is there", || listener.json("palmtop/pi/front/event") == json_of(&begin));
    until("attributes are there", || listener.json("palmtop/pi/front/person/attributes") == json_of(&person));
    until("the picture is there", || {
        listener.last().get("palmtop/pi/front/person/image").map(Vec::as_slice)
            == snapshot.annotated_jpeg().ok()
    });
    assert_eq!(listener.json("palmtop/pi/back_yard/scene/attributes")["text"], long);

    // What is not believed changes nothing.
    let doubted = AnswerRecord { changed: false, ..answer("front", "person", "no") };
    let doubted = Record::Answer(doubted);
    assert!(!sink.interest().records.has(&doubted));
    tell(&mut sink, doubted);
    tell(&mut sink, Record::Event(event("someone", "id-1", Phase::End)));
    listener.expect("palmtop/pi/front/person/someone/state", "OFF");
    assert_eq!(listener.text("palmtop/pi/front/person/state"), "yes");
    assert_eq!(finish(sink), 0);
    listener.expect("palmtop/pi/status", "offline");

    // All but events is kept for those who come later.
    let later = Listener::with(rumqttc::MqttOptions::new("later", "127.0.0.1", broker.port));
    later.expect("palmtop/pi/front/cats/state", "2");
    later.expect("palmtop/pi/status", "offline");
    until("all that is kept has come", || later.last().len() == listener.last().len() - 1);
    let all = listener.last();
    let kept = later.last();
    assert!(all.iter().all(|(topic, payload)| topic.ends_with("/event") || kept.get(topic) == Some(payload)));
}

#[test]
fn everything_is_told_by_version_5() {
    everything_is_told(Version::V5);
}

#[test]
fn everything_is_told_by_version_3() {
    everything_is_told(Version::V3);
}

#[test]
fn home_assistant_is_told_of_entities_that_are_there() {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    for question in setup().questions {
        let record = Record::Answer(answer(&question.camera, &question.name, "x"));
        sink.send(&Message { record, picture: Some(picture(Vec::new())) }).unwrap();
    }
    assert_eq!(finish(sink), 0);
    listener.expect("palmtop/pi/status", "offline");
    let topic = listener.discovery();
    let config = listener.json(&topic);
    let id = config["device"]["identifiers"][0].as_str().unwrap();
    assert_eq!(topic, format!("homeassistant/device/{id}/config"));
    assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{id}");
    assert_eq!((&config["device"]["name"], &config["device"]["model"]), (&json!("pi"), &json!("model-3b")));
    assert_eq!(config["origin"]["name"], "palmtop");
    assert_eq!(config["availability"], json!([{ "topic": "palmtop/pi/status" }]));

    let components = config["components"].as_object().unwrap();
    let mut told = BTreeSet::new();
    for (key, component) in components {
        // What Home Assistant demands of each.
        assert_eq!(component["unique_id"], json!(key));
        assert!(component["platform"].is_string() && component["name"].is_string(), "{component}");
        let topics =
            ["state_topic", "json_attributes_topic", "image_topic"].map(|field| component.get(field));
        told.extend(topics.into_iter().flatten().map(|topic| topic.as_str().unwrap().to_owned()));
    }
    // Each topic that an entity names is one that we tell, and the other way round.
    let mut expected: BTreeSet<String> = listener.last().into_keys().collect();
    expected.retain(|topic| *topic != "palmtop/pi/status" && !topic.starts_with("homeassistant/"));
    assert_eq!(told, expected);

    let named = |name: &str| components.values().find(|component| component["name"] == name).unwrap();
    let fields = |name: &str, fields: &[&str]| -> Vec<Value> {
        fields.iter().map(|&field| named(name)[field].clone()).collect()
    };
    assert_eq!(
        fields("front person", &["platform", "payload_on", "payload_off"]),
        ["binary_sensor", "yes", "no"]
    );
    assert_eq!(
        fields("front someone", &["platform", "state_topic"]),
        ["binary_sensor", "palmtop/pi/front/person/someone/state"]
    );
    assert_eq!(fields("front door", &["platform", "device_class"]), ["sensor", "enum"]);
    assert_eq!(named("front door")["options"], json!(["open", "shut", "unclear"]));
    assert_eq!(fields("front cats", &["platform", "state_class"]), ["sensor", "measurement"]);
    assert_eq!(fields("back yard scene", &["platform", "value_template"]), ["sensor", "{{ value[:255] }}"]);
    assert_eq!(fields("front cats picture", &["platform", "content_type"]), ["image", "image/jpeg"]);
    assert_eq!(fields("Ask now", &["platform", "command_topic"]), ["button", "palmtop/pi/command"]);
    assert_eq!(fields("Paused", &["platform", "payload_on", "payload_off"]), ["switch", "pause", "resume"]);
    assert_eq!(named("back yard camera")["options"], json!(CameraStatus::ALL.map(CameraStatus::name)));
    let availability = &named("back yard scene")["availability"];
    assert_eq!(availability[0]["topic"], "palmtop/pi/status");
    assert_eq!(availability[1]["topic"], "palmtop/pi/back_yard/status");
    assert_eq!(named("back yard scene")["availability_mode"], "all");
}

#[test]
fn entities_that_are_no_more_are_removed() {
    let Some(broker) = Broker::open("") else { return };
    let (mut sink, _commands) = start(&options(&broker), &setup());
    tell(&mut sink, Record::Answer(counted("cats", &["cat"])));
    assert_eq!(finish(sink), 0);

    let listener = Listener::new(&broker);
    listener.expect("palmtop/pi/front/cats/state", "1");
    let topic = listener.discovery();
    let before = listener.json(&topic);
    let mut fewer = setup();
    fewer.questions.retain(|question| *question.name != *"cats");
    let (sink, _commands) = start(&options(&broker), &fewer);
    until("the message without it is there", || {
        listener.json(&topic)["components"].as_object().unwrap().len()
            < before["components"].as_object().unwrap().len()
    });
    // First a message in which nothing is left of them but the platform, then one without them.
    let told: Vec<Value> =
        listener.all(&topic).iter().map(|payload| serde_json::from_slice(payload).unwrap()).collect();
    assert_eq!(told.len(), 3);
    let (bare, last) = (&told[1]["components"], &told[2]["components"]);
    let mut removed = 0;
    for (key, component) in before["components"].as_object().unwrap() {
        if last.get(key).is_none() {
            removed += 1;
            assert_eq!(bare[key], json!({ "platform": component["platform"] }));
        } else {
            assert_eq!(&last[key], component);
            assert_eq!(&bare[key], component);
        }
    }
    // The count, its rule and its picture.
    assert_eq!(removed, 3);
    // Nobody who comes later hears of them.
    until("its topics are cleared", || !listener.last().keys().any(|topic| topic.contains("/cats/")));
    assert_eq!(finish(sink), 0);
    // Without discovery nothing is said there.
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (sink, _commands) = start(&MqttOptions { discovery: None, ..options(&broker) }, &setup());
    assert_eq!(finish(sink), 0);
    listener.expect("palmtop/pi/status", "offline");
    assert!(listener.last().keys().all(|topic| topic.starts_with("palmtop/pi/")));
}

#[test]
fn when_home_assistant_starts_it_is_told_all_again() {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    tell(&mut sink, Record::Answer(answer("front", "door", "open")));
    listener.expect("palmtop/pi/front/door/state", "open");
    let topic = listener.discovery();
    assert_eq!(listener.all(&topic).len(), 1);
    listener.publish("homeassistant/status", b"offline", false);
    listener.publish("homeassistant/status", b"online", false);
    until("it is told again", || {
        listener.all(&topic).len() == 2 && listener.all("front/door/state") == [b"open", b"open"]
    });
    assert_eq!(finish(sink), 0);
}

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
fn a_rule_is_on_while_any_of_its_events_lasts() {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    let topic = "palmtop/pi/front/person/someone/state";
    let mut told = |id: &str, phase| tell(&mut sink, Record::Event(event("someone", id, phase)));
    told("one", Phase::Begin);
    told("two", Phase::Begin);
    told("one", Phase::End);
    // The end of an event that nobody saw begin.
    told("three", Phase::End);
    until("four events", || listener.all("front/event").len() == 4);
    listener.expect(topic, "ON");
    told("two", Phase::End);
    listener.expect(topic, "OFF");
    let unknown = Record::Answer(answer("front", "nothing", "x"));
    let text = given::error(&mut sink, &message(unknown));
    assert!(text.contains("'nothing' of the camera 'front' is not of the set-up"), "{text}");
}

#[test]
fn commands_come_in() {
    let Some(broker) = Broker::open("") else { return };
    let listener = Listener::new(&broker);
    // Kept by the broker: it would come with each connection.
    listener.publish("palmtop/pi/command", b"pause", true);
    listener.expect("palmtop/pi/command", "pause");
    let (sink, commands) = start(&options(&broker), &setup());
    until("the kept one is noted", || !logged("that is retained is left out").is_empty());
    let say = |payload: &[u8]| listener.publish("palmtop/pi/command", payload, false);
    say(b"ask person");
    say(b"reboot");
    say(b"\xff\xfe");
    say(b"");
    say(&[b'x'; 20_000]);
    say(br#"{"prompt":{"question":"door","prompt":"answer en open or shut?"}}"#);
    say(b"resume");
    let come: Vec<Command> = (0..3).map(|_| commands.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(
        come,
        [
            Command::Ask { question: Some("person".into()), camera: None },
            Command::Prompt { question: "door".into(), prompt: "answer en open or shut?".into() },
            Command::Resume,
        ]
    );
    let notes = logged("a command by MQTT is left out");
    for why in ["'reboot' is no command", "it is no text", "20000 bytes are too long"] {
        assert!(notes.iter().any(|note| note.contains(why)), "{why}: {notes:?}");
    }
    // A flood is cut off, and noted once a second.
    for _ in 0..200 {
        say(b"ask");
    }
    until("it is noted", || !logged("the others are left out").is_empty());
    say(b"pause");
    assert_eq!(finish(sink), 0);
    assert!(commands.iter().count() < 200);
}

#[test]
fn what_is_larger_than_the_broker_takes_is_left_out() {
    let Some(broker) = Broker::open("max_packet_size 20000") else { return };
    let listener = Listener::new(&broker);
    let (mut sink, _commands) = start(&options(&broker), &setup());
    let record = Record::Answer(answer("back yard", "scene", &"x".repeat(30_000)));
    tell(&mut sink, record);
    tell(&mut sink, Record::Answer(answer("front", "door", "open")));
    listener.expect("palmtop/pi/front/door/state", "open");
    let long = EventRecord { text: "x".repeat(30_000), ..event("someone", "1", Phase::Begin) };
    let text = given::error(&mut sink, &message(Record::Event(long)));
    assert!(text.contains("too large for it (1 now)"), "{text}");
    tell(&mut sink, Record::Camera(camera("front", CameraStatus::Black)));
    listener.expect("palmtop/pi/front/status", "black");
    assert!(!listener.last().contains_key("palmtop/pi/back_yard/scene/state"));
    assert!(logged("scene/state: 30").iter().any(|note| note.contains("more than the broker takes (20000)")));
    assert_eq!(finish(sink), 0);
}
