//! The resizer against Pillow's output and against a plain restatement of it.

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::super::{Filter, ImageError, Resizer, RgbView};
use super::{data_dir, generated, vectors};
use crate::Error;

#[test]
fn equals_the_processor_on_the_reference_images() {
    for vector in vectors() {
        let mut resizer = Resizer::new(Filter::Bicubic, vector.side, vector.side, 1000).unwrap();
        let mut out = vec![0; vector.resized.len()];
        resizer.resize(vector.image.view(), &mut out).unwrap();
        assert!(out == vector.resized, "{}", vector.name);
    }
}

#[test]
fn equals_pillow_and_tensorflow_on_generated_images() {
    Filter::ALL.into_iter().for_each(equals_the_goldens);
}

fn equals_the_goldens(filter: Filter) {
    let goldens = std::fs::read_to_string(data_dir().join(format!("resize/{}.txt", filter.name()))).unwrap();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in goldens.lines().filter(|line| !line.starts_with('#')) {
        let (sizes, hash) = line.rsplit_once(' ').unwrap();
        let sizes: Vec<u32> = sizes.split(' ').map(|n| n.parse().unwrap()).collect();
        let [width, height, seed, out_width, out_height] = sizes[..] else { panic!("{line}") };
        let mut resizer = Resizer::new(filter, out_width, out_height, width.max(height)).unwrap();
        let mut out = vec![0; (out_width * out_height * 3) as usize];
        resizer.resize(generated(width, height, seed).view(), &mut out).unwrap();
        if xxh3_64(&out) != u64::from_str_radix(hash, 16).unwrap() {
            wrong.push(line);
        }
        cases += 1;
    }
    assert!(cases > 150, "only {cases} cases");
    assert!(wrong.is_empty(), "{} of {cases} differ with {filter:?}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn one_resizer_serves_sources_of_many_sizes() {
    let mut shared = Resizer::new(Filter::Bicubic, 56, 40, 640).unwrap();
    let mut out = vec![0; 56 * 40 * 3];
    for (width, height) in
        [(640, 3), (56, 40), (1, 1), (56, 640), (640, 40), (9, 200), (9, 40), (640, 640), (1, 1)]
    {
        let image = generated(width, height, width);
        shared.resize(image.view(), &mut out).unwrap();
        assert!(out == plain::resize(image.view(), 56, 40), "{width}x{height}");
    }
}

#[test]
fn rows_may_be_apart() {
    let whole = generated(50, 40, 3);
    // Columns 10 to 32 of rows 5 to 30.
    let part = &whole.data()[(5 * 50 + 10) * 3..][..(24 * 50 + 22) * 3];
    let view = RgbView::new(22, 25, 150, part).unwrap();
    let packed: Vec<u8> = (0..25).flat_map(|y| view.row(y).to_vec()).collect();
    let packed = RgbView::packed(22, 25, &packed).unwrap();
    for (width, height) in [(30, 10), (22, 10), (30, 25), (22, 25)] {
        let mut resizer = Resizer::new(Filter::Bicubic, width, height, 25).unwrap();
        let [mut a, mut b] = [(); 2].map(|()| vec![0; (width * height * 3) as usize]);
        resizer.resize(view, &mut a).unwrap();
        resizer.resize(packed, &mut b).unwrap();
        assert!(a == b, "to {width}x{height}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (width, height, side) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (65537, 1, 1), (1, 1, u32::MAX)] {
        assert!(matches!(
            Resizer::new(Filter::Bicubic, width, height, side),
            Err(Error::Image(ImageError::Layout(_)))
        ));
        assert!(matches!(
            Resizer::bytes_for(Filter::Bicubic, width, height, side),
            Err(Error::Image(ImageError::Layout(_)))
        ));
    }
    let mut resizer = Resizer::new(Filter::Bicubic, 4, 4, 10).unwrap();
    let image = generated(11, 2, 1);
    assert!(matches!(resizer.resize(image.view(), &mut [0; 48]), Err(ImageError::SideTooLarge { .. })));
    let image = generated(10, 2, 1);
    assert!(matches!(resizer.resize(image.view(), &mut [0; 47]), Err(ImageError::Layout(_))));
    assert!(resizer.resize(image.view(), &mut [0; 48]).is_ok());

    for (width, height, stride, len) in
        [(0, 1, 0, 9), (1, 0, 3, 9), (2, 2, 5, 90), (2, 2, 6, 11), (2, 2, 8, 13)]
    {
        let data = vec![0; len];
        assert!(matches!(RgbView::new(width, height, stride, &data), Err(ImageError::Layout(_))));
    }
    assert!(RgbView::new(2, 2, usize::MAX, &[0; 64]).is_err());
    assert!(RgbView::new(2, 2, 8, &[0; 14]).is_ok());
}

/// The claim on which the 32-bit sums rest, over all windows of many pairs of sizes.
#[test]
fn weights_of_a_window_cannot_overflow_a_sum() {
    let sizes = (1..70).chain([97, 100, 223, 224, 225, 333, 448, 896, 897, 1000, 4001, 16384, 65536]);
    let sizes: Vec<u32> = sizes.collect();
    for &side_in in &sizes {
        for &side_out in sizes.iter().filter(|&&side| side <= 4001) {
            for (_, weights) in plain::windows(side_in, side_out) {
                let magnitude: i64 = weights.iter().map(|w| w.abs()).sum();
                assert!(10 * magnitude < 13 << plain::WEIGHT_BITS, "{side_in} to {side_out}: {magnitude}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn equals_the_plain_restatement(
        width in 1u32..80, height in prop_oneof![1u32..80, 80u32..400], out_width in 1u32..60, out_height in 1u32..60, seed: u32,
        room in 0u32..50,
    ) {
        let image = generated(width, height, seed);
        let mut out = vec![0; (out_width * out_height * 3) as usize];
        let mut resizer = Resizer::new(Filter::Bicubic, out_width, out_height, width.max(height) + room).unwrap();
        resizer.resize(image.view(), &mut out).unwrap();
        prop_assert!(out == plain::resize(image.view(), out_width, out_height));
    }
}

/// The same arithmetic, told as two whole passes in 64-bit integers.
mod plain {
    use super::super::super::RgbView;

    pub(super) const WEIGHT_BITS: u32 = 22;

    pub(super) fn resize(src: RgbView, out_width: u32, out_height: u32) -> Vec<u8> {
        let rows: Vec<Vec<[u8; 3]>> = (0..src.height()).map(|y| src.row(y).as_chunks().0.to_vec()).collect();
        down(across(rows, out_width), out_height).concat().concat()
    }

    fn across(rows: Vec<Vec<[u8; 3]>>, width_out: u32) -> Vec<Vec<[u8; 3]>> {
        rows.iter().map(|row| pass(row, width_out)).collect()
    }

    fn down(rows: Vec<Vec<[u8; 3]>>, height_out: u32) -> Vec<Vec<[u8; 3]>> {
        transpose(across(transpose(rows), height_out))
    }

    fn transpose(rows: Vec<Vec<[u8; 3]>>) -> Vec<Vec<[u8; 3]>> {
        (0..rows[0].len()).map(|x| rows.iter().map(|row| row[x]).collect()).collect()
    }

    fn pass(line: &[[u8; 3]], side_out: u32) -> Vec<[u8; 3]> {
        if line.len() == side_out as usize {
            return line.to_vec();
        }
        let windows = windows(line.len() as u32, side_out);
        windows
            .iter()
            .map(|(first, weights)| {
                std::array::from_fn(|c| {
                    let products =
                        weights.iter().zip(&line[*first..]).map(|(w, pixel)| w * i64::from(pixel[c]));
                    let sum = products.sum::<i64>() + (1 << (WEIGHT_BITS - 1));
                    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
                })
            })
            .collect()
    }

    /// First source pixel and weights of every output pixel.
    pub(super) fn windows(side_in: u32, side_out: u32) -> Vec<(usize, Vec<i64>)> {
        let scale = f64::from(side_in) / f64::from(side_out);
        let stretch = scale.max(1.0);
        let window = |x: u32| {
            let center = (f64::from(x) + 0.5) * scale;
            let first = (center - 2.0 * stretch + 0.5).max(0.0) as usize;
            let end = ((center + 2.0 * stretch + 0.5) as usize).min(side_in as usize);
            let weights = (first..end).map(|i| kernel((i as f64 - center + 0.5) * (1.0 / stretch)));
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            let scaled = weights.iter().map(|w| w * (1.0 / sum) * f64::from(1 << WEIGHT_BITS));
            (first, scaled.map(|w| if w < 0.0 { w - 0.5 } else { w + 0.5 } as i64).collect())
        };
        (0..side_out).map(window).collect()
    }

    fn kernel(x: f64) -> f64 {
        match x.abs() {
            x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}
