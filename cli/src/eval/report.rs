//! The report of an evaluation, as JSON (`docs/json.md` promises the shape) and as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use palmtop::model::Model;
use palmtop_convert::examples::TaskKind;
use palmtop_present::json::stop_name;
use palmtop_present::plain::{human_bytes, printable};
use serde::Serialize;

use super::compare::Agreement;
use super::tally::Figures;
use super::{AnswerSummary, Candidate, ItemResult, Run, Times};
use crate::args::EvalArgs;
use crate::files::Replacement;

#[derive(Serialize)]
pub struct Report {
    data: String,
    items: usize,
    answered: usize,
    interrupted: bool,
    #[serde(flatten)]
    first: ModelReport,
    other: Option<ModelReport>,
    agreement: Option<AgreementReport>,
    failed: Vec<FailureReport>,
}

/// A model and what its answers are worth.
#[derive(Serialize)]
struct ModelReport {
    model: ModelName,
    tasks: BTreeMap<&'static str, TaskReport>,
    timings: TimingsReport,
}

#[derive(Serialize)]
struct ModelName {
    file: Option<String>,
    name: Option<String>,
    recipe: Option<String>,
    /// Bytes of the weights.
    bytes: u64,
}

#[derive(Default, Serialize)]
struct TaskReport {
    items: usize,
    score: Option<f64>,
    exact_match: Option<f64>,
    word_overlap: Option<f64>,
    map50: Option<f64>,
    map: Option<f64>,
    map_small: Option<f64>,
    map_medium: Option<f64>,
    map_large: Option<f64>,
    box_precision: Option<f64>,
    box_recall: Option<f64>,
    box_iou: Option<f64>,
    mask_iou: Option<f64>,
}

#[derive(Serialize)]
struct TimingsReport {
    ms_per_item: Option<f64>,
    encode_ms_per_picture: Option<f64>,
    prefill_ms_per_item: Option<f64>,
    decode_ms_per_token: Option<f64>,
    tokens_per_item: Option<f64>,
}

#[derive(Serialize)]
struct AgreementReport {
    #[serde(flatten)]
    all: AgreementFigures,
    tasks: BTreeMap<&'static str, AgreementFigures>,
    differing: Vec<Difference>,
}

#[derive(Serialize)]
struct AgreementFigures {
    items: usize,
    same_answers: Option<f64>,
    kl: Option<f64>,
    same_tokens: Option<f64>,
    positions: usize,
}

/// An item that two models answer differently.
#[derive(Serialize)]
struct Difference {
    line: usize,
    image: String,
    task: &'static str,
    prompt: String,
    expected: Option<String>,
    text: String,
    other_text: String,
}

#[derive(Serialize)]
struct FailureReport {
    line: usize,
    image: String,
    error: String,
}

impl Report {
    pub(super) fn new(
        args: &EvalArgs,
        models: &[Arc<Model>],
        candidates: &[Candidate<'_>],
        run: &Run,
        share_tokens: bool,
        interrupted: bool,
    ) -> Self {
        let mut reports = models.iter().zip(candidates).enumerate().map(|(i, (model, candidate))| {
            let text = |key| model.file().metadata().text(key).ok();
            let file = args.models.get(i).map(|p| p.display().to_string());
            ModelReport {
                model: ModelName {
                    file,
                    name: text("general.name"),
                    recipe: text("quantization.recipe"),
                    bytes: model.file().bytes(),
                },
                tasks: TaskKind::ALL
                    .into_iter()
                    .map(|task| (task.name(), candidate.tallies[task as usize].figures(task).into()))
                    .collect(),
                timings: TimingsReport::new(&candidate.times),
            }
        });
        let first = reports.next().expect("there is a model");
        let other = reports.next();
        let agreement = other.is_some().then(|| AgreementReport::new(run, share_tokens));
        let failed: Vec<_> = run
            .failures
            .iter()
            .map(|f| FailureReport { line: f.line, image: f.image.clone(), error: f.error.clone() })
            .collect();
        Self {
            data: args.data.display().to_string(),
            items: run.results.len() + failed.len(),
            answered: run.results.len(),
            interrupted,
            first,
            other,
            agreement,
            failed,
        }
    }
}

impl From<Figures> for TaskReport {
    fn from(f: Figures) -> Self {
        Self {
            items: f.items,
            score: f.score,
            exact_match: f.exact_match,
            word_overlap: f.word_overlap,
            map50: f.boxes.map50,
            map: f.boxes.map,
            map_small: f.boxes.map_small,
            map_medium: f.boxes.map_medium,
            map_large: f.boxes.map_large,
            box_precision: f.boxes.precision,
            box_recall: f.boxes.recall,
            box_iou: f.boxes.mean_iou,
            mask_iou: f.mask_iou,
        }
    }
}

impl TimingsReport {
    fn new(times: &Times) -> Self {
        let ms = |d: std::time::Duration, n: usize| (n > 0).then(|| d.as_secs_f64() * 1e3 / n as f64);
        Self {
            ms_per_item: ms(times.encode + times.prefill + times.decode, times.items),
            encode_ms_per_picture: ms(times.encode, times.pictures),
            prefill_ms_per_item: ms(times.prefill, times.items),
            decode_ms_per_token: ms(times.decode, times.tokens),
            tokens_per_item: (times.items > 0).then(|| times.tokens as f64 / times.items as f64),
        }
    }
}

impl AgreementReport {
    fn new(run: &Run, share_tokens: bool) -> Self {
        let mut all = Agreement::default();
        run.agreement.iter().for_each(|a| all.add(a));
        let of_task = |task: TaskKind| (task.name(), &run.agreement[task as usize]);
        let answered = TaskKind::ALL.into_iter().map(of_task).filter(|(_, a)| a.same.count() > 0);
        let difference = |r: &ItemResult| {
            let [(text, _), (other_text, _)] = &r.answers[..] else { return None };
            (text != other_text).then(|| Difference {
                line: r.item.line,
                image: r.item.image.clone(),
                task: r.item.task.name(),
                prompt: r.item.prompt.clone(),
                expected: r.item.expected.text().map(str::to_owned),
                text: text.clone(),
                other_text: other_text.clone(),
            })
        };
        Self {
            all: AgreementFigures::new(&all, share_tokens),
            tasks: answered.map(|(name, a)| (name, AgreementFigures::new(a, share_tokens))).collect(),
            differing: run.results.iter().filter_map(difference).collect(),
        }
    }
}

impl AgreementFigures {
    fn new(a: &Agreement, share_tokens: bool) -> Self {
        Self {
            items: a.same.count(),
            same_answers: a.same.value(),
            kl: a.divergence.value().filter(|_| share_tokens),
            same_tokens: a.same_token.value().filter(|_| share_tokens),
            positions: a.divergence.count(),
        }
    }
}

/// An item with its answers, a line of the file that `--answers` names.
#[derive(Serialize)]
struct AnswerLine<'a> {
    line: usize,
    image: &'a str,
    task: &'static str,
    prompt: &'a str,
    expected: Option<&'a str>,
    answers: Vec<AnswerScores<'a>>,
}

#[derive(Serialize)]
struct AnswerScores<'a> {
    text: &'a str,
    tokens: usize,
    stop: &'static str,
    exact_match: Option<bool>,
    word_overlap: Option<f64>,
    mask_iou: Option<f64>,
}

/// Writes one JSON object a line for each item.
pub(super) fn write_answers(path: &Path, results: &[ItemResult]) -> anyhow::Result<()> {
    let target = Replacement::new(path)?;
    let write = || -> anyhow::Result<()> {
        let mut out = BufWriter::new(target.file());
        for r in results {
            let line = AnswerLine {
                line: r.item.line,
                image: &r.item.image,
                task: r.item.task.name(),
                prompt: &r.item.prompt,
                expected: r.item.expected.text(),
                answers: r.answers.iter().map(|(text, w)| AnswerScores::new(text, w)).collect(),
            };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    target.finish()
}

impl<'a> AnswerScores<'a> {
    fn new(text: &'a str, w: &AnswerSummary) -> Self {
        Self {
            text,
            tokens: w.tokens,
            stop: stop_name(w.stop),
            exact_match: w.is_exact,
            word_overlap: w.overlap,
            mask_iou: w.mask_iou,
        }
    }
}

/// Columns of the table: what a figure of a task is called, and where it is found.
type Column = (&'static str, fn(&TaskReport) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("score", |t| t.score),
    ("exact", |t| t.exact_match),
    ("words", |t| t.word_overlap),
    ("mAP@50", |t| t.map50),
    ("mAP", |t| t.map),
    ("box IoU", |t| t.box_iou),
    ("mask IoU", |t| t.mask_iou),
];

/// Items that differ are listed up to this many; JSON has all.
const DIFFERING_MAX: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models: Vec<&ModelReport> = std::iter::once(&self.first).chain(&self.other).collect();
        for (mark, model) in ["a", "b"].iter().zip(&models) {
            if models.len() == 2 {
                write!(f, "{mark}: ")?;
            }
            writeln!(f, "{}", model.model)?;
        }
        let cells = |mark: &str, task: &str, report: &TaskReport| -> Vec<String> {
            let mut row = vec![task.to_owned()];
            if models.len() == 2 {
                row.push(mark.to_owned());
            }
            row.push(report.items.to_string());
            row.extend(COLUMNS.iter().map(|(_, value)| number(value(report))));
            row
        };
        let mut head = vec!["task".to_owned()];
        if models.len() == 2 {
            head.push(String::new());
        }
        head.push("items".to_owned());
        head.extend(COLUMNS.iter().map(|(name, _)| (*name).to_owned()));
        let mut rows = vec![head];
        for task in TaskKind::ALL.map(TaskKind::name) {
            if models[0].tasks[task].items > 0 {
                rows.extend(
                    ["a", "b"].iter().zip(&models).map(|(mark, m)| cells(mark, task, &m.tasks[task])),
                );
            }
        }
        write_table(f, &rows)?;
        for (mark, model) in ["a", "b"].iter().zip(&models) {
            let mark = if models.len() == 2 { format!("{mark}: ") } else { String::new() };
            if let Some(ms) = model.timings.ms_per_item {
                let tokens = model.timings.tokens_per_item.unwrap_or_default();
                writeln!(f, "{mark}{ms:.1} ms and {tokens:.1} tokens an item")?;
            }
        }
        if let Some(agreement) = &self.agreement {
            writeln!(f, "{agreement}")?;
        }
        let left = if self.interrupted { "; interrupted" } else { "" };
        writeln!(f, "{} items answered, {} failed{left}", self.answered, self.failed.len())
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.as_ref().or(self.name.as_ref()).map_or("unnamed".to_owned(), |n| printable(n));
        write!(f, "{name}, {}", human_bytes(self.bytes))?;
        // A recipe that speaks of single tensors is too long to read.
        match self.recipe.as_ref().map(|r| printable(r)) {
            Some(recipe) if recipe.len() <= 100 => write!(f, ", {recipe}"),
            Some(recipe) => write!(f, ", {}…", recipe.chars().take(90).collect::<String>()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AgreementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["task", "items", "same answer", "same token", "KL, nats"].map(str::to_owned).to_vec();
        let row = |name: &str, a: &AgreementFigures| {
            let kl = a.kl.map_or_else(|| "-".to_owned(), |kl| format!("{kl:.5}"));
            vec![name.to_owned(), a.items.to_string(), number(a.same_answers), number(a.same_tokens), kl]
        };
        let mut rows = vec![head];
        rows.extend(self.tasks.iter().map(|(name, a)| row(name, a)));
        rows.push(row("all", &self.all));
        write_table(f, &rows)?;
        for d in self.differing.iter().take(DIFFERING_MAX) {
            writeln!(f, "line {}, {}: {}", d.line, printable(&d.image), printable(&d.prompt))?;
            if let Some(expected) = &d.expected {
                writeln!(f, "  expected: {}", printable(expected))?;
            }
            writeln!(f, "  a: {}\n  b: {}", printable(&d.text), printable(&d.other_text))?;
        }
        match self.differing.len() {
            0 => write!(f, "all answers are the same"),
            n if n > DIFFERING_MAX => {
                write!(f, "{n} answers differ; --json lists all, --answers writes all to a file")
            }
            n => write!(f, "{n} answers differ"),
        }
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"))
}

/// The first column to the left, the others to the right, two blanks between.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows[0].len();
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (c, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match c {
                0 => write!(line, "{cell:width$}")?,
                _ => write!(line, "  {cell:>width$}")?,
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
