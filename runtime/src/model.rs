//! A model: mapped weights, architecture and tokenizer, shared and read-only.

use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::format::PalmFile;
use crate::plan::{Limits, Plan};

/// An open model. Sessions on any thread share it through an [`Arc`].
pub struct Model {
    file: PalmFile,
    config: Config,
}

impl Model {
    /// Maps a `.palm` file and checks that its tensors are those of its architecture.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        Self::new(PalmFile::open(path)?)
    }

    /// Uses a `.palm` file that is part of the program; `bytes` must start at a multiple of 64.
    pub fn from_static(bytes: &'static [u8]) -> Result<Arc<Self>> {
        Self::new(PalmFile::from_static(bytes)?)
    }

    fn new(file: PalmFile) -> Result<Arc<Self>> {
        let config = Config::from_metadata(file.metadata())?;
        Ok(Arc::new(Self { file, config }))
    }

    /// The file behind the model.
    pub fn file(&self) -> &PalmFile {
        &self.file
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The memory of a session with these limits.
    pub fn plan(&self, limits: &Limits) -> Result<Plan> {
        let _ = limits;
        todo!()
    }
}
