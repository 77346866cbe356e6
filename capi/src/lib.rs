//! libpalmtop: the C interface. `palmtop.h` beside this folder is its documentation; here is only how it is done.
//!
//! - **Handles are numbers.** A handle names a place in a table and how often that place has been used (`handles`). One that
//!   was freed, belongs to another kind of object or was never given out is found to be so and gives an error: nothing
//!   that a caller hands in is followed as an address, except the memory and the texts that a call is about.
//! - **One call at a time.** What changes is behind a lock that is only ever tried: who comes second is told that the
//!   object is busy (`session`).
//! - **No panic leaves.** Every function runs in `failure::call`, which makes a panic an error; a session in which one
//!   happened is not used again.
//! - **Nothing is allocated** between the making of a session and the last token; results are made behind it.
//!
//! The tests compare this with the header, item by item: `tests/header.rs`.

#![allow(missing_docs, reason = "the header has them")]
#![allow(non_camel_case_types, reason = "types have the names that they have in C")]

mod answer;
mod arguments;
mod failure;
mod handles;
mod logging;
mod model;
mod picture;
mod prompt;
mod result;
mod session;

pub use answer::*;
pub use failure::*;
pub use handles::{palmtop_features, palmtop_grammar, palmtop_model, palmtop_result, palmtop_session};
pub use logging::*;
pub use model::*;
pub use picture::*;
pub use prompt::*;
pub use result::*;
pub use session::*;

use std::ffi::c_char;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const PALMTOP_ABI_VERSION: u32 = 1;

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_abi_version() -> u32 {
    PALMTOP_ABI_VERSION
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_clock_ns() -> u64 {
    // From one on: zero is no deadline.
    (epoch().elapsed().as_nanos() as u64).saturating_add(1)
}

/// When the clock began.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// The instant of a reading of the clock; none for zero, and for what lies beyond all time.
pub(crate) fn deadline(clock_ns: u64) -> Option<Instant> {
    (clock_ns > 0).then(|| epoch().checked_add(Duration::from_nanos(clock_ns - 1))).flatten()
}
