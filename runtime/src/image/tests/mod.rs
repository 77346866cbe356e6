//! The module's parts against Pillow, the Hugging Face processor, plain restatements, and hostile files.

mod decode;
mod encoded;
mod frame;
mod hostile;
mod normalise;
mod pictures;
mod resize;
mod truncated;

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::{ImageLimits, RgbImage, decode_file};

fn data_dir() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).to_owned()
}

/// One reference run: an image, its pixels after resizing and after normalising.
struct Vector {
    name: String,
    image: RgbImage,
    /// `[side, side, 3]`
    resized: Vec<u8>,
    side: u32,
    /// `[3, side, side]`
    pixel_values: Vec<f32>,
}

/// All reference runs under tests/data/vectors that carry pixels.
fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for checkpoint in std::fs::read_dir(data_dir().join("vectors")).unwrap() {
        let checkpoint = checkpoint.unwrap().path();
        if !checkpoint.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(checkpoint).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "safetensors") {
                vectors.extend(vector(&path));
            }
        }
    }
    assert!(vectors.len() >= 20, "only {} vectors with pixels found", vectors.len());
    vectors
}

fn vector(path: &Path) -> Option<Vector> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let resized = tensors.tensor("resized").ok()?;
    let pixel_values = tensors.tensor("pixel_values").unwrap();
    let json = std::fs::read_to_string(path.with_extension("json")).unwrap();
    let image = json.split("\"image\": \"").nth(1).unwrap().split('"').next().unwrap();
    Some(Vector {
        name: path.display().to_string(),
        image: decode_file(data_dir().join("images").join(image), &ImageLimits::default()).unwrap(),
        side: resized.shape()[0] as u32,
        resized: resized.data().to_vec(),
        pixel_values: pixel_values.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    })
}

/// Deterministic pixels, the `source` of tests/data/resize/make_resize_goldens.py.
fn generated(width: u32, height: u32, seed: u32) -> RgbImage {
    let byte = |i: u32| {
        let mut z = i.wrapping_mul(0x9e37_79b1).wrapping_add(seed.wrapping_mul(0x85eb_ca6b));
        z = (z ^ (z >> 15)).wrapping_mul(0x2c1b_3c6d);
        z = (z ^ (z >> 12)).wrapping_mul(0x297a_2d39);
        let noise = (z >> 24) as u8;
        if seed % 2 == 1 {
            return noise;
        }
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        (x + y * (c + 1)) as u8 & 0xe0 | noise & 0x1f
    };
    RgbImage::new(width, height, (0..width * height * 3).map(byte).collect()).unwrap()
}
