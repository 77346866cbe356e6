//! Decoding: JPEG, PNG, WebP, BMP and GIF to RGB.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::{bmp, gif, jpeg, png, webp};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat};

use super::pixels::CHANNELS;
use super::{ImageError, LayoutError, RgbImage, container};

/// What an image may cost at most. Checked before anything of that size is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Longest side in pixels.
    pub side_max: u32,
    /// Most bytes that decoding may hold at once: the pixels as the file has them, their conversion, and the
    /// decoder's own buffers (estimated).
    pub decoded_bytes_max: u64,
    /// Longest file in bytes.
    pub encoded_bytes_max: u64,
}

impl Default for ImageLimits {
    /// 16384 pixels per side, 512 MiB decoded, 256 MiB encoded.
    fn default() -> Self {
        Self { side_max: 16384, decoded_bytes_max: 512 << 20, encoded_bytes_max: 256 << 20 }
    }
}

/// Decodes a JPEG, PNG, WebP, BMP or GIF image, told apart by content, to RGB.
///
/// - The Exif orientation is applied: the result is as the camera was held.
/// - Alpha is dropped, not blended, and grey is copied to three channels, as Pillow's `convert("RGB")` does. What
///   lies under transparent pixels therefore shows.
/// - Of 16-bit samples the high byte is kept, as Pillow does for colour. (For 16-bit grey Pillow clips at 255, which
///   turns nearly everything white; that is not followed.)
/// - Of animations, the first frame is taken. What the first frame does not cover is black.
/// - Colour profiles are ignored, as Pillow does. JPEGs are decoded by zune-jpeg, whose samples can differ by
///   a few levels from libjpeg's.
///
/// # Errors
/// If the bytes are not a complete image of a supported kind within `limits`.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() as u64 > limits.encoded_bytes_max {
        return Err(ImageError::FileTooLarge { limit_bytes: limits.encoded_bytes_max });
    }
    let format = container::sniff(bytes)?;
    let outline = container::outline(format, bytes)?;
    for &(width, height) in &outline.sizes {
        check_side(width, height, limits)?;
    }
    // The decoders index and assert on what the file says. One bad frame must not end a robot's process.
    catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes, &outline, limits))).unwrap_or_else(|_| {
        Err(ImageError::Broken {
            format: container::name(format),
            reason: "the decoder cannot decode it".into(),
        })
    })
}

/// Decodes the image in the file at `path`. See [`decode`].
///
/// # Errors
/// As [`decode`], and if the file cannot be read. At most `encoded_bytes_max` bytes of it are.
pub fn decode_file(path: impl AsRef<Path>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    decode(&read_file(path.as_ref(), limits)?, limits)
}

fn read_file(path: &Path, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
    let read = || {
        let mut bytes = Vec::new();
        // One byte more, so that a longer file is seen to be longer. Devices and pipes have no length to ask for.
        File::open(path)?.take(limits.encoded_bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| ImageError::Read { path: path.to_owned(), source })
}

/// Exif's number of the orientation that [`decode_file`] applies to a picture, from 1 (none) to 8.
///
/// # Errors
/// As [`decode_file`], but for broken pixels, which are not read.
pub fn orientation_of_file(path: impl AsRef<Path>, limits: &ImageLimits) -> Result<u8, ImageError> {
    let bytes = read_file(path.as_ref(), limits)?;
    let format = container::sniff(&bytes)?;
    let read = || open(format, &bytes, &image::Limits::no_limits())?.orientation();
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(orientation) => Ok(orientation.map_err(|error| from_decoder(format, error))?.to_exif()),
        Err(_) => Err(ImageError::Broken {
            format: container::name(format),
            reason: "the decoder cannot decode it".into(),
        }),
    }
}

fn decode_as(
    format: ImageFormat,
    bytes: &[u8],
    outline: &container::Outline,
    limits: &ImageLimits,
) -> Result<RgbImage, ImageError> {
    let error = |error| from_decoder(format, error);
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_image_width = Some(limits.side_max);
    decoder_limits.max_image_height = Some(limits.side_max);
    decoder_limits.max_alloc = Some(limits.decoded_bytes_max);
    let mut decoder = open(format, bytes, &decoder_limits).map_err(error)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::Broken {
            format: container::name(format),
            reason: "it has no pixels".into(),
        });
    }
    check_side(width, height, limits)?;

    let orientation = decoder.orientation().map_err(error)?;
    let color = decoder.color_type();
    let pixels = u64::from(width) * u64::from(height);
    let native_bytes = pixels * u64::from(color.bytes_per_pixel());
    let decoding_bytes = native_bytes + pixels * outline.extra_bytes_per_pixel;
    let turning_bytes = if transposes(orientation) { 2 * 3 * pixels } else { 0 };
    let converting_bytes = if narrows(color) { native_bytes } else { native_bytes + 3 * pixels };
    let needed_bytes = decoding_bytes.max(converting_bytes).max(turning_bytes);
    if needed_bytes > limits.decoded_bytes_max {
        let limit_bytes = limits.decoded_bytes_max;
        return Err(ImageError::TooManyBytes { width, height, needed_bytes, limit_bytes });
    }
    // What remains is for the decoder's own buffers, where it keeps account of them.
    decoder_limits.max_alloc = Some(limits.decoded_bytes_max - native_bytes);
    decoder.set_limits(decoder_limits).map_err(error)?;

    // On a machine with 32-bit addresses the limit may be set above what can be addressed.
    let Ok(len) = usize::try_from(native_bytes) else {
        return Err(ImageError::TooManyBytes { width, height, needed_bytes, limit_bytes: usize::MAX as u64 });
    };
    let mut native = vec![0; len];
    decoder.read_image_boxed(&mut native).map_err(error)?;
    let rgb = to_rgb(native, color).ok_or_else(|| ImageError::Unsupported {
        format: container::name(format),
        reason: format!("samples of type {color:?}"),
    })?;
    orient(width, height, rgb, orientation)
}

fn open<'a>(
    format: ImageFormat,
    bytes: &'a [u8],
    limits: &image::Limits,
) -> image::ImageResult<Box<dyn ImageDecoder + 'a>> {
    let reader = Cursor::new(bytes);
    Ok(match format {
        ImageFormat::Jpeg => Box::new(jpeg::JpegDecoder::new(reader)?),
        ImageFormat::Png => Box::new(png::PngDecoder::with_limits(reader, limits.clone())?),
        ImageFormat::WebP => Box::new(webp::WebPDecoder::new(reader)?),
        ImageFormat::Bmp => Box::new(bmp::BmpDecoder::new(reader)?),
        // `sniff` lets nothing else through.
        _ => Box::new(gif::GifDecoder::new(reader)?),
    })
}

fn check_side(width: u32, height: u32, limits: &ImageLimits) -> Result<(), ImageError> {
    if width.max(height) > limits.side_max {
        return Err(ImageError::SideTooLarge { width, height, side_max: limits.side_max });
    }
    Ok(())
}

fn from_decoder(format: ImageFormat, error: image::ImageError) -> ImageError {
    let format = container::name(format);
    match &error {
        image::ImageError::Unsupported(_) => ImageError::Unsupported { format, reason: error.to_string() },
        _ if is_end_of_file(&error) => ImageError::Truncated { format },
        _ => ImageError::Broken { format, reason: error.to_string() },
    }
}

/// Whether the cause of `error` is that bytes are missing.
fn is_end_of_file(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether RGB takes no more bytes than `color`, so that the conversion needs no second buffer.
fn narrows(color: ColorType) -> bool {
    usize::from(color.bytes_per_pixel()) >= CHANNELS
}

/// Samples of type `color` as RGB; `None` for floats, which the supported formats do not have.
fn to_rgb(native: Vec<u8>, color: ColorType) -> Option<Vec<u8>> {
    // 16-bit samples are in the machine's byte order.
    let high = usize::from(cfg!(target_endian = "little"));
    Some(match color {
        ColorType::Rgb8 => native,
        ColorType::Rgba8 => pick::<4>(native, [0, 1, 2]),
        ColorType::Rgb16 => pick::<6>(native, [high, 2 + high, 4 + high]),
        ColorType::Rgba16 => pick::<8>(native, [high, 2 + high, 4 + high]),
        ColorType::La16 => pick::<4>(native, [high; CHANNELS]),
        ColorType::L8 => spread::<1>(&native, 0),
        ColorType::La8 => spread::<2>(&native, 0),
        ColorType::L16 => spread::<2>(&native, high),
        _ => return None,
    })
}

/// Keeps the bytes at `places` of each pixel of `N` bytes, in place.
fn pick<const N: usize>(mut native: Vec<u8>, places: [usize; CHANNELS]) -> Vec<u8> {
    let pixels = native.len() / N;
    for i in 0..pixels {
        let pixel = places.map(|place| native[i * N + place]);
        native[i * CHANNELS..][..CHANNELS].copy_from_slice(&pixel);
    }
    native.truncate(pixels * CHANNELS);
    native.shrink_to_fit();
    native
}

/// Copies the byte at `place` of each pixel of `N` bytes to three channels.
fn spread<const N: usize>(native: &[u8], place: usize) -> Vec<u8> {
    native.as_chunks::<N>().0.iter().flat_map(|pixel| [pixel[place]; CHANNELS]).collect()
}

fn transposes(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn orient(width: u32, height: u32, rgb: Vec<u8>, orientation: Orientation) -> Result<RgbImage, ImageError> {
    if orientation == Orientation::NoTransforms {
        return RgbImage::new(width, height, rgb);
    }
    let (given, needed) = (rgb.len(), CHANNELS * width as usize * height as usize);
    let buffer =
        image::RgbImage::from_raw(width, height, rgb).ok_or(LayoutError::Length { needed, given })?;
    let mut turned = DynamicImage::ImageRgb8(buffer);
    turned.apply_orientation(orientation);
    let (width, height) = (turned.width(), turned.height());
    RgbImage::new(width, height, turned.into_rgb8().into_raw())
}
