//! The topics of everything that is watched.
//!
//! ```text
//! PREFIX/NODE/status                          online, offline
//! PREFIX/NODE/command                         what palmtop is told
//! PREFIX/NODE/CAMERA/status                   running, waiting, …
//! PREFIX/NODE/CAMERA/event                    each event, as JSON
//! PREFIX/NODE/CAMERA/QUESTION/state           the answer
//! PREFIX/NODE/CAMERA/QUESTION/attributes      the whole record of the answer, as JSON
//! PREFIX/NODE/CAMERA/QUESTION/image           the picture, as JPEG
//! PREFIX/NODE/CAMERA/QUESTION/RULE/state      ON, OFF
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::super::SinkError;
use crate::setup::Setup;

/// Bytes of a topic at most. The protocol has 65535; no name needs them.
const TOPIC_BYTES_MAX: usize = 1024;
/// Characters of a name in an identity.
const SLUG_MAX: usize = 40;

/// The topics.
#[derive(Debug)]
pub struct Topics {
    /// What the topics of this machine begin with, with a slash at the end.
    pub base: String,
    pub status: String,
    pub command: String,
    /// As [`Setup::cameras`].
    pub cameras: Vec<CameraTopics>,
    /// As [`Setup::questions`].
    pub questions: Vec<QuestionTopics>,
}

#[derive(Debug)]
pub struct CameraTopics {
    pub name: Arc<str>,
    pub status: String,
    pub event: String,
}

#[derive(Debug)]
pub struct QuestionTopics {
    pub state: String,
    pub attributes: String,
    pub image: String,
    /// As [`QuestionSetup::rules`](crate::setup::QuestionSetup::rules).
    pub rules: Vec<String>,
}

impl Topics {
    /// The topics of a set-up.
    ///
    /// # Errors
    /// If the prefix is none, or two things have the same topic since their names differ only in characters that topics
    /// do not have.
    pub fn new(prefix: &str, node: &str, setup: &Setup) -> Result<Self, SinkError> {
        check_prefix("prefix", prefix)?;
        let base = format!("{prefix}/{}", level(node));
        let mut used = Used::default();
        let mut cameras = Vec::new();
        for name in &setup.cameras {
            let camera = format!("{base}/{}", level(name));
            let status = used.take(format!("{camera}/status"), || format!("the camera '{name}'"))?;
            cameras.push(CameraTopics { name: Arc::clone(name), status, event: format!("{camera}/event") });
        }
        let mut questions = Vec::new();
        for question in &setup.questions {
            let name = || format!("the question '{}' of the camera '{}'", question.name, question.camera);
            let topic = format!("{base}/{}/{}", level(&question.camera), level(&question.name));
            let state = used.take(format!("{topic}/state"), name)?;
            let rule_topic = |rule: &Arc<str>| {
                let what = || format!("the rule '{rule}' of {}", name());
                used.take(format!("{topic}/{}/state", level(rule)), what)
            };
            let rules = question.rules.iter().map(rule_topic).collect::<Result<_, _>>()?;
            let (attributes, image) = (format!("{topic}/attributes"), format!("{topic}/image"));
            questions.push(QuestionTopics { state, attributes, image, rules });
        }
        let (status, command) = (format!("{base}/status"), format!("{base}/command"));
        Ok(Self { base: base + "/", status, command, cameras, questions })
    }

    /// All that a broker may have kept of this set-up.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        let questions = self.questions.iter();
        questions
            .flat_map(|q| [&q.state, &q.attributes, &q.image].into_iter().chain(&q.rules))
            .chain(self.cameras.iter().map(|camera| &camera.status))
            .map(String::as_str)
    }
}

#[derive(Default)]
struct Used(BTreeMap<String, String>);

impl Used {
    fn take(&mut self, topic: String, what: impl Fn() -> String) -> Result<String, SinkError> {
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(SinkError(format!("the name of {} is too long for a topic of MQTT", what())));
        }
        match self.0.insert(topic.clone(), what()) {
            None => Ok(topic),
            Some(other) => {
                let what = what();
                Err(SinkError(format!(
                    "{what} and {other} have the same topic '{topic}': give one another name"
                )))
            }
        }
    }
}

/// Checks what topics begin with.
pub fn check_prefix(field: &str, prefix: &str) -> Result<(), SinkError> {
    let wrong = |c: char| matches!(c, '+' | '#') || c.is_control();
    let is_right = prefix.split('/').all(|level| !level.is_empty()) && !prefix.starts_with('$');
    match is_right && !prefix.contains(wrong) && prefix.len() <= TOPIC_BYTES_MAX / 2 {
        true => Ok(()),
        false => {
            Err(SinkError(format!("{field} of mqtt must be levels of a topic, such as \"home/palmtop\"")))
        }
    }
}

/// A name as a level of a topic: what topics give a meaning to, or many tools do not take, becomes `_`.
pub fn level(name: &str) -> String {
    let is_odd = |c: char| matches!(c, '/' | '+' | '#' | '$') || c.is_control() || c.is_whitespace();
    let level: String = name.chars().map(|c| if is_odd(c) { '_' } else { c }).collect();
    if level.is_empty() { "_".into() } else { level }
}

/// An identity that depends on these names and nothing else, of letters, digits and `_`: the last name is legible, and
/// a hash of all keeps names apart that look the same.
pub fn identity(names: &[&str]) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let slug: String = names.last().map_or("", |name| name).chars().take(SLUG_MAX).map(kept).collect();
    format!("{slug}_{:08x}", xxh3_64(names.join("\0").as_bytes()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::{QuestionSetup, Reading};

    fn question(camera: &str, name: &str, rules: &[&str]) -> QuestionSetup {
        QuestionSetup {
            name: name.into(),
            camera: camera.into(),
            prompt: String::new(),
            reading: Reading::Text,
            rules: rules.iter().map(|&rule| rule.into()).collect(),
        }
    }

    fn topics(questions: Vec<QuestionSetup>) -> Result<Topics, SinkError> {
        let cameras = vec!["front door".into(), "yard".into()];
        Topics::new("home/palmtop", "pi", &Setup { model: String::new(), cameras, questions })
    }

    #[test]
    fn names_become_levels() {
        for (name, want) in [
            ("front door", "front_door"),
            ("a/b+c#d$e", "a_b_c_d_e"),
            ("küche-1.2", "küche-1.2"),
            ("a\0b\nc", "a_b_c"),
            ("", "_"),
        ] {
            assert_eq!(level(name), want);
        }
    }

    #[test]
    fn everything_has_its_topic() {
        let topics =
            topics(vec![question("front door", "who/what", &["some one"]), question("yard", "x", &[])])
                .unwrap();
        assert_eq!(topics.base, "home/palmtop/pi/");
        assert_eq!(topics.cameras[0].event, "home/palmtop/pi/front_door/event");
        assert_eq!(topics.questions[0].rules, ["home/palmtop/pi/front_door/who_what/some_one/state"]);
        let states: Vec<&str> = topics.states().collect();
        assert_eq!(states.len(), 3 + 1 + 3 + 2);
        assert!(states.contains(&"home/palmtop/pi/yard/x/image"));
        assert!(states.contains(&"home/palmtop/pi/yard/status"));
    }

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        let error =
            topics(vec![question("yard", "a b", &[]), question("yard", "a/b", &[])]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the question 'a/b' of the camera 'yard' and the question 'a b' of the camera 'yard' have the same topic \
             'home/palmtop/pi/yard/a_b/state': give one another name"
        );
        assert!(topics(vec![question("yard", "a", &["r", "r"])]).is_err());
        assert!(topics(vec![question("yard", &"x".repeat(2000), &[])]).is_err());
        // The same question of another camera, and names that are words of ours.
        let words =
            [("yard", "a"), ("front door", "a"), ("yard", "status"), ("yard", "event"), ("yard", "state")];
        topics(words.map(|(camera, name)| question(camera, name, &["state", "image"])).to_vec()).unwrap();
    }

    #[test]
    fn prefixes_are_levels() {
        for prefix in ["palmtop", "home/palmtop", "a b"] {
            assert!(check_prefix("prefix", prefix).is_ok(), "{prefix}");
        }
        for prefix in ["", "/palmtop", "palmtop/", "a//b", "a/+", "#", "$SYS", "a\0"] {
            assert!(check_prefix("prefix", prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn identities_depend_on_all_names_and_on_nothing_else() {
        assert_eq!(identity(&["pi", "yard", "Who is it?"]), identity(&["pi", "yard", "Who is it?"]));
        assert!(identity(&["pi", "yard", "Who is it?"]).starts_with("who_is_it__"));
        let all = [
            identity(&["pi", "a", "b c"]),
            identity(&["pi", "a", "b/c"]),
            identity(&["pi", "a b", "c"]),
            identity(&["pi", "a", "b", "c"]),
            identity(&["po", "a", "b c"]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
