//! Adapters: what PEFT's LoRA trained beside a model's weights, merged into them row by row.
//!
//! For a matrix `W [outputs, inputs]` an adapter of rank r has `A [r, inputs]` and `B [outputs, r]`, and
//!
//! ```text
//! LoRA:  W' = W + s·(B·A)                          s = alpha / r, or alpha / √r (rsLoRA), times the user's factor
//! DoRA:  W' = m / ‖W + s·(B·A)‖ · (W + s·(B·A))    m: a magnitude per output; norms are those of rows
//! ```
//!
//! The kernel of a convolution is a matrix with all that follows its outputs as inputs. An embedding has its factors
//! the other way round, so its norms are those of columns. Everything is computed in f32 (norms in f64), in one order.
//!
//! Several adapters are merged one after the other, each into what the one before has left: as if each were merged by
//! PEFT's `merge_and_unload` and the next one loaded then.
//!
//! `folder.rs` finds what PEFT writes; `config.rs`, `patterns.rs` and `names.rs` read it; `matching.rs` fits tensors to
//! the model's and refuses what fits nothing; `plan.rs` puts in order what is done to each; `merge.rs` has the
//! arithmetic.

mod config;
mod folder;
mod matching;
mod merge;
mod names;
mod patterns;
mod plan;
mod report;

use std::path::{Path, PathBuf};

use palmtop::model::config::Config;

pub(crate) use folder::only_an_adapter;
pub(crate) use merge::Merger;
pub use report::{AdapterReport, MatchReport};

use crate::checkpoint::shards::{Shards, Tensor};
use crate::checkpoint::{self, Checkpoint};
use crate::tokenizer::{self, BuildError};
use crate::{ConvertError, needed};
use config::AdapterConfig;
pub(crate) use plan::Plan;

/// A folder with an adapter, and a factor for what it adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The folder: `adapter_config.json` and `adapter_model.safetensors`.
    pub path: PathBuf,
    /// Multiplies what LoRA adds; 1 is the adapter as it was trained. Weights that were saved as a whole replace the
    /// base's all the same.
    pub scale: f64,
}

impl Adapter {
    /// The adapter as it was trained.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), scale: 1.0 }
    }

    /// Reads `DIR` or `DIR=SCALE`; a folder with such a name is that folder.
    pub fn from_argument(text: &str) -> Result<Self, String> {
        let whole = Self::new(text);
        match text.rsplit_once('=') {
            Some((path, scale)) if !whole.path.exists() => match scale.trim().parse::<f64>() {
                Ok(scale) if scale.is_finite() => Ok(Self { path: path.into(), scale }),
                _ => Err(format!(
                    "there is no folder '{text}', and '{scale}' is not a number to scale '{path}' by"
                )),
            },
            _ => Ok(whole),
        }
    }
}

/// An adapter whose files are mapped.
pub(crate) struct Opened {
    path: PathBuf,
    scale: f64,
    config: AdapterConfig,
    shards: Shards,
    tensors: Vec<Tensor>,
}

/// The name under which a tensor of a checkpoint stands for a base's, without what PEFT puts into it; `None` for a
/// tensor of an adapter.
pub(crate) fn base_name(name: &str) -> Option<String> {
    let parsed = names::parse(name);
    match parsed.kind {
        names::Kind::Whole | names::Kind::Unknown => Some(name.to_owned()),
        _ => parsed.is_of_base().then(|| format!("{}{}", names::Name::before(name), parsed.target())),
    }
}

/// The adapters of a conversion, in the order in which they are merged: one in or beside the checkpoint, as
/// transformers applies it, then those that were asked for.
pub(crate) struct Adapters {
    opened: Vec<Opened>,
    /// The base says that its head is its embedding.
    tied: bool,
    /// What is worth knowing, a sentence each.
    pub notes: Vec<String>,
}

impl Adapters {
    /// Maps all of them: one in a checkpoint and its folder, and those that were asked for. `name` is the base's, and
    /// `tied` what its configuration says of head and embedding.
    pub fn open(
        base: Option<(&Path, &Checkpoint)>,
        asked: &[Adapter],
        name: &str,
        tied: bool,
    ) -> Result<Self, ConvertError> {
        let mut out = Self { opened: Vec::new(), tied, notes: Vec::new() };
        if let Some((dir, checkpoint)) = base {
            out.open_beside(dir, checkpoint, asked)?;
        }
        for adapter in asked {
            let opened = folder::open(&checkpoint::resolve(&adapter.path)?, adapter.scale)?;
            if base.is_none_or(|(dir, _)| !is_same(dir, &opened.path)) {
                out.compare_base(&opened, name);
            }
            out.opened.push(opened);
        }
        Ok(out)
    }

    fn open_beside(
        &mut self,
        dir: &Path,
        checkpoint: &Checkpoint,
        asked: &[Adapter],
    ) -> Result<(), ConvertError> {
        let (shards, tensors) = checkpoint.adapter();
        if !tensors.is_empty() {
            self.opened.push(folder::open_wrapped(dir, shards.clone(), tensors.to_vec())?);
            self.notes
                .push("the weights are those of a model with an adapter in it, which was merged".into());
        } else if folder::has_adapter(dir) && !asked.iter().any(|a| is_same(dir, &a.path)) {
            self.opened.push(folder::open(dir, 1.0)?);
            self.notes.push(
                "the adapter in the checkpoint's folder was merged, as transformers applies it; if the weights have it \
                 already, move adapter_config.json elsewhere"
                    .into(),
            );
        }
        Ok(())
    }

    /// Notes that an adapter was trained on a model of another name.
    fn compare_base(&mut self, adapter: &Opened, name: &str) {
        let last = |name: &str| {
            let end = name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
            end.map(str::to_lowercase)
        };
        if let Some(base) = adapter.config.base.as_deref().filter(|base| last(base) != last(name)) {
            let path = adapter.path.display();
            self.notes
                .push(format!("the adapter {path} was trained on '{base}', and this checkpoint is '{name}'"));
        }
    }

    /// A name for the base with the adapters that were asked for.
    pub fn name(asked: &[Adapter], base: &str) -> String {
        let named = |a: &Adapter| {
            let path = a.path.canonicalize().unwrap_or_else(|_| a.path.clone());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let scale = if a.scale == 1.0 { String::new() } else { format!("={}", a.scale) };
            format!(" + {name}{scale}")
        };
        asked.iter().fold(base.to_owned(), |name, adapter| name + &named(adapter))
    }

    /// Notes which of them have a tokenizer that makes another table than the base's.
    pub fn compare_tokenizers(&mut self, table: &[u8]) {
        for Opened { path, .. } in &self.opened {
            let differs = match tokenizer::build_table(path) {
                Ok(own) => own != table,
                Err(BuildError::NotFound { .. }) => false,
                Err(_) => true,
            };
            if differs {
                self.notes.push(format!(
                    "the adapter {} has a tokenizer that differs from the checkpoint's, which was used; --tokenizer \
                     names another",
                    path.display()
                ));
            }
        }
    }

    /// A number that another one has if any of them is another adapter.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for Opened { path, scale, shards, tensors, .. } in &self.opened {
            hash.update(&scale.to_le_bytes());
            hash.update(&std::fs::read(path.join(config::CONFIG)).unwrap_or_default());
            for tensor in tensors {
                hash.update(tensor.name.as_bytes());
                hash.update(shards.bytes(tensor));
            }
        }
        hash.digest()
    }

    /// Matches them with a model's tensors.
    pub fn plan(self, config: &Config) -> Result<Plan, ConvertError> {
        let mut plan = Plan::new(&needed(config), self.tied);
        plan.notes = self.notes;
        for adapter in self.opened {
            plan.add(adapter)?;
        }
        Ok(plan)
    }
}

/// True if two names stand for one folder.
fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Checks an adapter's folder against an architecture, without a base's weights: what it would change.
pub fn check_adapter(adapter: &Adapter, config: &Config) -> Result<AdapterReport, ConvertError> {
    let opened = vec![folder::open(&adapter.path, adapter.scale)?];
    let mut plan = Adapters { opened, tied: true, notes: Vec::new() }.plan(config)?;
    Ok(plan.reports.remove(0))
}
