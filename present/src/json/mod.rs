//! The objects of `docs/json.md`, which promises their fields. All serialize with serde; a line is one object.

mod answer;
mod model;

pub use answer::{Answer, Edges, Failure, Mask, Object, Timings, stop_name};
pub use model::{ModelFile, Plan};
