//! How a test says that it, or a part of it, did not run. `.ci/run` counts these lines.
//!
//! This file stands alone, so that the tests of packages below this one can have it too (`#[path]`).

#![allow(dead_code, reason = "not every test program needs all of it")]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says that `what` is not tested, and why: as a line `SKIPPED: what: why` on the terminal, once however often it is
/// called.
pub fn skipped(what: impl Display, why: impl Display) {
    let line = format!("SKIPPED: {what}: {why}\n");
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        // Not `eprintln`, whose words are shown only if the test fails.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Like [`skipped`], for want of something that `tests/setup.sh` brings: on the machine that decides about a change,
/// where `CI` is set, it must be there.
pub fn missing(what: impl Display, why: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{what} cannot be tested: {why}; run tests/setup.sh");
    skipped(what, format_args!("{why} (tests/setup.sh)"));
}

/// Says that an instruction set is not tested because this CPU lacks it. Those of other architectures are not missed
/// here: they are tested there, or in emulation.
pub fn no_instruction_set(name: impl Display) {
    let name = name.to_string();
    if name.to_ascii_lowercase().starts_with("neon") == cfg!(target_arch = "aarch64") {
        skipped(format_args!("kernels of {name}"), "this CPU does not have it");
    }
}
