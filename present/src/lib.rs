//! What people and programs are shown of answers, and where pictures come from.
//!
//! | module | takes | gives |
//! | --- | --- | --- |
//! | [`sources`] | names of files, folders and patterns, and `-` | pictures |
//! | [`overlay`] | objects, and RGB pixels in memory | the same pixels with boxes, labels and masks |
//! | [`encode`] | pictures and masks | PNG or JPEG, into any writer |
//! | [`json`] | answers, plans and model files | the objects of `docs/json.md` |
//! | [`plain`] | objects, names and sizes | text that is safe on a terminal |
//!
//! Functions take data and give data: nothing here prints, reads arguments, chooses where files go or ends the program.
//! Whatever does (the program `palmtop`, a camera loop, a server) is built on this.

pub mod encode;
mod found;
pub mod json;
pub mod overlay;
mod passed_over;
mod patterns;
pub mod plain;
pub mod sources;

pub use found::{Answered, Found, Part};
pub use passed_over::PassedOver;
