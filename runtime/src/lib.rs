//! palmtop: PaliGemma 1 and 2 on small devices.
//!
//! A [`Model`] maps a `.palm` file; a [`Session`] owns all memory and threads that answering needs, and
//! allocates nothing after it is made. Look at a picture once, ask as much as you like:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use palmtop::image::{ImageLimits, decode_file};
//! use palmtop::{GenerateOptions, Limits, Model, Session};
//!
//! # fn main() -> palmtop::Result<()> {
//! let model = Model::open("paligemma.palm".as_ref())?;
//! let mut session = Session::new(&model, &Limits::default())?;
//! let mut features = session.new_features()?;
//! let options = GenerateOptions::default();
//! let picture = decode_file("cat.jpg", &ImageLimits::default())?;
//! session.encode(picture.view(), &mut features, &options)?;
//! for prompt in ["caption en", "answer en what colour is the cat?"] {
//!     let answers = session.answer(&features, &[prompt], &options, &mut |_| ControlFlow::Continue(()))?;
//!     println!("{}", answers[0].text);
//! }
//! # Ok(())
//! # }
//! ```

mod attention;
mod buffers;
mod compute;
pub mod config;
mod control;
mod engine;
pub mod error;
pub mod format;
pub mod grammar;
mod head;
pub mod image;
mod kv;
pub mod machine;
mod memory;
pub mod model;
pub mod plan;
mod pool;
mod rope;
mod sampler;
pub mod session;
pub mod tasks;
mod text;
pub mod tokenizer;
mod trace;
mod vision;
mod weights;
pub mod work;

pub use error::{Error, Result};
pub use grammar::{Grammar, GrammarError};
pub use model::Model;
pub use plan::{KvFormat, Limits, Plan};
pub use session::{
    Answer, CancelToken, GenerateOptions, ImageFeatures, Piece, Sampling, Session, StopReason, Timings,
};
