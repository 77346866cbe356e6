//! int4 with error feedback: weights are rounded one after the other, and each compensates the errors of the earlier
//! ones.
//!
//! All computations use the sixteen rows of a stripe as lanes; rows are independent of each other. Scales are chosen as
//! in [`quantize`](crate::quantize), with two differences: the error of weight k is weighted by D_k, and candidates are
//! compared by the error of a whole group or chunk, rounded with feedback, not by the errors of single weights.

use half::bf16;
use palmtop_kernels::layout::{GROUP, GROUP_SCALE_MAX, LANES, QuantizedRow};

use super::factor::{Chunk, Factor, FactorBlock};
use crate::quantize::{HIGH, LOW, exponent, inverse, power_of_two, round_clamp};

type Lanes = [f32; LANES];

/// Errors of rows that were quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Σ (w - ŵ)².
    pub of_weights: f64,
    /// Σ over all rows of inputs of (w·x - ŵ·x)², what damping adds included.
    pub of_outputs: f64,
}

/// Buffers of a thread.
#[derive(Default)]
pub struct FeedbackScratch {
    /// Weights and their errors, by position in the block.
    weights: Vec<Lanes>,
    errors: Vec<Lanes>,
    targets: Vec<Lanes>,
    trial: Trial,
    best: Trial,
}

/// Quantizes up to sixteen rows of weights, one behind the other, to int4.
pub fn quantize_stripe(
    factor: &Factor,
    rows: &[f32],
    out: &mut [QuantizedRow],
    scratch: &mut FeedbackScratch,
) -> Errors {
    let cols = factor.cols;
    let count = rows.len() / cols;
    for row in &mut out[..count] {
        row.q.clear();
        row.q.resize(cols, 0);
        row.scales.clear();
        row.group_scales.clear();
        row.group_scales.resize(cols.div_ceil(GROUP), 0);
        let chunks: usize = factor.blocks.iter().map(|b| b.chunks.len()).sum();
        row.scales.resize(chunks, bf16::ZERO);
    }
    let mut errors = Errors::default();
    for block in &factor.blocks {
        let FeedbackScratch { weights, errors: of_weights, .. } = scratch;
        load(block, rows, cols, weights);
        of_weights.clear();
        of_weights.resize(block.inputs.len(), Lanes::default());
        for chunk in &block.chunks {
            errors.of_outputs += quantize_chunk(block, chunk, &mut out[..count], scratch);
        }
        let squares = scratch.errors.iter().flatten().map(|&e| f64::from(e) * f64::from(e));
        errors.of_weights += squares.sum::<f64>();
    }
    errors
}

/// Σ over all rows of inputs of (w·x)², what damping adds included, of up to sixteen rows of weights or of errors.
pub fn output_power(factor: &Factor, rows: &[f32], scratch: &mut FeedbackScratch) -> f64 {
    let mut power = 0.0;
    for block in &factor.blocks {
        let FeedbackScratch { weights, targets, .. } = scratch;
        load(block, rows, factor.cols, weights);
        feed_back(block, 0..block.inputs.len(), weights, weights, targets, true);
        for (target, &d) in targets.iter().zip(&block.weights) {
            power += target.iter().map(|&t| f64::from(t) * f64::from(t)).sum::<f64>() * f64::from(d);
        }
    }
    power
}

/// The weights of a block by position, sixteen rows side by side; rows that are not there are zero.
fn load(block: &FactorBlock, rows: &[f32], cols: usize, weights: &mut Vec<Lanes>) {
    weights.clear();
    weights.resize(block.inputs.len(), Lanes::default());
    for (lane, row) in rows.chunks(cols).enumerate() {
        for (w, &input) in weights.iter_mut().zip(&block.inputs) {
            w[lane] = row[input];
        }
    }
}

/// What each of some positions should be: its weight, and the errors before the first of them (before itself, if
/// `each`) times their factors.
fn feed_back(
    block: &FactorBlock,
    positions: std::ops::Range<usize>,
    weights: &[Lanes],
    errors: &[Lanes],
    targets: &mut Vec<Lanes>,
    each: bool,
) {
    targets.clear();
    targets.extend_from_slice(&weights[positions.clone()]);
    const ROWS: usize = 4;
    let first = positions.start;
    for (i, targets) in targets.chunks_mut(ROWS).enumerate() {
        let p = first + i * ROWS;
        // What all of these positions follow.
        let before = if each { p } else { first };
        if let [a, b, c, d] = targets {
            let [ra, rb, rc, rd] = [0, 1, 2, 3].map(|r| &block.row(p + r)[..before]);
            for (j, e) in errors[..before].iter().enumerate() {
                for lane in 0..LANES {
                    a[lane] += ra[j] * e[lane];
                    b[lane] += rb[j] * e[lane];
                    c[lane] += rc[j] * e[lane];
                    d[lane] += rd[j] * e[lane];
                }
            }
        } else {
            for (r, t) in targets.iter_mut().enumerate() {
                for (u, e) in block.row(p + r)[..before].iter().zip(errors) {
                    add_scaled(t, *u, e);
                }
            }
        }
        if each {
            for (r, t) in targets.iter_mut().enumerate() {
                for (u, e) in block.row(p + r)[before..].iter().zip(&errors[before..]) {
                    add_scaled(t, *u, e);
                }
            }
        }
    }
}

#[inline(always)]
fn add_scaled(sum: &mut Lanes, factor: f32, x: &Lanes) {
    for lane in 0..LANES {
        sum[lane] += factor * x[lane];
    }
}

/// A chunk with a scale tried out; everything scaled by the power of two that belongs to a lane.
#[derive(Default)]
struct Trial {
    scale: Lanes,
    /// Per group, in the order of rounding.
    groups: Vec<Lanes>,
    /// Per position.
    q: Vec<Lanes>,
    errors: Vec<Lanes>,
    /// Σ D·(t - ŵ)².
    cost: Lanes,
    /// Σ D·t·(g·q) and Σ D·(g·q)²: their quotient is the scale that fits these integers best.
    moments: (Lanes, Lanes),
}

/// The largest group scale as these multiples of the chunk scale, tried one after the other. Multiples above 15 clip
/// it.
const MULTIPLES: [f32; 6] = [15.0, 15.5, 14.5, 14.0, 13.2, 12.4];
/// Group scales to try, relative to the nearest to the ideal.
const STEPS: [f32; 3] = [0.0, -1.0, 1.0];
/// Ideal group scales to try, relative to the one at which the largest weight meets the end of the grid.
const SHRINKS: [f32; 6] = [1.0, 0.94, 0.88, 0.82, 0.76, 0.7];

fn quantize_chunk(
    block: &FactorBlock,
    chunk: &Chunk,
    out: &mut [QuantizedRow],
    scratch: &mut FeedbackScratch,
) -> f64 {
    let FeedbackScratch { weights, errors, targets, trial, best } = scratch;
    let positions = chunk.positions.clone();
    feed_back(block, positions.clone(), weights, errors, targets, false);
    let (mut up, mut live) = (Lanes::default(), [false; LANES]);
    let mut down = Lanes::default();
    for lane in 0..LANES {
        let largest = targets.iter().fold(0f32, |m, t| if t[lane].abs() > m { t[lane].abs() } else { m });
        // So small that its integers would be lost in the range of bf16: zeros.
        if let Some(exponent) = exponent(&[largest]) {
            (live[lane], up[lane], down[lane]) = (true, power_of_two(exponent), power_of_two(-exponent));
        }
    }
    for t in targets.iter_mut() {
        (0..LANES).for_each(|lane| t[lane] *= down[lane]);
    }
    let scaled: Vec<Lanes> =
        weights[positions.clone()].iter().map(|w| std::array::from_fn(|lane| w[lane] * down[lane])).collect();
    let largest = largest_ideal(block, chunk, targets);
    best.reset(chunk, &scaled);
    for multiple in MULTIPLES {
        trial.scale = largest.map(|s| bf16::from_f32(s / multiple).to_f32());
        trial.run(block, chunk, targets, &scaled);
        best.take_better(trial);
    }
    let (tq, qq) = best.moments;
    trial.scale = std::array::from_fn(|lane| {
        let fitted = if qq[lane] > 0.0 { bf16::from_f32(tq[lane] / qq[lane]).to_f32() } else { 0.0 };
        if fitted > 0.0 { fitted } else { best.scale[lane] }
    });
    trial.run(block, chunk, targets, &scaled);
    best.take_better(trial);

    let mut cost = 0.0;
    for (lane, row) in out.iter_mut().enumerate() {
        let scale = if live[lane] { bf16::from_f32(best.scale[lane] * up[lane]) } else { bf16::ZERO };
        row.scales[chunk.index] = scale;
        for ((index, range), groups) in chunk.groups.iter().zip(&best.groups) {
            let group = if live[lane] { groups[lane] } else { 0.0 };
            row.group_scales[*index] = group as u8;
            for p in range.clone() {
                let q = if live[lane] { best.q[p - positions.start][lane] } else { 0.0 };
                row.q[block.inputs[p]] = q as i8;
                // What is stored, to the bit.
                errors[p][lane] = weights[p][lane] - scale.to_f32() * (group * q);
            }
        }
        let power = f64::from(up[lane]) * f64::from(up[lane]);
        cost += if live[lane] { f64::from(best.cost[lane]) * power } else { 0.0 };
    }
    cost
}

/// Of every lane the largest of its groups' ideal scales, each weight rounded for itself.
fn largest_ideal(block: &FactorBlock, chunk: &Chunk, targets: &[Lanes]) -> Lanes {
    let mut largest = Lanes::default();
    for (_, range) in &chunk.groups {
        let from = range.start - chunk.positions.start;
        let ideal = ideal_scale(&targets[from..from + range.len()], &block.weights[range.clone()]);
        for lane in 0..LANES {
            largest[lane] = if ideal[lane] > largest[lane] { ideal[lane] } else { largest[lane] };
        }
    }
    largest
}

/// The real scale of a group with the least error that a search finds, each weight rounded for itself.
fn ideal_scale(targets: &[Lanes], costs: &[f32]) -> Lanes {
    let (mut high, mut low) = (Lanes::default(), Lanes::default());
    for t in targets {
        for lane in 0..LANES {
            high[lane] = if t[lane] > high[lane] { t[lane] } else { high[lane] };
            low[lane] = if t[lane] < low[lane] { t[lane] } else { low[lane] };
        }
    }
    let mut meets = Lanes::default();
    for lane in 0..LANES {
        let (up, down) = (high[lane] * (1.0 / HIGH), low[lane] * (1.0 / LOW));
        meets[lane] = if up > down { up } else { down };
    }
    let (mut best, mut best_cost) = (Lanes::default(), [f32::INFINITY; LANES]);
    for shrink in SHRINKS {
        let scales = meets.map(|s| s * shrink);
        let inverses = scales.map(inverse);
        let mut cost = Lanes::default();
        for (t, &d) in targets.iter().zip(costs) {
            for lane in 0..LANES {
                let e = t[lane] - round_clamp(t[lane] * inverses[lane], LOW, HIGH) * scales[lane];
                cost[lane] += d * (e * e);
            }
        }
        for lane in 0..LANES {
            let better = cost[lane] < best_cost[lane];
            best[lane] = if better { scales[lane] } else { best[lane] };
            best_cost[lane] = if better { cost[lane] } else { best_cost[lane] };
        }
    }
    best
}

impl Trial {
    /// Nothing tried yet: zeros, worse than anything.
    fn reset(&mut self, chunk: &Chunk, scaled: &[Lanes]) {
        self.scale = Lanes::default();
        self.groups.clear();
        self.groups.resize(chunk.groups.len(), Lanes::default());
        self.q.clear();
        self.q.resize(scaled.len(), Lanes::default());
        self.errors.clear();
        self.errors.extend_from_slice(scaled);
        self.cost = [f32::INFINITY; LANES];
        self.moments = Default::default();
    }

    /// Rounds the chunk with this scale, group after group.
    fn run(&mut self, block: &FactorBlock, chunk: &Chunk, targets: &[Lanes], scaled: &[Lanes]) {
        let first = chunk.positions.start;
        self.groups.clear();
        self.q.clear();
        self.errors.clear();
        self.cost = Lanes::default();
        self.moments = Default::default();
        let inverses = self.scale.map(inverse);
        for (_, range) in &chunk.groups {
            let costs = &block.weights[range.clone()];
            // The errors of the chunk's groups before.
            let mut inside = [Lanes::default(); GROUP];
            let inside = &mut inside[..range.len()];
            for (t, p) in inside.iter_mut().zip(range.clone()) {
                *t = targets[p - first];
                for (u, e) in block.row(p)[first..range.start].iter().zip(&self.errors) {
                    add_scaled(t, *u, e);
                }
            }
            let ideal = ideal_scale(inside, costs);
            let mut best = GroupTrial { cost: [f32::INFINITY; LANES], ..GroupTrial::default() };
            for step in STEPS {
                let most = f32::from(GROUP_SCALE_MAX);
                let group: Lanes = std::array::from_fn(|lane| {
                    round_clamp(round_clamp(ideal[lane] * inverses[lane], 0.0, most) + step, 0.0, most)
                });
                let from = range.start - first;
                let trial = GroupTrial::run(block, range.start, inside, &scaled[from..], group, &self.scale);
                best.take_better(&trial, range.len());
            }
            self.groups.push(best.group);
            self.q.extend_from_slice(&best.q[..range.len()]);
            self.errors.extend_from_slice(&best.errors[..range.len()]);
            for lane in 0..LANES {
                self.cost[lane] += best.cost[lane];
                self.moments.0[lane] += best.group[lane] * best.moments.0[lane];
                self.moments.1[lane] += best.group[lane] * best.group[lane] * best.moments.1[lane];
            }
        }
    }

    /// Takes over the lanes in which another one costs less.
    fn take_better(&mut self, other: &Self) {
        let better: [bool; LANES] = std::array::from_fn(|lane| other.cost[lane] < self.cost[lane]);
        let take = |mine: &mut Lanes, theirs: &Lanes| blend(&better, mine, theirs);
        take(&mut self.scale, &other.scale);
        self.groups.iter_mut().zip(&other.groups).for_each(|(m, t)| take(m, t));
        self.q.iter_mut().zip(&other.q).for_each(|(m, t)| take(m, t));
        self.errors.iter_mut().zip(&other.errors).for_each(|(m, t)| take(m, t));
        take(&mut self.cost, &other.cost);
        take(&mut self.moments.0, &other.moments.0);
        take(&mut self.moments.1, &other.moments.1);
    }
}

#[inline(always)]
fn blend(better: &[bool; LANES], mine: &mut Lanes, theirs: &Lanes) {
    for lane in 0..LANES {
        mine[lane] = if better[lane] { theirs[lane] } else { mine[lane] };
    }
}

/// A group with its scales tried out.
#[derive(Default)]
struct GroupTrial {
    group: Lanes,
    q: [Lanes; GROUP],
    errors: [Lanes; GROUP],
    cost: Lanes,
    /// Σ D·t·q and Σ D·q².
    moments: (Lanes, Lanes),
}

impl GroupTrial {
    /// Rounds a group one position after the other, with feedback among them.
    #[inline(always)]
    fn run(
        block: &FactorBlock,
        first: usize,
        targets: &[Lanes],
        scaled: &[Lanes],
        group: Lanes,
        scale: &Lanes,
    ) -> Self {
        let mut trial = Self { group, ..Self::default() };
        let steps: Lanes = std::array::from_fn(|lane| group[lane] * scale[lane]);
        let inverses = steps.map(inverse);
        for (i, target) in targets.iter().enumerate() {
            let mut t = *target;
            for (u, e) in block.row(first + i)[first..].iter().zip(&trial.errors) {
                add_scaled(&mut t, *u, e);
            }
            let d = block.weights[first + i];
            let (q, errors) = (&mut trial.q[i], &mut trial.errors[i]);
            for lane in 0..LANES {
                q[lane] = round_clamp(t[lane] * inverses[lane], LOW, HIGH);
                let stored = q[lane] * steps[lane];
                errors[lane] = scaled[i][lane] - stored;
                let off = t[lane] - stored;
                trial.cost[lane] += d * (off * off);
                trial.moments.0[lane] += d * (t[lane] * q[lane]);
                trial.moments.1[lane] += d * (q[lane] * q[lane]);
            }
        }
        trial
    }

    /// Takes over the lanes in which another one of so many positions costs less.
    #[inline(always)]
    fn take_better(&mut self, other: &Self, positions: usize) {
        let better: [bool; LANES] = std::array::from_fn(|lane| other.cost[lane] < self.cost[lane]);
        blend(&better, &mut self.group, &other.group);
        for i in 0..positions {
            blend(&better, &mut self.q[i], &other.q[i]);
            blend(&better, &mut self.errors[i], &other.errors[i]);
        }
        blend(&better, &mut self.cost, &other.cost);
        blend(&better, &mut self.moments.0, &other.moments.0);
        blend(&better, &mut self.moments.1, &other.moments.1);
    }
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
