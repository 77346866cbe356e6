//! The errors of a conversion, grouped by who can fix them.

use std::fmt;
use std::path::PathBuf;

use palmtop::model::tensors::HEAD;

/// Why a checkpoint could not be converted. No target is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds no weights that can be read.
    #[error("{}: {what}", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A JSON file cannot be read.
    #[error("{}: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A key of `config.json` or of a file beside it has a value that palmtop does not run.
    #[error("{}: '{key}' {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: String,
        /// What is wrong with its value.
        what: String,
    },
    /// The sizes of an architecture that the caller made do not fit each other.
    #[error("architecture: '{key}' {what}")]
    Architecture {
        /// The entry of [`Config`](palmtop::model::config::Config), by its key in the file's metadata.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A safetensors file is cut short, damaged or malformed.
    #[error("{}: {what}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The index names files that are not there.
    #[error("{}: files of this checkpoint are missing: {}", index.display(), listed(files))]
    MissingShards {
        /// The index.
        index: PathBuf,
        /// The files that are not there.
        files: Vec<String>,
    },
    /// Two tensors of the checkpoint stand for the same weights.
    #[error("tensor '{name}' appears twice: as '{first}' and as '{second}'")]
    Duplicate {
        /// The classic name.
        name: String,
        /// Name and file of one.
        first: String,
        /// Name and file of the other.
        second: String,
    },
    /// Tensors are missing, unknown, misshapen or of a type that is not read.
    #[error("the tensors do not fit config.json: {0}")]
    Tensors(Box<TensorProblems>),
    /// A weight is NaN or infinite.
    #[error("{}: tensor '{name}' holds {value} at index {index}: the checkpoint is damaged", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The first such value, in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A weight does not fit into 16-bit floating point.
    #[error("tensor '{name}' holds {value}, which f16 cannot hold: use f32 or int8 for '{part}'")]
    TooLargeForF16 {
        /// The tensor's name in the `.palm` file.
        name: String,
        /// The weight.
        value: f32,
        /// The recipe's name of its part.
        part: &'static str,
    },
    /// The weights are there, in a form that palmtop does not read.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Which form, and what helps.
        what: String,
    },
    /// Weights that bitsandbytes quantized cannot be read back.
    #[error(
        "{}: tensor '{name}' {what}; convert the checkpoint that bitsandbytes quantized into this one",
        path.display()
    )]
    Quantized {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The head is not the embedding, and is not there.
    #[error("{}: 'tie_word_embeddings' is false, but the checkpoint has no '{HEAD}'", path.display())]
    NoHead {
        /// The checkpoint's folder.
        path: PathBuf,
    },
    /// A wording of questions was asked for, and the checkpoint makes no vectors.
    #[error("{}: has no retrieval head, and only models for retrieval are asked in a form of their own", path.display())]
    NotForRetrieval {
        /// The checkpoint.
        path: PathBuf,
    },
    /// An adapter cannot be merged.
    #[error("{}: {what}", path.display())]
    Adapter {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The checkpoint's folder holds an adapter, and not the model that it belongs to.
    #[error("{}: holds an adapter{} and no model", path.display(), of_base(base))]
    OnlyAdapter {
        /// The folder.
        path: PathBuf,
        /// The model that the adapter was trained on, if it says so: a name on the hub, or a folder.
        base: Option<String>,
    },
    /// A recipe that cannot be understood.
    #[error("recipe '{recipe}': {what}")]
    Recipe {
        /// The text.
        recipe: String,
        /// What is wrong with it.
        what: String,
    },
    /// The tokenizer files are missing or not those of a Gemma tokenizer.
    #[error("{}: {what}", path.display())]
    Tokenizer {
        /// The checkpoint folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A JAX checkpoint is damaged, or has other arrays than a PaliGemma.
    #[error("{}: {what}", path.display())]
    Jax {
        /// The `.npz` file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The mask codec's file is not the expected one.
    #[error("{}: {what}", path.display())]
    MaskCodec {
        /// The `.npz` file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file of examples to calibrate with cannot be used.
    #[error(transparent)]
    Examples(#[from] crate::examples::ExamplesError),
    /// An example to calibrate with cannot be used.
    #[error("{}, line {line}: {what}", path.display())]
    Example {
        /// The file of examples.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The model cannot be run on the examples.
    #[error("cannot calibrate: {0}")]
    Calibration(String),
    /// The target is something that must not be overwritten.
    #[error("{}: {what}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// Why it is refused.
        what: String,
    },
    /// It cannot be done while a checkpoint comes in, tensor by tensor.
    #[error("{what} needs the whole checkpoint, which is not kept while it is converted as it comes")]
    NeedsWhole {
        /// What.
        what: String,
    },
    /// A weight file could not be fetched, or is not what was to be fetched.
    #[error("{0}")]
    Fetch(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What came is not the file that its origin names.
    #[error("{name}: what came has the SHA-256 {found}, and {wanted} was to come; what had come was removed")]
    WrongHash {
        /// The file.
        name: String,
        /// Of what came, in hexadecimal digits.
        found: String,
        /// Of what was to come.
        wanted: String,
    },
    /// The disk is too small.
    #[error("{}: the model needs {missing} bytes more, and the disk has {free}", path.display())]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Bytes that are missing of the model.
        missing: u64,
        /// Bytes that can be written.
        free: u64,
    },
    /// Another process makes the same target.
    #[error("{}: is being made by another palmtop{}", path.display(), by(process))]
    Busy {
        /// The target.
        path: PathBuf,
        /// The number of its process, if it has said so.
        process: Option<u32>,
    },
    /// The caller asked to stop.
    #[error("the conversion was interrupted; nothing was written")]
    Cancelled,
}

impl ConvertError {
    /// Turns what the system said about `path` into an error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// All that is wrong with a checkpoint's table of tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorProblems {
    /// Classic names of tensors that the architecture needs and that are not there.
    pub missing: Vec<String>,
    /// Tensors for which the architecture has no use, by their names in the file.
    pub unknown: Vec<String>,
    /// Tensors of another shape than the architecture's: name, shape found, shape expected.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors of a type that is not read: name, type.
    pub unsupported: Vec<(String, String)>,
}

impl TensorProblems {
    /// True if nothing is wrong.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for TensorProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misshapen = self
            .misshapen
            .iter()
            .map(|(name, found, expected)| format!("'{name}' is {found:?} and should be {expected:?}"));
        let unsupported = self.unsupported.iter().map(|(name, dtype)| format!("'{name}' is {dtype}"));
        let quoted = |names: &[String]| names.iter().map(|n| format!("'{n}'")).collect();
        let lists: [(&str, Vec<String>); 4] = [
            ("missing", quoted(&self.missing)),
            ("unknown", quoted(&self.unknown)),
            ("misshapen", misshapen.collect()),
            ("neither f32, f16 nor bf16", unsupported.collect()),
        ];
        let mut between = "";
        for (what, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
            write!(f, "{between}{what} ({}): {}", items.len(), listed(items))?;
            between = "; ";
        }
        if !self.unknown.is_empty() {
            write!(f, "; if the model does without the unknown ones, convert with --ignore-extra")?;
        }
        Ok(())
    }
}

fn by(process: &Option<u32>) -> String {
    process.map_or(String::new(), |id| format!(" (process {id})"))
}

fn of_base(base: &Option<String>) -> String {
    base.as_ref().map_or(String::new(), |base| format!(" trained on '{base}'"))
}

/// The first of many names, and how many more there are.
pub(crate) fn listed(items: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut out = items[..items.len().min(SHOWN_MAX)].join(", ");
    if items.len() > SHOWN_MAX {
        out += &format!(" and {} more", items.len() - SHOWN_MAX);
    }
    out
}
