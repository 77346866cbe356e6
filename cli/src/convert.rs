//! `palmtop convert`: a checkpoint folder becomes a model file.

use palmtop::config::Part;
use palmtop::format::PalmFile;
use palmtop_convert::{ConvertError, Options, Recipe};
use palmtop_kernels::layout::WeightFormat;

use crate::args::{ConvertArgs, ReportForm};
use crate::errors::{UsageError, WithHint};
use crate::output::{Stdout, Voice};
use crate::progress::Bar;
use crate::{Outcome, files, interrupt};

pub fn run(args: &ConvertArgs, voice: Voice) -> anyhow::Result<Outcome> {
    let options = Options {
        recipe: recipe(args)?,
        mask_codec: args.mask_codec.clone(),
        threads: args.threads.map(|n| n as usize),
        name: args.name.clone(),
        revision: args.revision.clone(),
    };
    files::folder_for(&args.output)?;
    let bar = Bar::new(voice, "converting", Some(interrupt::listen()?));
    let report = palmtop_convert::convert(&args.checkpoint, &args.output, &options, &bar);
    bar.finish();
    let report = match report {
        Err(ConvertError::Cancelled) => {
            voice.note("interrupted; nothing was written");
            return Ok(Outcome::Interrupted);
        }
        Err(error) => return with_hint(error),
        Ok(report) => report,
    };
    let mut out = Stdout::new();
    match args.report {
        ReportForm::Text => out.print(format_args!("{report}\n"))?,
        ReportForm::Json => {
            voice.note(&report);
            out.print_json(&report)?;
        }
    }
    Ok(Outcome::Done)
}

/// `--weights`, changed by `--recipe`, changed by the flags of single parts.
fn recipe(args: &ConvertArgs) -> anyhow::Result<Recipe> {
    let usage = |error: ConvertError| UsageError(error.to_string());
    let mut recipe = Recipe::preset(args.weights);
    if let Some(text) = &args.recipe {
        recipe = recipe.apply(text).map_err(usage)?;
    }
    if let (Some(head), Some(embeddings)) = (args.head, args.embeddings)
        && head != embeddings
    {
        return Err(UsageError(format!(
            "--head {head} and --embeddings {embeddings} differ, but PaliGemma's head is its embedding: give one of them"
        ))
        .into());
    }
    let parts: [(Part, Option<WeightFormat>); 3] = [
        (Part::Embedding, args.head.or(args.embeddings)),
        (Part::Vision, args.vision),
        (Part::Text, args.text),
    ];
    for (part, format) in parts {
        if let Some(format) = format {
            recipe.set(part, format);
        }
    }
    Ok(recipe)
}

fn with_hint(error: ConvertError) -> anyhow::Result<Outcome> {
    let hint = match &error {
        ConvertError::NoWeights { path, .. } if PalmFile::open(path).is_ok() => {
            "it is a model file already: use it with -m"
        }
        ConvertError::NoWeights { .. } => {
            "a checkpoint is a folder as the Hugging Face hub has it: config.json, *.safetensors and the tokenizer's \
             files (for PaliGemma's accept Google's licence there first)"
        }
        ConvertError::Tokenizer { .. } => {
            "copy tokenizer.json or tokenizer.model of the checkpoint into its folder"
        }
        ConvertError::MaskCodec { .. } => "--mask-codec takes vae-oid.npz, as big_vision publishes it",
        _ => return Err(error.into()),
    };
    Err(error).hint(hint)
}
