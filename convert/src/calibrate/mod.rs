//! Calibration.
#![allow(dead_code)]
mod factor;
mod feedback;
mod moments;
