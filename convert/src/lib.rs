//! Checkpoints in, `.palm` files out.

pub mod npz;
pub mod tokenizer;
