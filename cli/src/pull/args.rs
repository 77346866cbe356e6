//! The arguments of `palmtop pull`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::args::{ReadingArgs, RecipeArgs, count};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop pull paligemma2-3b-mix-224\n  \
    palmtop pull paligemma2-3b-mix-448 --weights int4\n  \
    palmtop pull google/paligemma-3b-pt-224@float16 -o model.palm\n  \
    palmtop pull google/paligemma-3b-pt-224 --adapter me/receipts-lora --as receipts\n\n\
    What Google publishes is gated: accept the terms on the model's page, and set HF_TOKEN. A pull that was interrupted \
    goes on with the same command. docs/models.md tells all.\n\n\
    PaliGemma's weights come under the Gemma Terms of Use; so does a file made from them.")]
pub struct PullArgs {
    /// ORG/NAME on the hub, or a short name of `palmtop models`; @ and a branch, tag or commit may follow. A .palm file
    /// in a repository is fetched as it is (ORG/NAME/FILE.palm names one of several)
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    pub name: String,
    /// Write this file, instead of one in the folder of `palmtop models`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// The name by which -m will find it [default: the repository's, with the weights' format if it is not int8]
    #[arg(long = "as", value_name = "NAME", conflicts_with = "output")]
    pub name_as: Option<String>,
    /// Pull it though it is here already
    #[arg(long)]
    pub again: bool,
    /// An adapter to merge into the weights: a folder as PEFT saves it, or ORG/NAME on the hub. =0.5 behind it scales
    /// what it adds; several are merged one after the other
    #[arg(long = "adapter", value_name = "ADAPTER[=SCALE]", value_hint = ValueHint::DirPath)]
    pub adapters: Vec<String>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Number of threads [default: one per physical core that is not slow]
    #[arg(long, env = "PALMTOP_THREADS", value_name = "N", value_parser = count(1, 1024))]
    pub threads: Option<u64>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub json: bool,
}
