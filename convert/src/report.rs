//! The report of a conversion: the format and the error of each tensor.

use std::fmt;
use std::path::PathBuf;

use palmtop::format::TensorInfo;
use palmtop::model::tensors::Part;
use serde::Serialize;

use crate::{AdapterReport, Recipe};

/// What a conversion has done. `Display` gives a summary, serde everything.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The file that was written.
    pub target: PathBuf,
    /// The model's name, from the checkpoint's folder.
    pub source: String,
    /// The recipe, as `--recipe` reads it.
    pub recipe: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Weights of the model.
    pub weights: u64,
    /// Bits a weight of all matrices, scales included.
    pub matrix_bits: f64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// What is worth knowing of how the checkpoint was read, a sentence each.
    pub notes: Vec<String>,
    /// The adapters that were merged, in order.
    pub adapters: Vec<AdapterReport>,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
}

/// A tensor of the file.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// Its part in the recipe; none for what no recipe changes.
    pub part: Option<&'static str>,
    /// How it is stored.
    pub storage: &'static str,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: u64,
    /// Root of the mean squared error over the root of the mean squared weight; none where nothing is rounded.
    pub relative_error: Option<f64>,
    /// With calibration: root of the mean squared error of the outputs over the root of the mean squared output, on the
    /// examples; none for what was not calibrated.
    pub output_error: Option<f64>,
    /// With an automatic recipe: what it was chosen by.
    pub sensitivity: Option<Sensitivity>,
}

/// What storing a matrix in few bits costs, as an automatic recipe reckons: squared errors relative to what they
/// disturb.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// In int4.
    pub int4: f64,
    /// In int8.
    pub int8: f64,
}

impl TensorReport {
    pub(crate) fn new(entry: &TensorInfo, part: Option<Part>, relative_error: Option<f64>) -> Self {
        Self {
            name: entry.name.clone(),
            part: part.map(Recipe::part_name),
            storage: entry.storage.name(),
            shape: entry.shape.clone(),
            bytes: entry.length,
            relative_error,
            output_error: None,
            sensitivity: None,
        }
    }

    fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:10} {:12} {:>8} {:>10}  relative error", "part", "storage", "tensors", "bytes")?;
        let mut groups: Vec<(&str, &str)> = Vec::new();
        for t in &self.tensors {
            let group = (t.part.unwrap_or("other"), t.storage);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        // What no recipe changes comes last.
        groups.sort_by_key(|(part, _)| *part == "other");
        for (part, storage) in groups {
            let of_group = || {
                let mine = |t: &&TensorReport| (t.part.unwrap_or("other"), t.storage) == (part, storage);
                self.tensors.iter().filter(mine)
            };
            let bytes: u64 = of_group().map(|t| t.bytes).sum();
            let size = format!("{}B", si(bytes as f64));
            write!(f, "{part:10} {storage:12} {:>8} {size:>10}", of_group().count())?;
            let errors = || of_group().filter_map(|t| Some((t, t.relative_error?)));
            let weights: usize = errors().map(|(t, _)| t.weights()).sum();
            if let Some((worst, most)) = errors().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|w| w.1 > 0.0) {
                let mean = errors().map(|(t, e)| e * e * t.weights() as f64).sum::<f64>() / weights as f64;
                write!(f, "  {:.3} %, at most {:.3} % ({})", mean.sqrt() * 100.0, most * 100.0, worst.name)?;
            }
            let outputs: Vec<f64> = of_group().filter_map(|t| t.output_error).collect();
            if !outputs.is_empty() {
                let mean = outputs.iter().map(|e| e * e).sum::<f64>() / outputs.len() as f64;
                write!(f, "; of outputs {:.3} %", mean.sqrt() * 100.0)?;
            }
            writeln!(f)?;
        }
        self.adapters.iter().try_for_each(|adapter| write!(f, "{adapter}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        write!(
            f,
            "{}: {}B, {} weights, {:.2} bits a weight (matrices {:.2}), {:.1} s",
            self.target.display(),
            si(self.bytes as f64),
            si(self.weights as f64).trim_end(),
            self.bytes as f64 * 8.0 / self.weights.max(1) as f64,
            self.matrix_bits,
            self.seconds
        )
    }
}

/// A count in thousands, millions or thousands of millions, with a blank before the unit that follows.
fn si(count: f64) -> String {
    match count {
        c if c >= 1e9 => format!("{:.2} G", c / 1e9),
        c if c >= 1e6 => format!("{:.1} M", c / 1e6),
        c if c >= 1e3 => format!("{:.1} k", c / 1e3),
        c => format!("{c} "),
    }
}
