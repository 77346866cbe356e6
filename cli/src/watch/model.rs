//! The model of a loop that runs for months: its file may be replaced by a newer one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use palmtop::Model;
use palmtop_watch::config::Config;

use crate::args::ModelArgs;
use crate::models::{self, Chosen};
use crate::output::Console;

/// A model, and which file it was.
pub struct ModelFile {
    pub model: Arc<Model>,
    /// What the command line or the configuration says.
    named: Option<PathBuf>,
    /// The file; none for the built-in model.
    path: Option<PathBuf>,
    seen: Option<Identity>,
}

/// What tells one file from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Identity {
    bytes: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                (metadata.dev(), metadata.ino())
            },
        })
    }
}

fn named(args: &ModelArgs, config: &Config) -> Option<PathBuf> {
    args.model.clone().or_else(|| config.model.clone())
}

impl ModelFile {
    /// Opens the model of the command line, or of the configuration, or the built-in one.
    pub fn open(args: &ModelArgs, config: &Config, console: Console) -> anyhow::Result<Self> {
        let named = named(args, config);
        let chosen = models::choose(named.as_deref(), console)?;
        let path = match &chosen {
            Chosen::File(path) => Some(path.clone()),
            Chosen::Demo(_) => None,
        };
        let seen = path.as_deref().and_then(Identity::of);
        Ok(Self { model: models::open_chosen(&chosen, args.load, console)?, named, path, seen })
    }

    /// Opens it again if another one is wanted, or if its file was replaced.
    pub fn reopened(&self, args: &ModelArgs, config: &Config, console: Console) -> anyhow::Result<Self> {
        let named = named(args, config);
        let seen = self.path.as_deref().and_then(Identity::of);
        // One that nobody has named stays, whatever was used elsewhere meanwhile.
        if named == self.named && seen == self.seen {
            return Ok(Self { model: self.model.clone(), named, path: self.path.clone(), seen });
        }
        Self::open(args, config, console)
    }

    /// The same one, for a configuration that wants no other.
    pub fn kept(&self, args: &ModelArgs, config: &Config) -> anyhow::Result<Self> {
        let named = named(args, config);
        anyhow::ensure!(named == self.named, "another model takes a restart of the server");
        Ok(Self { model: self.model.clone(), named, path: self.path.clone(), seen: self.seen })
    }

    /// Its file; none for the built-in one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// True once if its file is another one than before. One that is gone is no reason to stop.
    pub fn has_changed(&mut self) -> bool {
        let now = self.path.as_deref().and_then(Identity::of);
        let has_changed = now.is_some() && now != self.seen;
        if has_changed {
            self.seen = now;
        }
        has_changed
    }
}
