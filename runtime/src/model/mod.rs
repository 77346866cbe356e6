//! A model: mapped weights, architecture and tokenizer, shared and read-only.

pub mod config;
pub mod kv_format;
pub mod retrieval;
pub mod tensors;
pub(crate) mod weights;
pub mod work;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{Checksum, FormatError, PalmFile, Storage};
use crate::model::config::Config;
use crate::model::retrieval::Retrieval;
use crate::model::weights::Weights;
use crate::tasks::{MaskCodec, MaskTensor};
use crate::tokenizer::{Tokenizer, TokenizerLayout};

/// Name of the tensor that holds the tokenizer table.
pub const TOKENIZER: &str = "tokenizer";

/// An open model. Sessions on any thread share it through an [`Arc`].
pub struct Model {
    file: PalmFile,
    config: Config,
    weights: Weights,
    tokenizer: TokenizerLayout,
    fingerprint: u64,
}

impl Model {
    /// Maps a `.palm` file and checks that its tensors are those of its architecture.
    ///
    /// **The file must stay as it is while the model is in use.** If anybody shortens it, the system ends this process
    /// with SIGBUS; if anybody writes into it, answers are wrong. Replace a model by renaming a finished file into its
    /// place, or [`read`](Self::read) it into memory: see [`PalmFile`].
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        Self::of_path(path, PalmFile::open(path)?)
    }

    /// Reads a `.palm` file into memory of this process instead of mapping it: whatever happens to the file afterwards
    /// does not matter. It takes as many bytes as the file has, beside those of the plan. See [`PalmFile::read`].
    pub fn read(path: &Path) -> Result<Arc<Self>> {
        Self::of_path(path, PalmFile::read(path)?)
    }

    fn of_path(path: &Path, file: PalmFile) -> Result<Arc<Self>> {
        Self::new(file).map_err(|error| match error {
            Error::Format(source) => Error::File { path: path.into(), source },
            other => other,
        })
    }

    /// Maps the part of an open file that begins at byte `offset`, `length` bytes or all to the end; the file may be
    /// closed afterwards, and must stay as it is. See [`PalmFile::open_part`].
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use palmtop::Model;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // What AssetFileDescriptor says of an asset that is stored without compression.
    /// let (package, start, length) = (File::open("app.apk")?, 8192, 1_900_000_000);
    /// let model = Model::open_part(&package, start, Some(length))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_part(file: &File, offset: u64, length: Option<u64>) -> Result<Arc<Self>> {
        Self::new(PalmFile::open_part(file, offset, length)?)
    }

    /// Uses a `.palm` file that lies in memory, which must begin at a multiple of 64; `bytes` are dropped with the
    /// model.
    pub fn from_memory(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Arc<Self>> {
        Self::new(PalmFile::from_memory(bytes)?)
    }

    /// Uses a `.palm` file that is part of the program; `bytes` must start at a multiple of 64.
    pub fn from_static(bytes: &'static [u8]) -> Result<Arc<Self>> {
        Self::new(PalmFile::from_static(bytes)?)
    }

    fn new(file: PalmFile) -> Result<Arc<Self>> {
        let config = Config::from_metadata(file.metadata())?;
        let weights = Weights::bind(&file, &config)?;
        let wrong = |what| FormatError::Tensor { name: TOKENIZER.to_owned(), what };
        let tokenizer = TokenizerLayout::parse(Self::tokenizer_bytes(&file)?);
        let tokenizer = tokenizer.map_err(|error| wrong(error.to_string()))?;
        let pieces = tokenizer.bind(Self::tokenizer_bytes(&file)?).piece_count() as usize;
        if !config.has_rows_for(pieces) {
            let rows = config.text.vocab;
            return Err(wrong(format!("has {pieces} pieces where the embedding has {rows} rows")).into());
        }
        let fingerprint = fingerprint(&file, &config);
        Ok(Arc::new(Self { file, config, weights, tokenizer, fingerprint }))
    }

    fn tokenizer_bytes(file: &PalmFile) -> Result<&[u8], FormatError> {
        let info = file.tensor(TOKENIZER)?;
        if info.storage != Storage::Bytes {
            let what = "is not stored as bytes".to_owned();
            return Err(FormatError::Tensor { name: TOKENIZER.to_owned(), what });
        }
        Ok(file.data(info))
    }

    /// Reads all weights once, so that the first answer does not wait for the disk. See [`PalmFile::preload`].
    pub fn preload(&self) {
        self.file.preload();
    }

    /// Reads all weights, and keeps them in memory for as long as the model is open. [`Error::Lock`] if the system does
    /// not allow that much. See [`PalmFile::lock`].
    pub fn lock(&self) -> Result<()> {
        self.file.lock()
    }

    /// [`Error::FileChanged`] if the mapped file was shortened or written since it was opened. See
    /// [`PalmFile::check_unchanged`].
    pub fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    /// The file behind the model.
    pub fn file(&self) -> &PalmFile {
        &self.file
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the model has for retrieval: the size of its vectors, and how pages and questions are worded. None for a
    /// model that only answers.
    pub fn retrieval(&self) -> Option<&Retrieval> {
        self.config.retrieval.as_ref()
    }

    /// The tokenizer, in place.
    pub fn tokenizer(&self) -> Tokenizer<'_> {
        let bytes = Self::tokenizer_bytes(&self.file).expect("opening has found it");
        self.tokenizer.bind(bytes)
    }

    /// The decoder of segmentation masks, if the file has one.
    pub fn mask_codec(&self) -> Result<Option<MaskCodec<'_>>> {
        if !self.file.tensors().iter().any(|t| t.name.starts_with(MaskCodec::PREFIX)) {
            return Ok(None);
        }
        let codec = MaskCodec::new(|name| {
            let info = self.file.find(name)?;
            let data = self.file.f32s(name, &info.shape).ok()?;
            Some(MaskTensor { shape: info.shape.clone(), data })
        })?;
        Ok(Some(codec))
    }

    /// Tells models apart that compute other numbers: the same for every opening of one file.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// A checksum of what a model computes with: its architecture, and the checksums that the file's head states of its
/// tensors.
fn fingerprint(file: &PalmFile, config: &Config) -> u64 {
    let mut sum = Checksum::default();
    sum.update(format!("{config:?}").as_bytes());
    for tensor in file.tensors() {
        sum.update(tensor.name.as_bytes());
        sum.update(&tensor.checksum.to_le_bytes());
    }
    sum.finish()
}
