//! Products by ggml, in every packing that it has here.

use std::time::Duration;

use palmtop_ggml_sys::blocks::{BLOCK, BlockFormat};
use palmtop_ggml_sys::product::{self, Error, Packing};
use palmtop_ggml_sys::reference;

use crate::{Format, Matrix, Product, activations, any_byte};

pub fn describe() -> String {
    format!("ggml {}, compiled for {}", reference::version(), reference::cpu_features().join(", "))
}

pub fn formats() -> Vec<Box<dyn Format>> {
    let all = BlockFormat::ALL.into_iter().flat_map(|f| Packing::ALL.map(|p| Ggml { format: f, packing: p }));
    all.filter(|ggml| ggml.holds(32, 32)).map(|ggml| Box::new(ggml) as _).collect()
}

struct Ggml {
    format: BlockFormat,
    packing: Packing,
}

impl Format for Ggml {
    fn name(&self) -> String {
        format!("ggml-{}-{}", self.format, self.packing)
    }

    fn holds(&self, outputs: usize, inputs: usize) -> bool {
        // What a packing asks of a shape is that it comes out even, by 32 at most: a small one with the same rests tells.
        self.try_matrix(32 + outputs % 32, 32 + inputs % 32).is_some()
    }

    fn matrix(&self, outputs: usize, inputs: usize) -> Box<dyn Matrix> {
        Box::new(self.try_matrix(outputs, inputs).expect("a shape that it holds"))
    }
}

impl Ggml {
    fn try_matrix(&self, outputs: usize, inputs: usize) -> Option<Weights> {
        // A block is its scale, here 2⁻⁷, and weights.
        let scale = [0x00, 0x20];
        let blocks = (outputs * inputs).div_ceil(BLOCK);
        let bytes: Vec<u8> = (0..blocks * self.format.block_bytes())
            .map(|i| scale.get(i % self.format.block_bytes()).copied().unwrap_or(any_byte(i)))
            .collect();
        match product::Weights::new(self.format, outputs, inputs, &bytes, self.packing) {
            Ok(weights) => Some(Weights { weights, inputs }),
            Err(Error::Shape { .. } | Error::Unsupported { .. }) => None,
            Err(e) => panic!("{e}"),
        }
    }
}

struct Weights {
    weights: product::Weights,
    inputs: usize,
}

impl Matrix for Weights {
    fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    fn product<'a>(&'a self, rows: usize) -> Box<dyn Product + 'a> {
        let mut product = product::Product::new(&self.weights, rows, 1).expect("memory for a product");
        product.input().iter_mut().zip(activations(rows * self.inputs)).for_each(|(x, a)| *x = a);
        Box::new(product)
    }
}

impl Product for product::Product<'_> {
    fn run(&mut self, times: u64) -> Duration {
        product::Product::run(self, times).expect("ggml computes")
    }
}
