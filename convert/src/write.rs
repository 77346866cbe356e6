//! Writes a `.palm` file: stripes in parallel, to a temporary file that is renamed once it is complete.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use palmtop::format::{Checksum, Head, MAGIC, Metadata, Storage, TensorInfo, checksum};
use palmtop::model::config::Config;
use palmtop::model::tensors::{Part, TensorSpec};
use palmtop_kernels::layout::{
    LANES, MatrixLayout, QuantizedRow, WeightFormat, pack_float_stripe, pack_integer_stripe,
};
use rayon::prelude::*;

use crate::calibrate::{Calibrator, Factor, FeedbackScratch, has_feedback, output_power, quantize_stripe};
use crate::files;
use crate::quantize::quantize_row;
use crate::report::TensorReport;
use crate::source::{Assembly, WeightSource};
use crate::temporary::Temporary;
use crate::{ConvertError, Formats, Progress, Recipe};

/// Stripes are packed in windows of about this many bytes, which bounds the memory.
const WINDOW_BYTES: usize = 16 << 20;

/// A tensor that is stored as it is.
#[derive(Clone)]
pub(crate) enum Verbatim {
    Bytes { name: String, bytes: Vec<u8> },
    F32 { name: String, shape: Vec<usize>, values: Vec<f32> },
}

/// What the file is made of.
pub(crate) struct Contents<'a> {
    pub source: &'a dyn WeightSource,
    pub config: &'a Config,
    pub formats: Formats,
    pub metadata: Metadata,
    /// Stand before the weights.
    pub before: Vec<Verbatim>,
    /// Stand behind the weights.
    pub behind: Vec<Verbatim>,
}

impl Contents<'_> {
    /// Puts the formats into the metadata.
    pub fn name_recipe(&mut self) {
        self.metadata.set("quantization.recipe", self.formats.to_string());
    }
}

/// Refuses a target that is a folder or a file of another kind: renaming would replace it.
pub(crate) fn check_target(target: &Path) -> Result<(), ConvertError> {
    let refuse = |what: &str| Err(ConvertError::Target { path: target.to_owned(), what: what.to_owned() });
    if target.file_name().is_none() {
        return refuse("has no file name");
    }
    let Ok(metadata) = std::fs::metadata(target) else { return Ok(()) };
    if metadata.is_dir() {
        return refuse("is a folder; name the .palm file itself");
    }
    if !metadata.is_file() {
        return refuse("is not a regular file; name a .palm file");
    }
    let file = File::open(target).map_err(ConvertError::io(target))?;
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(ConvertError::io(target))?;
    if start.is_empty() || start == MAGIC {
        Ok(())
    } else {
        refuse("exists and is not a .palm file; remove it first if it is not needed")
    }
}

/// The folder that a file is to be written in.
pub(crate) fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the file, int4 with error feedback where a calibrator says how, and gives a report of each tensor, and the
/// file's length.
pub(crate) fn write(
    target: &Path,
    contents: &Contents<'_>,
    calibrator: Option<&mut Calibrator<'_>>,
    progress: &dyn Progress,
) -> Result<(Vec<TensorReport>, u64), ConvertError> {
    let (temporary, reports, length) = write_temporary(target, contents, calibrator, progress)?;
    progress.message("syncing");
    temporary.persist(target).map_err(ConvertError::io(target))?;
    sync_folder(folder_of(target));
    Ok((reports, length))
}

/// A file's name itself is safe on disk once the folder is; not every file system can do that, and Windows opens no
/// folders.
pub(crate) fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The same, to a temporary file beside the target.
pub(crate) fn write_temporary(
    target: &Path,
    contents: &Contents<'_>,
    mut calibrator: Option<&mut Calibrator<'_>>,
    progress: &dyn Progress,
) -> Result<(Temporary, Vec<TensorReport>, u64), ConvertError> {
    let mut head = head(contents);
    let length = head.place();
    // Less than the length: what lies between tensors to align them is not written.
    progress.start(head.encode().len() as u64 + head.tensors.iter().map(|t| t.length).sum::<u64>());
    let folder = folder_of(target);
    let temporary = Temporary::new_in(folder).map_err(ConvertError::io(folder))?;
    let out = Output { file: temporary.file(), target, progress };
    out.file.set_len(length).map_err(ConvertError::io(target))?;

    let mut reports = Vec::new();
    let mut tables = head.tensors.iter_mut();
    let mut entry = || tables.next().expect("the table was made from the same lists");
    for tensor in &contents.before {
        reports.push(out.verbatim(tensor, entry())?);
    }
    for spec in contents.config.tensors() {
        let factor = match (spec.matrix(), &mut calibrator) {
            (Some(part), Some(calibrator))
                if contents.formats.of(&spec) == Some(WeightFormat::Int4) && has_feedback(part) =>
            {
                calibrator.factor(&spec.name)?
            }
            _ => None,
        };
        reports.push(out.tensor(contents.source, &contents.formats, &spec, factor.as_ref(), entry())?);
    }
    for tensor in &contents.behind {
        reports.push(out.verbatim(tensor, entry())?);
    }
    out.write(&head.encode(), 0)?;
    Ok((temporary, reports, length))
}

/// The table of what the file will have, without places and checksums.
pub(crate) fn head(contents: &Contents<'_>) -> Head {
    let verbatim = |t: &Verbatim| match t {
        Verbatim::Bytes { name, bytes } => TensorInfo::new(name, Storage::Bytes, &[bytes.len()]),
        Verbatim::F32 { name, shape, .. } => TensorInfo::new(name, Storage::F32, shape),
    };
    let weights = contents.config.tensors().into_iter().map(|spec| {
        let storage = contents.formats.of(&spec).map_or(Storage::F32, Storage::Packed);
        TensorInfo::new(spec.name, storage, &spec.shape)
    });
    let tensors = contents.before.iter().map(verbatim).chain(weights);
    let tensors = tensors.chain(contents.behind.iter().map(verbatim));
    let tensors = tensors.map(|t| t.expect("shapes have been checked")).collect();
    Head { metadata: contents.metadata.clone(), tensors }
}

/// The temporary file.
pub(crate) struct Output<'a> {
    pub file: &'a File,
    /// Named in errors.
    pub target: &'a Path,
    pub progress: &'a dyn Progress,
}

/// A packed matrix of the file.
pub(crate) struct Matrix<'a> {
    pub spec: &'a TensorSpec,
    pub part: Part,
    pub layout: MatrixLayout,
    /// Where it begins in the file.
    pub offset: u64,
}

impl<'a> Matrix<'a> {
    /// None for a tensor that is stored as plain f32.
    pub fn new(spec: &'a TensorSpec, formats: &Formats, entry: &TensorInfo) -> Option<Self> {
        let (part, format) = (spec.matrix()?, formats.of(spec)?);
        let layout =
            MatrixLayout::new(format, spec.shape[0], spec.shape[1]).expect("shapes have been checked");
        Some(Self { spec, part, layout, offset: entry.offset })
    }
}

impl Output<'_> {
    /// Positioned writes need no order, and a full disk is an error instead of a signal.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), ConvertError> {
        files::write_all_at(self.file, bytes, offset).map_err(ConvertError::io(self.target))?;
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }

    /// An error if it is to stop.
    pub fn go_on(&self) -> Result<(), ConvertError> {
        if self.progress.cancelled() { Err(ConvertError::Cancelled) } else { Ok(()) }
    }

    /// Writes a tensor that is stored as it is.
    pub fn verbatim(&self, tensor: &Verbatim, entry: &mut TensorInfo) -> Result<TensorReport, ConvertError> {
        match tensor {
            Verbatim::Bytes { bytes, .. } => {
                entry.checksum = checksum(bytes);
                self.write(bytes, entry.offset)?;
            }
            Verbatim::F32 { values, .. } => self.plain(values, entry)?,
        }
        Ok(TensorReport::new(entry, None, None))
    }

    fn plain(&self, values: &[f32], entry: &mut TensorInfo) -> Result<(), ConvertError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        entry.checksum = checksum(&bytes);
        self.write(&bytes, entry.offset)
    }

    /// Writes a tensor of the model.
    pub fn tensor(
        &self,
        source: &dyn WeightSource,
        formats: &Formats,
        spec: &TensorSpec,
        factor: Option<&Factor>,
        entry: &mut TensorInfo,
    ) -> Result<TensorReport, ConvertError> {
        self.go_on()?;
        self.progress.message(&spec.name);
        let Some(matrix) = Matrix::new(spec, formats, entry) else {
            self.plain(&Assembly(&spec.source).read_all(source)?, entry)?;
            return Ok(TensorReport::new(entry, None, None));
        };
        let (layout, stripe_bytes) = (&matrix.layout, matrix.layout.stripe_bytes());
        let window =
            (WINDOW_BYTES / stripe_bytes).max(2 * rayon::current_num_threads()).min(layout.stripes());
        let mut packed = vec![0; window * stripe_bytes];
        let mut sum = Checksum::default();
        let mut power = SquareSums::default();
        for first in (0..layout.stripes()).step_by(window) {
            let count = window.min(layout.stripes() - first);
            let packed = &mut packed[..count * stripe_bytes];
            let parts = self.stripes(&matrix, source, factor, &|i| first + i, packed)?;
            // In the order of the file, so that neither depends on the number of threads.
            sum.update(packed);
            parts.iter().for_each(|p| power.add(p));
        }
        entry.checksum = sum.finish();
        let output_error = factor.map(|_| ratio(power.output_errors, power.outputs));
        Ok(TensorReport {
            output_error,
            ..TensorReport::new(entry, Some(matrix.part), Some(power.relative_error()))
        })
    }

    /// Packs stripes of a matrix in parallel into a buffer for all of them, and writes each. `stripe` says which one
    /// each is.
    pub fn stripes(
        &self,
        matrix: &Matrix<'_>,
        source: &dyn WeightSource,
        factor: Option<&Factor>,
        stripe: &(dyn Fn(usize) -> usize + Sync),
        packed: &mut [u8],
    ) -> Result<Vec<SquareSums>, ConvertError> {
        let (assembly, stripe_bytes) = (Assembly(&matrix.spec.source), matrix.layout.stripe_bytes());
        let stripes = packed.par_chunks_mut(stripe_bytes).enumerate().map(|(i, bytes)| {
            self.go_on()?;
            let stripe = stripe(i);
            let power = pack_stripe(&matrix.layout, &assembly, source, factor, stripe, bytes)
                .map_err(|e| e.in_tensor(matrix.spec, matrix.part))?;
            self.write(bytes, matrix.offset + (stripe * stripe_bytes) as u64)?;
            Ok(power)
        });
        stripes.collect()
    }
}

/// Sums of squares of weights and of their errors, and with calibration of outputs and of theirs.
#[derive(Default)]
pub(crate) struct SquareSums {
    weights: f64,
    errors: f64,
    outputs: f64,
    output_errors: f64,
}

impl SquareSums {
    pub fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.errors += other.errors;
        self.outputs += other.outputs;
        self.output_errors += other.output_errors;
    }

    pub fn relative_error(&self) -> f64 {
        ratio(self.errors, self.weights)
    }
}

/// Root of the mean squared error over the root of the mean square.
fn ratio(errors: f64, all: f64) -> f64 {
    if errors > 0.0 { (errors / all).sqrt() } else { 0.0 }
}

enum StripeError {
    Source(ConvertError),
    TooLargeForF16(f32),
}

impl StripeError {
    fn in_tensor(self, spec: &TensorSpec, part: Part) -> ConvertError {
        match self {
            Self::Source(error) => error,
            Self::TooLargeForF16(value) => {
                ConvertError::TooLargeForF16 { name: spec.name.clone(), value, part: Recipe::part_name(part) }
            }
        }
    }
}

/// Buffers of a thread: the weights of a stripe, its quantized rows, and what error feedback needs.
type Buffers = (Vec<f32>, [QuantizedRow; LANES], FeedbackScratch);

fn pack_stripe(
    layout: &MatrixLayout,
    assembly: &Assembly<'_>,
    source: &dyn WeightSource,
    factor: Option<&Factor>,
    stripe: usize,
    out: &mut [u8],
) -> Result<SquareSums, StripeError> {
    thread_local! {
        static BUFFERS: RefCell<Buffers> = RefCell::default();
    }
    BUFFERS.with_borrow_mut(|(weights, quantized, scratch)| {
        let (cols, first) = (layout.cols, stripe * LANES);
        let count = LANES.min(layout.rows - first);
        weights.resize(count * cols, 0.0);
        for (i, row) in weights.chunks_mut(cols).enumerate() {
            assembly.read_row(source, first + i, row).map_err(StripeError::Source)?;
        }
        let mut power = SquareSums::default();
        if let Some(factor) = factor {
            let errors = quantize_stripe(factor, weights, quantized, scratch);
            power.weights = weights.chunks(cols).map(squares).sum();
            power.errors = errors.of_weights;
            power.outputs = output_power(factor, weights, scratch);
            power.output_errors = errors.of_outputs;
            pack_integer_stripe(layout, &quantized[..count], out);
            return Ok(power);
        }
        let rows = weights.chunks(cols);
        match layout.format {
            WeightFormat::Int8 | WeightFormat::Int4 => {
                for (row, quantized) in rows.zip(quantized.iter_mut()) {
                    power.weights += squares(row);
                    power.errors += quantize_row(layout.format, row, quantized);
                }
                pack_integer_stripe(layout, &quantized[..count], out);
            }
            WeightFormat::F16 => {
                for row in rows.clone() {
                    power.weights += squares(row);
                    power.errors += f16_error(row)?;
                }
                pack_float_stripe(layout, &rows.collect::<Vec<_>>(), out);
            }
            WeightFormat::F32 => pack_float_stripe(layout, &rows.collect::<Vec<_>>(), out),
        }
        Ok(power)
    })
}

fn squares(row: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    for w in row.chunks(8) {
        for (lane, &w) in lanes.iter_mut().zip(w) {
            *lane += f64::from(w) * f64::from(w);
        }
    }
    lanes.iter().sum()
}

fn f16_error(row: &[f32]) -> Result<f64, StripeError> {
    let mut sum = 0.0;
    for &w in row {
        let stored = half::f16::from_f32(w);
        if stored.is_infinite() {
            return Err(StripeError::TooLargeForF16(w));
        }
        sum += (f64::from(w) - f64::from(stored)).powi(2);
    }
    Ok(sum)
}
