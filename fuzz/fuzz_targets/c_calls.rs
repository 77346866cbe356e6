//! Any calls of the C library in any order, with any arguments: see `src/calls.rs`.
#![no_main]

#[path = "../src/calls.rs"]
mod calls;

use std::ffi::CString;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static MODEL: OnceLock<CString> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        calls::tiny_model(&folder)
    });
    let _ = calls::play(bytes, model);
});
