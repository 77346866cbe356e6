//! The options of `palmtop watch`: what a configuration file says, in short.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueHint};
use palmtop::tasks::Language;
use palmtop_watch::config::{CameraConfig, Config, OneOrMany, QuestionConfig};
use palmtop_watch::event::Quorum;
use palmtop_watch::period::Period;
use palmtop_watch::sink::command::CommandOptions;
use palmtop_watch::sink::mqtt::MqttOptions;
use palmtop_watch::sink::snapshots::SnapshotOptions;
use palmtop_watch::sink::webhook::WebhookOptions;

use crate::args::{Choices, Labels, ModelArgs, choices, labels};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop watch demo/street.mjpeg --detect \"car ; bus\"\n  \
    palmtop watch /dev/video0 --ask \"is the door open?\" --choose \"yes;no\" --every 2s -m model.palm\n  \
    palmtop watch rtsp://camera/stream --caption en --json -m model.palm\n  \
    palmtop watch --config watch.toml\n\n\
    Enter asks at once; docs/watch.md has the configuration file, and all that can be done with events.")]
pub struct WatchArgs {
    /// Cameras (/dev/video0, csi://0), streams (rtsp://…, http://…), folders, films, named pipes, or - for standard
    /// input
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub sources: Vec<String>,
    /// What to watch, as a TOML file; sources and questions of the command line are added to its own
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print one JSON object for everything that changes (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Tell of every answer, not only of those that change something
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub questions: QuestionArgs,
    #[command(flatten)]
    pub when: WhenArgs,
    #[command(flatten)]
    pub receivers: ReceiverArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Receivers")]
pub struct ReceiverArgs {
    /// Save pictures of events in this folder, at most 1000 of them
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub snapshots: Option<PathBuf>,
    /// Publish to this MQTT broker, such as mqtt://192.168.1.2; Home Assistant finds it by itself
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub mqtt: Option<String>,
    /// Post events as JSON to this address
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub webhook: Vec<String>,
    /// Run this program for each event, which gets it as JSON on standard input
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::CommandName)]
    pub run: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Questions")]
pub struct QuestionArgs {
    /// Describe what is seen, in this language
    #[arg(long, value_name = "LANG", num_args = 0..=1, default_missing_value = "en")]
    pub caption: Option<Language>,
    /// Ask this; repeat the option to ask more
    #[arg(long, value_name = "TEXT")]
    pub ask: Vec<String>,
    /// Answers to --ask are one of these texts, separated by ';'
    #[arg(long, value_name = "TEXTS", value_parser = choices, requires = "ask")]
    pub choose: Vec<Choices>,
    /// Find objects, separated by ';', and tell when they come and go
    #[arg(long, value_name = "LABELS", value_parser = labels)]
    pub detect: Vec<Labels>,
    /// The same with outlines
    #[arg(long, value_name = "LABELS", value_parser = labels)]
    pub segment: Vec<Labels>,
    /// Read the text
    #[arg(long)]
    pub ocr: bool,
    /// Give this prompt to the model unchanged
    #[arg(long, value_name = "PROMPT")]
    pub prompt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "When")]
pub struct WhenArgs {
    /// Ask at most so often, such as 2s
    #[arg(long, value_name = "TIME")]
    pub every: Option<Period>,
    /// Ask at least so often, whether or not anything moves, such as 60s
    #[arg(long, value_name = "TIME")]
    pub at_least_every: Option<Period>,
    /// So many looks must agree before something counts, such as "2 of 3"
    #[arg(long = "for", value_name = "LOOKS")]
    pub needed: Option<Quorum>,
    /// The time from a picture to its answers; what does not fit is late, and comes first next time
    #[arg(long, value_name = "TIME")]
    pub budget: Option<Period>,
    /// Look at every picture, even if no pixel changes
    #[arg(long)]
    pub no_pixel_gate: bool,
    /// Ask about every picture that was looked at, even if the image encoder sees nothing new
    #[arg(long)]
    pub no_feature_gate: bool,
}

impl WatchArgs {
    /// The configuration: the file's, and what the command line adds to it.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => Config::default(),
        };
        config.cameras.extend(self.sources.iter().map(|source| CameraConfig {
            name: None,
            source: source.clone(),
            zone: OneOrMany::default(),
            ignore: OneOrMany::default(),
        }));
        let when = &self.when;
        config.every = when.every.or(config.every);
        config.at_least_every = when.at_least_every.or(config.at_least_every);
        config.budget = when.budget.or(config.budget);
        // The options only turn gates off; without them it is as the file says.
        if when.no_pixel_gate {
            config.gate.pixels = Some(false);
        }
        if when.no_feature_gate {
            config.gate.features = Some(false);
        }
        config.questions.extend(self.questions.questions());
        caption_if_nothing_else(&mut config);
        let receivers = &self.receivers;
        if let Some(folder) = &receivers.snapshots {
            config.snapshots = Some(SnapshotOptions { folder: folder.clone(), ..SnapshotOptions::default() });
        }
        if let Some(broker) = &receivers.mqtt {
            config.mqtt = Some(MqttOptions::new(broker));
        }
        let webhook = |url: &String| WebhookOptions { url: url.as_str().into(), ..WebhookOptions::default() };
        config.webhooks.extend(receivers.webhook.iter().map(webhook));
        let command = |run: &String| CommandOptions { run: vec![run.clone()], ..CommandOptions::default() };
        config.commands.extend(receivers.run.iter().map(command));
        for question in &mut config.questions {
            question.needed = question.needed.or(when.needed);
        }
        match (config.check(), &self.config) {
            (Ok(()), _) => Ok(config),
            (Err(error), Some(path)) => Err(error).with_context(|| cannot_use(path)),
            (Err(error), None) => Err(error.into()),
        }
    }
}

fn cannot_use(path: &Path) -> String {
    format!("cannot use configuration {}", path.display())
}

fn read(path: &Path) -> anyhow::Result<Config> {
    Config::read(path).with_context(|| cannot_use(path))
}

/// Nobody said what to ask.
fn caption_if_nothing_else(config: &mut Config) {
    if config.questions.is_empty() {
        config.questions.push(QuestionConfig { caption: Some("en".into()), ..QuestionConfig::default() });
    }
}

/// The configuration of a file alone, checked.
pub fn file_config(path: &Path) -> anyhow::Result<Config> {
    let mut config = read(path)?;
    caption_if_nothing_else(&mut config);
    config.check().with_context(|| cannot_use(path))?;
    Ok(config)
}

impl QuestionArgs {
    fn questions(&self) -> Vec<QuestionConfig> {
        let mut all = Vec::new();
        let mut add = |question: QuestionConfig| all.push(question);
        if let Some(language) = &self.caption {
            add(QuestionConfig { caption: Some(language.to_string()), ..QuestionConfig::default() });
        }
        let texts = self.choose.iter().flat_map(|choices| &choices.0);
        let choose: Vec<String> = texts.map(|text| text.to_string()).collect();
        for text in &self.ask {
            let choose = OneOrMany::Many(choose.clone());
            add(QuestionConfig { ask: Some(text.clone()), choose, ..QuestionConfig::default() });
        }
        let names =
            |labels: &Labels| OneOrMany::Many(labels.0.iter().map(|label| label.to_string()).collect());
        for labels in &self.detect {
            add(QuestionConfig { detect: names(labels), ..QuestionConfig::default() });
        }
        for labels in &self.segment {
            add(QuestionConfig { segment: names(labels), ..QuestionConfig::default() });
        }
        if self.ocr {
            add(QuestionConfig { ocr: true, ..QuestionConfig::default() });
        }
        for prompt in &self.prompt {
            add(QuestionConfig { prompt: Some(prompt.clone()), ..QuestionConfig::default() });
        }
        all
    }
}
