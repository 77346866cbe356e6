//! The perception loop: pictures from cameras, looked at when something in them changed, and what follows from answers.
//!
//! [`source`] says where pictures come from and hands the newest one over, [`stream`] cuts what cameras deliver into
//! pictures, [`gate`] says whether one is worth a look, [`look`] asks about it, and [`event`] makes of looks what
//! happened. [`run`] is the whole loop; an app that has frames of its own gives them to [`frames`], which takes neither
//! of the features `sources` and `sinks`. `film` takes frames of a film for one prompt.

pub mod command;
pub mod config;
pub mod event;
#[cfg(feature = "sources")]
pub mod film;
pub mod frames;
pub mod gate;
pub mod look;
pub mod period;
pub mod record;
pub mod ros2;
#[cfg(all(feature = "sources", feature = "sinks"))]
pub mod run;
pub mod setup;
#[cfg(feature = "sinks")]
pub mod sink;
pub mod source;
#[cfg(feature = "sources")]
pub mod stream;
pub mod watcher;
