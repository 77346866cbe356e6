//! The functions of `ops/elementwise.rs` are no further off than they say, over all of their ranges. That of plain Rust
//! is sampled; `same_bits.rs` shows that the others give its bits.

mod common;

use common::Random;
use palmtop_kernels::layout::LANES;
use palmtop_kernels::ops::elementwise::{
    EXP_ULPS, GELU_FAR_TAIL, GELU_NEGATIVE_ULPS, GELU_TAIL, GELU_ULPS, SUM_EXP_RELATIVE, TANH_ULPS, exp,
    gelu, tanh,
};
use palmtop_kernels::simd::Portable;
use palmtop_kernels::{Isa, Kernels};

/// Distance of a result from the truth, in steps between f32 numbers there.
fn ulps(got: f32, want: f64) -> f64 {
    let near = (want as f32).abs().min(f32::MAX);
    let step = f64::from(f32::from_bits(near.to_bits() + 1).min(f32::MAX)) - f64::from(near);
    let step = if step > 0.0 { step } else { f64::from(near) - f64::from(near.next_down()) };
    (f64::from(got) - want).abs() / step
}

/// Arguments of both signs: every exponent with some hundred fractions, first and last ones included; steps of `dense`
/// over -100..100; and what lies around places where the functions change their way.
fn arguments(dense: f32) -> Vec<f32> {
    let mut r = Random(7);
    let mut out = Vec::new();
    for exponent in 0..255u32 {
        let fractions =
            (0..256).map(|_| r.bits() as u32 & 0x7F_FFFF).chain([0, 1, 2, 0x40_0000, 0x7F_FFFE, 0x7F_FFFF]);
        out.extend(fractions.map(|fraction| f32::from_bits(exponent << 23 | fraction)));
    }
    out.extend((0..(100.0 / dense) as u32).map(|i| i as f32 * dense));
    let halves_of_ln2 = (0..260).map(|n| (f64::from(n) / 2.0 * std::f64::consts::LN_2) as f32);
    for place in halves_of_ln2.chain([0.625, 1.0, 5.0, 10.0, 43.5, 44.0, 87.0, 88.0]) {
        let bits = place.to_bits();
        out.extend((bits.saturating_sub(20)..bits + 20).map(f32::from_bits));
    }
    out.extend_from_within(..);
    let half = out.len() / 2;
    out[half..].iter_mut().for_each(|x| *x = -*x);
    out
}

/// The worst error of a function, and where it is; over the arguments in the range.
fn worst(
    of: impl Fn([f32; LANES]) -> [f32; LANES],
    truth: impl Fn(f64) -> f64,
    error: impl Fn(f32, f64) -> f64,
    range: impl Fn(f32) -> bool,
) -> (f64, f32) {
    let mut arguments = arguments(0.000_113);
    arguments.retain(|&x| range(x));
    assert!(arguments.len() > 50_000, "the range is sampled");
    let mut worst = (0.0, 0.0);
    for x in arguments.chunks(LANES) {
        let mut lanes = [x[0]; LANES];
        lanes[..x.len()].copy_from_slice(x);
        for (&x, got) in lanes.iter().zip(of(lanes)) {
            let error = error(got, truth(f64::from(x)));
            assert!(!error.is_nan(), "{x} gives {got}");
            if error > worst.0 {
                worst = (error, x);
            }
        }
    }
    worst
}

fn exact_gelu(x: f64) -> f64 {
    // Written so that nothing cancels; the constants are those of the definition.
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    x / (1.0 + (-2.0 * u).exp())
}

#[test]
fn exponentials_keep_their_bound() {
    let of = |x| exp(Portable, x);
    let (error, x) = worst(of, f64::exp, ulps, |x| (-87.0..=88.0).contains(&x));
    println!("exp: {error:.3} ulp at {x}");
    assert!(error <= EXP_ULPS && error > 0.5, "{error} ulp at {x}");
    let ends = [exp(Portable, [-87.0; LANES])[0], exp(Portable, [88.0; LANES])[0]];
    let beyond = [-87.1, -1e9, f32::MIN, f32::NEG_INFINITY, 88.1, 1e9, f32::MAX, f32::INFINITY];
    for (i, x) in beyond.into_iter().enumerate() {
        assert_eq!(exp(Portable, [x; LANES])[0], ends[i / 4], "{x}");
    }
}

#[test]
fn hyperbolic_tangents_keep_their_bound() {
    let (error, x) = worst(|x| tanh(Portable, x), f64::tanh, ulps, |_| true);
    println!("tanh: {error:.3} ulp at {x}");
    assert!(error <= TANH_ULPS && error > 0.5, "{error} ulp at {x}");
    assert_eq!(tanh(Portable, [f32::INFINITY; LANES])[0], 1.0);
    assert_eq!(tanh(Portable, [f32::NEG_INFINITY; LANES])[0], -1.0);
}

#[test]
fn gelus_keep_their_bounds() {
    let of = |x| gelu(Portable, x);
    let (error, x) = worst(of, exact_gelu, ulps, |x| x >= 0.0);
    println!("gelu from 0 on: {error:.3} ulp at {x}");
    assert!(error <= GELU_ULPS && error > 0.5, "{error} ulp at {x}");
    let (error, x) = worst(of, exact_gelu, ulps, |x| (-5.0..0.0).contains(&x));
    println!("gelu from -5 on: {error:.3} ulp at {x}");
    assert!(error <= GELU_NEGATIVE_ULPS && error > 0.5, "{error} ulp at {x}");
    let (error, x) =
        worst(of, exact_gelu, |got, want| (f64::from(got) - want).abs(), |x| (-1e27..-5.0).contains(&x));
    println!("gelu below -5: {error:e} at {x}");
    assert!(error <= GELU_TAIL && error > 0.0, "{error:e} at {x}");
    for x in arguments(1.0).into_iter().filter(|&x| x < -1e27) {
        let got = gelu(Portable, [x; LANES])[0];
        assert!(got <= 0.0 && f64::from(got) >= GELU_FAR_TAIL * f64::from(x), "{x} gives {got}");
    }
}

#[test]
fn sums_of_exponentials_keep_their_bound_however_many_there_are() {
    let kernels = Kernels::try_new(Isa::Scalar).expect("plain Rust runs everywhere");
    let mut r = Random(3);
    for n in [1, 16, 511, 512, 513, 5000, 257_152] {
        // As spread as logits are; all equal; and one large one before as many small ones, which f32 would lose.
        let spread: Vec<f32> = (0..n).map(|_| 4.0 * r.f32()).collect();
        let mut one = vec![-17.5; n];
        one[0] = 0.0;
        for x in [spread, vec![0.0; n], one] {
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exponentials = x.iter().map(|x| f64::from(exp(Portable, [x - max; LANES])[0]));
            let want: f64 = exponentials.sum();
            let error = (kernels.sum_exp(&x, max) - want).abs() / want;
            assert!(error <= SUM_EXP_RELATIVE, "{n} numbers: {error:e}");
        }
    }
}
