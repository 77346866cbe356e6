//! What to watch, from a TOML file (docs/watch.md) or from the options of a command line.
//!
//! [`Config`] is the file as it is written, [`Config::parse`] checks it, and [`Config::watched`] makes questions for a
//! model of it.

mod error;
mod limits;
mod question;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palmtop::Model;
use serde::Deserialize;

use crate::gate::{FeatureOptions, PixelOptions, Polygon, Zones};
use crate::period::Period;
use crate::ros2::Ros2Options;
#[cfg(feature = "sinks")]
use crate::sink::{
    command::CommandOptions, mqtt::MqttOptions, snapshots::SnapshotOptions, webhook::WebhookOptions,
};
use crate::source::Address;
use crate::watcher::{Camera, WatchOptions, Watched};
pub use error::ConfigError;
pub use question::QuestionConfig;
pub use rule::RuleConfig;
#[cfg(not(feature = "sinks"))]
use without_sinks::{CommandOptions, MqttOptions, SnapshotOptions, WebhookOptions};

/// Settings of receivers, which are read over where there are none.
#[cfg(not(feature = "sinks"))]
mod without_sinks {
    use serde::de::IgnoredAny;

    pub type CommandOptions = IgnoredAny;
    pub type MqttOptions = IgnoredAny;
    pub type SnapshotOptions = IgnoredAny;
    pub type WebhookOptions = IgnoredAny;
}

/// A configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The model file; the command line's goes before it.
    pub model: Option<PathBuf>,
    /// See [`WatchOptions::budget`].
    pub budget: Option<Period>,
    /// For questions that do not say.
    pub every: Option<Period>,
    /// For questions that do not say.
    pub at_least_every: Option<Period>,
    /// Tokens of an answer at most; 256 if absent.
    pub max_new_tokens: Option<usize>,
    /// Questions that are answered together at most; 8 if absent.
    pub batch: Option<usize>,
    /// Tokens of drafts that are checked in one pass; 8 if absent.
    pub draft_tokens: Option<usize>,
    /// Where pictures come from.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraConfig>,
    /// Zones by their names.
    #[serde(rename = "zone")]
    pub zones: BTreeMap<String, Corners>,
    /// What is asked.
    #[serde(rename = "question")]
    pub questions: Vec<QuestionConfig>,
    /// When to look.
    pub gate: GateConfig,
    /// A folder of pictures.
    pub snapshots: Option<SnapshotOptions>,
    /// Web addresses that get records.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<WebhookOptions>,
    /// Programs that are run.
    #[serde(rename = "command")]
    pub commands: Vec<CommandOptions>,
    /// An MQTT broker.
    pub mqtt: Option<MqttOptions>,
    /// Topics of ROS 2; only in builds with the feature `ros2`.
    pub ros2: Option<Ros2Options>,
    /// How compressed video is read.
    pub ffmpeg: FfmpegConfig,
}

/// `[ffmpeg]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FfmpegConfig {
    /// The program; `ffmpeg` as the path has it, if absent.
    pub program: Option<String>,
    /// What it is told before the input, such as `-hwaccel` and `drm`.
    pub input: Vec<String>,
}

/// A camera of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// What it is called; made of the source if absent.
    pub name: Option<String>,
    /// Its address; empty if pictures are given to the loop ([`Config::parse_questions`]).
    #[serde(default)]
    pub source: String,
    /// Only what is in one of these counts.
    #[serde(default)]
    pub zone: OneOrMany<ZoneConfig>,
    /// Nothing that is in one of these counts.
    #[serde(default)]
    pub ignore: OneOrMany<ZoneConfig>,
}

/// `[gate]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// Whether to look only if pixels change; true if absent.
    pub pixels: Option<bool>,
    /// Whether to ask only if features change; true if absent.
    pub features: Option<bool>,
    /// See [`PixelOptions::threshold`].
    pub pixel_threshold: Option<f32>,
    /// See [`PixelOptions::cells_min`].
    pub cells: Option<usize>,
    /// See [`PixelOptions::absorbs_in`].
    pub absorbs_in: Option<Period>,
    /// See [`FeatureOptions::threshold`].
    pub feature_threshold: Option<f32>,
    /// See [`FeatureOptions::patches_min`].
    pub patches: Option<usize>,
}

/// Corners of a polygon, from 0 to 1.
pub type Corners = Vec<[f32; 2]>;

/// A zone: the name of one, or its corners.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum ZoneConfig {
    /// One of `[zone]`.
    Named(String),
    /// Corners.
    Corners(Corners),
}

/// One of something, or a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Any number.
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What a camera is called if nothing else is known of it.
const CAMERA: &str = "camera";
/// A file is no longer than this.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Reads a file. What is missing in it may come from elsewhere, so it is not checked yet: see [`check`](Self::check).
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or has keys or values that are not known.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let io = |error| ConfigError::Read { path: path.to_owned(), error };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
        }
        Self::of_toml(&text)
    }

    fn of_toml(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Toml(error.to_string()))
    }

    /// Reads a file's text, and checks all that can be checked without a model.
    ///
    /// # Errors
    /// What is wrong, with its line, or with the name of the camera, the question or the rule.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config = Self::of_toml(text)?;
        config.check()?;
        Ok(config)
    }

    /// Like [`parse`](Self::parse), for a loop that is given its pictures: cameras then need no source, and if the text
    /// names none there is one that is called `camera`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_questions(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::of_toml(text)?;
        if config.cameras.is_empty() {
            config.cameras.push(CameraConfig {
                name: Some(CAMERA.into()),
                source: String::new(),
                zone: OneOrMany::default(),
                ignore: OneOrMany::default(),
            });
        }
        config.check_all_but_sources()?;
        Ok(config)
    }

    /// Checks all that can be checked without a model.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.cameras.is_empty() {
            return Err(ConfigError::Missing(
                "there is no source: name a camera, a stream, a folder or a film",
            ));
        }
        self.cameras()?;
        self.check_all_but_sources()
    }

    fn check_all_but_sources(&self) -> Result<(), ConfigError> {
        if self.questions.is_empty() {
            return Err(ConfigError::Missing("there is no question"));
        }
        let of_file = "the file";
        for (key, value) in [("max_new_tokens", self.max_new_tokens), ("batch", self.batch)] {
            if value.is_some_and(|n| !(1..=1024).contains(&n)) {
                return Err(ConfigError::wrong(of_file, format!("{key} is a number from 1 to 1024")));
            }
        }
        if self.draft_tokens.is_some_and(|n| n > 64) {
            return Err(ConfigError::wrong(of_file, "draft_tokens is a number from 0 to 64"));
        }
        let thresholds = [
            ("pixel_threshold", self.gate.pixel_threshold),
            ("feature_threshold", self.gate.feature_threshold),
        ];
        for (key, value) in thresholds {
            if value.is_some_and(|n| !(n.is_finite() && n > 0.0)) {
                return Err(ConfigError::wrong("[gate]", format!("{key} is a number above 0")));
            }
        }
        self.named_cameras()?;
        let mut names = BTreeSet::new();
        for question in &self.questions {
            let planned = question.plan(self)?;
            if !names.insert(planned.name.clone()) {
                return Err(ConfigError::Twice { what: "question", name: planned.name });
            }
        }
        Ok(())
    }

    /// The cameras, and where their pictures come from.
    ///
    /// # Errors
    /// For an address that is none, a name that is there twice, and a zone that is none.
    pub fn cameras(&self) -> Result<Vec<(Camera, Address)>, ConfigError> {
        let addresses: Vec<Address> =
            self.cameras.iter().map(CameraConfig::address).collect::<Result<_, _>>()?;
        Ok(self.named_cameras()?.into_iter().zip(addresses).collect())
    }

    /// The cameras, wherever their pictures come from.
    ///
    /// # Errors
    /// As [`cameras`](Self::cameras), and for one that has neither name nor source.
    pub fn named_cameras(&self) -> Result<Vec<Camera>, ConfigError> {
        let mut names = BTreeSet::new();
        let camera = |config: &CameraConfig| {
            let name = match &config.name {
                Some(name) => name.clone(),
                None if config.source.is_empty() => {
                    return Err(ConfigError::Missing("a camera has neither a name nor a source"));
                }
                None => name_of(&config.address()?),
            };
            if !names.insert(name.clone()) {
                return Err(ConfigError::Twice { what: "camera", name });
            }
            let what = format!("camera '{name}'");
            let zones = Zones {
                include: self.polygons(&config.zone, &what)?,
                ignore: self.polygons(&config.ignore, &what)?,
            };
            Ok(Camera { name: name.into(), zones })
        };
        self.cameras.iter().map(camera).collect()
    }

    /// The questions, one for each camera that it is asked of.
    ///
    /// # Errors
    /// As [`Config::parse`], and for choices and labels that the model cannot spell.
    pub fn watched(&self, model: &Model) -> Result<Vec<Watched>, ConfigError> {
        let cameras: Vec<Arc<str>> = self.named_cameras()?.into_iter().map(|camera| camera.name).collect();
        let mut watched = Vec::new();
        for question in &self.questions {
            let planned = question.plan(self)?;
            for (index, name) in cameras.iter().enumerate() {
                if planned.cameras.is_empty() || planned.cameras.iter().any(|camera| **camera == **name) {
                    watched.push(planned.watched(model, index)?);
                }
            }
        }
        Ok(watched)
    }

    /// How the loop works.
    pub fn options(&self) -> WatchOptions {
        let gate = &self.gate;
        let mut pixels = PixelOptions::default();
        pixels.threshold = gate.pixel_threshold.unwrap_or(pixels.threshold);
        pixels.cells_min = gate.cells.unwrap_or(pixels.cells_min);
        pixels.absorbs_in = gate.absorbs_in.map_or(pixels.absorbs_in, |period| period.0);
        let mut features = FeatureOptions::default();
        features.threshold = gate.feature_threshold.unwrap_or(features.threshold);
        features.patches_min = gate.patches.unwrap_or(features.patches_min);
        WatchOptions {
            pixels: gate.pixels.unwrap_or(true).then_some(pixels),
            features: gate.features.unwrap_or(true).then_some(features),
            budget: self.budget.map(|budget| budget.0),
            all_answers: false,
        }
    }

    fn polygons(&self, zones: &OneOrMany<ZoneConfig>, of: &str) -> Result<Vec<Polygon>, ConfigError> {
        zones.as_slice().iter().map(|zone| self.polygon(zone, of)).collect()
    }

    fn polygon(&self, zone: &ZoneConfig, of: &str) -> Result<Polygon, ConfigError> {
        let corners = match zone {
            ZoneConfig::Corners(corners) => corners,
            ZoneConfig::Named(name) => self.zones.get(name).ok_or_else(|| {
                ConfigError::wrong(of, format!("there is no zone '{name}'; define it under [zone]"))
            })?,
        };
        let corners: Vec<(f32, f32)> = corners.iter().map(|&[x, y]| (x, y)).collect();
        Polygon::new(&corners).map_err(|error| ConfigError::wrong(of, error))
    }
}

impl CameraConfig {
    fn address(&self) -> Result<Address, ConfigError> {
        self.source.parse().map_err(|error| ConfigError::wrong(format!("source '{}'", self.source), error))
    }
}

/// What a camera is called if it has no name: the last part of its address.
fn name_of(address: &Address) -> String {
    let shown = address.kind.to_string();
    let path = shown.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| if stem.is_empty() { last } else { stem });
    match stem {
        "" | "-" => CAMERA.into(),
        stem => stem.into(),
    }
}

#[cfg(test)]
mod tests;
