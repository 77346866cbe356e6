//! Checkpoints in, `.palm` files out.

pub mod tokenizer;
