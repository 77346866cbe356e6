//! What Home Assistant reads.

use std::collections::BTreeSet;

use palmtop_watch::record::{CameraStatus, Record};
use palmtop_watch::sink::mqtt::MqttOptions;
use palmtop_watch::sink::{Message, Sink};
use serde_json::{Value, json};

use crate::broker::{Broker, Listener};
use crate::given::{answer, picture, until};
use crate::{counted, finish, options, setup, start, tell};

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
