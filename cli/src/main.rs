//! The program `palmtop`.
#[allow(dead_code, unused_imports)]
mod overlay;

fn main() {}
