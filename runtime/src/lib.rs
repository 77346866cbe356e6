//! palmtop: PaliGemma 1 and 2 on small devices.
//!
//! A [`Model`] maps a `.palm` file, which must stay as it is meanwhile ([`Model::open`]), or reads it
//! ([`Model::read`]); a [`Session`] owns all memory and threads that answering needs, and allocates nothing after it is
//! made. Look at a picture once, ask as much as you like:
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
//!
//! A camera: frames are read where they lie, each gets 200 ms, and a button on another thread can stop it.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::time::{Duration, Instant};
//! use palmtop::image::{Frame, Plane, Rotation};
//! use palmtop::{CancelToken, Error, GenerateOptions, Limits, Model, Session, StopReason};
//!
//! # fn next_frame() -> Option<Vec<u8>> { None }
//! fn watch(button: CancelToken) -> palmtop::Result<()> {
//!     let model = Model::open("paligemma.palm".as_ref())?;
//!     let mut limits = Limits::default();
//!     (limits.image_side, limits.new_tokens) = (640, 16);
//!     println!("this will take\n{}", model.plan(&limits)?);
//!     let mut session = Session::new(&model, &limits)?;
//!     let mut features = session.new_features()?;
//!     let mut options = GenerateOptions::default();
//!     options.cancel = button;
//!     while let Some(nv12) = next_frame() {
//!         options.deadline = Some(Instant::now() + Duration::from_millis(200));
//!         let (luma, chroma) = nv12.split_at(640 * 480);
//!         let frame = Frame::nv12(640, 480, Plane::new(luma, 640), Plane::new(chroma, 640))?
//!             .turned(Rotation::Clockwise90);
//!         match session.encode(frame, &mut features, &options) {
//!             Ok(()) => {}
//!             Err(Error::Cancelled) => break,
//!             Err(Error::DeadlinePassed) => continue,
//!             Err(other) => return Err(other),
//!         }
//!         let answers = session.answer(&features, &["caption en"], &options, &mut |piece| {
//!             print!("{}", piece.text);
//!             ControlFlow::Continue(())
//!         })?;
//!         match answers[0].stop {
//!             StopReason::Cancelled => break,
//!             StopReason::DeadlinePassed => println!(" (no time for more)"),
//!             _ => println!(),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Boxes and masks in pixels of the picture:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use palmtop::image::{ImageLimits, decode_file};
//! use palmtop::tasks::{ReadOptions, Task};
//! use palmtop::{GenerateOptions, Limits, Model, Session};
//!
//! # fn main() -> palmtop::Result<()> {
//! let model = Model::open("paligemma.palm".as_ref())?;
//! let mut session = Session::new(&model, &Limits::default())?;
//! let mut features = session.new_features()?;
//! let options = GenerateOptions::default();
//! session.encode(decode_file("cat.jpg", &ImageLimits::default())?.view(), &mut features, &options)?;
//! let prompt = Task::segment(["cat"])?.prompt();
//! let answers = session.answer(&features, &[&prompt], &options, &mut |_| ControlFlow::Continue(()))?;
//! let mut wanted = ReadOptions::default();
//! wanted.masks = true;
//! for object in model.read_answer(&answers[0], features.picture_size(), &wanted)?.objects {
//!     println!("{} {:?} {:?}", object.label, object.score, object.bounding_box);
//!     if let Some(mask) = object.mask {
//!         println!("{} pixels", mask.area());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(target_endian = "big")]
compile_error!(
    "palmtop runs on little-endian machines only: model files are little-endian and used in place"
);

/// Its example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/prefix.md")]
struct PageOfPrefixes;

mod engine;
pub mod error;
pub mod format;
pub mod image;
pub mod model;
pub mod session;
pub mod system;
pub mod tasks;
pub mod tokenizer;

pub use engine::features::ImageFeatures;
pub use engine::limits::Limits;
pub use error::{Error, Result, UsageError};
pub use model::Model;
pub use model::kv_format::KvFormat;
pub use model::retrieval::{QueryMask, Retrieval};
pub use palmtop_kernels::{DefaultFloatMode, Isa, IsaError, set_default_isa};
pub use session::embedding::Embedding;
pub use session::grammar::{Grammar, GrammarError};
pub use session::plan::Plan;
pub use session::prefix::{Prefix, PrefixLimits, PrefixText};
pub use session::{
    Answer, CancelToken, GenerateOptions, Piece, Request, Sampling, SequenceId, Session, StopReason, Timings,
};
pub use system::pool::ThreadHints;
