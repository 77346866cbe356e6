//! The arithmetic: a base's weights with what adapters do to them, row by row.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use rayon::prelude::*;

use super::plan::Plan;
use crate::ConvertError;
use crate::checkpoint::shards::{Shards, Tensor};
use crate::source::WeightSource;

/// What is done to one tensor of the base.
pub(super) struct Edits {
    /// The base's tensor to begin with: the embedding for a head that was one with it.
    origin: String,
    rows: usize,
    /// Values of a row; a vector is one row.
    cols: usize,
    /// In this order.
    pub ops: Vec<Arc<Op>>,
}

impl Edits {
    /// No changes yet; `origin` is the tensor of the base.
    pub fn new(origin: &str, shape: &[usize]) -> Self {
        let rows = if shape.len() > 1 { shape[0] } else { 1 };
        Self {
            origin: origin.to_owned(),
            rows,
            cols: shape.iter().product::<usize>() / rows.max(1),
            ops: Vec::new(),
        }
    }
}

/// A change, and where its values are.
pub(super) struct Op {
    pub shards: Shards,
    /// The adapter's folder, for errors.
    pub path: PathBuf,
    pub change: Change,
}

pub(super) enum Change {
    /// Replaces everything.
    Whole(Tensor),
    /// Replaces rows: from a row of the base to one of the tensor.
    Rows {
        tensor: Tensor,
        rows: HashMap<usize, usize>,
    },
    /// Adds a multiple.
    Add {
        tensor: Tensor,
        scale: f32,
    },
    Product(Product),
}

/// `W + scale · (left · right)`, and of DoRA what norms become.
pub(super) struct Product {
    /// `[rows, rank]`; of an embedding `[rank, rows]`.
    pub left: Tensor,
    /// `[rank, cols]`; of an embedding `[cols, rank]`.
    pub right: Tensor,
    pub is_table: bool,
    pub rank: usize,
    pub cols: usize,
    pub scale: f32,
    pub magnitude: Option<Magnitude>,
}

/// What DoRA makes norms to.
pub(super) enum Magnitude {
    /// Those of rows.
    Rows(Vec<f32>),
    /// Those of columns, over all rows; and what columns are multiplied by, once it is known.
    Columns { norms: Vec<f32>, factors: OnceLock<Vec<f32>> },
}

impl Magnitude {
    pub fn columns(norms: Vec<f32>) -> Self {
        Self::Columns { norms, factors: OnceLock::new() }
    }
}

impl Op {
    /// True if this replaces the same by the same as another change of the same adapter.
    pub fn is_same(&self, other: &Self) -> bool {
        let alike = |one: &Tensor, two: &Tensor| {
            one.dtype == two.dtype && self.shards.bytes(one) == other.shards.bytes(two)
        };
        match (&self.change, &other.change) {
            (Change::Whole(one), Change::Whole(two)) => alike(one, two),
            (Change::Rows { tensor: one, rows }, Change::Rows { tensor: two, rows: others }) => {
                rows == others && alike(one, two)
            }
            _ => false,
        }
    }

    /// True if this adds to an embedding exactly what `other` adds to a head.
    pub fn is_transposed(&self, other: &Self) -> Result<bool, ConvertError> {
        let (Change::Product(one), Change::Product(two)) = (&self.change, &other.change) else {
            return Ok(false);
        };
        let plain = one.magnitude.is_none() && two.magnitude.is_none();
        if !plain || (one.rank, one.scale) != (two.rank, two.scale) {
            return Ok(false);
        }
        let pairs = [(&one.left, &two.left), (&two.right, &one.right)];
        for (by_rank, by_row) in pairs {
            let (by_rank, by_row) = match by_rank.name == one.left.name {
                true => ((&self.shards, by_rank), (&other.shards, by_row)),
                false => ((&other.shards, by_rank), (&self.shards, by_row)),
            };
            if !is_transposed(by_rank, by_row, one.rank)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// True if a tensor `[rank, rows]` is another, `[rows, rank]`, transposed.
fn is_transposed(
    (shards, by_rank): (&Shards, &Tensor),
    (other, by_row): (&Shards, &Tensor),
    rank: usize,
) -> Result<bool, ConvertError> {
    const BLOCK: usize = 1024;
    let rows = by_rank.len() / rank;
    let (mut a, mut b) = (vec![0.0; BLOCK], vec![0.0; BLOCK * rank]);
    for start in (0..rows).step_by(BLOCK) {
        let n = BLOCK.min(rows - start);
        other.read(by_row, start * rank, &mut b[..n * rank])?;
        for k in 0..rank {
            shards.read(by_rank, k * rows + start, &mut a[..n])?;
            if (0..n).any(|i| a[i] != b[i * rank + k]) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Right factors are kept as f32 for the tensors in work: the parts of one matrix, which are three at most, and as many
/// of the ones before as fit into so many bytes.
const KEPT_BYTES_MAX: usize = 32 << 20;
const PARTS_MAX: usize = 3;

/// Merges adapters into weights.
pub(crate) struct Merger {
    plan: Plan,
    /// The latest right factors, by their changes.
    right: Mutex<Vec<Kept>>,
}

/// A base's weights with adapters merged into them.
pub(crate) struct Adapted<'a> {
    base: &'a dyn WeightSource,
    merger: &'a Merger,
}

/// A change, of which the plan has one too, and its right factor.
type Kept = (Arc<Op>, Arc<Vec<f32>>);

/// Buffers of a thread: a row, coefficients of its product, and the product.
type Scratch = (Vec<f32>, Vec<f32>, Vec<f32>);

impl Merger {
    /// Computes the norms of columns that DoRA of embeddings wants, which takes a pass over them.
    pub fn new(base: &dyn WeightSource, plan: Plan) -> Result<Self, ConvertError> {
        let out = Self { plan, right: Mutex::default() };
        for edits in out.plan.edits.values() {
            for (at, op) in edits.ops.iter().enumerate() {
                let Change::Product(product) = &op.change else { continue };
                let Some(Magnitude::Columns { norms, factors }) = &product.magnitude else { continue };
                let now = out.over(base).column_norms(edits, at)?;
                let _ = factors.set(norms.iter().zip(now).map(|(want, now)| want / now).collect());
            }
        }
        Ok(out)
    }

    /// The weights of a base with the adapters merged into them.
    pub fn over<'a>(&'a self, base: &'a dyn WeightSource) -> Adapted<'a> {
        Adapted { base, merger: self }
    }

    /// The tensor of the base that the values of a tensor are made of, row by row.
    pub fn origin<'a>(&'a self, name: &'a str) -> &'a str {
        self.plan.edits.get(name).map_or(name, |edits| &edits.origin)
    }
}

impl Adapted<'_> {
    /// The norms of columns behind the product of change `at`.
    fn column_norms(&self, edits: &Edits, at: usize) -> Result<Vec<f32>, ConvertError> {
        const BLOCK: usize = 1024;
        let blocks = (0..edits.rows.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let mut sums = vec![0f64; edits.cols];
            let mut row = vec![0.0; edits.cols];
            for index in block * BLOCK..((block + 1) * BLOCK).min(edits.rows) {
                self.row(edits, index, at + 1, false, &mut row)?;
                sums.iter_mut().zip(&row).for_each(|(s, &w)| *s += f64::from(w) * f64::from(w));
            }
            Ok(sums)
        });
        let blocks = blocks.collect::<Result<Vec<_>, ConvertError>>()?;
        let sum = |col: usize| blocks.iter().map(|b| b[col]).sum::<f64>();
        Ok((0..edits.cols).map(|col| sum(col).sqrt() as f32).collect())
    }

    /// A row behind the first `count` changes; the last of them with its magnitudes, or without.
    fn row(
        &self,
        edits: &Edits,
        row: usize,
        count: usize,
        with_magnitude: bool,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let ops = &edits.ops[..count];
        let replaces = |op: &Arc<Op>| match &op.change {
            Change::Whole(_) => true,
            Change::Rows { rows, .. } => rows.contains_key(&row),
            Change::Add { .. } | Change::Product(_) => false,
        };
        // What lies before a row that is replaced need not be read.
        let from = ops.iter().rposition(replaces);
        if from.is_none() {
            self.base.read(&edits.origin, row * edits.cols, out)?;
        }
        for (at, op) in ops.iter().enumerate().skip(from.unwrap_or(0)) {
            let start = row * edits.cols;
            match &op.change {
                Change::Whole(tensor) => op.shards.read(tensor, start, out)?,
                Change::Rows { tensor, rows } => {
                    if let Some(&row) = rows.get(&row) {
                        op.shards.read(tensor, row * edits.cols, out)?;
                    }
                }
                Change::Add { tensor, scale } => SCRATCH.with_borrow_mut(|(_, _, sum)| {
                    sum.resize(out.len(), 0.0);
                    op.shards.read(tensor, start, sum)?;
                    out.iter_mut().zip(&*sum).for_each(|(w, v)| *w += v * scale);
                    Ok::<_, ConvertError>(())
                })?,
                Change::Product(product) => {
                    self.add_product(op, product, row, out)?;
                    match &product.magnitude {
                        Some(magnitude) if with_magnitude || at + 1 < count => {
                            scale_norm(magnitude, row, out)
                        }
                        _ => {}
                    }
                }
            }
        }
        match out.iter().find(|w| !w.is_finite()) {
            None => Ok(()),
            Some(value) => {
                let path = ops.last().map_or_else(PathBuf::new, |op| op.path.clone());
                Err(ConvertError::Adapter {
                    path,
                    what: format!(
                        "makes weights of '{}' {value}: they overflow, or their norm is 0",
                        edits.origin
                    ),
                })
            }
        }
    }

    /// Adds a row of a product: its terms in the order of ranks.
    fn add_product(
        &self,
        op: &Arc<Op>,
        product: &Product,
        row: usize,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let Product { left, rank, cols, scale, .. } = product;
        let right = self.right(op, product)?;
        SCRATCH.with_borrow_mut(|(_, coefficients, sum)| {
            coefficients.resize(*rank, 0.0);
            match product.is_table {
                false => op.shards.read(left, row * rank, coefficients)?,
                true => {
                    let rows = left.len() / rank;
                    for (k, c) in coefficients.iter_mut().enumerate() {
                        op.shards.read(left, k * rows + row, std::slice::from_mut(c))?;
                    }
                }
            }
            sum.clear();
            sum.resize(*cols, 0.0);
            for (c, right) in coefficients.iter().zip(right.chunks_exact(*cols)) {
                sum.iter_mut().zip(right).for_each(|(s, v)| *s += c * v);
            }
            out.iter_mut().zip(&*sum).for_each(|(w, s)| *w += s * scale);
            Ok(())
        })
    }

    /// The factor `[rank, cols]` of a product.
    fn right(&self, op: &Arc<Op>, product: &Product) -> Result<Arc<Vec<f32>>, ConvertError> {
        let mut kept = self.merger.right.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, right)) = kept.iter().rfind(|(of, _)| Arc::ptr_eq(of, op)) {
            return Ok(right.clone());
        }
        let mut values = vec![0.0; product.right.len()];
        op.shards.read(&product.right, 0, &mut values)?;
        if product.is_table {
            let (rank, cols) = (product.rank, product.cols);
            values = (0..rank * cols).map(|i| values[i % cols * rank + i / cols]).collect();
        }
        let right = Arc::new(values);
        let bytes =
            |kept: &[Kept]| kept.iter().map(|(_, right)| right.len() * size_of::<f32>()).sum::<usize>();
        while kept.len() >= PARTS_MAX && bytes(&kept) + right.len() * size_of::<f32>() > KEPT_BYTES_MAX {
            kept.remove(0);
        }
        kept.push((op.clone(), right.clone()));
        Ok(right)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Makes the norm of a row, or those of the columns that it is part of, what DoRA says.
fn scale_norm(magnitude: &Magnitude, row: usize, out: &mut [f32]) {
    match magnitude {
        Magnitude::Rows(norms) => {
            let norm = out.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt() as f32;
            let factor = norms[row] / norm;
            out.iter_mut().for_each(|w| *w *= factor);
        }
        Magnitude::Columns { factors, .. } => {
            let factors = factors.get().expect("norms of earlier changes were computed when this was made");
            out.iter_mut().zip(factors).for_each(|(w, factor)| *w *= factor);
        }
    }
}

impl WeightSource for Adapted<'_> {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let Some(edits) = self.merger.plan.edits.get(name) else { return self.base.read(name, start, out) };
        let (cols, count) = (edits.cols, edits.ops.len());
        let mut done = 0;
        while done < out.len() {
            let (row, from) = ((start + done) / cols, (start + done) % cols);
            let n = (cols - from).min(out.len() - done);
            let part = &mut out[done..done + n];
            if n == cols {
                self.row(edits, row, count, true, part)?;
            } else {
                // A norm needs the whole row.
                let mut whole = SCRATCH.with_borrow_mut(|(row, ..)| std::mem::take(row));
                whole.resize(cols, 0.0);
                let result = self.row(edits, row, count, true, &mut whole);
                part.copy_from_slice(&whole[from..from + n]);
                SCRATCH.with_borrow_mut(|(row, ..)| *row = whole);
                result?;
            }
            done += n;
        }
        Ok(())
    }
}
