//! The perception loop: pictures from cameras, looked at when something in them changed, and what follows from answers.
//!
//! [`stream`] cuts what cameras deliver into pictures, [`gate`] says whether one is worth a look, [`event`] turns looks into
//! what happened.

pub mod event;
pub mod gate;
pub mod stream;
