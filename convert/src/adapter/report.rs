//! What an adapter has changed, for the report of a conversion.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use palmtop::model::tensors::{EMBEDDING, HEAD, Part, is_of_retrieval};
use serde::Serialize;

use crate::Recipe;

/// An adapter that was merged. `Display` gives a table.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AdapterReport {
    /// Its folder; the checkpoint's own where it was found there.
    pub path: PathBuf,
    /// The model it was trained on, if it says so.
    pub base_model: Option<String>,
    /// What the user multiplied it by.
    pub scale: f64,
    /// What it changed, in groups of the same kind.
    pub matched: Vec<MatchReport>,
    /// Tensors that a PaliGemma never reads, by their names in the file.
    pub ignored: Vec<String>,
}

/// Tensors of a checkpoint that an adapter has changed alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MatchReport {
    /// The part of the model, as recipes name it.
    pub part: &'static str,
    /// The last part of the modules' names, such as `q_proj`.
    pub module: String,
    /// How: `lora`, `dora`, `weight` (replaced), `bias` (replaced), `bias added`, or `tokens` (rows replaced).
    pub change: &'static str,
    /// How many such tensors.
    pub count: usize,
    /// The smallest and the largest rank of LoRA and DoRA.
    pub rank: Option<[usize; 2]>,
    /// The smallest and the largest factor of what was added, with the user's in it.
    pub factor: Option<[f64; 2]>,
}

/// Counts what was matched.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<(usize, String, &'static str), MatchReport>);

impl Tally {
    /// Counts a changed tensor of the checkpoint, by its classic name.
    pub fn add(&mut self, name: &str, change: &'static str, rank: Option<usize>, factor: Option<f64>) {
        let (place, part) = part_of(name);
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let module = module.rsplit('.').next().unwrap_or(module).to_owned();
        let entry = self.0.entry((place, module.clone(), change)).or_insert(MatchReport {
            part,
            module,
            change,
            count: 0,
            rank: rank.map(|r| [r; 2]),
            factor: factor.map(|s| [s; 2]),
        });
        entry.count += 1;
        if let (Some([least, most]), Some(rank)) = (&mut entry.rank, rank) {
            (*least, *most) = ((*least).min(rank), (*most).max(rank));
        }
        if let (Some([least, most]), Some(factor)) = (&mut entry.factor, factor) {
            (*least, *most) = (least.min(factor), most.max(factor));
        }
    }

    pub fn finish(self) -> Vec<MatchReport> {
        self.0.into_values().collect()
    }
}

/// The part of a checkpoint's tensor in the order of the table, and its name.
fn part_of(name: &str) -> (usize, &'static str) {
    let part = match name {
        EMBEDDING | HEAD => Part::Embedding,
        _ if is_of_retrieval(name) => Part::Retrieval,
        _ if name.contains(".patch_embedding.") => Part::PatchEmbedding,
        _ if name.starts_with("vision_tower.") => Part::Vision,
        _ if name.starts_with("multi_modal_projector.") => Part::Projector,
        _ => Part::Text,
    };
    (part as usize, Recipe::part_name(part))
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adapter {}", self.path.display())?;
        if let Some(base) = &self.base_model {
            write!(f, ", trained on {base}")?;
        }
        if self.scale != 1.0 {
            write!(f, ", times {}", self.scale)?;
        }
        writeln!(f)?;
        writeln!(f, "{:10} {:20} {:12} {:>7} {:>9}  factor", "part", "module", "change", "tensors", "rank")?;
        for m in &self.matched {
            let rank = m.rank.map_or(String::new(), |r| span(r.map(|n| n.to_string())));
            let factor = m.factor.map_or(String::new(), |s| span(s.map(|x| x.to_string())));
            let line =
                format!("{:10} {:20} {:12} {:>7} {rank:>9}  {factor}", m.part, m.module, m.change, m.count);
            writeln!(f, "{}", line.trim_end())?;
        }
        if !self.ignored.is_empty() {
            writeln!(
                f,
                "left aside, since PaliGemma never reads them: {}",
                crate::error::listed(&self.ignored)
            )?;
        }
        Ok(())
    }
}

/// Two ends, or one if they are the same.
fn span([least, most]: [String; 2]) -> String {
    if least == most { least } else { format!("{least} to {most}") }
}
