//! `[[question]]`

use std::time::Duration;

use palmtop::tasks::{Label, Task};
use palmtop::{Grammar, Model};
use serde::{Deserialize, Deserializer};

use super::error::ConfigError;
use super::rule::RuleConfig;
use super::{Config, OneOrMany, ZoneConfig};
use crate::event::{Quorum, Rule};
use crate::gate::Zones;
use crate::look::Question;
use crate::period::Period;
use crate::setup::Reading;
use crate::watcher::Watched;

/// A question of the file. Of `caption`, `ask`, `detect`, `segment`, `ocr` and `prompt` it has exactly one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionConfig {
    /// What it is called; its prompt if absent.
    pub name: Option<String>,
    /// The cameras that it is asked of; all if absent.
    pub camera: OneOrMany<String>,
    /// A caption in this language.
    pub caption: Option<String>,
    /// A question in words.
    pub ask: Option<String>,
    /// The answer is one of these.
    pub choose: OneOrMany<String>,
    /// The language of question and answer; `en` if absent.
    pub lang: Option<String>,
    /// Objects to find.
    pub detect: OneOrMany<String>,
    /// Objects to find, with masks.
    pub segment: OneOrMany<String>,
    /// True for the text in the picture.
    pub ocr: bool,
    /// A whole prompt. If it begins with `detect` or `segment`, its answers are read as objects.
    pub prompt: Option<String>,
    /// What must change before it is asked, and where objects count.
    pub zone: OneOrMany<ZoneConfig>,
    /// What does not count.
    pub ignore: OneOrMany<ZoneConfig>,
    /// See [`Watched::every`].
    pub every: Option<Period>,
    /// See [`Watched::at_least_every`].
    pub at_least_every: Option<Period>,
    /// See [`Watched::needed`]; also for rules that do not say.
    #[serde(rename = "for", deserialize_with = "quorum")]
    pub needed: Option<Quorum>,
    /// For rules that do not say.
    #[serde(deserialize_with = "quorum")]
    pub until: Option<Quorum>,
    /// Tokens of its answer at most.
    pub max_new_tokens: Option<usize>,
    /// Events.
    #[serde(rename = "rule")]
    pub rules: Vec<RuleConfig>,
}

/// A number of looks, as in `3 of 5`.
pub(super) fn quorum<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Quorum>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// A question that makes sense, before it is known what model is asked.
pub(super) struct Planned {
    pub name: String,
    /// Names of the cameras; all if empty.
    pub cameras: Vec<String>,
    prompt: String,
    reading: Reading,
    /// For objects that must be some of these: their labels, and whether there are masks.
    labels: Option<(Vec<String>, bool)>,
    zones: Zones,
    every: Duration,
    at_least_every: Option<Duration>,
    needed: Quorum,
    max_new_tokens: Option<usize>,
    rules: Vec<Rule>,
}

impl QuestionConfig {
    /// The question, checked.
    pub(super) fn plan(&self, config: &Config) -> Result<Planned, ConfigError> {
        let of = match (&self.name, self.kinds().as_slice()) {
            (Some(name), _) => format!("question '{name}'"),
            (None, [kind, ..]) => format!("the question with '{kind}'"),
            (None, []) => "a question without name".into(),
        };
        let wrong = |what: &dyn std::fmt::Display| ConfigError::wrong(&of, what);
        let task = self.task(&of)?;
        let prompt = task.prompt();
        if let Some(name) = &self.name
            && name.trim().is_empty()
        {
            return Err(wrong(&"its name is empty"));
        }
        let choices = self.choose.as_slice();
        if !choices.is_empty() && self.ask.is_none() && self.prompt.is_none() {
            return Err(wrong(&"'choose' goes with 'ask' or 'prompt'"));
        }
        if self.lang.is_some() && self.ask.is_none() {
            return Err(wrong(
                &"'lang' goes with 'ask'; a caption has its language itself: caption = \"de\"",
            ));
        }
        let cameras = config.named_cameras()?;
        for camera in self.camera.as_slice() {
            if !cameras.iter().any(|known| *known.name == **camera) {
                let names: Vec<&str> = cameras.iter().map(|known| &*known.name).collect();
                return Err(wrong(&format!(
                    "there is no camera '{camera}'; there are: {}",
                    names.join(", ")
                )));
            }
        }
        if self.max_new_tokens.is_some_and(|n| n == 0 || n > config.max_new_tokens.unwrap_or(NEW_TOKENS)) {
            return Err(wrong(
                &"max_new_tokens is at least 1, and at most that of the file (256 if it has none)",
            ));
        }
        let is_objects = |prompt: &str| prompt.starts_with("detect ") || prompt.starts_with("segment ");
        let reading = match choices {
            [] if is_objects(&prompt) => Reading::Objects,
            [] => Reading::Text,
            choices => Reading::Choice(choices.to_vec()),
        };
        let labels = |labels: &[Label]| -> Vec<String> {
            labels.iter().map(|label| label.as_str().to_owned()).collect()
        };
        let labels = match &task {
            Task::Detect { labels: names } => Some((labels(names), false)),
            Task::Segment { labels: names } => Some((labels(names), true)),
            _ => None,
        };
        let zones =
            Zones { include: config.polygons(&self.zone, &of)?, ignore: config.polygons(&self.ignore, &of)? };
        let name = self.name.clone().unwrap_or_else(|| prompt.clone());
        let mut rules = Vec::new();
        for rule in &self.rules {
            rules.push(rule.plan(config, self, &reading, labels.as_ref().map(|l| &l.0[..]), &name)?);
        }
        if self.rules.is_empty() && reading == Reading::Objects {
            rules.push(RuleConfig::appearance().plan(config, self, &reading, None, &name)?);
        }
        for (index, rule) in rules.iter().enumerate() {
            if rules[..index].iter().any(|before| before.name == rule.name) {
                return Err(wrong(&format!("it has two rules '{}'; give each a name", rule.name)));
            }
        }
        Ok(Planned {
            name,
            cameras: self.camera.as_slice().to_vec(),
            prompt,
            reading,
            labels,
            zones,
            every: self.every.or(config.every).map_or(Duration::ZERO, |period| period.0),
            at_least_every: self.at_least_every.or(config.at_least_every).map(|period| period.0),
            needed: self.needed.unwrap_or_default(),
            max_new_tokens: self.max_new_tokens,
            rules,
        })
    }

    /// The keys of the file that say what is asked.
    fn kinds(&self) -> Vec<&'static str> {
        [
            ("caption", self.caption.is_some()),
            ("ask", self.ask.is_some()),
            ("detect", !self.detect.as_slice().is_empty()),
            ("segment", !self.segment.as_slice().is_empty()),
            ("ocr", self.ocr),
            ("prompt", self.prompt.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, is_there)| is_there.then_some(key))
        .collect()
    }

    fn task(&self, of: &str) -> Result<Task, ConfigError> {
        let kinds = self.kinds();
        let [kind] = kinds[..] else {
            let what = "it has exactly one of caption, ask, detect, segment, ocr and prompt";
            let found = if kinds.is_empty() { "none".into() } else { kinds.join(" and ") };
            return Err(ConfigError::wrong(of, format!("{what}, not {found}")));
        };
        let task = match kind {
            "caption" => Task::caption(self.caption.as_deref().unwrap_or_default()),
            "ask" => {
                Task::answer(self.lang.as_deref().unwrap_or("en"), self.ask.as_deref().unwrap_or_default())
            }
            "detect" => Task::detect(self.detect.as_slice()),
            "segment" => Task::segment(self.segment.as_slice()),
            "ocr" => Ok(Task::ocr()),
            _ => Ok(Task::Raw(self.prompt.clone().unwrap_or_default())),
        };
        task.map_err(|error| ConfigError::wrong(of, error))
    }
}

/// Tokens of an answer at most, unless the file says otherwise: as many as `palmtop ask` allows.
pub(super) const NEW_TOKENS: usize = 256;

impl Planned {
    /// The question, for a model and a camera.
    pub fn watched(&self, model: &Model, camera: usize) -> Result<Watched, ConfigError> {
        let of = || format!("question '{}'", self.name);
        let grammar = match (&self.reading, &self.labels) {
            (Reading::Choice(choices), _) => Some(Grammar::choices(model, choices)),
            (_, Some((labels, masks))) => Some(Grammar::detections(model, labels, *masks)),
            _ => None,
        };
        let grammar = grammar.transpose().map_err(|error| ConfigError::wrong(of(), error))?;
        Ok(Watched {
            camera,
            question: Question {
                name: self.name.clone(),
                prompt: self.prompt.clone(),
                max_new_tokens: self.max_new_tokens,
                grammar,
            },
            reading: self.reading.clone(),
            zones: self.zones.clone(),
            every: self.every,
            at_least_every: self.at_least_every,
            needed: self.needed,
            rules: self.rules.clone(),
        })
    }
}
