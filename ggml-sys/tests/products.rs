//! ggml's matrix products give what the blocks stand for, in every packing.

#[path = "../../tests/common/skip.rs"]
mod skip;

use palmtop_ggml_sys::blocks::BlockFormat;
use palmtop_ggml_sys::product::{Error, Packing, Product, Weights};

/// Outputs and inputs that every packing takes.
const SHAPE: (usize, usize) = (96, 512);

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn matrix(format: BlockFormat, (outputs, inputs): (usize, usize)) -> (Vec<u8>, Vec<f32>) {
    let weights = values(outputs * inputs, 1);
    let mut blocks = vec![0; format.bytes(weights.len()).expect("whole blocks")];
    format.quantize(&weights, &mut blocks);
    let mut back = vec![0.0; weights.len()];
    format.dequantize(&blocks, &mut back);
    (blocks, back)
}

/// Rows of `input` times the matrix, and the sums of the terms' magnitudes.
fn product(matrix: &[f32], inputs: usize, input: &[f32]) -> Vec<(f64, f64)> {
    let dot = |row: &[f32], x: &[f32]| {
        row.iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
            let term = f64::from(*w) * f64::from(*x);
            (sum + term, size + term.abs())
        })
    };
    input.chunks(inputs).flat_map(|x| matrix.chunks(inputs).map(move |row| dot(row, x))).collect()
}

#[test]
fn every_packing_multiplies() {
    let mut ran = Vec::new();
    for format in BlockFormat::ALL {
        let (blocks, matrix) = matrix(format, SHAPE);
        for packing in Packing::ALL {
            let weights = match Weights::new(format, SHAPE.0, SHAPE.1, &blocks, packing) {
                Ok(weights) => weights,
                Err(Error::Unsupported { .. }) => {
                    skip::skipped("products of ggml", format_args!("it has no {packing} {format} here"));
                    continue;
                }
                Err(e) => panic!("{packing} {format}: {e}"),
            };
            assert!(weights.bytes() >= blocks.len());
            for (rows, threads) in [(1, 1), (1, 2), (4, 1), (5, 2), (17, 1), (33, 2)] {
                let mut p = Product::new(&weights, rows, threads).expect("memory for a small product");
                assert!(p.output().iter().all(|y| *y == 0.0), "nothing has run");
                // Steps of 1/127, and a largest one in every block, so that quantizing the rows loses nothing.
                for (i, x) in p.input().iter_mut().enumerate() {
                    *x = if i % 32 == 0 { 1.0 } else { ((i * 31 % 255) as f32 - 127.0) / 127.0 };
                }
                let expected = product(&matrix, SHAPE.1, p.input());
                for times in [1, 3] {
                    p.run(times).expect("ggml computes");
                    for (y, (exact, size)) in p.output().iter().zip(&expected) {
                        let error = (f64::from(*y) - exact).abs();
                        assert!(error <= 2e-3 * size, "{packing} {format}, {rows} rows: {y}, not {exact}");
                    }
                }
            }
            ran.push(packing);
        }
    }
    assert_eq!(ran.iter().filter(|p| **p == Packing::Plain).count(), 2, "plain blocks are always multiplied");
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let refused =
        |outputs, inputs| Weights::new(BlockFormat::Q4_0, outputs, inputs, &[], Packing::Plain).err();
    assert!(matches!(refused(8, 33), Some(Error::Shape { .. })), "not whole blocks");
    assert!(matches!(refused(0, 32), Some(Error::Shape { .. })));
    assert!(matches!(refused(8, 0), Some(Error::Shape { .. })));
    assert!(matches!(refused(usize::MAX, 32), Some(Error::Shape { .. })));
}

#[test]
fn a_packing_that_does_not_take_a_shape_is_refused() {
    // Interleaved are 4 or 8 rows at least, tiles have 32.
    let (blocks, _) = matrix(BlockFormat::Q4_0, (3, 32));
    for packing in [Packing::Repacked, Packing::Amx] {
        let error = Weights::new(BlockFormat::Q4_0, 3, 32, &blocks, packing).err();
        assert!(matches!(error, Some(Error::Unsupported { .. })), "{packing}: {error:?}");
    }
}
