//! Pictures as decoders give them, and what they are as RGB.

use image::ColorType;

use super::color;
use super::notes::Notes;
use super::pixels::CHANNELS;

/// What the walk over a file's own structure found, before a decoder is trusted with it. The decoders allocate from
/// declared sizes.
#[derive(Debug, Default)]
pub(super) struct Outline<'a> {
    /// Width and height of pictures inside, where the file declares them in a place of its own.
    pub(super) sizes: Vec<(u32, u32)>,
    /// Memory per pixel that the decoder holds beside its output, in bytes.
    pub(super) extra_bytes_per_pixel: u64,
    pub(super) notes: Notes<'a>,
    /// Whether something is missing that the decoder would not miss.
    pub(super) is_cut: bool,
}

/// A picture as a decoder gives it.
#[derive(Debug)]
pub(super) struct Native {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) samples: Samples,
    pub(super) is_truncated: bool,
}

/// Pixels before they are RGB.
#[derive(Debug)]
pub(super) enum Samples {
    Rgb(Vec<u8>),
    /// As the `image` crate has it; 16-bit samples may be in the file's byte order, which is big-endian.
    Typed(Vec<u8>, ColorType, bool),
    Cmyk(Vec<u8>),
    /// Indices into a palette of RGB.
    Indexed(Vec<u8>, Vec<u8>),
}

impl Samples {
    /// As RGB. The error is a type that the supported formats do not have, such as floats.
    pub(super) fn into_rgb(self) -> Result<Vec<u8>, ColorType> {
        match self {
            Self::Rgb(rgb) => Ok(rgb),
            Self::Typed(samples, color, is_big_endian) => typed_to_rgb(samples, color, is_big_endian),
            Self::Cmyk(samples) => Ok(narrow::<4>(samples, color::from_cmyk)),
            Self::Indexed(indices, palette) => {
                let colors = palette.as_chunks::<CHANNELS>().0;
                // Behind the palette's end Pillow has black.
                let color = |&index: &u8| colors.get(usize::from(index)).copied().unwrap_or_default();
                Ok(indices.iter().flat_map(color).collect())
            }
        }
    }
}

fn typed_to_rgb(samples: Vec<u8>, color: ColorType, is_big_endian: bool) -> Result<Vec<u8>, ColorType> {
    // Where the high byte of a sample is.
    let high = usize::from(cfg!(target_endian = "little") && !is_big_endian);
    Ok(match color {
        ColorType::Rgb8 => samples,
        ColorType::Rgba8 => narrow::<4>(samples, |p| [p[0], p[1], p[2]]),
        ColorType::Rgb16 => narrow::<6>(samples, |p| [p[high], p[2 + high], p[4 + high]]),
        ColorType::Rgba16 => narrow::<8>(samples, |p| [p[high], p[2 + high], p[4 + high]]),
        ColorType::La16 => narrow::<4>(samples, |p| [p[high]; CHANNELS]),
        ColorType::L8 => spread::<1>(&samples, 0),
        ColorType::La8 => spread::<2>(&samples, 0),
        ColorType::L16 => spread::<2>(&samples, high),
        color => return Err(color),
    })
}

/// Makes RGB of each pixel of `N` bytes, in place.
fn narrow<const N: usize>(mut samples: Vec<u8>, rgb: impl Fn([u8; N]) -> [u8; CHANNELS]) -> Vec<u8> {
    let pixels = samples.len() / N;
    for i in 0..pixels {
        let mut pixel = [0; N];
        pixel.copy_from_slice(&samples[i * N..][..N]);
        samples[i * CHANNELS..][..CHANNELS].copy_from_slice(&rgb(pixel));
    }
    samples.truncate(pixels * CHANNELS);
    samples.shrink_to_fit();
    samples
}

/// Makes RGB of the grey samples that the first third of `pixels` holds, in place.
pub(super) fn spread_grey(pixels: &mut [u8]) {
    for i in (0..pixels.len() / CHANNELS).rev() {
        let grey = pixels[i];
        pixels[i * CHANNELS..][..CHANNELS].fill(grey);
    }
}

/// Copies the byte at `place` of each pixel of `N` bytes to three channels.
fn spread<const N: usize>(samples: &[u8], place: usize) -> Vec<u8> {
    samples.as_chunks::<N>().0.iter().flat_map(|pixel| [pixel[place]; CHANNELS]).collect()
}
