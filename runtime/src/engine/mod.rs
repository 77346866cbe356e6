//! What computes the model's graph.

pub(crate) mod control;
pub(crate) mod cpu;
pub(crate) mod features;
pub(crate) mod head;
pub(crate) mod limits;
pub(crate) mod trace;
