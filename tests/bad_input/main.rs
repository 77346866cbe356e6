//! Model files are untrusted: every way in which one can be bad gives an error that says what is wrong, or wrong
//! answers where only the weights are damaged; never a panic, a hang or an abort.

mod contents;
mod damaged;
mod files;
mod large;
mod parts;
mod wild;
