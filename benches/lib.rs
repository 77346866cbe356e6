//! The matrix products that are timed: ours, and with the feature `ggml` those of ggml.
//!
//! Every one takes rows of f32 and gives rows of f32: quantizing the rows and writing the results is part of it.
//! Weights are any bytes with plain scales, since no integer product's speed depends on their values.

#[cfg(feature = "ggml")]
mod ggml;
mod ours;

use std::time::Duration;

use palmtop_kernels::Kernels;

/// A way to hold weights and to multiply with them.
pub trait Format {
    /// As it stands in reports.
    fn name(&self) -> String;

    /// True if this format can hold a matrix of `outputs` × `inputs`.
    fn holds(&self, outputs: usize, inputs: usize) -> bool;

    /// A matrix that it can hold.
    fn matrix(&self, outputs: usize, inputs: usize) -> Box<dyn Matrix>;
}

/// Weights in memory.
pub trait Matrix {
    /// Bytes that a product reads.
    fn bytes(&self) -> usize;

    /// A product with `rows` rows, on one thread.
    fn product<'a>(&'a self, rows: usize) -> Box<dyn Product + 'a>;
}

/// A product with everything that it needs.
pub trait Product {
    /// Computes `times` times, and tells how long that took.
    fn run(&mut self, times: u64) -> Duration;
}

/// All formats: palmtop's by `kernels`, then those of the peer, if there is one.
pub fn formats(kernels: Kernels) -> Vec<Box<dyn Format>> {
    #[allow(unused_mut, reason = "without a peer there are no others")]
    let mut formats = ours::formats(kernels);
    #[cfg(feature = "ggml")]
    formats.extend(ggml::formats());
    formats
}

/// The peer and what it was compiled for.
pub fn peer() -> Option<String> {
    #[cfg(feature = "ggml")]
    return Some(ggml::describe());
    #[cfg(not(feature = "ggml"))]
    None
}

/// Activations: rows of values that are not all alike.
fn activations(len: usize) -> impl Iterator<Item = f32> {
    (0..len).map(|i| (i * 29 % 97) as f32 - 48.0)
}

/// Weights of any value.
fn any_byte(i: usize) -> u8 {
    (i * 37 % 251) as u8
}
