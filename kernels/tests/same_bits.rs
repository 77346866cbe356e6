//! Every instruction set of this CPU against the scalar definition: equal bits, over shapes that cross every edge.
//!
//! Sets that this CPU lacks are named on stderr, not passed over in silence.

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use common::{Quantized, Random, aligned, bits, matrix};
use half::{bf16, f16};
use palmtop_kernels::layout::{LANES, MatrixLayout, PackedMatrix, WeightFormat};
use palmtop_kernels::{Isa, Kernels, KeysValues, KvScales, PANEL, PANEL_STRIPES, PanelScratch, Scores};

/// The sets to be held against the definition.
fn others() -> Vec<Kernels> {
    let mut out = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|&i| i != Isa::Scalar) {
        match Kernels::try_new(isa) {
            Some(k) => out.push(k),
            None => skip::no_instruction_set(isa),
        }
    }
    out
}

fn scalar() -> Kernels {
    Kernels::try_new(Isa::Scalar).expect("plain Rust runs everywhere")
}

fn product(kernels: &Kernels, w: &PackedMatrix<'_>, x: &[f32], rows: usize) -> Vec<f32> {
    let stripes = w.layout().stripes();
    let mut out = vec![f32::NAN; rows * stripes * LANES];
    let quantized = w.layout().format.is_integer().then(|| Quantized::new(kernels, x, rows));
    let mut scratch = PanelScratch::default();
    for first in (0..stripes).step_by(PANEL_STRIPES) {
        let part = first..stripes.min(first + PANEL_STRIPES);
        let mut panel = vec![[f32::NAN; PANEL]; rows];
        match &quantized {
            Some(q) => kernels.matmul_integer(w, part.clone(), &q.view(), 0..rows, &mut scratch, &mut panel),
            None => kernels.matmul_float(w, part.clone(), x, &mut panel),
        }
        for (m, panel) in panel.iter().enumerate() {
            let n = part.len() * LANES;
            out[m * stripes * LANES + first * LANES..][..n].copy_from_slice(&panel[..n]);
        }
    }
    out
}

#[test]
fn matrix_products_have_equal_bits() {
    let shapes = [
        (16, 16, 1),
        (64, 256, 1),
        (64, 256, 9),
        (48, 137, 5),
        (80, 300, 13),
        (33, 601, 6),
        (128, 512, 17),
        (16, 24, 2),
        (65, 257, 8),
        (64, 1152, 20),
        (1, 1, 1),
        (17, 4304, 3),
        (96, 272, 12),
        (64, 255, 10),
        (144, 1100, 16),
        (64, 512, 11),
    ];
    for (i, (rows, cols, m)) in shapes.into_iter().enumerate() {
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
            let mut r = Random(i as u64 + 1);
            let layout = MatrixLayout::new(format, rows, cols).unwrap();
            let memory = matrix(&mut r, layout);
            let w = PackedMatrix::new(layout, &memory.as_flattened()[..layout.bytes()]).unwrap();
            let x = r.f32s(m * cols);
            let want = product(&scalar(), &w, &x, m);
            for k in others() {
                let got = product(&k, &w, &x, m);
                assert_eq!(
                    bits(&got),
                    bits(&want),
                    "{} {format} {rows}x{cols}, {m} rows, seed {}",
                    k.isa(),
                    i + 1
                );
            }
            // A row's result does not depend on the rows beside it.
            let k = Kernels::select().unwrap();
            let stripes = layout.stripes() * LANES;
            for row in [0, m - 1] {
                let alone = product(&k, &w, &x[row * cols..(row + 1) * cols], 1);
                assert_eq!(
                    bits(&alone),
                    bits(&want[row * stripes..(row + 1) * stripes]),
                    "{format} row {row} alone"
                );
            }
        }
    }
}

/// Kernels choose their way by the number of rows, and end in blocks that are not full.
#[test]
fn any_number_of_rows_has_equal_bits() {
    let rows_max = 70;
    for format in [WeightFormat::Int8, WeightFormat::Int4] {
        for (rows, cols) in [(112, 601), (33, 272), (16, 40), (70, 4304)] {
            let mut r = Random(cols as u64);
            let layout = MatrixLayout::new(format, rows, cols).unwrap();
            let memory = matrix(&mut r, layout);
            let w = PackedMatrix::new(layout, &memory.as_flattened()[..layout.bytes()]).unwrap();
            let x = r.f32s(rows_max * cols);
            let want = bits(&product(&scalar(), &w, &x, rows_max));
            let width = want.len() / rows_max;
            for k in others() {
                for m in (1..=20).chain([31, 32, 33, 48, 64, rows_max]) {
                    let got = bits(&product(&k, &w, &x[..m * cols], m));
                    assert_eq!(got, want[..m * width], "{} {format} {rows}x{cols}, {m} rows", k.isa());
                }
            }
        }
    }
}

/// `tests/aarch64.sh` says which sets a CPU must have, so that none is passed over unseen.
#[test]
fn the_expected_sets_are_there() {
    let Ok(expected) = std::env::var("PALMTOP_EXPECT_ISAS") else { return };
    let there: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
    assert_eq!(there.join(","), expected);
}

#[test]
fn the_definition_is_the_product_of_the_dequantized_weights() {
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
        let mut r = Random(5);
        let (rows, cols, m) = (40, 700, 3);
        let layout = MatrixLayout::new(format, rows, cols).unwrap();
        let memory = matrix(&mut r, layout);
        let w = PackedMatrix::new(layout, &memory.as_flattened()[..layout.bytes()]).unwrap();
        let x = r.f32s(m * cols);
        let got = product(&scalar(), &w, &x, m);
        let mut row = vec![0.0; cols];
        let (mut error, mut size) = (0.0f64, 0.0f64);
        for n in 0..rows {
            w.dequantize_row(n, &mut row);
            for i in 0..m {
                let want: f64 = (0..cols).map(|k| f64::from(row[k]) * f64::from(x[i * cols + k])).sum();
                error += (want - f64::from(got[i * layout.stripes() * LANES + n])).powi(2);
                size += want * want;
            }
        }
        let relative = (error / size).sqrt();
        // Activations in int8 cost half a percent; floats only rounding.
        let bound = if format.is_integer() { 0.01 } else { 1e-6 };
        assert!(relative < bound, "{format}: {relative}");
    }
}

#[test]
fn any_weight_bytes_give_equal_bits() {
    for format in [WeightFormat::Int8, WeightFormat::Int4] {
        let layout = MatrixLayout::new(format, 64, 300).unwrap();
        let mut r = Random(9);
        let mut memory = aligned(layout.bytes());
        memory.as_flattened_mut().iter_mut().for_each(|b| *b = r.bits() as u8);
        // Scales stay finite, so that NaN payloads do not matter.
        for stripe in memory.as_flattened_mut()[..layout.bytes()].chunks_mut(layout.stripe_bytes()) {
            for s in stripe[..layout.scale_bytes()].chunks_mut(2) {
                s.copy_from_slice(&bf16::from_f32(r.f32()).to_le_bytes());
            }
        }
        let w = PackedMatrix::new(layout, &memory.as_flattened()[..layout.bytes()]).unwrap();
        for m in [1, 4, 11] {
            let x = r.f32s(m * 300);
            let want = product(&scalar(), &w, &x, m);
            for k in others() {
                assert_eq!(bits(&product(&k, &w, &x, m)), bits(&want), "{} {format}", k.isa());
            }
        }
    }
}

#[test]
fn activations_are_quantized_to_equal_bytes() {
    let mut r = Random(3);
    for len in [1, 15, 16, 17, 64, 100, 255, 256, 512, 513, 700] {
        for scale in [0.0, 1e-35, 1e-20, 1.0, 1e20] {
            let mut x = r.f32s(len);
            x.iter_mut().for_each(|v| *v *= scale);
            let want = Quantized::new(&scalar(), &x, 1);
            for (i, (&q, &x)) in want.q.iter().zip(&x).enumerate() {
                assert!(
                    (f32::from(q) * want.scales[i / want.chunk] - x).abs()
                        <= 0.5001 * want.scales[i / want.chunk] + 1e-30
                );
            }
            assert!(want.q[len..].iter().all(|&q| q == 0));
            assert_eq!(want.sums.iter().sum::<i32>(), want.q.iter().map(|&q| i32::from(q)).sum::<i32>());
            for k in others() {
                let got = Quantized::new(&k, &x, 1);
                assert!(got.q == want.q && got.sums == want.sums, "{} {len}", k.isa());
                assert_eq!(bits(&got.scales), bits(&want.scales));
            }
        }
    }
}

#[test]
fn rows_and_elements_have_equal_bits() {
    let mut r = Random(11);
    for n in [1, 15, 16, 17, 31, 72, 96, 1152, 2048, 2305] {
        let (x, w, b) = (r.f32s(n), r.f32s(n), r.f32s(n));
        let gates_and_ups = r.f32s(2 * n.next_multiple_of(LANES));
        let run = |k: &Kernels| {
            let mut out = vec![vec![0.0; n]; 9];
            k.rms_norm(&x, &w, 1e-6, &mut out[0]);
            k.layer_norm(&x, &w, &b, 1e-6, &mut out[1]);
            k.bias_gelu(&x, &b, &mut out[2]);
            k.gelu_mul(&gates_and_ups, &mut out[3]);
            out[4].copy_from_slice(&x);
            k.softcap(&mut out[4], 0.7);
            for (i, (bias, added)) in
                [(None, false), (None, true), (Some(&b[..]), false), (Some(&b[..]), true)]
                    .into_iter()
                    .enumerate()
            {
                out[5 + i].copy_from_slice(&w);
                k.add_product(&x, bias, added, &mut out[5 + i]);
            }
            (out, k.sum_exp(&x, 1.5).to_bits())
        };
        let (want, want_sum) = run(&scalar());
        let sums = |i: usize| [x[i], w[i] + x[i], x[i] + b[i], w[i] + (x[i] + b[i])];
        for (j, want) in want[5..].iter().enumerate() {
            assert_eq!(
                bits(want),
                bits(&(0..n).map(|i| sums(i)[j]).collect::<Vec<_>>()),
                "add_product {j}, {n} elements"
            );
        }
        for k in others() {
            let (got, sum) = run(&k);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(bits(got), bits(want), "{} function {i}, {n} elements", k.isa());
            }
            assert_eq!(sum, want_sum, "{} sum_exp, {n} elements", k.isa());
        }
    }
}

/// Keys and values of a head, `[key][dimension]`.
struct Cache {
    keys: Vec<f32>,
    values: Vec<f32>,
    head_dim: usize,
    capacity: usize,
}

/// How an arena keeps them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    F32,
    F16,
    Int8,
}

impl Cache {
    /// One key and one value are zero.
    fn random(r: &mut Random, head_dim: usize, capacity: usize) -> Self {
        let (mut keys, mut values) = (r.f32s(capacity * head_dim), r.f32s(capacity * head_dim));
        keys[capacity / 2 * head_dim..][..head_dim].fill(0.0);
        values[capacity / 3 * head_dim..][..head_dim].fill(0.0);
        Self { keys, values, head_dim, capacity }
    }

    /// Keys and values in the layout of the arena.
    fn packed<T: Copy + Default>(&self, keys: &[T], values: &[T]) -> [Vec<T>; 2] {
        let (n, dims) = (self.capacity, self.head_dim);
        let mut out = [vec![T::default(); n * dims], vec![T::default(); n * dims.next_multiple_of(LANES)]];
        for (key, d) in (0..n).flat_map(|key| (0..dims).map(move |d| (key, d))) {
            out[0][(key / LANES * dims + d) * LANES + key % LANES] = keys[key * dims + d];
            out[1][(d / LANES * n + key) * LANES + d % LANES] = values[key * dims + d];
        }
        out
    }

    /// The same, quantized: the numbers that integers and scales stand for too.
    fn quantized(&self, x: &[f32]) -> (Vec<i8>, Vec<f32>, Vec<f32>) {
        let (mut integers, mut scales, mut numbers) = (vec![], vec![], vec![]);
        for x in x.chunks(self.head_dim) {
            let mut q = vec![0; self.head_dim.next_multiple_of(LANES)];
            let (scale, _) = scalar().quantize_chunk(x, &mut q);
            integers.extend_from_slice(&q[..self.head_dim]);
            scales.push(scale);
            numbers.extend(q[..self.head_dim].iter().map(|&q| f32::from(q) * scale));
        }
        (integers, scales, numbers)
    }

    /// What is attended to when it is kept in some way.
    fn as_kept(&self, kept: Kept) -> Self {
        let numbers = |x: &[f32]| match kept {
            Kept::F32 => x.to_vec(),
            Kept::F16 => x.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
            Kept::Int8 => self.quantized(x).2,
        };
        Self { keys: numbers(&self.keys), values: numbers(&self.values), ..*self }
    }

    /// Attention by the kernels; rows of `head_dim` numbers.
    fn attention(
        &self,
        kernels: &Kernels,
        kept: Kept,
        q: &[f32],
        range: std::ops::Range<usize>,
        how: Scores,
    ) -> Vec<f32> {
        let (head_dim, capacity, rows) = (self.head_dim, self.capacity, q.len() / self.head_dim);
        let padded = head_dim.next_multiple_of(LANES);
        let (mut scores, mut out) = (vec![f32::NAN; rows * capacity], vec![f32::NAN; rows * padded]);
        match kept {
            Kept::F32 => {
                let [keys, values] = &self.packed(&self.keys, &self.values);
                let kv = KeysValues { keys, values, capacity, scales: None };
                kernels.attention_f32(q, rows, head_dim, kv, range, how, &mut scores, &mut out);
            }
            Kept::F16 => {
                let f16s = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x).to_bits()).collect::<Vec<_>>();
                let [keys, values] = &self.packed(&f16s(&self.keys), &f16s(&self.values));
                let kv = KeysValues { keys, values, capacity, scales: None };
                kernels.attention_f16(q, rows, head_dim, kv, range, how, &mut scores, &mut out);
            }
            Kept::Int8 => {
                let (keys, key_scales, _) = self.quantized(&self.keys);
                let (values, value_scales, _) = self.quantized(&self.values);
                let [keys, values] = &self.packed(&keys, &values);
                let scales = Some(KvScales { keys: &key_scales, values: &value_scales });
                let kv = KeysValues { keys, values, capacity, scales };
                kernels.attention_scaled_i8(q, rows, head_dim, kv, range, how, &mut scores, &mut out);
            }
        }
        out.chunks(padded).flat_map(|row| row[..head_dim].to_vec()).collect()
    }

    /// Attention in f64.
    fn exact(&self, q: &[f32], range: std::ops::Range<usize>, how: Scores) -> Vec<f64> {
        let dims = self.head_dim;
        let row = |q: &[f32]| {
            let weight = |key: usize| {
                let products =
                    q.iter().zip(&self.keys[key * dims..]).map(|(&q, &k)| f64::from(q) * f64::from(k));
                let s = products.sum::<f64>() * f64::from(how.scale);
                how.softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh()).exp()
            };
            let weights: Vec<f64> = range.clone().map(weight).collect();
            let total: f64 = weights.iter().sum();
            let value = |d| {
                let values = range.clone().map(|key| f64::from(self.values[key * dims + d]));
                values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / total
            };
            (0..dims).map(value).collect::<Vec<_>>()
        };
        q.chunks(dims).flat_map(row).collect()
    }
}

/// Dimensions of a head, rows of queries, and the keys that they see.
const ATTENTIONS: [(usize, usize, std::ops::Range<usize>); 10] = [
    (24, 1, 0..1),
    (32, 6, 0..37),
    (72, 5, 0..256),
    (72, 6, 3..300),
    (256, 2, 17..290),
    (128, 3, 16..32),
    (10, 4, 15..17),
    (1, 2, 0..64),
    (256, 6, 0..1041),
    (264, 1, 500..777),
];

#[test]
fn attention_has_equal_bits_and_is_attention() {
    for (i, (head_dim, rows, range)) in ATTENTIONS.into_iter().enumerate() {
        let mut r = Random(40 + i as u64);
        let cache = Cache::random(&mut r, head_dim, (range.end + 20).next_multiple_of(LANES));
        let q = r.f32s(rows * head_dim);
        for softcap in [None, Some(2.0)] {
            let how = Scores { scale: (head_dim as f32).sqrt().recip(), softcap };
            for kept in [Kept::F32, Kept::F16, Kept::Int8] {
                let want = cache.attention(&scalar(), kept, &q, range.clone(), how);
                for k in others() {
                    let got = cache.attention(&k, kept, &q, range.clone(), how);
                    assert_eq!(bits(&got), bits(&want), "{} {kept:?} head_dim {head_dim} {range:?}", k.isa());
                }
                let exact = cache.as_kept(kept).exact(&q, range.clone(), how);
                for (i, (&got, want)) in want.iter().zip(exact).enumerate() {
                    let (row, d) = (i / head_dim, i % head_dim);
                    let error = (f64::from(got) - want).abs();
                    assert!(error < 2e-6, "{kept:?} row {row} dimension {d}: {got} for {want}");
                }
            }
        }
    }
}

/// Rounding moves a key's and a value's number by half a step at most, a step being `max / 127`. So a score moves by
/// `ε = scale · Σ|q| · step / 2` at most, which a soft cap only makes less; the softmax weights move by a factor
/// between `e⁻²ᵋ` and `e²ᵋ`; and what is attended by `(e²ᵋ - 1) · max|v| + step / 2`. That is the worst that can be.
///
/// As a rule errors are independent. Of normal numbers in `n` dimensions the largest is some 2.5 (72) to 3 (256) times
/// their deviation, so that rounding adds steps of `/ √12`: 0.6 to 0.7 % of a key's length and of a value's. Scores of
/// deviation 1 move by as much, and so do the weights; what is attended averages values and their errors alike.
/// Together these are 1 % of it.
#[test]
fn attention_over_8_bit_integers_is_close_to_attention() {
    for (i, (head_dim, rows, range)) in ATTENTIONS.into_iter().enumerate() {
        let mut r = Random(80 + i as u64);
        let cache = Cache::random(&mut r, head_dim, range.end.next_multiple_of(LANES));
        let q = r.f32s(rows * head_dim);
        let how = Scores { scale: (head_dim as f32).sqrt().recip(), softcap: None };
        let got = cache.attention(&scalar(), Kept::Int8, &q, range.clone(), how);
        let want = cache.attention(&scalar(), Kept::F32, &q, range.clone(), how);
        let largest = |x: &[f32]| x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (key, value) = (largest(&cache.keys), largest(&cache.values));
        let (mut error, mut size) = (0.0, 0.0);
        for ((q, got), want) in q.chunks(head_dim).zip(got.chunks(head_dim)).zip(want.chunks(head_dim)) {
            let e = how.scale * q.iter().map(|q| q.abs()).sum::<f32>() * key / 254.0;
            let bound = ((2.0 * e).exp() - 1.0) * value + value / 254.0 + 4e-6;
            for (&got, &want) in got.iter().zip(want) {
                assert!((got - want).abs() <= bound, "{got} for {want}, head_dim {head_dim} {range:?}");
                error += f64::from(got - want).powi(2);
                size += f64::from(want).powi(2);
            }
        }
        let relative = (error / size).sqrt();
        println!("{head_dim} dimensions, keys {range:?}: {:.2} %", 100.0 * relative);
        assert!(relative < 0.015, "head_dim {head_dim} {range:?}: {relative}");
    }
}
