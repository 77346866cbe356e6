//! H = U·D·Uᵀ, the form in which error feedback needs second moments: U is upper triangular with ones on the diagonal.
//!
//! If weights w are rounded to ŵ, the error of an output is (w - ŵ)·H·(w - ŵ)ᵀ = Σ_k D_k·(t_k - ŵ_k)², where
//! t_k = w_k + Σ_{j<k} (w_j - ŵ_j)·U_jk. If weights are rounded one after the other, t_k is the target of weight k: it
//! compensates all earlier errors as far as this weight can. (This is LDLQ of QuIP, Chee and others 2023. They show
//! that GPTQ, Frantar and others 2022, does the same.)

use palmtop_kernels::layout::{GROUP, chunk_of};
use rayon::prelude::*;

use super::moments::MomentBlock;

/// This share of the mean of H's diagonal is added to all of it: inputs that never vary have an inverse too, and what a
/// few examples show is not believed to the last digit.
const DAMPING: f64 = 0.01;
/// Positions that are eliminated together.
const PANEL: usize = 64;

/// The factors of a matrix's second moments.
pub struct Factor {
    pub cols: usize,
    pub blocks: Vec<FactorBlock>,
}

/// The factors of a block. Positions count from the block's first one in the order of rounding.
pub struct FactorBlock {
    /// Which input stands at each position.
    pub inputs: Vec<usize>,
    /// Row p holds U_jp at j < p; `positions` values a row.
    pub rows: Vec<f32>,
    /// D.
    pub weights: Vec<f32>,
    /// Chunks of the layout, in the order of rounding.
    pub chunks: Vec<Chunk>,
}

/// Positions of a chunk, and of its groups in the order of rounding.
pub struct Chunk {
    pub index: usize,
    pub positions: std::ops::Range<usize>,
    pub groups: Vec<(usize, std::ops::Range<usize>)>,
}

impl Factor {
    /// Factorizes; `None` if sums are not finite.
    pub fn new(cols: usize, blocks: &[MomentBlock]) -> Option<Self> {
        let blocks = blocks.iter().map(|b| FactorBlock::new(cols, b)).collect::<Option<_>>()?;
        Some(Self { cols, blocks })
    }
}

impl FactorBlock {
    fn new(cols: usize, block: &MomentBlock) -> Option<Self> {
        let n = block.inputs.len();
        let power = |input: usize| f64::from(block.sums[(input - block.inputs.start) * (n + 1)]);
        let mean = block.inputs.clone().map(power).sum::<f64>() / n as f64;
        if !mean.is_finite() {
            return None;
        }
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        let (inputs, chunks) = order(cols, block.inputs.clone(), power);
        let mut a = vec![0f64; n * n];
        for (p, row) in a.chunks_mut(n).enumerate() {
            for (q, a) in row[..=p].iter_mut().enumerate() {
                let [i, j] = [inputs[p], inputs[q]].map(|input| input - block.inputs.start);
                *a = f64::from(block.sums[i.max(j) * n + i.min(j)]);
            }
            row[p] += damping;
        }
        let weights = factorize(&mut a, n, damping);
        let rows = a.iter().map(|&u| u as f32).collect::<Vec<_>>();
        let weights: Vec<f32> = weights.iter().map(|&d| d as f32).collect();
        let finite = rows.iter().chain(&weights).all(|u| u.is_finite());
        finite.then_some(Self { inputs, rows, weights, chunks })
    }

    /// U_jp for all j < p.
    pub fn row(&self, p: usize) -> &[f32] {
        &self.rows[p * self.inputs.len()..][..p]
    }
}

/// The order of rounding: the inputs of most power first, since more is left to make their errors good. Groups stay
/// together, and in their chunks, as their scales are chosen together.
fn order(
    cols: usize,
    inputs: std::ops::Range<usize>,
    power: impl Fn(usize) -> f64,
) -> (Vec<usize>, Vec<Chunk>) {
    let by_power = |parts: &mut Vec<Vec<usize>>| {
        let of_part =
            |part: &Vec<usize>| part.iter().map(|&input| power(input)).sum::<f64>() / part.len() as f64;
        // Stable, so that equal ones stay in their order.
        parts.sort_by(|a, b| of_part(b).total_cmp(&of_part(a)));
    };
    let cut = |all: &[usize], size: usize| all.chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>();
    let mut order = Vec::with_capacity(inputs.len());
    let mut chunks = cut(&inputs.collect::<Vec<_>>(), chunk_of(cols));
    by_power(&mut chunks);
    let placed = chunks.into_iter().map(|chunk| {
        let (first, index) = (order.len(), chunk[0] / chunk_of(cols));
        let mut groups = cut(&chunk, GROUP);
        by_power(&mut groups);
        let groups = groups.into_iter().map(|group| {
            let (first, index) = (order.len(), group[0] / GROUP);
            let mut inputs = cut(&group, 1);
            by_power(&mut inputs);
            order.extend(inputs.into_iter().flatten());
            (index, first..order.len())
        });
        let groups = groups.collect();
        Chunk { index, positions: first..order.len(), groups }
    });
    let placed = placed.collect();
    (order, placed)
}

/// Replaces the lower triangle of the symmetric `a` (n × n) by the rows of U below each other, U_jp at row p and column
/// j, and gives D. No D can be below what was added to the diagonal, `least`, but for rounding.
fn factorize(a: &mut [f64], n: usize, least: f64) -> Vec<f64> {
    let mut weights = vec![0f64; n];
    let mut end = n;
    while end > 0 {
        let start = end.saturating_sub(PANEL);
        let (above, panel) = a.split_at_mut(start * n);
        let panel = &mut panel[..(end - start) * n];
        // Inside of the panel, last position first.
        for p in (start..end).rev() {
            let (rows, row) = panel.split_at_mut((p - start) * n);
            let row = &mut row[..n];
            let d = row[p].max(least);
            weights[p] = d;
            row[..p].iter_mut().for_each(|u| *u /= d);
            for (i, other) in rows.chunks_mut(n).enumerate() {
                let factor = row[start + i] * d;
                other[..=start + i].iter_mut().zip(&*row).for_each(|(o, u)| *o -= factor * u);
            }
        }
        // What is above sees the whole panel at once, always in the same order.
        let (panel, weights) = (&*panel, &weights);
        above.par_chunks_mut(n).enumerate().for_each(|(i, other)| {
            let other = &mut other[..=i];
            let factor = |p: usize, row: &[f64]| row[i] * weights[p];
            let mut p = start;
            let mut rows = panel.chunks(4 * n);
            for four in &mut rows {
                let mut four = four.chunks(n);
                match [four.next(), four.next(), four.next(), four.next()] {
                    [Some(a), Some(b), Some(c), Some(d)] => {
                        let f = [factor(p, a), factor(p + 1, b), factor(p + 2, c), factor(p + 3, d)];
                        let [a, b, c, d] = [a, b, c, d].map(|row| &row[..=i]);
                        for (j, o) in other.iter_mut().enumerate() {
                            *o -= (f[0] * a[j] + f[1] * b[j]) + (f[2] * c[j] + f[3] * d[j]);
                        }
                        p += 4;
                    }
                    some => {
                        for row in some.into_iter().flatten() {
                            let f = factor(p, row);
                            other.iter_mut().zip(row).for_each(|(o, u)| *o -= f * u);
                            p += 1;
                        }
                    }
                }
            }
        });
        end = start;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::normal;

    /// Sums of rows that depend on each other, as a block.
    pub fn moments(cols: usize, rows: usize) -> MomentBlock {
        let x: Vec<f64> = (0..cols * rows)
            .map(|i| {
                let (m, k) = ((i / cols) as u64, (i % cols) as u64);
                f64::from(normal(1, m)) + f64::from(normal(2, m * 1000 + k)) * (1.0 + (k % 5) as f64)
            })
            .collect();
        let sums = (0..cols * cols)
            .map(|i| (0..rows).map(|m| x[m * cols + i / cols] * x[m * cols + i % cols]).sum::<f64>() as f32);
        MomentBlock { inputs: 0..cols, sums: sums.collect() }
    }

    #[test]
    fn factors_multiply_to_what_they_are_made_of() {
        for n in [1, 2, 63, 64, 65, 150] {
            let block = moments(n, 40);
            let sums = block.sums.clone();
            let mean = (0..n).map(|i| f64::from(sums[i * (n + 1)])).sum::<f64>() / n as f64;
            let factor = FactorBlock::new(n, &block).unwrap();
            let u = |j: usize, k: usize| match j.cmp(&k) {
                std::cmp::Ordering::Less => f64::from(factor.row(k)[j]),
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Greater => 0.0,
            };
            for i in 0..n {
                for j in 0..=i {
                    let product = |k: usize| u(i, k) * f64::from(factor.weights[k]) * u(j, k);
                    let got: f64 = (0..n).map(product).sum();
                    let at = [factor.inputs[i], factor.inputs[j]];
                    let want = f64::from(sums[at[0] * n + at[1]]) + if i == j { 0.01 * mean } else { 0.0 };
                    assert!((got - want).abs() < 1e-4 * mean, "{n}: {got} at {i}, {j}, not {want}");
                }
            }
        }
    }

    #[test]
    fn inputs_that_are_always_zero_have_factors_too() {
        let zeros = MomentBlock { inputs: 0..20, sums: vec![0.0; 400] };
        let factor = FactorBlock::new(20, &zeros).unwrap();
        assert!(factor.weights.iter().all(|&d| d > 0.0));
        let mut block = moments(20, 40);
        for i in 0..20 {
            (block.sums[7 * 20 + i], block.sums[i * 20 + 7]) = (0.0, 0.0);
        }
        let factor = FactorBlock::new(20, &block).unwrap();
        assert!(factor.weights.iter().all(|&d| d > 0.0) && factor.rows.iter().all(|u| u.is_finite()));
    }

    #[test]
    fn sums_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 3 * 20 + 1] {
                let mut block = moments(20, 5);
                block.sums[at] = bad;
                assert!(FactorBlock::new(20, &block).is_none());
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let make = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| FactorBlock::new(150, &moments(150, 60)).unwrap().rows)
        };
        assert_eq!(make(1), make(3));
    }
}
