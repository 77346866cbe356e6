//! Arithmetic of palmtop: quantized matrix products, norms, attention and elementwise functions.
//! Knows no files and no models; allocates nothing, starts no threads.
//!
//! # One arithmetic
//!
//! The plain-Rust kernels are the definition, and every instruction set gives the same bits:
//! - the operators of the graph ([`ops`]) are written once over sixteen virtual lanes ([`simd::Simd`]);
//! - integer matrix products ([`matmul_int`]) are exact in any order, and their chunks are added up in one order, one
//!   output per lane;
//! - no sum is ever split over threads.
//!
//! [`Kernels::new`] takes an instruction set, or chooses one; holding the value is the proof that the CPU has it.

#[cfg(target_endian = "big")]
compile_error!(
    "palmtop runs on little-endian machines only: packed weights are multiplied where they lie in the file"
);

pub mod activations;
pub mod dispatch;
pub mod float_mode;
pub mod isa;
pub mod layout;
pub mod matmul_int;
pub mod ops;
pub mod simd;

pub use activations::QuantizedRows;
pub use dispatch::Kernels;
pub use float_mode::DefaultFloatMode;
pub use isa::{ISA_VARIABLE, Isa, IsaError, set_default_isa};
pub use matmul_int::{MatmulInteger, PANEL, PANEL_STRIPES, PanelScratch};
pub use ops::attention::{KeysValues, KvScales, ROWS_MAX as ATTENTION_ROWS_MAX, Scores};
pub use ops::attention_int8::{ChunkShape, Int8KeysValues, Int8Scratch};
