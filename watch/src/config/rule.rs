//! `[[question.rule]]`

use std::time::Duration;

use regex::RegexBuilder;
use serde::{Deserialize, Deserializer};

use super::error::ConfigError;
use super::question::{QuestionConfig, quorum};
use super::{Config, ZoneConfig};
use crate::event::{Condition, Hours, Objects, Quorum, Rule};
use crate::period::Period;
use crate::setup::Reading;

/// A rule of the file. It has exactly one condition: `is`, `contains`, `matches`, `at_least` or `at_most` (or both),
/// `appears`, `disappears`, `enters` or `leaves`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// What its events are called; the question's name if absent.
    pub name: Option<String>,
    /// See [`Condition::Is`].
    pub is: Option<String>,
    /// See [`Condition::Contains`].
    pub contains: Option<String>,
    /// See [`Condition::Matches`].
    pub matches: Option<String>,
    /// At least so many objects.
    pub at_least: Option<usize>,
    /// At most so many objects.
    pub at_most: Option<usize>,
    /// Objects of this label only.
    pub label: Option<String>,
    /// An object is there.
    pub appears: bool,
    /// An object has gone.
    pub disappears: bool,
    /// An object is in this zone.
    pub enters: Option<ZoneConfig>,
    /// An object that was in this zone is not there any more.
    pub leaves: Option<ZoneConfig>,
    /// See [`Rule::needed`].
    #[serde(rename = "for", deserialize_with = "quorum")]
    pub needed: Option<Quorum>,
    /// See [`Rule::until`].
    #[serde(deserialize_with = "quorum")]
    pub until: Option<Quorum>,
    /// See [`Rule::cooldown`].
    pub cooldown: Option<Period>,
    /// See [`Rule::hours`].
    #[serde(deserialize_with = "hours")]
    pub hours: Option<Hours>,
}

fn hours<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Hours>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Looks without it that end the event of an object, unless the file says otherwise: detectors miss now and then.
const MISSED: &str = "3 of 3";
/// A pattern's program is no larger.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl RuleConfig {
    /// What a question for objects without rules has.
    pub(super) fn appearance() -> Self {
        Self { appears: true, ..Self::default() }
    }

    pub(super) fn plan(
        &self,
        config: &Config,
        question: &QuestionConfig,
        reading: &Reading,
        labels: Option<&[String]>,
        question_name: &str,
    ) -> Result<Rule, ConfigError> {
        let name = self.name.clone().unwrap_or_else(|| question_name.to_owned());
        let of = format!("rule '{name}' of question '{question_name}'");
        let wrong = |what: &str| ConfigError::wrong(&of, what);
        let kinds = [
            self.is.is_some(),
            self.contains.is_some(),
            self.matches.is_some(),
            self.at_least.is_some() || self.at_most.is_some(),
            self.appears,
            self.disappears,
            self.enters.is_some(),
            self.leaves.is_some(),
        ];
        if kinds.iter().filter(|&&is_there| is_there).count() != 1 {
            return Err(wrong(
                "it has exactly one of is, contains, matches, at_least (with or without at_most), appears, disappears, \
                 enters and leaves",
            ));
        }
        let is_about_objects = kinds[3..].contains(&true);
        if is_about_objects && *reading != Reading::Objects {
            return Err(wrong("it is about objects, and the question finds none: use detect or segment"));
        }
        if self.label.is_some() && !is_about_objects {
            return Err(wrong("'label' goes with at_least, at_most, appears, disappears, enters or leaves"));
        }
        if let (Some(label), Some(labels)) = (&self.label, labels)
            && !labels.contains(label)
        {
            return Err(wrong(&format!(
                "the question does not ask for '{label}' but for: {}",
                labels.join(", ")
            )));
        }
        if let (Some(is), Reading::Choice(choices)) = (&self.is, reading)
            && !choices.iter().any(|choice| choice.to_lowercase() == is.to_lowercase())
        {
            return Err(wrong(&format!("'{is}' is none of the choices: {}", choices.join(", "))));
        }
        let objects = |zone: &Option<ZoneConfig>| {
            let zone = zone.as_ref().map(|zone| config.polygon(zone, &of)).transpose()?;
            Ok(Objects { label: self.label.clone(), zone })
        };
        let condition = match self {
            Self { is: Some(text), .. } => Condition::Is(text.clone()),
            Self { contains: Some(text), .. } => Condition::Contains(text.clone()),
            Self { matches: Some(pattern), .. } => {
                let regex = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
                Condition::Matches(regex.map_err(|error| ConfigError::wrong(&of, error))?)
            }
            Self { appears: true, .. } => Condition::Appears(objects(&None)?),
            Self { disappears: true, .. } => Condition::Disappears(objects(&None)?),
            Self { enters: zone @ Some(_), .. } => Condition::Appears(objects(zone)?),
            Self { leaves: zone @ Some(_), .. } => Condition::Disappears(objects(zone)?),
            _ => Condition::Count {
                label: self.label.clone(),
                at_least: self.at_least.unwrap_or(0),
                at_most: self.at_most.unwrap_or(usize::MAX),
            },
        };
        if self.at_least.zip(self.at_most).is_some_and(|(least, most)| least > most) {
            return Err(wrong("at_least is more than at_most"));
        }
        let needed = self.needed.or(question.needed).unwrap_or_default();
        let is_about_tracks = matches!(condition, Condition::Appears(_) | Condition::Disappears(_));
        let until = match self.until.or(question.until) {
            Some(until) => until,
            None if is_about_tracks => MISSED.parse().unwrap_or(needed),
            None => needed,
        };
        Ok(Rule {
            name: name.into(),
            condition,
            needed,
            until,
            cooldown: self.cooldown.map_or(Duration::ZERO, |period| period.0),
            hours: self.hours,
        })
    }
}
