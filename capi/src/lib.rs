//! libpalmtop: the C interface. `palmtop.h` beside this folder is its documentation; this crate is the implementation.
//!
//! - **Handles are numbers.** A handle names a place in a table and how often that place has been freed (`handles`). If
//!   a handle was freed, was never issued or is of another kind, the call returns an error. The library follows no
//!   address from a caller, except those of the memory and the strings that a call works on.
//! - **One call at a time.** Each object that changes is behind a lock that calls try but never wait for: the second
//!   call learns that the object is busy (`session`).
//! - **No panic leaves.** Every function runs in `failure::call`, which turns a panic into an error. A session in which
//!   a panic happened refuses all later calls.
//! - **Nothing is allocated** between the creation of a session and the last token; results are allocated after it, and
//!   the records of a watch when there is something to tell.
//!
//! `tests/header.rs` compares this crate with the header, item by item.

#![allow(missing_docs, reason = "the header has them")]
#![allow(non_camel_case_types, reason = "types have the names that they have in C")]

mod answer;
mod arguments;
mod failure;
mod handles;
mod logging;
mod model;
mod picture;
mod prefix;
mod prompt;
mod record;
mod result;
mod session;
mod watch;

pub use answer::*;
pub use failure::*;
pub use logging::*;
pub use model::*;
pub use picture::*;
pub use prefix::*;
pub use prompt::*;
pub use record::*;
pub use result::*;
pub use session::*;
pub use watch::*;

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
    clock_ns(Instant::now())
}

/// A reading of the clock, from one on: zero is no time.
pub(crate) fn clock_ns(at: Instant) -> u64 {
    (at.saturating_duration_since(epoch()).as_nanos() as u64).saturating_add(1)
}

/// When the clock began.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// The instant of a reading of the clock; none for zero, and for what lies beyond all time.
pub(crate) fn instant(clock_ns: u64) -> Option<Instant> {
    (clock_ns > 0).then(|| epoch().checked_add(Duration::from_nanos(clock_ns - 1))).flatten()
}
