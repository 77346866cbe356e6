use palmtop_kernels::Kernels;
use palmtop_kernels::layout::{WeightFormat, chunk_of};

use super::super::moments::Moments;
use super::*;
use crate::quantize::{quantize_row, stored};
use crate::synthetic::normal;

/// Inputs as layers have them: a few directions that most of the variance lies in, some inputs far larger than the
/// others, and noise.
pub fn inputs(cols: usize, rows: usize, directions: usize) -> Vec<f32> {
    (0..cols * rows)
        .map(|i| {
            let (m, k) = ((i / cols) as u64, (i % cols) as u64);
            let common: f32 =
                (0..directions as u64).map(|d| normal(10 + d, m) * normal(50 + d, k) * 2.0).sum();
            (common + normal(3, i as u64)) * if k.is_multiple_of(29) { 8.0 } else { 1.0 }
        })
        .collect()
}

fn weights(cols: usize, rows: usize) -> Vec<f32> {
    (0..cols * rows).map(|i| 0.02 * normal(4, i as u64)).collect()
}

fn factor(cols: usize, x: &[f32]) -> Factor {
    let kernels = Kernels::select().unwrap();
    let mut moments = Moments::new(cols);
    moments.add(&kernels, x);
    Factor::new(cols, &moments.finish(&kernels)).unwrap()
}

fn quantize(factor: &Factor, w: &[f32]) -> (Vec<QuantizedRow>, Errors) {
    let mut out = vec![QuantizedRow::default(); w.len() / factor.cols];
    let mut errors = Errors::default();
    let mut scratch = FeedbackScratch::default();
    for (w, out) in w.chunks(LANES * factor.cols).zip(out.chunks_mut(LANES)) {
        let of_stripe = quantize_stripe(factor, w, out, &mut scratch);
        errors.of_weights += of_stripe.of_weights;
        errors.of_outputs += of_stripe.of_outputs;
    }
    (out, errors)
}

fn plain(cols: usize, w: &[f32]) -> Vec<QuantizedRow> {
    w.chunks(cols)
        .map(|w| {
            let mut row = QuantizedRow::default();
            quantize_row(WeightFormat::Int4, w, &mut row);
            row
        })
        .collect()
}

/// Σ over rows of inputs and of weights of (w·x - ŵ·x)².
fn output_error(x: &[f32], w: &[f32], rows: &[QuantizedRow]) -> f64 {
    let cols = rows[0].q.len();
    let errors: Vec<Vec<f64>> = w
        .chunks(cols)
        .zip(rows)
        .map(|(w, row)| w.iter().zip(stored(row)).map(|(w, s)| f64::from(*w) - f64::from(s)).collect())
        .collect();
    let of = |x: &[f32]| -> f64 {
        let dot = |e: &Vec<f64>| e.iter().zip(x).map(|(e, &x)| e * f64::from(x)).sum::<f64>();
        errors.iter().map(|e| dot(e).powi(2)).sum()
    };
    x.chunks(cols).map(of).sum()
}

/// GPTQ as it is usually written: all later weights are corrected by the inverse of H, from which each rounded input is
/// then eliminated. f64 throughout; scales as they were found.
fn reference(factor: &Factor, x: &[f32], w: &[f32], found: &QuantizedRow) -> Vec<f64> {
    let cols = factor.cols;
    let order = &factor.blocks[0].inputs;
    let mut h = vec![vec![0f64; cols]; cols];
    for x in x.chunks(cols) {
        for (i, row) in h.iter_mut().enumerate() {
            for (j, h) in row.iter_mut().enumerate() {
                *h += f64::from(x[order[i]]) * f64::from(x[order[j]]);
            }
        }
    }
    let damping = 0.01 * (0..cols).map(|i| h[i][i]).sum::<f64>() / cols as f64;
    (0..cols).for_each(|i| h[i][i] += damping);
    let mut inverse = invert(h);
    let mut w: Vec<f64> = order.iter().map(|&k| f64::from(w[k])).collect();
    let mut q = vec![0.0; cols];
    for i in 0..cols {
        let k = order[i];
        let step =
            f64::from(found.scales[k / chunk_of(cols)].to_f32()) * f64::from(found.group_scales[k / GROUP]);
        let rounded = if step > 0.0 { (w[i] / step).round_ties_even().clamp(-8.0, 7.0) } else { 0.0 };
        q[k] = rounded;
        let error = (w[i] - rounded * step) / inverse[i][i];
        (i + 1..cols).for_each(|j| w[j] -= error * inverse[i][j]);
        let pivot = inverse[i].clone();
        for a in i + 1..cols {
            for b in i + 1..cols {
                inverse[a][b] -= pivot[a] * pivot[b] / pivot[i];
            }
        }
    }
    q
}

/// Gauss and Jordan.
fn invert(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut inverse: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    for i in 0..n {
        let pivot = a[i][i];
        for m in [&mut a, &mut inverse] {
            m[i].iter_mut().for_each(|v| *v /= pivot);
        }
        for r in (0..n).filter(|&r| r != i) {
            let factor = a[r][i];
            for m in [&mut a, &mut inverse] {
                let row = m[i].clone();
                m[r].iter_mut().zip(row).for_each(|(v, x)| *v -= factor * x);
            }
        }
    }
    inverse
}

#[test]
fn integers_are_those_of_gptq_with_the_same_scales() {
    for cols in [32, 45, 150] {
        let (x, w) = (inputs(cols, 400, 3), weights(cols, 20));
        let factor = factor(cols, &x);
        let (rows, _) = quantize(&factor, &w);
        let mut different = 0;
        for (w, row) in w.chunks(cols).zip(&rows) {
            let want = reference(&factor, &x, w, row);
            // Once one is rounded the other way, all behind it may be.
            different += usize::from(row.q.iter().zip(&want).any(|(&q, &want)| f64::from(q) != want));
        }
        assert!(different <= 1, "{different} of 20 rows differ at {cols} inputs");
    }
}

#[test]
fn the_error_told_is_that_of_the_outputs() {
    let (cols, rows) = (600, 21);
    let (x, w) = (inputs(cols, 700, 4), weights(cols, rows));
    let factor = factor(cols, &x);
    let (quantized, told) = quantize(&factor, &w);
    let found: f64 = w
        .chunks(cols)
        .zip(&quantized)
        .map(|(w, q)| w.iter().zip(stored(q)).map(|(w, s)| f64::from(w - s).powi(2)).sum::<f64>())
        .sum();
    assert!((told.of_weights - found).abs() < 1e-4 * found, "{} and {found}", told.of_weights);
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / cols as f64;
    let damped = output_error(&x, &w, &quantized) + 0.01 * mean * found;
    assert!((told.of_outputs - damped).abs() < 2e-3 * damped, "{} and {damped}", told.of_outputs);
    // The same from the errors themselves, and the power of the outputs.
    let errors: Vec<f32> = w
        .chunks(cols)
        .zip(&quantized)
        .flat_map(|(w, q)| w.iter().zip(stored(q)).map(|(w, s)| w - s).collect::<Vec<_>>())
        .collect();
    let mut scratch = FeedbackScratch::default();
    let mut power =
        |rows: &[f32]| rows.chunks(LANES * cols).map(|r| output_power(&factor, r, &mut scratch)).sum::<f64>();
    assert!((power(&errors) - damped).abs() < 2e-3 * damped);
    let nothing =
        vec![QuantizedRow { q: vec![0; cols], scales: vec![bf16::ZERO; 3], group_scales: vec![0; 38] }; rows];
    let squares = w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
    let want = output_error(&x, &w, &nothing) + 0.01 * mean * squares;
    assert!((power(&w) - want).abs() < 1e-3 * want);
}

/// What error feedback is for: inputs that depend on each other.
#[test]
fn feedback_beats_rounding_where_inputs_depend_on_each_other() {
    for (cols, directions, most) in [(96, 4, 0.1), (512, 8, 0.1), (768, 8, 0.1), (256, 0, 0.75)] {
        let (x, w) = (inputs(cols, 1500, directions), weights(cols, 32));
        let (rows, _) = quantize(&factor(cols, &x), &w);
        let (calibrated, plain) = (output_error(&x, &w, &rows), output_error(&x, &w, &plain(cols, &w)));
        println!(
            "{cols} inputs, {directions} directions: squared error {:.3} of plain rounding's",
            calibrated / plain
        );
        assert!(calibrated < most * plain, "{cols} {directions}: {calibrated} and {plain}");
        // It holds on inputs that it has not seen.
        let unseen = &inputs(cols, 3000, directions)[1500 * cols..];
        let (calibrated, plain) =
            (output_error(unseen, &w, &rows), output_error(unseen, &w, &self::plain(cols, &w)));
        println!("  on others {:.3}", calibrated / plain);
        assert!(
            calibrated < (most + 1.0) / 2.0 * plain,
            "{cols} {directions}, unseen: {calibrated} and {plain}"
        );
    }
}

#[test]
fn all_weights_and_inputs_are_taken() {
    let cols = 70;
    let quiet = vec![0.0; cols * 10];
    let mut one = quiet.clone();
    one[3] = 1e18;
    for x in [&quiet, &one, &inputs(cols, 1, 1)] {
        let factor = factor(cols, x);
        for scale in [0.0, 1e-44, 1e-30, 1.0, 1e30, 3e38] {
            let mut w: Vec<f32> = (0..3 * cols).map(|i| normal(9, i as u64) * 0.2 * scale).collect();
            w[cols..2 * cols].fill(0.0);
            w[2 * cols] = f32::MAX;
            let (rows, errors) = quantize(&factor, &w);
            assert!(errors.of_weights.is_finite() && !errors.of_outputs.is_nan());
            for row in &rows {
                assert!(row.q.iter().all(|q| (-8..=7).contains(q)));
                assert!(row.group_scales.iter().all(|&g| g <= GROUP_SCALE_MAX));
                assert!(row.scales.iter().all(|s| s.is_finite() && *s >= bf16::ZERO));
                assert!(stored(row).all(|v| v.is_finite()), "{scale}");
            }
            assert!(stored(&rows[1]).all(|v| v == 0.0));
        }
    }
}

/// Without anything known of the inputs, rounding is as good as without calibration.
#[test]
fn without_inputs_weights_are_as_near_as_by_plain_rounding() {
    let (cols, w) = (512, weights(512, 32));
    let factor = factor(cols, &vec![0.0; cols]);
    let (_, errors) = quantize(&factor, &w);
    let mut row = QuantizedRow::default();
    let plain: f64 = w.chunks(cols).map(|w| quantize_row(WeightFormat::Int4, w, &mut row)).sum();
    assert!(errors.of_weights < 1.02 * plain, "{} and {plain}", errors.of_weights);
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let (cols, w) = (300, weights(300, 40));
    let factor = factor(cols, &inputs(cols, 500, 3));
    let (all, _) = quantize(&factor, &w);
    let (some, _) = quantize(&factor, &w[7 * cols..20 * cols]);
    for (a, b) in all[7..20].iter().zip(&some) {
        assert_eq!((&a.q, &a.scales, &a.group_scales), (&b.q, &b.scales, &b.group_scales));
    }
}
