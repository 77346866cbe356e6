//! The arguments of `palmtop models`.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    palmtop models\n  \
    palmtop models show paligemma2-3b-mix-224\n  \
    palmtop models remove paligemma2-3b-mix-224"
)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub command: Option<ModelsCommand>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Show what is known of a model that is here, or that can be pulled
    Show {
        /// Its name
        name: String,
    },
    /// Remove models that are here
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}
