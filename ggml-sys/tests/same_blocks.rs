//! Our Q4_0 and Q8_0 blocks are ggml's, byte for byte; and its dot products are those of what the blocks stand for.

use palmtop_ggml_sys::blocks::{BLOCK, BlockFormat};
use palmtop_ggml_sys::reference;

/// Numbers that look random, the same ones always.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 32) as u32
    }

    /// -1 to 1.
    fn unit(&mut self) -> f32 {
        self.bits() as i32 as f32 / 2f32.powi(31)
    }

    /// Any finite number: all exponents are equally likely.
    fn finite(&mut self) -> f32 {
        let x = f32::from_bits(self.bits());
        if x.is_finite() { x } else { 0.0 }
    }
}

/// True for a block that is not zero, and whose scale has an infinite reciprocal.
fn is_next_to_nothing(format: BlockFormat, values: &[f32]) -> bool {
    let steps = if format == BlockFormat::Q4_0 { 8.0 } else { 127.0 };
    let d = values.iter().fold(0f32, |most, v| most.max(v.abs())) / steps;
    d != 0.0 && (1.0 / d).is_infinite()
}

/// Both formats of `values`, and back.
fn compare(what: &str, values: &[f32]) {
    for format in BlockFormat::ALL {
        let bytes = format.bytes(values.len()).expect("whole blocks");
        let (mut ours, mut ggml) = (vec![0xAA; bytes], vec![0x55; bytes]);
        format.quantize(values, &mut ours);
        reference::quantize(format, values, &mut ggml);
        let pairs = ours.chunks(format.block_bytes()).zip(ggml.chunks(format.block_bytes()));
        for ((ours, ggml), values) in pairs.zip(values.chunks(BLOCK)) {
            // C leaves open what values become whose scale has no finite reciprocal.
            let defined = if is_next_to_nothing(format, values) { 2 } else { ours.len() };
            assert_eq!(ours[..defined], ggml[..defined], "{what}, {format}: {values:?}");
        }
        let (mut ours_back, mut ggml_back) = (vec![1.0; values.len()], vec![2.0; values.len()]);
        format.dequantize(&ours, &mut ours_back);
        reference::dequantize(format, &ours, &mut ggml_back);
        for (a, b) in ours_back.iter().zip(&ggml_back) {
            // What is infinite times zero has no particular sign.
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{what}, {format}: {a} and {b}");
        }
    }
}

#[test]
fn random_values_give_the_same_blocks() {
    let mut random = Random(1);
    for scale in [1e-4, 0.02, 1.0, 3e3] {
        let values: Vec<f32> = (0..1 << 17).map(|_| scale * random.unit()).collect();
        compare("random", &values);
    }
}

#[test]
fn any_finite_values_give_the_same_blocks() {
    let mut random = Random(2);
    let values: Vec<f32> = (0..1 << 18).map(|_| random.finite()).collect();
    compare("any bits", &values);
}

#[test]
fn all_magnitudes_give_the_same_blocks() {
    // From the smallest subnormal to the largest number: scales that vanish, whose reciprocals are infinite, that are
    // subnormal in f16, that overflow it.
    let mut random = Random(3);
    for exponent in -149..128 {
        let scale = 2f64.powi(exponent) as f32;
        let values: Vec<f32> = (0..16 * BLOCK)
            .map(|_| (f64::from(scale) * (1.0 + f64::from(random.unit()).abs())) as f32)
            .map(|x| if x.is_finite() { x } else { f32::MAX })
            .enumerate()
            .map(|(i, x)| if i % 3 == 0 { -x } else { x })
            .collect();
        compare(&format!("2^{exponent}"), &values);
    }
    compare("largest", &[f32::MAX; BLOCK]);
    compare("least", &[f32::MIN; BLOCK]);
}

#[test]
fn zeros_give_the_same_blocks() {
    compare("zero", &[0.0; BLOCK]);
    compare("negative zero", &[-0.0; BLOCK]);
    let mut one = [0.0; BLOCK];
    for j in 0..BLOCK {
        for value in [1.0, -1.0, f32::from_bits(1), -f32::from_bits(1), f32::MIN_POSITIVE] {
            one[j] = value;
            compare("a single value", &one);
        }
        one[j] = 0.0;
    }
}

#[test]
fn ties_are_rounded_alike() {
    // The first value sets the scale, so that the others are on or next to the middle between two steps.
    for (extreme, steps) in [(-8.0, 8), (8.0, 8), (127.0, 127), (-127.0, 127)] {
        for unit in [1.0, 0.25, 3.0, 0.1, 1.0 / 3.0] {
            let middles = (-2 * steps..=2 * steps).map(|h| h as f32 * 0.5 * unit);
            let near = middles.flat_map(|x| [x.next_down(), x, x.next_up()]);
            let near: Vec<f32> = near.filter(|x| x.abs() <= 127.0 * unit).collect();
            for part in near.chunks(BLOCK - 1) {
                let mut block = [0.0; BLOCK];
                block[0] = extreme * unit;
                block[1..=part.len()].copy_from_slice(part);
                compare("ties", &block);
            }
        }
    }
    // Equal magnitudes of both signs: the first one counts.
    let mut values = [0.0; BLOCK];
    (values[7], values[23]) = (-2.5, 2.5);
    compare("two extremes", &values);
    (values[7], values[23]) = (2.5, -2.5);
    compare("two extremes", &values);
}

#[test]
fn dot_products_are_those_of_the_values() {
    let mut random = Random(4);
    for n in [32, 64, 96, 1152, 2048] {
        let weights: Vec<f32> = (0..n).map(|_| 0.02 * random.unit()).collect();
        let activations: Vec<f32> = (0..n).map(|_| 3.0 * random.unit()).collect();
        let mut a = vec![0; BlockFormat::Q8_0.bytes(n).expect("whole blocks")];
        BlockFormat::Q8_0.quantize(&activations, &mut a);
        for format in BlockFormat::ALL {
            let mut w = vec![0; format.bytes(n).expect("whole blocks")];
            format.quantize(&weights, &mut w);
            let (mut w_back, mut a_back) = (vec![0.0; n], vec![0.0; n]);
            format.dequantize(&w, &mut w_back);
            BlockFormat::Q8_0.dequantize(&a, &mut a_back);
            let terms = || w_back.iter().zip(&a_back).map(|(w, a)| f64::from(*w) * f64::from(*a));
            let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            for (how, found) in [
                ("vector", reference::vec_dot(format, &w, &a)),
                ("plain", reference::vec_dot_plain(format, &w, &a)),
            ] {
                let error = (f64::from(found) - exact).abs();
                assert!(error <= 1e-5 * size, "{how} {format} of {n}: {found}, not {exact}");
            }
        }
    }
}

#[test]
fn activations_differ_by_a_step_at_most() {
    let mut random = Random(5);
    let values: Vec<f32> = (0..1 << 16).map(|_| random.unit()).collect();
    let mut ours = vec![0; BlockFormat::Q8_0.bytes(values.len()).expect("whole blocks")];
    let mut ggml = ours.clone();
    BlockFormat::Q8_0.quantize(&values, &mut ours);
    reference::quantize_activations(&values, &mut ggml);
    for (ours, ggml) in ours.chunks(34).zip(ggml.chunks(34)) {
        assert_eq!(ours[..2], ggml[..2], "scales");
        for (a, b) in ours[2..].iter().zip(&ggml[2..]) {
            assert!((*a as i8).abs_diff(*b as i8) <= 1, "{a} and {b}");
        }
    }
}
