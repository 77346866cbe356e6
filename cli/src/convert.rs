//! `palmtop convert`: turns a checkpoint into a model file.

use std::path::Path;

use palmtop::format::PalmFile;
use palmtop::model::tensors::Part;
use palmtop_convert::{Asking, AutoRecipe, Calibration, ConvertError, Extra, Formats, Options, Recipe};
use palmtop_hub::RepositoryName;
use palmtop_kernels::layout::WeightFormat;

use crate::args::{ConvertArgs, ReadingArgs, RecipeArgs, ReportForm};
use crate::errors::{UsageError, WithHint};
use crate::output::{Console, Stdout};
use crate::progress::Bar;
use crate::{Outcome, files, interrupt, models};

pub fn run(args: &ConvertArgs, console: Console) -> anyhow::Result<Outcome> {
    let (formats, auto) = formats(&args.recipe, args.target_bits)?;
    if auto.is_some() && args.calibrate.is_none() {
        return Err(UsageError(
            "--recipe auto needs --calibrate FILE: it chooses by what examples show".into(),
        )
        .into());
    }
    if args.target_bits.is_some() && auto.is_none() {
        return Err(UsageError("--target-bits goes with --recipe auto".into()).into());
    }
    if args.calibrate.is_some() {
        models::kernels(args.isa)?;
    }
    let options = Options {
        adapters: args.adapters.clone(),
        recipe: formats.recipe,
        exceptions: formats.exceptions,
        calibration: args.calibrate.clone().map(|examples| Calibration { examples, auto }),
        isa: args.isa,
        threads: args.threads.map(|n| n as usize),
        name: args.name.clone(),
        revision: args.revision.clone(),
        ..reading(&args.reading)
    };
    files::folder_for(&args.output)?;
    let bar = Bar::new(console, "converting", Some(interrupt::listen()?));
    let report = palmtop_convert::convert(&args.checkpoint, &args.output, &options, &bar);
    bar.finish();
    let report = match report {
        Err(ConvertError::Cancelled) => {
            console.note("interrupted; nothing was written");
            return Ok(Outcome::Interrupted);
        }
        Err(error) => return with_hint(error, args),
        Ok(report) => report,
    };
    let mut out = Stdout::new();
    match args.report {
        ReportForm::Text => out.print(format_args!("{report}\n"))?,
        ReportForm::Json => {
            console.note(&report);
            out.print_json(&report)?;
        }
    }
    Ok(Outcome::Done)
}

/// Bits a weight of an automatic recipe, unless the user says otherwise.
const TARGET_BITS: f64 = 5.0;

/// How a checkpoint is read.
pub fn reading(args: &ReadingArgs) -> Options {
    Options {
        mask_codec: args.mask_codec.clone(),
        filter: args.resize,
        no_windows: args.no_windows,
        asking: Asking {
            form: args.query_form,
            mask: args.query_mask,
            document_bos: args.document_bos.map(usize::from),
        },
        extra: if args.ignore_extra { Extra::Ignore } else { Extra::Refuse },
        tokenizer: args.tokenizer.clone(),
        license: args.license.clone(),
        ..Options::default()
    }
}

/// `--weights`, changed by `--recipe`, changed by the flags of single parts; and what is to be chosen automatically.
pub fn formats(args: &RecipeArgs, target_bits: Option<f64>) -> anyhow::Result<(Formats, Option<AutoRecipe>)> {
    let usage = |error: ConvertError| UsageError(error.to_string());
    let mut formats = Formats::from(Recipe::preset(args.weights.unwrap_or(WeightFormat::Int8)));
    let mut auto = None;
    if let Some(text) = &args.recipe {
        let items = text.split(',').map(str::trim);
        let rest: Vec<&str> = items.clone().filter(|item| *item != "auto").collect();
        formats = formats.apply(&rest.join(",")).map_err(usage)?;
        if items.count() > rest.len() {
            let named = |part: &Part| rest.iter().any(|item| Recipe::part_of(item) == Some(*part));
            let pinned = PARTS.into_iter().filter(named).collect();
            auto = Some(AutoRecipe { target_bits: target_bits.unwrap_or(TARGET_BITS), pinned });
        }
    }
    if let (Some(head), Some(embeddings)) = (args.head, args.embeddings)
        && head != embeddings
    {
        return Err(UsageError(format!(
            "--head {head} and --embeddings {embeddings} differ, but PaliGemma's head is its embedding: give one of them \
             (for a fine-tune that has both use --recipe, such as text.head={head},text.embed={embeddings})"
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
            formats.recipe.set(part, format);
            auto.iter_mut().for_each(|auto| auto.pinned.push(part));
        }
    }
    Ok((formats, auto))
}

const PARTS: [Part; 5] = [Part::PatchEmbedding, Part::Vision, Part::Projector, Part::Text, Part::Embedding];

/// What helps where a checkpoint is none for retrieval.
pub const WITHOUT_A_FORM: &str = "leave out --query-form, --query-mask and --document-bos";

/// The command that converts a model with its adapter.
fn with_base(adapter: &Path, base: &Option<String>, args: &ConvertArgs) -> String {
    let word = |path: &Path| shell_word(&path.display().to_string());
    let rest = format!("--adapter {} -o {}", word(adapter), word(&args.output));
    match base {
        None => format!("convert its model with it: palmtop convert BASE {rest}"),
        Some(base) if Path::new(base).is_dir() => {
            format!("convert that model with it: palmtop convert {} {rest}", shell_word(base))
        }
        // A name on the hub.
        Some(base) if RepositoryName::parse(base).is_ok() => format!(
            "pull that model with it: palmtop pull {} --adapter {} -o {}",
            shell_word(base),
            word(adapter),
            word(&args.output)
        ),
        // A folder of another machine.
        Some(base) => {
            let name = base.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(base);
            let name = shell_word(name);
            format!("get that model, and convert it with the adapter: palmtop convert {name} {rest}")
        }
    }
}

/// A word of a command line as a shell reads it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    match word.chars().all(plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn with_hint(error: ConvertError, args: &ConvertArgs) -> anyhow::Result<Outcome> {
    let hint = match &error {
        ConvertError::OnlyAdapter { path, base } => {
            let hint = with_base(path, base, args);
            return Err(error).hint(hint);
        }
        ConvertError::NoWeights { path, .. } if PalmFile::open(path).is_ok() => {
            "it is a model file already: use it with -m"
        }
        ConvertError::NoWeights { what, .. } if what.starts_with("has neither") => {
            "a checkpoint is a folder as the Hugging Face hub has it: config.json, *.safetensors and the tokenizer's \
             files; palmtop pull gets one from there"
        }
        ConvertError::Tokenizer { what, .. } if what.starts_with("has neither") => {
            "copy tokenizer.json or tokenizer.model of the checkpoint into its folder, or name one with --tokenizer"
        }
        ConvertError::Jax { .. } => {
            "a .npz checkpoint is one of big_vision's PaliGemma, such as Kaggle's; --tokenizer takes its \
             paligemma_tokenizer.model"
        }
        ConvertError::Examples(_) => {
            "--calibrate takes lines such as {\"image\": \"a.png\", \"prompt\": \"caption en\", \"expected\": \"a cat\"}"
        }
        ConvertError::NotForRetrieval { .. } => WITHOUT_A_FORM,
        ConvertError::MaskCodec { .. } => "--mask-codec takes vae-oid.npz, as big_vision publishes it",
        _ => return Err(error.into()),
    };
    Err(error).hint(hint)
}
