//! `palmtop embed` and `palmtop find`: an index of pages, and which of them answer a question.

pub mod args;
pub mod embed;
pub mod find;
pub mod inspect;
mod model;
