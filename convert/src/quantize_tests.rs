use super::*;
use crate::synthetic::normal;

/// What the search has to beat: one scale per chunk from the largest magnitude (int8), and per group of 16
/// from the largest magnitude (int4), with real scales that cost nothing.
fn absmax_error(format: WeightFormat, row: &[f32]) -> f64 {
    let (group, most) =
        if format == WeightFormat::Int8 { (chunk_of(row.len()), 127.0) } else { (GROUP, 7.0) };
    row.chunks(group).map(|g| grid_error(g, g.iter().fold(0f32, |m, w| m.max(w.abs())) / most, most)).sum()
}

/// ggml's Q4_0: groups of 32, an f16 scale that maps the largest magnitude, with its sign, to -8.
fn q4_0_error(row: &[f32]) -> f64 {
    row.chunks(32)
        .map(|g| {
            let extreme = g.iter().fold(0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
            let scale = half::f16::from_f32(extreme / -8.0).to_f32();
            let one = |&w: &f32| {
                let q = (w / (extreme / -8.0) + 8.5).floor().clamp(0.0, 15.0) - 8.0;
                f64::from(w - q * scale).powi(2)
            };
            g.iter().map(one).sum::<f64>()
        })
        .sum()
}

fn grid_error(g: &[f32], scale: f32, most: f32) -> f64 {
    let one = |&w: &f32| f64::from(w - (w / scale).round().clamp(-most, most) * scale).powi(2);
    if scale > 0.0 { g.iter().map(one).sum() } else { 0.0 }
}

/// Light tails, heavy tails (products of normals), and a few outliers as in real layers.
fn samples() -> [(&'static str, Vec<f32>); 3] {
    let n = 1 << 15;
    let light: Vec<f32> = (0..n).map(|i| 0.02 * normal(1, i)).collect();
    let heavy = (0..n).map(|i| 0.02 * normal(2, i) * normal(3, i)).collect();
    let outliers = light.iter().enumerate().map(|(i, w)| if i % 97 == 0 { w * 12.0 } else { *w }).collect();
    [("light", light), ("heavy", heavy), ("outliers", outliers)]
}

fn true_error(row: &[f32], back: &[f32]) -> f64 {
    row.iter().zip(back).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[test]
fn the_search_beats_rounding_to_the_largest_magnitude() {
    for (name, row) in samples() {
        let power: f64 = row.iter().map(|&w| f64::from(w).powi(2)).sum();
        let relative = |error: f64| (error / power).sqrt();
        for format in [WeightFormat::Int8, WeightFormat::Int4] {
            let mut out = QuantizedRow::default();
            let said = quantize_row(format, &row, &mut out);
            let found = true_error(&row, &stored(&out).collect::<Vec<_>>());
            assert!((said - found).abs() <= 1e-3 * found, "{name} {format}: said {said}, is {found}");
            let plain = absmax_error(format, &row);
            println!("{name:9} {format}: {:.5}, largest magnitude {:.5}", relative(found), relative(plain));
            assert!(found < plain, "{name} {format}: {found} is not below {plain}");
            if format == WeightFormat::Int4 {
                println!("{name:9} Q4_0: {:.5}", relative(q4_0_error(&row)));
                assert!(found < q4_0_error(&row), "{name}: not below Q4_0");
            }
        }
    }
}

#[test]
fn integers_stay_in_their_range_whatever_the_weights() {
    let mut rows: Vec<Vec<f32>> = vec![
        vec![0.0; 300],
        vec![-1.0; 300],
        vec![1e-44; 300],
        vec![3e38; 300],
        vec![f32::MAX, f32::MIN, f32::MIN_POSITIVE, 0.0, -0.0],
        vec![1.0],
        (0..700).map(|i| if i == 300 { 1e30 } else { 1e-30 }).collect(),
        (0..700).map(|i| if i % 16 == 3 { -1.0 } else { 0.0 }).collect(),
    ];
    for e in -140..=127 {
        rows.push((0..257).map(|i| normal(9, i) * 0.2 * libm_free_power(e)).collect());
    }
    for row in rows {
        for (format, range) in [(WeightFormat::Int8, -127..=127), (WeightFormat::Int4, -8..=7)] {
            let mut out = QuantizedRow::default();
            let error = quantize_row(format, &row, &mut out);
            assert!(error.is_finite());
            assert_eq!(out.q.len(), row.len());
            assert_eq!(out.scales.len(), row.len().div_ceil(chunk_of(row.len())));
            assert!(out.q.iter().all(|q| range.contains(q)));
            assert!(out.group_scales.iter().all(|&g| g <= GROUP_SCALE_MAX));
            assert!(out.scales.iter().all(|s| s.is_finite() && *s >= bf16::ZERO));
            let back = stored(&out).collect::<Vec<_>>();
            let power: f64 = row.iter().map(|&w| f64::from(w).powi(2)).sum();
            assert!(back.iter().all(|b| b.is_finite()), "{format} {:?}", &row[..row.len().min(5)]);
            assert!(true_error(&row, &back) <= power);
        }
    }
}

/// Two to a power that may be subnormal.
fn libm_free_power(e: i32) -> f32 {
    if e >= -126 { power_of_two(e) } else { f32::from_bits(1 << (e + 149)) }
}

#[test]
fn constant_rows_are_exact_enough() {
    for value in [0.5f32, -0.37, 7.0, -8.0] {
        let row = vec![value; 512];
        for (format, bound) in [(WeightFormat::Int8, 4e-3), (WeightFormat::Int4, 4e-3)] {
            let mut out = QuantizedRow::default();
            quantize_row(format, &row, &mut out);
            for b in stored(&out).collect::<Vec<_>>() {
                assert!((b / value - 1.0).abs() < bound, "{format} {value} became {b}");
            }
        }
    }
}
