//! The plain forward pass (`forward.rs`) against transformers (`vectors.rs`), and palmtop against the plain pass where
//! there is nothing of transformers: at odd sizes.

mod forward;
mod odd_sizes;
mod vectors;

use std::collections::BTreeMap;

use forward::Trace;
use palmtop_tests::{Tensor, relative_error};

/// The largest relative error of values that are compared, and how many were.
#[derive(Default)]
struct Worst {
    error: f64,
    name: String,
    values: usize,
}

impl Worst {
    /// Compares a value of the plain pass with what it should be.
    fn compare(&mut self, of: &str, name: &str, plain: &Trace, want: &Tensor, bound: f64) {
        let have: Vec<f64> = plain[name].iter().flatten().map(|&x| x.into()).collect();
        assert_eq!(have.len(), want.shape.iter().product::<usize>(), "{of}: {name} has another size");
        let error = relative_error(&have, &want.values);
        assert!(error < bound, "{of}: {name} is off by {error:.1e}");
        self.values += 1;
        if error >= self.error {
            (self.error, self.name) = (error, format!("{of}: {name}"));
        }
    }
}

/// Whole numbers of a trace.
fn ids(tensors: &BTreeMap<String, Tensor>, name: &str) -> Vec<usize> {
    tensors[name].values.iter().map(|&id| id as usize).collect()
}
