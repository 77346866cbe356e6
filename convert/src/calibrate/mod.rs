//! Calibration: runs the model on examples and quantizes matrices so that their outputs on these examples change least.
//!
//! The model runs before calibrated rounding, in f32 or int8, so the inputs of a matrix do not contain errors of int4.
//! The second moments of all matrices do not fit into memory together (the 3B model has 7 GB of them). So the examples
//! run several times, each time for as many matrices as fit into [`BYTES_MAX`], in the order of the file. The result
//! does not depend on threads or on how many matrices fit.

mod choose;
mod factor;
mod feedback;
mod moments;
mod runner;

use std::collections::BTreeMap;

use palmtop::model::config::Config;
use palmtop::model::tensors::{Part, TensorSpec};
use palmtop_kernels::Kernels;
use palmtop_kernels::layout::{LANES, MatrixLayout, QuantizedRow, WeightFormat};
use rayon::prelude::*;

pub(crate) use factor::Factor;
pub(crate) use feedback::{FeedbackScratch, output_power, quantize_stripe};

use crate::formats::Formats;
use crate::quantize::{quantize_row, stored};
use crate::report::Sensitivity;
use crate::source::{Assembly, WeightSource};
use crate::{ConvertError, Recipe};
use choose::{Candidate, choose};
use moments::{MomentBlock, Moments};
pub(crate) use runner::Runner;

/// Memory for second moments that are gathered together, unless one matrix alone needs more.
const BYTES_MAX: usize = 1 << 30;
/// Stripes of a matrix that its sensitivity is measured on, evenly spread.
const STRIPES_SAMPLED: usize = 64;

/// What to calibrate with, and for what.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// A file of examples, as [`examples`](crate::examples) reads it. Expected answers are run behind their prompts.
    pub examples: std::path::PathBuf,
    /// Choose the formats of single matrices too.
    pub auto: Option<AutoRecipe>,
}

/// A choice between int4 and int8 for every matrix.
#[derive(Clone, Debug)]
pub struct AutoRecipe {
    /// Bits a weight of all matrices together, scales included.
    pub target_bits: f64,
    /// Parts that stay as the recipe has them. The patch embedding always does, and so do matrices with a format of
    /// their own.
    pub pinned: Vec<Part>,
}

/// Gathers second moments as they are needed.
pub(crate) struct Calibrator<'a> {
    runner: Runner<'a>,
    kernels: Kernels,
    /// All matrices, in the order of the file, with their inputs.
    matrices: Vec<(String, usize)>,
    /// Those whose inputs may be asked for.
    wanted: Vec<(String, usize)>,
    bytes_max: usize,
    gathered: BTreeMap<String, Vec<MomentBlock>>,
}

impl<'a> Calibrator<'a> {
    pub fn new(runner: Runner<'a>, config: &Config) -> Result<Self, ConvertError> {
        let matrices = config.tensors().into_iter().filter(|t| t.matrix().is_some());
        Ok(Self {
            kernels: Kernels::try_new(runner.isa()).expect("the session runs on it"),
            runner,
            matrices: matrices.map(|t| (t.name, t.shape[1])).collect(),
            wanted: Vec::new(),
            bytes_max: BYTES_MAX,
            gathered: BTreeMap::new(),
        })
    }

    /// Says whose inputs will be asked for, in the order of the file.
    pub fn want(&mut self, wanted: impl Fn(&str) -> bool) {
        self.wanted = self.matrices.iter().filter(|(name, _)| wanted(name)).cloned().collect();
        let (mut rounds, mut from) = (0, 0);
        while from < self.wanted.len() && !self.gathered.contains_key(&self.wanted[from].0) {
            from = self.group_end(from);
            rounds += 1;
        }
        self.runner.expect_rounds(rounds);
    }

    /// The factors of a matrix's inputs; none for matrices that are not wanted.
    pub fn factor(&mut self, name: &str) -> Result<Option<Factor>, ConvertError> {
        let Some(index) = self.wanted.iter().position(|(n, _)| n == name) else { return Ok(None) };
        let cols = self.wanted[index].1;
        if !self.gathered.contains_key(name) {
            self.gather(index)?;
        }
        let factor = Factor::new(cols, &self.gathered[name]);
        let wrong = || format!("the inputs of '{name}' overflow: the checkpoint is damaged");
        factor.map(Some).ok_or_else(|| ConvertError::Calibration(wrong()))
    }

    /// One behind the last matrix that is gathered together with `first`.
    fn group_end(&self, first: usize) -> usize {
        let mut bytes = 0;
        let fits = |(_, cols): &&(String, usize)| {
            bytes += Moments::bytes(*cols);
            bytes <= self.bytes_max
        };
        first + self.wanted[first..].iter().take_while(fits).count().max(1)
    }

    /// Runs all examples and gathers what fits into memory from matrix `first` on.
    fn gather(&mut self, first: usize) -> Result<(), ConvertError> {
        self.gathered.clear();
        let group = &self.wanted[first..self.group_end(first)];
        let mut moments: BTreeMap<String, Moments> =
            group.iter().map(|(name, cols)| (name.clone(), Moments::new(*cols))).collect();
        let kernels = self.kernels;
        self.runner.run(&mut |name, rows| {
            if let Some(moments) = moments.get_mut(name) {
                moments.add(&kernels, rows);
            }
        })?;
        self.gathered = moments.into_iter().map(|(name, m)| (name, m.finish(&kernels))).collect();
        Ok(())
    }

    /// Chooses int4 or int8 for every matrix that is not pinned, so that the summed sensitivity is least within the
    /// bits. Gives what each was chosen by.
    pub fn choose(
        &mut self,
        source: &dyn WeightSource,
        config: &Config,
        formats: &mut Formats,
        auto: &AutoRecipe,
    ) -> Result<BTreeMap<String, Sensitivity>, ConvertError> {
        let pinned = |t: &TensorSpec, part: Part| {
            matches!(part, Part::PatchEmbedding | Part::Retrieval)
                || auto.pinned.contains(&part)
                || formats.exceptions.contains_key(&t.name)
        };
        let bytes = |t: &TensorSpec, format| {
            let layout = MatrixLayout::new(format, t.shape[0], t.shape[1]).expect("shapes have been checked");
            layout.bytes() as u64
        };
        let (mut weights, mut pinned_bytes, mut free) = (0, 0, Vec::new());
        for tensor in config.tensors() {
            let (Some(part), Some(format)) = (tensor.matrix(), formats.of(&tensor)) else { continue };
            weights += tensor.shape.iter().product::<usize>();
            if pinned(&tensor, part) {
                pinned_bytes += bytes(&tensor, format);
            } else {
                free.push((tensor, part));
            }
        }
        let few = [WeightFormat::Int4, WeightFormat::Int8];
        let all = |format| free.iter().map(|(t, _)| bytes(t, format)).sum::<u64>() + pinned_bytes;
        let bits = |bytes: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
        let wrong = |what| ConvertError::Recipe { recipe: "auto".to_owned(), what };
        let target = (auto.target_bits * weights as f64 / 8.0) as u64;
        if target < all(few[0]) {
            return Err(wrong(format!(
                "{} bits a weight cannot be reached: with all that may be chosen in int4 there are {:.3}",
                auto.target_bits,
                bits(all(few[0]))
            )));
        }
        self.want(|name| free.iter().any(|(t, _)| t.name == name));
        let mut sensitivities = BTreeMap::new();
        let mut candidates = Vec::new();
        for (tensor, part) in &free {
            let factor = self.factor(&tensor.name)?.expect("it is wanted");
            let errors = relative_errors(source, tensor, *part, &factor)?;
            let share = self.runner.streams.share(&tensor.name);
            let costs = errors.map(|e| e * share);
            sensitivities.insert(tensor.name.clone(), Sensitivity { int4: costs[0], int8: costs[1] });
            candidates.push(Candidate { bytes: few.map(|format| bytes(tensor, format)), costs });
        }
        let chosen = choose(&candidates, target - pinned_bytes).expect("the least has been seen to fit");
        // Short to say: parts by what most of them got.
        for part in [Part::Vision, Part::Projector, Part::Text, Part::Embedding] {
            let of_part = || free.iter().zip(&chosen).filter(|((_, p), _)| *p == part);
            if of_part().count() > 0 {
                let wide = of_part().filter(|(_, more)| **more).count();
                formats.recipe.set(part, few[usize::from(2 * wide > of_part().count())]);
            }
        }
        for ((tensor, part), more) in free.iter().zip(&chosen) {
            let format = few[usize::from(*more)];
            if formats.recipe.format(*part) != format {
                formats.exceptions.insert(tensor.name.clone(), format);
            }
        }
        log::info!("chosen: {formats}");
        Ok(sensitivities)
    }
}

/// Squared error of the outputs over their power, in int4 and in int8, on some of the rows.
fn relative_errors(
    source: &dyn WeightSource,
    tensor: &TensorSpec,
    part: Part,
    factor: &Factor,
) -> Result<[f64; 2], ConvertError> {
    let assembly = Assembly(&tensor.source);
    let [outputs, cols] = [tensor.shape[0], tensor.shape[1]];
    let stripes = outputs.div_ceil(LANES);
    let samples = stripes.min(STRIPES_SAMPLED);
    let sampled: Vec<[f64; 3]> = (0..samples)
        .into_par_iter()
        .map(|sample| {
            let first = sample * stripes / samples * LANES;
            let mut rows = vec![0.0; LANES.min(outputs - first) * cols];
            for (i, row) in rows.chunks_mut(cols).enumerate() {
                assembly.read_row(source, first + i, row)?;
            }
            let mut scratch = FeedbackScratch::default();
            let mut quantized: [QuantizedRow; LANES] = Default::default();
            let int4 = if has_feedback(part) {
                quantize_stripe(factor, &rows, &mut quantized, &mut scratch).of_outputs
            } else {
                plain_error(factor, WeightFormat::Int4, &rows, &mut scratch)
            };
            let int8 = plain_error(factor, WeightFormat::Int8, &rows, &mut scratch);
            Ok([int4, int8, output_power(factor, &rows, &mut scratch)])
        })
        .collect::<Result<_, ConvertError>>()?;
    // In the order of the rows, so that threads do not matter.
    let [int4, int8, power] =
        sampled.iter().fold([0.0; 3], |sum, s| [sum[0] + s[0], sum[1] + s[1], sum[2] + s[2]]);
    Ok([int4, int8].map(|e| if power > 0.0 { e / power } else { 0.0 }))
}

/// Whether a part in int4 is quantized with error feedback. The embedding is not: feedback makes errors of the head
/// smaller at the cost of those of its rows, which are the decoder's inputs too. No answer goes through the retrieval
/// head.
pub(crate) fn has_feedback(part: Part) -> bool {
    !matches!(part, Part::Embedding | Part::PatchEmbedding | Part::Retrieval)
}

/// Squared error of the outputs with plain rounding.
fn plain_error(factor: &Factor, format: WeightFormat, rows: &[f32], scratch: &mut FeedbackScratch) -> f64 {
    let mut errors = rows.to_vec();
    let mut quantized = QuantizedRow::default();
    for row in errors.chunks_mut(factor.cols) {
        quantize_row(format, row, &mut quantized);
        row.iter_mut().zip(stored(&quantized)).for_each(|(w, stored)| *w -= stored);
    }
    output_power(factor, &errors, scratch)
}

/// Recipes that a model is calibrated in: f32 while that is small.
pub(crate) fn runs_as(config: &Config) -> Recipe {
    const F32_WEIGHTS_MAX: usize = 256 << 20;
    let weights: usize = config.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
    Recipe::preset(if weights <= F32_WEIGHTS_MAX { WeightFormat::F32 } else { WeightFormat::Int8 })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use palmtop::Model;

    use super::*;
    use crate::synthetic::{Synthetic, preset};
    use crate::{Options, convert_source, tokenizer};

    #[test]
    fn factors_do_not_depend_on_how_many_fit_into_memory() {
        let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data"));
        let folder = tempfile::tempdir().unwrap();
        let config = preset("tiny2").unwrap();
        let target = folder.path().join("model.palm");
        let table = tokenizer::build_table(&data.join("tokenizer")).unwrap();
        let options = Options { recipe: runs_as(&config), ..Options::default() };
        convert_source(&Synthetic::new(config.clone(), 1), &config, table, &target, &options, &()).unwrap();
        let examples = folder.path().join("examples.jsonl");
        let image = data.join("images/scene_640x361.png");
        let line = serde_json::json!({"image": image, "prompt": "ocr", "expected": "42"}).to_string();
        std::fs::write(&examples, line).unwrap();
        let factors = |bytes_max: usize| {
            let runner = Runner::new(&Model::open(&target).unwrap(), &examples, None, Some(2), &()).unwrap();
            let mut calibrator = Calibrator::new(runner, &config).unwrap();
            calibrator.bytes_max = bytes_max;
            calibrator.want(|name| name.contains("layer.1."));
            let names: Vec<String> = calibrator.wanted.iter().map(|w| w.0.clone()).collect();
            assert!(names.len() == 8 && calibrator.factor("projector.weight").unwrap().is_none());
            let mut rows = Vec::new();
            for name in &names {
                let factor = calibrator.factor(name).unwrap().unwrap();
                rows.extend(factor.blocks.into_iter().flat_map(|b| [b.rows, b.weights]));
            }
            (rows, calibrator.runner.runs())
        };
        let (at_once, runs) = factors(BYTES_MAX);
        assert_eq!(runs, (1, 1));
        let (one_by_one, runs) = factors(1);
        assert_eq!(runs, (8, 8));
        assert!(at_once == one_by_one);
    }
}
