//! See `src/parsers`.
#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../src/parsers/mod.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::index(bytes));
