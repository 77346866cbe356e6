//! Decoding: JPEG, PNG, WebP, BMP, GIF and TIFF to RGB.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::{bmp, png, webp};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder};
use zune_jpeg::errors::DecodeErrors;

use super::error::{ImageError, LayoutError, from_decoder};
use super::jpeg::{Extent, Jpeg, Scans};
use super::kind::{FileKind, Format};
use super::limits::{Cost, DecodeOptions, ImageLimits};
use super::native::{Native, Outline, Samples, spread_grey};
use super::notes::Notes;
use super::pixels::{CHANNELS, RgbImage};
use super::{bmp as bmp_file, gif, png as png_file, tiff, webp as webp_file};

/// A decoded image.
#[derive(Debug)]
pub struct Decoded {
    /// Its pixels.
    pub image: RgbImage,
    /// Whether it ends too early, so that some of the pixels are not its own.
    pub is_truncated: bool,
}

/// Decodes a JPEG, PNG, WebP, BMP, GIF or TIFF image, told apart by content, to RGB.
///
/// - The orientation is applied that Exif, or else XMP, gives: the result is as the camera was held.
/// - Alpha is dropped, not blended, and grey is copied to three channels, as Pillow's `convert("RGB")` does. What
///   lies under transparent pixels therefore shows. Only where TIFF has colours multiplied by alpha they are divided.
/// - Of 16-bit samples the high byte is kept, as Pillow does for colour. (For 16-bit grey Pillow clips at 255, which
///   turns nearly everything white; that is not followed.)
/// - Of animations the first frame is taken, and of TIFF the first page.
/// - Colour profiles are ignored, as Pillow does. JPEGs are decoded by zune-jpeg, whose samples can differ by
///   a few levels from libjpeg's.
/// - A JPEG whose scans are complete is complete, with or without an end marker, and with anything behind it. Huffman
///   tables that are missing are the standard's, as webcams mean it.
///
/// # Errors
/// If the bytes are not a complete image of a supported kind within `limits`.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let options = DecodeOptions { limits: *limits, ..DecodeOptions::default() };
    Ok(decode_with(bytes, &options)?.image)
}

/// The same with options.
///
/// # Errors
/// As [`decode`]; and with [`DecodeOptions::allow_truncated`] not if the image merely ends too early.
pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Decoded, ImageError> {
    if bytes.len() as u64 > options.limits.encoded_bytes_max {
        return Err(ImageError::FileTooLarge { limit_bytes: options.limits.encoded_bytes_max });
    }
    let format = format_of(bytes)?;
    guarded(format, || decode_as(format, bytes, options))
}

/// The same into a picture whose memory is used again: what decodes frame after frame. An upright JPEG, grey or in
/// colour, is decoded into it directly, without another buffer for pixels; zune-jpeg still takes and frees some of its
/// own for each picture. Any other is decoded as ever, and then put there. Gives whether the picture ends too early.
///
/// # Errors
/// As [`decode_with`]. `image` is then a picture without meaning.
pub fn decode_into(bytes: &[u8], options: &DecodeOptions, image: &mut RgbImage) -> Result<bool, ImageError> {
    let whole = bytes.len() as u64 <= options.limits.encoded_bytes_max;
    if whole && format_of(bytes)? == Format::Jpeg {
        let done = guarded(Format::Jpeg, || decode_jpeg_into(bytes, options, image))?;
        if let Some(is_truncated) = done {
            return Ok(is_truncated);
        }
    }
    let decoded = decode_with(bytes, options)?;
    *image = decoded.image;
    Ok(decoded.is_truncated)
}

/// The decoders index and assert on what the file says. One bad frame must not end a robot's process.
fn guarded<T>(format: Format, decode: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ImageError::Broken { format: format.name(), reason: "the decoder cannot decode it".into() })
    })
}

/// Decodes the image in the file at `path`. See [`decode`].
///
/// # Errors
/// As [`decode`], and if the file cannot be read. At most `encoded_bytes_max` bytes of it are.
pub fn decode_file(path: impl AsRef<Path>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    decode(&read_file(path.as_ref(), limits)?, limits)
}

/// The same with options.
///
/// # Errors
/// As [`decode_with`], and if the file cannot be read.
pub fn decode_file_with(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Decoded, ImageError> {
    decode_with(&read_file(path.as_ref(), &options.limits)?, options)
}

/// The bytes of the file at `path`, encoded as they are: at most one more than `encoded_bytes_max`, so that a decoder
/// refuses what is longer.
///
/// # Errors
/// If it cannot be read.
pub fn read_file(path: &Path, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
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
    let format = format_of(&bytes)?;
    let notes = match format {
        Format::Jpeg => Jpeg::read(&bytes).map(|jpeg| jpeg.notes),
        Format::Png => png_file::outline(&bytes).map(|outline| outline.notes),
        Format::WebP => webp_file::outline(&bytes).map(|outline| outline.notes),
        Format::Tiff => Some(tiff::notes(&bytes)),
        Format::Bmp | Format::Gif => Some(Notes::default()),
    };
    let notes = notes.ok_or(ImageError::Truncated { format: format.name() })?;
    Ok(notes.orientation().to_exif())
}

/// The format that the first bytes announce.
fn format_of(bytes: &[u8]) -> Result<Format, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let kind = FileKind::of(&bytes[..bytes.len().min(FileKind::BYTES)]);
    let format = Format::of(bytes).filter(|_| kind == FileKind::Picture);
    format.ok_or(ImageError::UnknownFormat { kind })
}

fn decode_as(format: Format, bytes: &[u8], options: &DecodeOptions) -> Result<Decoded, ImageError> {
    let (native, orientation) = match format {
        Format::Jpeg => decode_jpeg(bytes, options)?,
        Format::Gif => (gif::decode(bytes, options)?, Orientation::NoTransforms),
        Format::Tiff => (tiff::decode(bytes, options)?, tiff::notes(bytes).orientation()),
        Format::Png => {
            let outline = png_file::outline(bytes).ok_or(ImageError::Truncated { format: format.name() })?;
            decode_outlined(format, bytes, &outline, options)?
        }
        Format::WebP => match webp_file::outline(bytes) {
            Some(outline) => decode_outlined(format, bytes, &outline, options)?,
            None => {
                options.passes_over(ImageError::Truncated { format: format.name() })?;
                decode_cut_webp(bytes, options)?
            }
        },
        Format::Bmp => decode_outlined(format, bytes, &Outline::default(), options)?,
    };
    let Native { width, height, samples, is_truncated } = native;
    if transposes(orientation) {
        let cost = Cost { width, height, native: 0, extra: 0, narrows: true, transposes: true };
        cost.check(format, &options.limits)?;
    }
    let mut rgb = samples.into_rgb().map_err(|color| ImageError::Unsupported {
        format: format.name(),
        reason: format!("samples of type {color:?}"),
    })?;
    if format == Format::Bmp {
        bmp_file::widen_as_pillow(bytes, &mut rgb);
    }
    Ok(Decoded { image: orient(width, height, rgb, orientation)?, is_truncated })
}

fn decode_jpeg(bytes: &[u8], options: &DecodeOptions) -> Result<(Native, Orientation), ImageError> {
    let jpeg = checked_jpeg(bytes, options)?;
    let (width, height) = (jpeg.headers.width, jpeg.headers.height);
    let mut pixels = vec![0; jpeg.len];
    jpeg.decode(options, &mut pixels)?;
    let samples = match jpeg.headers.samples() {
        1 => Samples::Typed(pixels, ColorType::L8, false),
        4 => Samples::Cmyk(pixels),
        _ => Samples::Rgb(pixels),
    };
    Ok((Native { width, height, samples, is_truncated: jpeg.is_truncated }, jpeg.orientation))
}

/// `None` if the picture cannot be decoded in its place.
fn decode_jpeg_into(
    bytes: &[u8],
    options: &DecodeOptions,
    image: &mut RgbImage,
) -> Result<Option<bool>, ImageError> {
    let jpeg = checked_jpeg(bytes, options)?;
    let samples = jpeg.headers.samples();
    if jpeg.orientation != Orientation::NoTransforms || !matches!(samples, 1 | CHANNELS) {
        return Ok(None);
    }
    let Some(pixels) = image.become_black(jpeg.headers.width, jpeg.headers.height) else { return Ok(None) };
    jpeg.decode(options, &mut pixels[..jpeg.len])?;
    if samples == 1 {
        spread_grey(pixels);
    }
    Ok(Some(jpeg.is_truncated))
}

/// A JPEG that the limits allow.
struct CheckedJpeg<'a> {
    headers: Jpeg<'a>,
    scans: Scans,
    orientation: Orientation,
    /// Bytes of the pixels as the decoder gives them.
    len: usize,
    is_truncated: bool,
}

fn checked_jpeg<'a>(bytes: &'a [u8], options: &DecodeOptions) -> Result<CheckedJpeg<'a>, ImageError> {
    let name = Format::Jpeg.name();
    let headers = Jpeg::read(bytes).ok_or(ImageError::Truncated { format: name })?;
    let samples = headers.samples();
    let orientation = headers.notes.orientation();
    let cost = Cost {
        width: headers.width,
        height: headers.height,
        native: samples as u64,
        // Coefficients, 16 bits each.
        extra: if headers.keeps_coefficients() { 2 * headers.components() as u64 } else { 0 },
        narrows: samples != 1,
        transposes: transposes(orientation),
    };
    let len = cost.check(Format::Jpeg, &options.limits)?;
    let scans = headers.scans();
    let is_truncated = match scans.extent {
        Extent::Whole => false,
        _ if options.allow_truncated => true,
        Extent::Cut => return Err(ImageError::Truncated { format: name }),
        Extent::Damaged => return Err(broken_jpeg("its data make no sense from somewhere on".into())),
    };
    Ok(CheckedJpeg { headers, scans, orientation, len, is_truncated })
}

impl CheckedJpeg<'_> {
    /// Into `len` bytes, which are zero.
    fn decode(&self, options: &DecodeOptions, pixels: &mut [u8]) -> Result<(), ImageError> {
        self.headers.decode(&self.scans, options.limits.side_max, pixels).map_err(|error| match error {
            DecodeErrors::Unsupported(what) => {
                ImageError::Unsupported { format: Format::Jpeg.name(), reason: format!("{what:?}") }
            }
            error => broken_jpeg(error.to_string()),
        })
    }
}

fn broken_jpeg(reason: String) -> ImageError {
    ImageError::Broken { format: Format::Jpeg.name(), reason }
}

/// Decodes by the `image` crate what the outline does not speak against.
fn decode_outlined(
    format: Format,
    bytes: &[u8],
    outline: &Outline<'_>,
    options: &DecodeOptions,
) -> Result<(Native, Orientation), ImageError> {
    let limits = &options.limits;
    let error = |error: image::ImageError| from_decoder(format, &error);
    for &(width, height) in &outline.sizes {
        limits.check_side(width, height)?;
    }
    if outline.is_cut {
        options.passes_over(ImageError::Truncated { format: format.name() })?;
    }
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_image_width = Some(limits.side_max);
    decoder_limits.max_image_height = Some(limits.side_max);
    decoder_limits.max_alloc = Some(limits.decoded_bytes_max);
    let reader = Cursor::new(bytes);
    let mut decoder: Box<dyn ImageDecoder + '_> = match format {
        Format::Png => Box::new(png::PngDecoder::with_limits(reader, decoder_limits.clone()).map_err(error)?),
        Format::WebP => Box::new(webp::WebPDecoder::new(reader).map_err(error)?),
        _ => Box::new(bmp::BmpDecoder::new(reader).map_err(error)?),
    };
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let orientation = outline.notes.orientation();
    let cost = Cost {
        width,
        height,
        native: color.bytes_per_pixel().into(),
        extra: outline.extra_bytes_per_pixel,
        // RGB takes no more bytes, so that the conversion needs no second buffer.
        narrows: usize::from(color.bytes_per_pixel()) >= CHANNELS,
        transposes: transposes(orientation),
    };
    let len = cost.check(format, limits)?;
    // What remains is for the decoder's own buffers, where it keeps account of them.
    decoder_limits.max_alloc = Some(limits.decoded_bytes_max - len as u64);
    decoder.set_limits(decoder_limits).map_err(error)?;
    let mut native = vec![0; len];
    let is_truncated = match decoder.read_image_boxed(&mut native) {
        Ok(()) => false,
        Err(cause) => options.passes_over(error(cause))?,
    };
    // A PNG is brought into the machine's byte order at last.
    let samples = Samples::Typed(native, color, is_truncated && format == Format::Png);
    let is_truncated = is_truncated || outline.is_cut;
    Ok((Native { width, height, samples, is_truncated }, orientation))
}

/// A lossy picture reads on over what is missing. A lossless one may not.
fn decode_cut_webp(bytes: &[u8], options: &DecodeOptions) -> Result<(Native, Orientation), ImageError> {
    let truncated = || ImageError::Truncated { format: Format::WebP.name() };
    let filled = webp_file::filled_up(bytes, options.limits.encoded_bytes_max).ok_or_else(truncated)?;
    let outline = webp_file::outline(&filled).ok_or_else(truncated)?;
    let result = decode_outlined(Format::WebP, &filled, &outline, options);
    let (native, orientation) = result.map_err(|error| match error {
        ImageError::Broken { .. } => truncated(),
        error => error,
    })?;
    Ok((Native { is_truncated: true, ..native }, orientation))
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
