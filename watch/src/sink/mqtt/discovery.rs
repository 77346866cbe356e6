//! What Home Assistant is told of entities: one retained message for the device with all of its components.
//!
//! The discovery of a whole device (Home Assistant 2024.11 and newer) was chosen over a message for each entity: it
//! says in one place, which the broker keeps, what was there in the last run. What is missing now can then be removed,
//! as the documentation wants it: by a message in which nothing but its platform is left, and another one without it.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::SinkError;
use super::super::interest::Picture;
use super::options::MqttOptions;
use super::topics::{Topics, check_prefix, identity};
use crate::record::CameraStatus;
use crate::setup::{QuestionSetup, Reading, Setup};

/// Components of an earlier run that are looked at; more were none of ours.
const COMPONENTS_MAX: usize = 10_000;
/// The platforms that our components have.
const PLATFORMS: [&str; 5] = ["binary_sensor", "button", "image", "sensor", "switch"];

/// What Home Assistant is told.
#[derive(Debug)]
pub struct Discovery {
    /// Where the device's message goes.
    pub topic: String,
    /// Where Home Assistant says that it has started.
    pub birth: String,
    config: Map<String, Value>,
    /// The topics that are in use.
    states: BTreeSet<String>,
    base: String,
}

/// What is to be done about components that are no more.
#[derive(Debug, PartialEq)]
pub struct Removal {
    /// The message that removes them. The one without them must follow.
    pub config: Vec<u8>,
    /// Topics whose kept messages are of no use any more.
    pub topics: Vec<String>,
}

impl Discovery {
    /// That of a set-up; none if it is turned off.
    ///
    /// # Errors
    /// If the prefix is none.
    pub fn new(options: &MqttOptions, setup: &Setup, topics: &Topics) -> Result<Option<Self>, SinkError> {
        let Some(prefix) = &options.discovery else { return Ok(None) };
        check_prefix("discovery", prefix)?;
        let node = options.node();
        let id = format!("palmtop_{}", identity(&[&options.prefix, &node]));
        let mut config = Map::new();
        config.insert(
            "device".into(),
            json!({
                "identifiers": [id],
                "name": node,
                "manufacturer": "palmtop",
                "model": setup.model,
                "sw_version": env!("CARGO_PKG_VERSION"),
            }),
        );
        config.insert("origin".into(), json!({ "name": "palmtop", "sw_version": env!("CARGO_PKG_VERSION") }));
        config.insert("availability".into(), json!([{ "topic": topics.status }]));
        config.insert("qos".into(), json!(1));
        let mut components = Components { device: &id, all: Map::new() };
        components.machine(topics);
        for camera in &topics.cameras {
            components.camera(camera.name.as_ref(), &camera.status, topics);
        }
        for (index, question) in setup.questions.iter().enumerate() {
            components.question(question, index, topics, options.picture);
        }
        config.insert("components".into(), Value::Object(components.all));
        Ok(Some(Self {
            topic: format!("{prefix}/device/{id}/config"),
            birth: format!("{prefix}/status"),
            config,
            states: topics.states().map(str::to_owned).collect(),
            base: topics.base.clone(),
        }))
    }

    /// The device's message.
    pub fn config(&self) -> Vec<u8> {
        Value::Object(self.config.clone()).to_string().into_bytes()
    }

    /// Compares with the message of an earlier run, as the broker gives it: nobody vouches for it. None if there is
    /// nothing to remove.
    pub fn removal(&self, earlier: &[u8]) -> Option<Removal> {
        #[derive(Deserialize)]
        struct Earlier {
            components: Map<String, Value>,
        }
        let earlier: Earlier = serde_json::from_slice(earlier).ok()?;
        let mut config = self.config.clone();
        let present = config.get_mut("components")?.as_object_mut()?;
        let (mut count, mut topics) = (0, BTreeSet::new());
        for (id, component) in earlier.components.into_iter().take(COMPONENTS_MAX) {
            let is_id =
                id.len() <= 256 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let platform = component.get("platform").and_then(Value::as_str);
            let Some(platform) = platform.filter(|platform| PLATFORMS.contains(platform)) else { continue };
            if !is_id || present.contains_key(&id) {
                continue;
            }
            count += 1;
            for field in ["state_topic", "json_attributes_topic", "image_topic"] {
                let topic = component.get(field).and_then(Value::as_str).unwrap_or_default();
                let is_topic = topic.starts_with(&self.base) && check_prefix("", topic).is_ok();
                if is_topic && !self.states.contains(topic) {
                    topics.insert(topic.to_owned());
                }
            }
            present.insert(id, json!({ "platform": platform }));
        }
        let config = Value::Object(config).to_string().into_bytes();
        (count > 0).then(|| Removal { config, topics: topics.into_iter().collect() })
    }
}

struct Components<'a> {
    device: &'a str,
    all: Map<String, Value>,
}

impl Components<'_> {
    /// `names` tell the component from all others, whatever their order. Another platform is another component.
    fn add(&mut self, platform: &str, names: &[&str], mut fields: Value) {
        let id =
            format!("{}_{platform}_{}", self.device, identity(&[&[self.device, platform], names].concat()));
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("platform".into(), platform.into());
            fields.insert("unique_id".into(), id.as_str().into());
        }
        self.all.insert(id, fields);
    }

    fn machine(&mut self, topics: &Topics) {
        let ask = json!({
            "name": "Ask now",
            "command_topic": topics.command,
            "payload_press": "ask",
            "icon": "mdi:eye-refresh",
        });
        self.add("button", &["ask"], ask);
        // Without a topic of its state it shows what it was told last.
        let pause = json!({
            "name": "Paused",
            "command_topic": topics.command,
            "payload_on": "pause",
            "payload_off": "resume",
            "optimistic": true,
            "icon": "mdi:pause-circle",
        });
        self.add("switch", &["paused"], pause);
    }

    fn camera(&mut self, name: &str, status: &str, topics: &Topics) {
        let all = CameraStatus::ALL.map(CameraStatus::name);
        let fields = json!({
            "name": format!("{name} camera"),
            "state_topic": status,
            "device_class": "enum",
            "options": all,
            "entity_category": "diagnostic",
            "availability": [{ "topic": topics.status }],
        });
        self.add("sensor", &["camera", name], fields);
    }

    fn question(&mut self, question: &QuestionSetup, index: usize, topics: &Topics, picture: Picture) {
        let (camera, name) = (question.camera.as_ref(), question.name.as_ref());
        let own = &topics.questions[index];
        // An answer is worth something while the camera runs.
        let camera_status = topics.cameras.iter().find(|c| *c.name == *camera).map(|c| c.status.as_str());
        let mut availability = vec![json!({ "topic": topics.status })];
        availability.extend(camera_status.map(|topic| {
            let running = CameraStatus::Running.name();
            let template = format!("{{{{ 'online' if value == '{running}' else 'offline' }}}}");
            json!({ "topic": topic, "value_template": template })
        }));
        let with = |fields: Value| {
            let mut fields = fields;
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("availability".into(), availability.clone().into());
                fields.insert("availability_mode".into(), "all".into());
            }
            fields
        };
        let (platform, mut fields) = state(&question.reading);
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("name".into(), format!("{camera} {name}").into());
            fields.insert("state_topic".into(), own.state.as_str().into());
            fields.insert("json_attributes_topic".into(), own.attributes.as_str().into());
        }
        self.add(platform, &["question", camera, name], with(fields));
        for (rule, topic) in question.rules.iter().zip(&own.rules) {
            let fields = json!({ "name": format!("{camera} {rule}"), "state_topic": topic });
            self.add("binary_sensor", &["rule", camera, name, rule], with(fields));
        }
        if picture != Picture::None {
            let fields = json!({
                "name": format!("{camera} {name} picture"),
                "image_topic": own.image,
                "content_type": "image/jpeg",
            });
            self.add("image", &["image", camera, name], with(fields));
        }
    }
}

/// The platform for what answers are, and its fields.
fn state(reading: &Reading) -> (&'static str, Value) {
    match reading {
        Reading::Choice(choices) => match yes_and_no(choices) {
            Some((yes, no)) => ("binary_sensor", json!({ "payload_on": yes, "payload_off": no })),
            None => ("sensor", json!({ "device_class": "enum", "options": choices })),
        },
        Reading::Objects => ("sensor", json!({ "state_class": "measurement", "icon": "mdi:counter" })),
        // A state of Home Assistant has 255 characters at most; the attributes have the whole text.
        Reading::Text => ("sensor", json!({ "value_template": "{{ value[:255] }}", "icon": "mdi:text" })),
    }
}

/// The choices as they are spelled, if they are yes and no.
fn yes_and_no(choices: &[String]) -> Option<(&str, &str)> {
    let find = |word: &str| choices.iter().find(|choice| choice.trim().eq_ignore_ascii_case(word));
    match (choices.len(), find("yes"), find("no")) {
        (2, Some(yes), Some(no)) => Some((yes.trim(), no.trim())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(camera: &str, name: &str, reading: Reading) -> QuestionSetup {
        let rules = vec!["alarm".into()];
        QuestionSetup { name: name.into(), camera: camera.into(), prompt: String::new(), reading, rules }
    }

    fn of(questions: Vec<QuestionSetup>) -> Discovery {
        let setup = Setup { model: "m".into(), cameras: vec!["front".into()], questions };
        let options = MqttOptions { node: Some("pi".into()), ..MqttOptions::new("mqtt://host") };
        let topics = Topics::new("palmtop", "pi", &setup).unwrap();
        Discovery::new(&options, &setup, &topics).unwrap().unwrap()
    }

    fn ids(discovery: &Discovery) -> BTreeSet<String> {
        discovery.config["components"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn identities_do_not_depend_on_the_order() {
        let (a, b) = (question("front", "a", Reading::Text), question("front", "b", Reading::Objects));
        let (one, other) = (of(vec![a.clone(), b.clone()]), of(vec![b, a]));
        assert_eq!(ids(&one), ids(&other));
        assert_eq!(one.config(), other.config());
    }

    #[test]
    fn what_is_gone_is_removed_and_its_topics_are_cleared() {
        let text = question("front", "a", Reading::Text);
        let before = of(vec![text.clone(), question("front", "gone", Reading::Objects)]);
        let now = of(vec![text.clone()]);
        let removal = now.removal(&before.config()).unwrap();
        let config: Value = serde_json::from_slice(&removal.config).unwrap();
        let components = config["components"].as_object().unwrap();
        let mut removed: Vec<&Value> = components
            .iter()
            .filter(|(id, _)| !ids(&now).contains(*id))
            .map(|(_, component)| component)
            .collect();
        removed.sort_by_key(|component| component.to_string());
        let bare = ["binary_sensor", "image", "sensor"].map(|platform| json!({ "platform": platform }));
        assert_eq!(removed, bare.iter().collect::<Vec<_>>());
        assert_eq!(components.len(), ids(&now).len() + 3);
        let topics =
            ["alarm/state", "attributes", "image", "state"].map(|end| format!("palmtop/pi/front/gone/{end}"));
        assert_eq!(removal.topics, topics);
        assert_eq!(now.removal(&now.config()), None);
        // The same question read otherwise is another entity; its topics stay.
        let removal = of(vec![question("front", "a", Reading::Choice(vec!["yes".into(), "no".into()]))])
            .removal(&now.config())
            .unwrap();
        assert_eq!(removal.topics, Vec::<String>::new());
    }

    #[test]
    fn a_message_that_is_none_of_ours_does_no_harm() {
        let now = of(vec![question("front", "a", Reading::Text)]);
        for earlier in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"components":[]}"#,
            r#"{"components":{"x":1,"y":{"platform":"lock"},"a b":{"platform":"sensor"}}}"#,
        ] {
            assert_eq!(now.removal(earlier.as_bytes()), None, "{earlier}");
        }
        let foreign = json!({ "components": { "x": {
            "platform": "sensor",
            "state_topic": "palmtop/other/front/a/state",
            "json_attributes_topic": "palmtop/pi/#",
            "image_topic": 7,
        } } });
        assert_eq!(now.removal(foreign.to_string().as_bytes()).unwrap().topics, Vec::<String>::new());
    }

    #[test]
    fn yes_and_no_are_a_binary_sensor_however_they_are_spelled() {
        let of = |choices: &[&str]| state(&Reading::Choice(choices.iter().map(|&c| c.to_owned()).collect()));
        assert_eq!(
            of(&["No", "Yes"]),
            ("binary_sensor", json!({ "payload_on": "Yes", "payload_off": "No" }))
        );
        let fields = json!({ "device_class": "enum", "options": ["yes", "no", "unclear"] });
        assert_eq!(of(&["yes", "no", "unclear"]), ("sensor", fields));
        assert_eq!(of(&["open", "shut"]).0, "sensor");
    }
}
