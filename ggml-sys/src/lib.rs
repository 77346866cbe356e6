//! [ggml](https://github.com/ggml-org/ggml) beside palmtop: a judge of its block formats, and the peer in the benches.
//!
//! Nothing that ships depends on this crate. `.palm` files hold formats of their own (`docs/format.md`), never ggml's; what is
//! here is for tests and comparisons.
//!
//! - [`blocks`], always there: Q4_0 and Q8_0 in plain Rust, the same bytes as ggml's reference quantizers make.
//! - With the feature `ggml`: `ffi`, ggml itself, as bindgen sees its headers; `reference`, its quantizers and dot products;
//!   `product`, its matrix products on the CPU.
//!
//! The feature is off by default, since it compiles the C++ sources that the crate `llama-cpp-sys-2` carries: minutes, and
//! cmake, a C++ compiler and libclang must be there.
//!
//! **What it is compiled for.** x86-64 ggml chooses its kernels when it is compiled: AVX2, unless
//! `RUSTFLAGS="-C target-cpu=native"` asks for what this CPU has. A figure of ggml means little without
//! `reference::cpu_features`, which tells.

pub mod blocks;
#[cfg(feature = "ggml")]
pub mod ffi;
#[cfg(feature = "ggml")]
pub mod product;
#[cfg(feature = "ggml")]
pub mod reference;
