//! palmtop: PaliGemma 1 and 2 on small devices.
//!
//! A [`Model`](https://docs.rs) maps a `.palm` file; a session owns all memory that answering needs.

pub mod config;
pub mod error;
pub mod format;
pub mod image;
pub mod model;
pub mod plan;
pub mod tasks;
pub mod tokenizer;

pub use error::{Error, Result};
