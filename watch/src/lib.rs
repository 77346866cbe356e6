//! The perception loop: pictures from cameras, looked at when something in them changed, and what follows from answers.
//!
//! [`source`] says where pictures come from and hands the newest one over, [`stream`] cuts what cameras deliver into
//! pictures, [`gate`] says whether one is worth a look, [`look`] asks about it, and [`event`] makes of looks what
//! happened.

pub mod command;
pub mod config;
pub mod event;
pub mod gate;
pub mod look;
pub mod period;
pub mod record;
pub mod ros2;
pub mod run;
pub mod setup;
pub mod sink;
pub mod source;
pub mod stream;
pub mod watcher;
