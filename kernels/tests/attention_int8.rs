//! Attention in integers: equal bits on every instruction set of this CPU, and close to attention in real numbers.

#[path = "../../tests/common/skip.rs"]
mod skip;

use palmtop_kernels::layout::LANES;
use palmtop_kernels::ops::attention_int8::{KEYS, ROWS_MAX};
use palmtop_kernels::{ChunkShape, Int8KeysValues, Int8Scratch, Isa, Kernels, Scores};

/// A small generator of roughly normal numbers.
struct Random(u64);

impl Random {
    fn f32(&mut self) -> f32 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..6).map(|_| uniform()).sum::<f32>() * 1.4
    }
    fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
}

struct Case {
    rows: usize,
    head_dim: usize,
    keys: usize,
    how: Scores,
    queries: Vec<f32>,
    /// Keys, then values, of one position after the other.
    keys_values: Vec<f32>,
}

impl Case {
    /// Keys have a large offset in some dimensions, as trained ones do, and values differ in range.
    fn new(seed: u64, rows: usize, head_dim: usize, keys: usize, softcap: Option<f32>) -> Self {
        let mut r = Random(seed);
        let mut keys_values = r.f32s(keys * 2 * head_dim);
        for row in keys_values.chunks_mut(2 * head_dim) {
            row[..head_dim].iter_mut().step_by(7).for_each(|k| *k += 6.0);
            row[head_dim..].iter_mut().step_by(5).for_each(|v| *v *= 10.0);
        }
        let how = Scores { scale: 1.0 / (head_dim as f32).sqrt(), softcap };
        Self { rows, head_dim, keys, how, queries: r.f32s(rows * head_dim), keys_values }
    }

    fn run(&self, k: &Kernels) -> Vec<f32> {
        let shape = ChunkShape { head_dim: self.head_dim };
        let (chunks, stride) = (self.keys.div_ceil(KEYS), 2 * self.head_dim);
        // What an earlier use has left must not matter.
        let (mut bytes, mut scales) = (vec![77; chunks * shape.bytes()], vec![1e9; chunks * shape.scales()]);
        let (mut sums, mut mean) = (vec![-99; scales.len()], vec![0.0; self.head_dim]);
        k.mean_of_keys(&self.keys_values, stride, self.keys.min(KEYS), &mut mean);
        for c in 0..chunks {
            let bytes = &mut bytes[c * shape.bytes()..][..shape.bytes()];
            let scales = &mut scales[c * shape.scales()..][..shape.scales()];
            let sums = &mut sums[c * shape.scales()..][..shape.scales()];
            let n = KEYS.min(self.keys - c * KEYS);
            let keys = &self.keys_values[c * KEYS * stride..];
            k.quantize_keys_values(keys, &keys[self.head_dim..], stride, n, &mean, bytes, scales, sums);
        }
        let kv = Int8KeysValues { bytes: &bytes, scales: &scales, sums: &sums, mean: &mean, keys: self.keys };
        let mut out = vec![f32::NAN; self.rows * self.head_dim.next_multiple_of(LANES) + 3];
        k.attention_int8(&self.queries, self.rows, kv, self.how, &mut Int8Scratch::default(), &mut out);
        assert!(out[out.len() - 3..].iter().all(|x| x.is_nan()), "written past the last row");
        out
    }

    /// Attention in f64.
    fn exact(&self) -> Vec<Vec<f64>> {
        let position = |i: usize| &self.keys_values[i * 2 * self.head_dim..][..2 * self.head_dim];
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let row = |q: &[f32]| {
            let scores = (0..self.keys).map(|i| {
                let s = dot(q, &position(i)[..self.head_dim]) * f64::from(self.how.scale);
                self.how.softcap.map_or(s, |cap| (s / f64::from(cap)).tanh() * f64::from(cap))
            });
            let weights: Vec<f64> = scores.map(f64::exp).collect();
            let total: f64 = weights.iter().sum();
            let value = |d| {
                (0..self.keys).map(|i| weights[i] * f64::from(position(i)[self.head_dim + d])).sum::<f64>()
            };
            (0..self.head_dim).map(|d| value(d) / total).collect()
        };
        self.queries.chunks(self.head_dim).map(row).collect()
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (seed, &(rows, head_dim, keys)) in [
        (1, 72, 1),
        (1, 16, 3),
        (5, 72, 255),
        (6, 72, 256),
        (7, 72, 257),
        (24, 72, 300),
        (13, 72, 600),
        (8, 256, 264),
        (2, 256, 15),
        (3, 8, 17),
        (11, 1, 513),
        (4, 33, 1040),
        (6, 80, 272),
        (19, 100, 64),
        // So many weights that one last bit before they are rounded shows in some of them.
        (24, 8, 12_000),
    ]
    .iter()
    .enumerate()
    {
        cases.push(Case::new(seed as u64, rows, head_dim, keys, None));
        cases.push(Case::new(seed as u64, rows, head_dim, keys, Some(3.0)));
    }
    cases
}

#[test]
fn all_sets_have_equal_bits() {
    let scalar = Kernels::try_new(Isa::Scalar).expect("plain Rust runs everywhere");
    for case in cases() {
        let want: Vec<u32> = case.run(&scalar).iter().map(|x| x.to_bits()).collect();
        for isa in Isa::ALL {
            let Some(kernels) = Kernels::try_new(isa) else {
                skip::no_instruction_set(isa);
                continue;
            };
            let got: Vec<u32> = case.run(&kernels).iter().map(|x| x.to_bits()).collect();
            assert_eq!(
                got, want,
                "{isa}, {} rows, {} dimensions, {} keys",
                case.rows, case.head_dim, case.keys
            );
        }
    }
}

#[test]
fn integers_are_close_to_real_numbers() {
    let kernels = Kernels::try_new(Isa::Scalar).expect("plain Rust runs everywhere");
    for case in cases() {
        let (got, want) = (case.run(&kernels), case.exact());
        let (mut error, mut size) = (0.0, 0.0);
        for (got, want) in got.chunks(case.head_dim.next_multiple_of(LANES)).zip(&want) {
            for (&got, &want) in got.iter().zip(want) {
                error += (f64::from(got) - want).powi(2);
                size += want.powi(2);
            }
        }
        let relative = (error / size).sqrt();
        println!("{} dimensions, {} keys: {:.2} %", case.head_dim, case.keys, 100.0 * relative);
        assert!(
            relative < 0.02,
            "{} rows, {} dimensions, {} keys: {relative}",
            case.rows,
            case.head_dim,
            case.keys
        );
    }
}

/// One key that outweighs all others by far must be given back alone, wherever it stands.
#[test]
fn a_sharp_maximum_wins() {
    let (head_dim, keys) = (72, 700);
    for at in [0, 255, 256, 511, 699] {
        let mut case = Case::new(9, ROWS_MAX, head_dim, keys, None);
        for row in case.queries.chunks_mut(head_dim) {
            row.fill(0.5);
        }
        for (i, row) in case.keys_values.chunks_mut(2 * head_dim).enumerate() {
            row[..head_dim].fill(if i == at { 5.0 } else { -5.0 });
            row[head_dim..].fill(i as f32);
        }
        for kernels in Isa::ALL.into_iter().filter_map(Kernels::try_new) {
            let out = case.run(&kernels);
            let got = out[ROWS_MAX / 2 * 80];
            assert!((got - at as f32).abs() <= 0.005 * keys as f32, "key {at}: {got}, {}", kernels.isa());
        }
    }
}
