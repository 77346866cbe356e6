//! Where pictures come from, and how the newest one gets to the loop.
//!
//! [`Address`] is what a user writes. A capture thread reads the source and hands pictures over through a [`Latest`]:
//! the loop always finds the newest one, and capture never waits for the model. Files are an exception: they are read
//! picture by picture, as fast as the loop takes them, so that a film gives the same events every time. [`Health`] says
//! whether what comes is worth something.

mod address;
#[cfg(feature = "sources")]
mod bell;
#[cfg(feature = "sources")]
mod bytes;
#[cfg(feature = "sources")]
mod capture;
#[cfg(feature = "sources")]
mod csi;
#[cfg(feature = "sources")]
mod feed;
#[cfg(feature = "sources")]
mod ffmpeg;
#[cfg(feature = "sources")]
mod folder;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "sources")]
mod health;
#[cfg(feature = "sources")]
mod http;
#[cfg(feature = "sources")]
mod latest;
#[cfg(feature = "sources")]
mod open;
#[cfg(feature = "sources")]
mod program;
#[cfg(feature = "ros2")]
mod ros2;
mod secrets;
#[cfg(all(feature = "sources", target_os = "linux"))]
mod v4l2;

pub use address::{Address, AddressError, Kind, PixelLayout, size_of};
#[cfg(feature = "sources")]
pub use bell::Bell;
#[cfg(feature = "sources")]
pub use capture::{Capture, Status};
#[cfg(feature = "sources")]
pub use health::{Health, HealthOptions};
#[cfg(feature = "sources")]
pub use http::HttpError;
#[cfg(feature = "sources")]
pub use latest::{Latest, Pace, Shot, Taken, Tap};
#[cfg(feature = "sources")]
pub(crate) use open::first_bytes;
#[cfg(feature = "sources")]
pub use open::{OpenOptions, SourceError};
#[cfg(all(feature = "sources", target_os = "linux"))]
pub use v4l2::CameraError;
