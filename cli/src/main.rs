//! The program `palmtop`.
fn main() {}
