//! Quantizes rows of f32 to integers and scales; a search chooses them for a small squared error.
//!
//! A chunk of at most 256 weights is handled as sixteen lanes of sixteen values. For int4 a lane is a group, so the
//! search tries candidates for sixteen group scales at once. Sums over a chunk have one fixed order, so the result
//! depends only on the weights, not on the machine or the number of threads.

use half::bf16;
use palmtop_kernels::layout::{
    CHUNK_MAX, GROUP, GROUP_SCALE_MAX, LANES, QuantizedRow, WeightFormat, chunk_of,
};

type Lanes = [f32; LANES];
/// A chunk: value `k` of lane `j` at `[k][j]`, scaled by a power of two so that its largest magnitude is in
/// 1..2. Squares then neither overflow nor vanish, and the scale found is exact when scaled back.
type Block = [Lanes; CHUNK_MAX / LANES];

const _: () = assert!(CHUNK_MAX == LANES * GROUP, "an int4 group is a lane");

/// Quantizes a row to int8 or int4 and gives the sum of its squared errors.
///
/// # Panics
/// If `format` is no integer format: the caller's mistake.
pub fn quantize_row(format: WeightFormat, row: &[f32], out: &mut QuantizedRow) -> f64 {
    assert!(format.is_integer());
    out.q.clear();
    out.scales.clear();
    out.group_scales.clear();
    out.q.resize(row.len(), 0);
    let (mut squared_error, chunk) = (0.0, chunk_of(row.len()));
    for (weights, q) in row.chunks(chunk).zip(out.q.chunks_mut(chunk)) {
        let exponent = exponent(weights);
        let Some(exponent) = exponent else {
            // So small that its integers would be lost in the range of bf16: zeros.
            squared_error += weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
            out.scales.push(bf16::ZERO);
            if format == WeightFormat::Int4 {
                out.group_scales.extend(std::iter::repeat_n(0, weights.len().div_ceil(GROUP)));
            }
            continue;
        };
        let (down, up) = (power_of_two(-exponent), power_of_two(exponent));
        let (scale, error) = if format == WeightFormat::Int8 {
            let block = load_int8(weights, down);
            let (scale, error) = int8_scale(&block);
            for (q, &w) in q.iter_mut().zip(weights) {
                *q = round_clamp(w * down * (1.0 / scale), -127.0, 127.0) as i8;
            }
            (scale, error)
        } else {
            let block = load_int4(weights, down);
            let (scale, groups, error) = int4_scales(&block);
            for (j, (q, w)) in q.chunks_mut(GROUP).zip(weights.chunks(GROUP)).enumerate() {
                let inverse = inverse(scale * groups[j]);
                for (q, &w) in q.iter_mut().zip(w) {
                    *q = round_clamp(w * down * inverse, -8.0, 7.0) as i8;
                }
                out.group_scales.push(groups[j] as u8);
            }
            (scale, error)
        };
        out.scales.push(bf16::from_f32(scale * up));
        squared_error += f64::from(error) * f64::from(up) * f64::from(up);
    }
    squared_error
}

/// The weights that a row of integers and scales stands for.
pub(crate) fn stored(row: &QuantizedRow) -> impl Iterator<Item = f32> {
    let chunk = chunk_of(row.q.len());
    row.q.iter().enumerate().map(move |(k, &q)| {
        let group = row.group_scales.get(k / GROUP).map_or(1, |&g| i16::from(g));
        row.scales[k / chunk].to_f32() * f32::from(i16::from(q) * group)
    })
}

/// The exponent of the largest magnitude, kept where both it and its negative are normal; `None` below.
pub(crate) fn exponent(weights: &[f32]) -> Option<i32> {
    const LEAST: i32 = -90;
    const MOST: i32 = 120;
    let largest = weights.iter().fold(0u32, |m, w| m.max(w.to_bits() & 0x7fff_ffff));
    let exponent = (largest >> 23) as i32 - 127;
    (exponent >= LEAST).then_some(exponent.min(MOST))
}

pub(crate) fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

fn load_int8(weights: &[f32], down: f32) -> Block {
    let mut block = Block::default();
    for (lanes, w) in block.iter_mut().zip(weights.chunks(LANES)) {
        for (b, w) in lanes.iter_mut().zip(w) {
            *b = w * down;
        }
    }
    block
}

/// The same, transposed: lane `j` is group `j`.
fn load_int4(weights: &[f32], down: f32) -> Block {
    let mut block = Block::default();
    for (j, group) in weights.chunks(GROUP).enumerate() {
        for (lanes, w) in block.iter_mut().zip(group) {
            lanes[j] = w * down;
        }
    }
    block
}

/// Rounds to the nearest integer, ties to even, of magnitude below 2²², then clamps. Unlike `round_ties_even`
/// this needs no instruction beyond those of every x86-64.
#[inline(always)]
pub(crate) fn round_clamp(x: f32, low: f32, high: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³: at this size the last bit of an f32 is one
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + SHIFT) - SHIFT
}

#[inline(always)]
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The sum over a chunk in one fixed order.
#[inline(always)]
fn sum(lanes: &Lanes) -> f32 {
    let mut lanes = *lanes;
    let mut n = LANES / 2;
    while n > 0 {
        for j in 0..n {
            lanes[j] += lanes[j + n];
        }
        n /= 2;
    }
    lanes[0]
}

/// Squared errors per lane if lane `j` has the scale `scales[j]`.
#[inline(always)]
fn errors(block: &Block, scales: &Lanes, low: f32, high: f32) -> Lanes {
    let mut inverses = Lanes::default();
    for j in 0..LANES {
        inverses[j] = inverse(scales[j]);
    }
    let mut out = Lanes::default();
    for lanes in block {
        for j in 0..LANES {
            let d = lanes[j] - round_clamp(lanes[j] * inverses[j], low, high) * scales[j];
            out[j] += d * d;
        }
    }
    out
}

/// Per lane `Σ w·q` and `Σ q²` for the integers that these scales give; their quotient is the scale that
/// fits those integers best.
#[inline(always)]
fn moments(block: &Block, scales: &Lanes, low: f32, high: f32) -> (Lanes, Lanes) {
    let mut inverses = Lanes::default();
    for j in 0..LANES {
        inverses[j] = inverse(scales[j]);
    }
    let (mut wq, mut qq) = (Lanes::default(), Lanes::default());
    for lanes in block {
        for j in 0..LANES {
            let q = round_clamp(lanes[j] * inverses[j], low, high);
            wq[j] += lanes[j] * q;
            qq[j] += q * q;
        }
    }
    (wq, qq)
}

/// The bf16 scale of an int8 chunk, and its squared error.
///
/// With 127 steps, clipping the largest weight soon costs more than a finer grid gains, so the best scale is
/// within a few steps of bf16 from the one that maps the largest magnitude to 127.
fn int8_scale(block: &Block) -> (f32, f32) {
    let mut largest = 0f32;
    for w in block.iter().flatten() {
        largest = if w.abs() > largest { w.abs() } else { largest };
    }
    let middle = bf16::from_f32(largest / 127.0).to_bits();
    let mut best = (0.0, f32::INFINITY);
    for bits in (middle - 3..=middle + 1).rev() {
        let scale = bf16::from_bits(bits).to_f32();
        let error = sum(&errors(block, &[scale; LANES], -127.0, 127.0));
        if error < best.1 {
            best = (scale, error);
        }
    }
    best
}

pub(crate) const LOW: f32 = -8.0;
pub(crate) const HIGH: f32 = 7.0;
/// Group scales to try, relative to the nearest to the ideal: to compare chunk scales, and at the end.
const NARROW: [f32; 3] = [0.0, -1.0, 1.0];
const WIDE: [f32; 7] = [0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0];

/// The bf16 scale of an int4 chunk, its group scales (0..=15), and its squared error.
///
/// First every group's own best real scale, then the chunk scale whose multiples come closest to all of them,
/// fitted again by least squares for the integers it leads to.
fn int4_scales(block: &Block) -> (f32, Lanes, f32) {
    let ideal = ideal_group_scales(block);
    let largest = ideal.iter().fold(0f32, |m, &s| if s > m { s } else { m });
    let mut best = (0.0, Lanes::default(), f32::INFINITY);
    // The largest group scale as this multiple of the chunk scale. Multiples above 15 clip it.
    for multiple in [15.0, 15.5, 14.5, 14.0, 13.4, 12.8, 12.2] {
        let scale = bf16::from_f32(largest / multiple).to_f32();
        let (groups, error) = group_scales(block, scale, &ideal, &NARROW);
        if error < best.2 {
            best = (scale, groups, error);
        }
    }
    // Fitted once more, and with group scales further from their ideals, at this one chunk scale only.
    let fitted = refit(block, best.0, &best.1);
    for scale in fitted.into_iter().chain([best.0]) {
        let (groups, error) = group_scales(block, scale, &ideal, &WIDE);
        if error < best.2 {
            best = (scale, groups, error);
        }
    }
    best
}

/// For each group the real scale with the least squared error that a search finds.
fn ideal_group_scales(block: &Block) -> Lanes {
    let (mut high, mut low) = (Lanes::default(), Lanes::default());
    for lanes in block {
        for j in 0..LANES {
            high[j] = if lanes[j] > high[j] { lanes[j] } else { high[j] };
            low[j] = if lanes[j] < low[j] { lanes[j] } else { low[j] };
        }
    }
    let (mut best, mut best_error) = (Lanes::default(), [f32::INFINITY; LANES]);
    // Relative to the scale at which the largest weight meets the end of the grid.
    for factor in [1.06, 1.0, 0.94, 0.88, 0.82, 0.76, 0.7] {
        let mut scales = Lanes::default();
        for j in 0..LANES {
            let (up, down) = (high[j] * (1.0 / HIGH), low[j] * (1.0 / LOW));
            scales[j] = factor * if up > down { up } else { down };
        }
        let error = errors(block, &scales, LOW, HIGH);
        for j in 0..LANES {
            let better = error[j] < best_error[j];
            best[j] = if better { scales[j] } else { best[j] };
            best_error[j] = if better { error[j] } else { best_error[j] };
        }
    }
    let (wq, qq) = moments(block, &best, LOW, HIGH);
    for j in 0..LANES {
        best[j] = if qq[j] > 0.0 { wq[j] / qq[j] } else { 0.0 };
    }
    best
}

/// The best multiples of a chunk scale, so many steps from each ideal, and the error of the chunk.
fn group_scales(block: &Block, scale: f32, ideal: &Lanes, steps: &[f32]) -> (Lanes, f32) {
    let most = f32::from(GROUP_SCALE_MAX);
    let inverse = inverse(scale);
    let (mut best, mut best_error) = (Lanes::default(), [f32::INFINITY; LANES]);
    for &step in steps {
        let (mut groups, mut scales) = (Lanes::default(), Lanes::default());
        for j in 0..LANES {
            groups[j] = round_clamp(round_clamp(ideal[j] * inverse, 0.0, most) + step, 0.0, most);
            scales[j] = groups[j] * scale;
        }
        let error = errors(block, &scales, LOW, HIGH);
        for j in 0..LANES {
            let better = error[j] < best_error[j];
            best[j] = if better { groups[j] } else { best[j] };
            best_error[j] = if better { error[j] } else { best_error[j] };
        }
    }
    (best, sum(&best_error))
}

/// The chunk scale that fits the integers best to which this one leads, in bf16.
fn refit(block: &Block, scale: f32, groups: &Lanes) -> Option<f32> {
    let mut scales = Lanes::default();
    for j in 0..LANES {
        scales[j] = scale * groups[j];
    }
    let (mut wq, mut qq) = moments(block, &scales, LOW, HIGH);
    for j in 0..LANES {
        wq[j] *= groups[j];
        qq[j] *= groups[j] * groups[j];
    }
    let qq = sum(&qq);
    (qq > 0.0).then(|| bf16::from_f32(sum(&wq) / qq).to_f32()).filter(|&s| s > 0.0)
}

#[cfg(test)]
#[path = "quantize_tests.rs"]
mod tests;
