//! The arguments of `palmtop embed` and `palmtop find`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use palmtop::tasks::Line;
use palmtop_retrieval::VectorFormat;

use crate::args::{ModelArgs, count};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop embed pages/ -o pages.index -m colpali.palm\n  \
    palmtop embed scans/ -r -o pages.index --vectors int8 -m colpali.palm\n  \
    palmtop embed -o pages.index --remove pages/3.png\n\n\
    Pages that are in the index and have not changed are passed over, so the same command goes on after an \
    interruption. A new index takes some 266 kB a page, or 141 kB with int8 (docs/retrieval.md).")]
pub struct EmbedArgs {
    /// Pictures of pages (JPEG, PNG, WebP, BMP, GIF, TIFF), folders of them, patterns such as "scans/*.png", or - for
    /// stdin
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath, required_unless_present_any = ["remove", "compact"])]
    pub sources: Vec<PathBuf>,
    /// The index: a file, which is made if it is not there
    #[arg(short, long = "output", value_name = "INDEX", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Include pictures in subfolders
    #[arg(short, long)]
    pub recursive: bool,
    /// Use pictures that end too early as far as they go, instead of refusing them
    #[arg(long)]
    pub allow_truncated: bool,
    /// How vectors of a new index are kept [default: f16]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub vectors: Option<Vectors>,
    /// Remove the page of this name before anything else; repeat the option to remove more
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
    /// Make the file anew without what no page uses any more; of a damaged index keep what is whole
    #[arg(long)]
    pub compact: bool,
    /// Print one JSON object per line for each page (docs/json.md)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop find pages.index -q \"how much was paid in March?\" -m colpali.palm\n  \
    palmtop find pages.index -q \"a map\" -q \"a table of prices\" --top 3 --json -m colpali.palm\n\n\
    Without -m, the model of `palmtop models` that made the index.")]
pub struct FindArgs {
    /// The index that palmtop embed has made
    #[arg(value_name = "INDEX", value_hint = ValueHint::FilePath)]
    pub index: PathBuf,
    /// The question; repeat the option to ask more, which reads the index once
    #[arg(short, long = "question", required = true, value_name = "TEXT")]
    pub questions: Vec<Line>,
    /// Pages to show for each question at most
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = count(1, 1 << 20))]
    pub top: u64,
    /// Ask though another model made the index; right only for one of the same checkpoint with other weights
    #[arg(long)]
    pub any_model: bool,
    /// Print one JSON object per line for each question (docs/json.md)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// How vectors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vectors {
    /// 16 bits a number
    F16,
    /// 8 bits a number, and scales: half of it; scores move by some thousandths
    Int8,
}

impl From<Vectors> for VectorFormat {
    fn from(vectors: Vectors) -> Self {
        match vectors {
            Vectors::F16 => Self::F16,
            Vectors::Int8 => Self::Int8,
        }
    }
}
