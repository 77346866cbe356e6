//! A hub with a checkpoint, and somebody who pulls it.
#![allow(dead_code)] // each test file is a program of its own and uses a part of this

use std::path::PathBuf;
use std::sync::Arc;

use palmtop_convert::{Options, Progress, Recipe, convert};
use palmtop_hub::{Follower, HubError, Pulled, RepositoryName, Settings, Token, Wanted, pull};
use palmtop_tests::checkpoint;
use palmtop_tests::hub::{Asked, Hub, Reply};
use tempfile::TempDir;

pub const ID: &str = "google/paligemma-test";
pub const WEIGHTS: &str = "model.safetensors";

/// A hub with one checkpoint, and a folder to pull to.
pub struct Setting {
    pub hub: Hub,
    pub dir: TempDir,
    pub whole: TempDir,
    pub settings: Settings,
}

impl Setting {
    pub fn new(name: &str) -> Self {
        let (hub, dir, whole) = (Hub::new(), tempfile::tempdir().unwrap(), checkpoint(name));
        hub.add(ID, whole.path(), 'a');
        let cache = dir.path().join("cache");
        let endpoint = hub.endpoint.clone();
        let settings = Settings { endpoint, token: None, offline: None, cache, certificates: None };
        Self { hub, dir, whole, settings }
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("model.palm")
    }

    pub fn part(&self) -> PathBuf {
        self.dir.path().join("model.palm.part")
    }

    pub fn pull_as(
        &self,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<(Pulled, Vec<String>), HubError> {
        let notes = std::sync::Mutex::new(Vec::new());
        let note = |text: &str| notes.lock().unwrap().push(text.to_owned());
        let follower = Follower { progress, note: &note, cancelled: Arc::new(|| false) };
        let pulled = pull(&self.settings, wanted, &self.target(), &follower)?;
        Ok((pulled, notes.into_inner().unwrap()))
    }

    pub fn pull(&self) -> Result<Pulled, HubError> {
        self.pull_as(&wanted(ID), &()).map(|(pulled, _)| pulled)
    }

    /// What a conversion of the whole folder gives.
    pub fn wanted_bytes(&self, options: &Options, name: &str, commit: char) -> Vec<u8> {
        let target = self.whole.path().join("wanted.palm");
        let options = Options {
            name: Some(name.to_owned()),
            revision: Some(commit.to_string().repeat(40)),
            ..options.clone()
        };
        convert(self.whole.path(), &target, &options, &()).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        std::fs::remove_file(target).unwrap();
        bytes
    }

    pub fn assert_pulled(&self) {
        let bytes = std::fs::read(self.target()).unwrap();
        assert!(bytes == self.wanted_bytes(&options(), ID, 'a'), "the bytes are others");
        assert!(!self.part().exists(), "nothing else is left");
    }

    pub fn set_token(&mut self) {
        self.hub.state().token = Some("hf_right".into());
        self.settings.token = Token::new("hf_right", "HF_TOKEN").unwrap();
    }
}

pub fn options() -> Options {
    Options { recipe: Recipe::preset("int4".parse().unwrap()), threads: Some(2), ..Options::default() }
}

pub fn wanted(name: &str) -> Wanted {
    let name = RepositoryName::parse(name).unwrap();
    Wanted { name, options: options(), adapters: Vec::new(), convert: false }
}

/// What was asked for of a file's bytes, at the second host.
pub fn ranges(asked: &[Asked], file: &str) -> Vec<(u64, u64)> {
    asked.iter().filter(|a| a.is_cdn && a.path.contains(file)).filter_map(|a| a.range).collect()
}

pub fn reply(of: &str, times: usize, status: u16, headers: &[(&'static str, &str)]) -> Reply {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Reply { of: of.to_owned(), times, status, headers, body: "wait".into() }
}
