//! Where pictures come from, and how the newest one gets to the loop.
//!
//! [`Address`] is what a user writes. A capture thread reads the source and hands pictures over through a [`Latest`]:
//! the loop always finds the newest one, and capture never waits for the model. Files are an exception: they are read
//! picture by picture, as fast as the loop takes them, so that a film gives the same events every time.

mod address;
mod capture;
mod latest;
mod open;
#[cfg(feature = "ros2")]
mod ros2;

pub use address::{Address, AddressError, Kind, PixelLayout};
pub use capture::{Capture, Status};
pub use latest::{Latest, Pace, Shot, Taken};
pub use open::{OpenOptions, SourceError};
