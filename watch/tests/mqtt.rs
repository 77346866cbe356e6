//! The sink for MQTT against a mosquitto of its own: what it tells, to whom, and what becomes of it when one of the two
//! is gone.
#![cfg(unix)]

#[path = "mqtt/away.rs"]
mod away;
#[path = "mqtt/broker.rs"]
mod broker;
#[path = "sinks/given.rs"]
mod given;
#[path = "mqtt/home_assistant.rs"]
mod home_assistant;
#[path = "mqtt/secure.rs"]
mod secure;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use palmtop_watch::command::Command;
use palmtop_watch::period::Period;
use palmtop_watch::record::{AnswerRecord, CameraStatus, EventRecord, Phase, Record};
use palmtop_watch::setup::{QuestionSetup, Reading, Setup};
use palmtop_watch::sink::mqtt::{Mqtt, MqttOptions, Version};
use palmtop_watch::sink::{Message, Sink, Versioned};

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
