//! [ggml](https://github.com/ggml-org/ggml) for comparison with palmtop: the reference for its block formats, and the
//! peer in the benches.
//!
//! Nothing that ships depends on this crate; it is for tests and comparisons. `.palm` files have formats of their own
//! (`docs/format.md`), never ggml's.
//!
//! - [`blocks`], always available: Q4_0 and Q8_0 in plain Rust, the same bytes as ggml's reference quantizers make.
//! - With the feature `ggml`: `ffi`, ggml itself, as bindgen sees its headers; `reference`, its quantizers and dot
//!   products; `product`, its matrix products on the CPU.
//!
//! The feature is off by default because it compiles the C++ sources in the crate `llama-cpp-sys-2`. That takes minutes
//! and needs cmake, a C++ compiler and libclang.
//!
//! **What it is compiled for.** On x86-64, ggml selects its kernels at compile time: AVX2, unless
//! `RUSTFLAGS="-C target-cpu=native"` asks for the features of this CPU. A figure of ggml means little without
//! `reference::cpu_features`, which reports them.

pub mod blocks;
#[cfg(feature = "ggml")]
pub mod ffi;
#[cfg(feature = "ggml")]
pub mod product;
#[cfg(feature = "ggml")]
pub mod reference;
