//! The machine: its limits, memory that may be refused, and threads.

pub mod machine;
pub(crate) mod memory;
pub mod pool;
