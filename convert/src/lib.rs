//! Checkpoints in, `.palm` files out.
//!
//! [`convert`] reads a Hugging Face checkpoint folder; [`convert_source`] writes the weights of any [`WeightSource`],
//! such as the random ones of [`synthetic`]; [`stream`] converts a checkpoint that is elsewhere, as it comes. Memory
//! use stays small for a model of any size: input is mapped, and output is written in windows. `docs/quantization.md`
//! describes how weights are stored, and why.

mod adapter;
mod calibrate;
mod checkpoint;
mod config_json;
mod error;
pub mod examples;
mod files;
mod formats;
mod generation_json;
mod jax;
mod json;
mod mask_codec;
pub mod npz;
pub mod part;
mod progress;
mod quantize;
mod recipe;
mod report;
mod source;
pub mod stream;
pub mod synthetic;
pub mod temporary;
pub mod tokenizer;
mod vocabulary;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use config_json::FromJson;
use palmtop::Isa;
use palmtop::format::Metadata;
use palmtop::image::Filter;
use palmtop::model::config::Config;
use palmtop::model::tensors::TensorSpec;
use palmtop::model::{Model, TOKENIZER};
use palmtop_kernels::layout::WeightFormat;

pub use adapter::{Adapter, AdapterReport, MatchReport, check_adapter};
pub use calibrate::{AutoRecipe, Calibration};
pub use checkpoint::retrieval::{Asking, QueryForm};
pub use checkpoint::{Checkpoint, Extra};
pub use config_json::read_config;
pub use error::{ConvertError, TensorProblems};
pub use formats::Formats;
pub use jax::JaxCheckpoint;
pub use progress::Progress;
pub use quantize::quantize_row;
pub use recipe::Recipe;
pub use report::{Report, Sensitivity, TensorReport};
pub use source::{WeightSource, needed};

use adapter::{Adapters, Merger, Plan};
use calibrate::{Calibrator, Runner};
use vocabulary::{tokenizer_table, vocabulary};
use write::{Contents, Verbatim};

/// The notice that the Gemma Terms of Use ask to go with every copy of the weights.
const GEMMA_NOTICE: &str =
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms";

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Adapters to merge, one after the other, behind one that the checkpoint's folder has.
    pub adapters: Vec<Adapter>,
    /// A weight format for each part of the model.
    pub recipe: Recipe,
    /// Formats of single matrices, by their names in the file; they come before those of their parts.
    pub exceptions: BTreeMap<String, WeightFormat>,
    /// Quantize so that outputs change least on examples. Takes a second file for a while, beside the target.
    pub calibration: Option<Calibration>,
    /// `vae-oid.npz`: adds the decoder of segmentation masks, without channels that are always zero.
    pub mask_codec: Option<PathBuf>,
    /// How pictures are resized; otherwise as the checkpoint says.
    pub filter: Option<Filter>,
    /// Leaves out the windows of a PaliGemma 2, as big_vision does; transformers has them. Answers differ behind 4096
    /// positions only.
    pub no_windows: bool,
    /// How questions are worded, for a model for retrieval.
    pub asking: Asking,
    /// What becomes of tensors that PaliGemma has no use for.
    pub extra: Extra,
    /// The instruction set that calibration runs the model on, without influence on the file; as
    /// [`Limits::isa`](palmtop::Limits::isa).
    pub isa: Option<Isa>,
    /// Threads; one per core if absent.
    pub threads: Option<usize>,
    /// A tokenizer file (`tokenizer.json` or `tokenizer.model`) instead of those beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// The model's name in the file; otherwise that of the checkpoint's folder, with those of adapters.
    pub name: Option<String>,
    /// The revision in the file; otherwise that of a hub cache folder, if it is one.
    pub revision: Option<String>,
    /// The licence of the weights, such as `Apache-2.0`; otherwise Gemma's, whose notice then goes with them.
    pub license: Option<String>,
}

/// True if a folder has a configuration and all of its weight files.
pub fn is_complete(folder: &Path) -> bool {
    folder.join("config.json").is_file() && checkpoint::has_all_weights(folder)
}

impl Options {
    /// Changes what a checkpoint says to what was asked for.
    fn settle(&self, config: &mut Config) {
        if let Some(filter) = self.filter {
            config.image.filter = filter;
        }
        if self.no_windows {
            config.text.windows.fill(None);
        }
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("unnamed")
    }
}

/// Converts a checkpoint to a `.palm` file, with adapters merged into it: a folder as the hub has it, or a `.npz` file
/// of JAX's (also as the only one in a folder).
///
/// The target appears when it is whole, and replaces an older `.palm` file of that name; after an error or an
/// interruption there is none.
pub fn convert(
    checkpoint: &Path,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    progress.message("reading the checkpoint's tables");
    let folder = &checkpoint::resolve(checkpoint)?;
    if let Some(file) = jax::file(folder) {
        return convert_jax(&file, target, options, progress);
    }
    if let Some(error) = adapter::only_an_adapter(folder, &checkpoint::file_names(folder).unwrap_or_default())
    {
        return Err(error);
    }
    let weights = Checkpoint::open(folder)?;
    let (name, revision) = checkpoint::origin(folder);
    let prepared = prepare(folder, weights, (&name, revision), options, Checkpoint::has_own_head)?;
    let Prepared { weights, config, adapters, tokenizer, options, notes } = prepared;
    let mut report = convert_adapted(&weights, config, adapters, tokenizer, target, &options, progress)?;
    report.notes.splice(0..0, notes);
    Ok(report)
}

/// A checkpoint whose tables fit each other, and all that goes with its weights.
struct Prepared {
    weights: Checkpoint,
    config: Config,
    adapters: Adapters,
    tokenizer: Vec<u8>,
    /// With a name and a revision.
    options: Options,
    /// What is worth knowing of how the checkpoint was read.
    notes: Vec<String>,
}

/// Reads the small files of a checkpoint, and compares them with its weights. `has_own_head` says whether a head that
/// is there differs from the embedding.
fn prepare(
    folder: &Path,
    mut weights: Checkpoint,
    (name, revision): (&str, Option<String>),
    options: &Options,
    has_own_head: impl FnOnce(&Checkpoint) -> Result<bool, ConvertError> + Send,
) -> Result<Prepared, ConvertError> {
    let FromJson { mut config, tied, retrieval_dim, quantization, mut notes } =
        config_json::read_all(folder)?;
    if !weights.is_quantized() {
        let ignored =
            |key| format!("config.json has a {key}, but the weights are not quantized: it was ignored");
        notes.splice(0..0, quantization.into_iter().map(ignored));
    }
    options.settle(&mut config);
    config.retrieval = checkpoint::retrieval::read(folder, &weights, retrieval_dim, &options.asking)?;
    notes.extend(config.retrieval.as_ref().map(checkpoint::retrieval::note));
    if tied {
        weights.take_head_for_embedding();
    } else if !weights.has_head() {
        return Err(ConvertError::NoHead { path: folder.to_owned() });
    }
    weights.check(&needed(&config), options.extra)?;
    config.text.own_head = in_pool(options.threads, || has_own_head(&weights))?;
    let mut adapters = Adapters::open(Some((folder, &weights)), &options.adapters, name, tied)?;
    let options = Options {
        name: options.name.clone().or(Some(Adapters::name(&options.adapters, name))),
        revision: options.revision.clone().or(revision),
        ..options.clone()
    };
    let tokenizer = tokenizer_table(&vocabulary(folder, &options)?, folder, &mut config)?;
    if options.tokenizer.is_none() {
        adapters.compare_tokenizers(&tokenizer);
    }
    let notes = [weights.notes(), &notes].concat();
    Ok(Prepared { weights, config, adapters, tokenizer, options, notes })
}

fn convert_jax(
    file: &Path,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    if options.asking != Asking::default() {
        return Err(ConvertError::NotForRetrieval { path: file.to_owned() });
    }
    let vocabulary = vocabulary(write::folder_of(file), options)?;
    let weights = JaxCheckpoint::open(file, &vocabulary)?;
    let mut config = weights.config().clone();
    options.settle(&mut config);
    let table = tokenizer_table(&vocabulary, file, &mut config)?;
    in_pool(options.threads, || weights.check_sums(progress))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // The hub's cache knows the revision, but has many files under one name.
    let (_, revision) = checkpoint::origin(write::folder_of(file));
    let adapters = Adapters::open(None, &options.adapters, &name, true)?;
    let options = Options {
        name: options.name.clone().or(Some(Adapters::name(&options.adapters, &name))),
        revision: options.revision.clone().or(revision),
        ..options.clone()
    };
    convert_adapted(&weights, config, adapters, table, target, &options, progress)
}

/// Writes weights with adapters merged into them; notes are those of the adapters.
fn convert_adapted(
    weights: &dyn WeightSource,
    mut config: Config,
    adapters: Adapters,
    tokenizer: Vec<u8>,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let mut plan = adapters.plan(&config)?;
    config.text.own_head |= plan.unties();
    let of_adapters = OfAdapters::of(&mut plan, &config);
    let merger = in_pool(options.threads, || Merger::new(weights, plan))?;
    let report = convert_source(&merger.over(weights), &config, tokenizer, target, options, progress)?;
    Ok(of_adapters.put_into(report))
}

/// What a report says of adapters.
struct OfAdapters {
    reports: Vec<AdapterReport>,
    notes: Vec<String>,
}

impl OfAdapters {
    /// Takes it out of a plan.
    fn of(plan: &mut Plan, config: &Config) -> Self {
        let (reports, mut notes) = (std::mem::take(&mut plan.reports), std::mem::take(&mut plan.notes));
        if config.text.own_head {
            notes.push("the LM head differs from the token embedding: the file has both".to_owned());
        }
        Self { reports, notes }
    }

    fn put_into(self, report: Report) -> Report {
        Report { adapters: self.reports, notes: self.notes, ..report }
    }
}

/// Writes the weights of any source as a `.palm` file, as [`convert`] does.
///
/// `tokenizer` is a table as [`tokenizer`] makes it.
pub fn convert_source(
    source: &dyn WeightSource,
    config: &Config,
    tokenizer: Vec<u8>,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let start = Instant::now();
    write::check_target(target)?;
    temporary::remove_left(write::folder_of(target));
    let contents = contents(source, config, tokenizer, options)?;
    let work = || {
        let Some(calibration) = &options.calibration else { return finish(target, contents, None, progress) };
        calibrated(target, contents, calibration, options, progress)
    };
    let written = in_pool(options.threads, work)?;
    Ok(report(target, config, options, written, start))
}

/// What a file has before its weights are there.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its head and its tokenizer, with their places.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// How long it will be.
    pub bytes: u64,
}

/// The outline of the file that an architecture would become.
///
/// # Errors
/// For sizes that do not fit each other, and formats of matrices that are not there.
pub fn outline(config: &Config, tokenizer: Vec<u8>, options: &Options) -> Result<Outline, ConvertError> {
    let nothing = synthetic::Synthetic::new(config.clone(), 0);
    let contents = contents(&nothing, config, tokenizer.clone(), options)?;
    let mut head = write::head(&contents);
    let bytes = head.place();
    Ok(Outline { pieces: vec![(head.tensors[0].offset, tokenizer), (0, head.encode())], bytes })
}

/// What a file of this source will have.
fn contents<'a>(
    source: &'a dyn WeightSource,
    config: &'a Config,
    tokenizer: Vec<u8>,
    options: &Options,
) -> Result<Contents<'a>, ConvertError> {
    config.check().map_err(|(key, what)| ConvertError::Architecture { key, what })?;
    let mask_codec = options.mask_codec.as_deref().map_or(Ok(Vec::new()), mask_codec::read)?;
    let mut metadata = Metadata::default();
    config.to_metadata(&mut metadata);
    metadata.set("general.name", options.name());
    if let Some(revision) = &options.revision {
        metadata.set("general.revision", revision.as_str());
    }
    match options.license.as_deref() {
        Some(license) => metadata.set("general.license", license),
        None => {
            metadata.set("general.license", "gemma");
            metadata.set("general.license_notice", GEMMA_NOTICE);
        }
    }
    metadata.set("general.converter", concat!("palmtop ", env!("CARGO_PKG_VERSION")));
    let formats = Formats { recipe: options.recipe, exceptions: options.exceptions.clone() };
    formats.check(config)?;
    let before = vec![Verbatim::Bytes { name: TOKENIZER.to_owned(), bytes: tokenizer }];
    Ok(Contents { source, config, formats, metadata, before, behind: mask_codec })
}

/// The report of a file that was written since `start`.
fn report(
    target: &Path,
    config: &Config,
    options: &Options,
    (formats, tensors, bytes): Written,
    start: Instant,
) -> Report {
    let weights = |t: &TensorReport| t.shape.iter().product::<usize>() as u64;
    let matrices = || tensors.iter().filter(|t| t.part.is_some());
    let matrix_bytes: u64 = matrices().map(|t| t.bytes).sum();
    Report {
        target: target.to_owned(),
        source: options.name().to_owned(),
        recipe: formats.to_string(),
        bytes,
        weights: needed(config).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum(),
        matrix_bits: matrix_bytes as f64 * 8.0 / matrices().map(weights).sum::<u64>().max(1) as f64,
        seconds: start.elapsed().as_secs_f64(),
        notes: Vec::new(),
        adapters: Vec::new(),
        tensors,
    }
}

/// What a conversion has led to: formats, a report of each tensor, and the file's length.
type Written = (Formats, Vec<TensorReport>, u64);

fn finish(
    target: &Path,
    mut contents: Contents<'_>,
    calibrator: Option<&mut Calibrator<'_>>,
    progress: &dyn Progress,
) -> Result<Written, ConvertError> {
    contents.name_recipe();
    if calibrator.is_some() {
        contents.metadata.set("quantization.calibrated", true);
    }
    let (tensors, bytes) = write::write(target, &contents, calibrator, progress)?;
    Ok((contents.formats, tensors, bytes))
}

/// Writes a first model beside the target, runs it on the examples, and writes the target with what they show.
fn calibrated(
    target: &Path,
    mut contents: Contents<'_>,
    calibration: &Calibration,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Written, ConvertError> {
    let (source, config) = (contents.source, contents.config);
    let int4 = |formats: &Formats| {
        let of = |t: &TensorSpec| (t.matrix().is_some_and(calibrate::has_feedback)).then(|| formats.of(t))?;
        let all = config.tensors().into_iter().filter(|t| of(t) == Some(WeightFormat::Int4));
        all.map(|t| t.name).collect::<BTreeSet<_>>()
    };
    if calibration.auto.is_none() && int4(&contents.formats).is_empty() {
        let what =
            "calibration only affects int4 matrices other than the embedding, and this recipe has none";
        return Err(ConvertError::Calibration(format!("{what}: choose int4 or an automatic recipe")));
    }
    // A file that cannot be used is better known beforehand.
    examples::read_examples(&calibration.examples)?;
    let first = Contents {
        formats: calibrate::runs_as(config).into(),
        metadata: contents.metadata.clone(),
        before: contents.before.clone(),
        behind: Vec::new(),
        source,
        config,
    };
    let (written, ..) = write::write_temporary(target, &first, None, progress)?;
    drop(first);
    let model = Model::open(written.path()).map_err(|e| ConvertError::Calibration(e.to_string()))?;
    let threads = options.threads.map(|n| n.min(THREADS_MAX));
    let runner = Runner::new(&model, &calibration.examples, options.isa, threads, progress)?;
    let mut calibrator = Calibrator::new(runner, config)?;
    let mut sensitivities = BTreeMap::new();
    if let Some(auto) = &calibration.auto {
        sensitivities = calibrator.choose(source, config, &mut contents.formats, auto)?;
    }
    let int4 = int4(&contents.formats);
    calibrator.want(|name| int4.contains(name));
    let (formats, mut tensors, bytes) = finish(target, contents, Some(&mut calibrator), progress)?;
    for tensor in &mut tensors {
        tensor.sensitivity = sensitivities.get(&tensor.name).copied();
    }
    Ok((formats, tensors, bytes))
}

/// No conversion is faster with more.
const THREADS_MAX: usize = 256;

/// Runs on so many threads of its own.
fn in_pool<T: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> Result<T, ConvertError> + Send,
) -> Result<T, ConvertError> {
    pool(threads)?.install(work)
}

fn pool(threads: Option<usize>) -> Result<rayon::ThreadPool, ConvertError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0).min(THREADS_MAX)).build();
    pool.map_err(|e| ConvertError::io("threads")(std::io::Error::other(e)))
}
