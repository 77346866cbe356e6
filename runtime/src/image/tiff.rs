//! TIFF: the first picture of a file, in the colours that Pillow makes of it.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::ColorType;
use tiff::TiffError;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::SampleFormat;

use super::color;
use super::directory::Directory;
use super::error::{ImageError, from_decoder};
use super::jpeg::Jpeg;
use super::kind::{FileKind, Format};
use super::limits::{Cost, DecodeOptions};
use super::native::{Native, Samples};
use super::notes::Notes;

const NEW_SUBFILE_TYPE: u16 = 254;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const STRIP_BYTES: u16 = 279;
const COLOR_MAP: u16 = 320;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const SUB_DIRECTORIES: u16 = 330;
const EXTRA_SAMPLES: u16 = 338;
const JPEG_TABLES: u16 = 347;
const XMP: u16 = 700;
const DNG_VERSION: u16 = 50706;

const BLACK_IS_ZERO: u8 = 1;
const PALETTE: u64 = 3;
const UNCOMPRESSED: u64 = 1;
const JPEG: u64 = 7;
const PREMULTIPLIED: u64 = 1;

/// Where a file's Exif and XMP are: it is Exif itself.
pub(super) fn notes(bytes: &[u8]) -> Notes<'_> {
    let xmp = Directory::first(bytes).and_then(|directory| directory.find(XMP));
    Notes { exif: Some(bytes.into()), xmp: xmp.map(|value| value.bytes.into()) }
}

/// Decodes the first picture.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Native, ImageError> {
    let failed = |error: TiffError| from_decoder(Format::Tiff, &error);
    let unsupported = |reason: String| ImageError::Unsupported { format: Format::Tiff.name(), reason };
    let truncated = || ImageError::Truncated { format: Format::Tiff.name() };
    let directory = Directory::first(bytes).ok_or_else(truncated)?;
    if is_raw(&directory) {
        return Err(ImageError::UnknownFormat { kind: FileKind::OtherPicture("a camera's raw format") });
    }
    let palette = directory.numbers(COLOR_MAP);
    let is_palette = directory.first_number(PHOTOMETRIC) == Some(PALETTE);
    let bytes = as_the_decoder_wants_it(bytes, &directory, is_palette);

    let mut decoder = Decoder::new(Cursor::new(&*bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    options.limits.check_side(width, height)?;
    check_jpegs(&bytes, &directory, decoder.chunk_dimensions())
        .map_err(|reason| ImageError::Broken { format: Format::Tiff.name(), reason })?;
    let layout = decoder.image_buffer_layout().map_err(failed)?;
    let color = decoder.colortype().map_err(failed)?;
    let sample_format =
        decoder.find_tag_unsigned_vec::<u16>(tiff::tags::Tag::SampleFormat).map_err(failed)?;
    let sample_format = sample_format.and_then(|formats| formats.first().copied()).unwrap_or(1);
    let kind = Kind::new(color, SampleFormat::from_u16_exhaustive(sample_format), is_palette)
        .ok_or_else(|| unsupported(format!("samples of type {color:?}")))?;

    if is_palette && palette.len() < 3 << kind.bits {
        return Err(truncated());
    }
    let pixels = u64::from(width) * u64::from(height);
    let cost = Cost {
        width,
        height,
        native: (layout.complete_len as u64).div_ceil(pixels.max(1)),
        extra: 3,
        narrows: false,
        transposes: false,
    };
    cost.check(Format::Tiff, &options.limits)?;
    let left = options.limits.decoded_bytes_max.saturating_sub(layout.complete_len as u64);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = layout.complete_len;
    limits.intermediate_buffer_size = usize::try_from(left).unwrap_or(usize::MAX);
    let mut decoder = decoder.with_limits(limits);

    let mut native = vec![0; layout.complete_len];
    let mut is_truncated = false;
    if let Err(error) = decoder.read_image_bytes(&mut native) {
        is_truncated = options.passes_over(failed(error))?;
    }
    let premultiplied = directory.first_number(EXTRA_SAMPLES) == Some(PREMULTIPLIED);
    let samples = Reader {
        bytes: &native,
        row_bytes: layout.row_stride.map_or(0, |n| n.get()),
        plane_bytes: if layout.planes > 1 { layout.plane_stride.map_or(0, |n| n.get()) } else { 0 },
        kind,
        palette: &palette,
        premultiplied,
        compression: directory.first_number(COMPRESSION).unwrap_or(UNCOMPRESSED),
    };
    let mut rgb = Vec::with_capacity(3 * pixels as usize);
    for y in 0..height as usize {
        rgb.extend((0..width as usize).flat_map(|x| samples.pixel(x, y)));
    }
    Ok(Native { width, height, samples: Samples::Rgb(rgb), is_truncated })
}

/// Whether this is a camera's raw file, whose first picture is but a thumbnail.
fn is_raw(directory: &Directory<'_>) -> bool {
    let is_reduced = directory.first_number(NEW_SUBFILE_TYPE).is_some_and(|kind| kind & 1 == 1);
    directory.find(DNG_VERSION).is_some() || (is_reduced && directory.find(SUB_DIRECTORIES).is_some())
}

/// Where strips or tiles are and how long, as far as they are within the file.
fn chunks<'a>(
    bytes: &'a [u8],
    directory: &Directory<'_>,
) -> impl Iterator<Item = std::ops::Range<usize>> + use<'a> {
    let both = |strips, tiles| [directory.numbers(strips), directory.numbers(tiles)].concat();
    let (offsets, lens) = (both(STRIP_OFFSETS, TILE_OFFSETS), both(STRIP_BYTES, TILE_BYTES));
    offsets.into_iter().zip(lens).filter_map(|(offset, len)| {
        let at = usize::try_from(offset).ok().filter(|&at| at <= bytes.len())?;
        Some(at..at + usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len() - at))
    })
}

/// JPEGs inside are decoded whole, whatever size they say: none may be larger than the part of the picture that it is,
/// and the same bytes cannot be many parts.
fn check_jpegs(bytes: &[u8], directory: &Directory<'_>, (width, height): (u32, u32)) -> Result<(), String> {
    if directory.first_number(COMPRESSION) != Some(JPEG) {
        return Ok(());
    }
    let tables = directory.find(JPEG_TABLES).map_or(&[][..], |value| value.bytes);
    if Jpeg::frame_size(tables).is_some() {
        return Err("its JPEG tables hold a picture".into());
    }
    let mut left = 2 * bytes.len();
    for range in chunks(bytes, directory) {
        left = left.checked_sub(range.len()).ok_or("its parts overlap")?;
        if let Some(size) = Jpeg::frame_size(&bytes[range])
            && (size.0 > width || size.1 > height)
        {
            return Err(format!("a part of {width}x{height} pixels is {}x{} itself", size.0, size.1));
        }
    }
    Ok(())
}

/// The file as it is, or a copy in which what the decoder does not know is said in another way: indices into a palette
/// are grey, and bits are the other way round.
fn as_the_decoder_wants_it<'a>(
    bytes: &'a [u8],
    directory: &Directory<'_>,
    is_palette: bool,
) -> Cow<'a, [u8]> {
    let is_reversed = directory.first_number(FILL_ORDER) == Some(2)
        && directory.first_number(BITS_PER_SAMPLE).unwrap_or(1) == 1;
    if !is_palette && !is_reversed {
        return Cow::Borrowed(bytes);
    }
    let mut copy = bytes.to_vec();
    if is_reversed {
        for range in chunks(bytes, directory) {
            copy[range].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
    }
    if is_palette && let Some(value) = directory.find(PHOTOMETRIC) {
        // A number of some width: the one of its bytes that is not zero.
        let bytes = &mut copy[value.at..value.at + value.bytes.len()];
        if let Some(byte) = bytes.iter_mut().find(|byte| u64::from(**byte) == PALETTE) {
            *byte = BLACK_IS_ZERO;
        }
    }
    Cow::Owned(copy)
}

/// What samples are.
#[derive(Clone, Copy, Debug)]
struct Kind {
    model: Model,
    /// Samples of a pixel that are there.
    channels: usize,
    bits: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Grey,
    /// With a sign, of 16 or 32 bits, or of 32 without one: what is not from 0 to 255 is cut off.
    WholeGrey,
    FloatGrey,
    Palette,
    Rgb,
    Rgba,
    Cmyk,
    Ycbcr,
}

impl Kind {
    fn new(color: ColorType, format: SampleFormat, is_palette: bool) -> Option<Self> {
        let is_float = format == SampleFormat::IEEEFP;
        let (model, channels, bits) = match color {
            ColorType::Gray(bits @ (1 | 2 | 4 | 8)) if is_palette => (Model::Palette, 1, bits),
            ColorType::Multiband { bit_depth: 8, num_samples } if is_palette => {
                (Model::Palette, num_samples.into(), 8)
            }
            ColorType::Gray(bits @ (32 | 64)) if is_float => (Model::FloatGrey, 1, bits),
            _ if is_float => return None,
            ColorType::Gray(16) if format == SampleFormat::Int => (Model::WholeGrey, 1, 16),
            ColorType::Gray(32) => (Model::WholeGrey, 1, 32),
            ColorType::Gray(bits @ (1 | 2 | 4 | 8 | 16)) => (Model::Grey, 1, bits),
            ColorType::GrayA(bits @ (8 | 16)) => (Model::Grey, 2, bits),
            ColorType::Multiband { bit_depth: bits @ (8 | 16), num_samples: 2 } => (Model::Grey, 2, bits),
            ColorType::RGB(bits @ (8 | 16)) => (Model::Rgb, 3, bits),
            ColorType::RGBA(bits @ (8 | 16)) => (Model::Rgba, 4, bits),
            ColorType::CMYK(bits @ (8 | 16)) => (Model::Cmyk, 4, bits),
            ColorType::CMYKA(bits @ (8 | 16)) => (Model::Cmyk, 5, bits),
            ColorType::YCbCr(8) => (Model::Ycbcr, 3, 8),
            _ => return None,
        };
        Some(Self { model, channels, bits: bits.into() })
    }
}

/// Samples as the decoder gives them: in the machine's byte order, rows padded to bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    /// From a plane to the next; 0 if samples of a pixel stand together.
    plane_bytes: usize,
    kind: Kind,
    /// All reds, then all greens, then all blues, in 16 bits.
    palette: &'a [u64],
    premultiplied: bool,
    /// Pillow has other libraries unpack strips, which then also make RGB of YCbCr.
    compression: u64,
}

impl Reader<'_> {
    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let high = |channel| self.high(x, y, channel);
        match self.kind.model {
            Model::Grey => [high(0); 3],
            Model::WholeGrey if self.kind.bits == 16 => {
                [i16::from_ne_bytes(self.raw(x, y, 0)).clamp(0, 255) as u8; 3]
            }
            Model::WholeGrey => [i32::from_ne_bytes(self.raw(x, y, 0)).clamp(0, 255) as u8; 3],
            // Casts cut off what does not fit.
            Model::FloatGrey if self.kind.bits == 32 => [f32::from_ne_bytes(self.raw(x, y, 0)) as u8; 3],
            Model::FloatGrey => [f64::from_ne_bytes(self.raw(x, y, 0)) as u8; 3],
            Model::Palette => {
                let index = usize::from(self.index(x, y));
                let colors = self.palette.len() / 3;
                [0, 1, 2].map(|i| (self.palette[i * colors + index] >> 8) as u8)
            }
            Model::Rgb => [high(0), high(1), high(2)],
            Model::Rgba if self.premultiplied => {
                color::from_premultiplied([high(0), high(1), high(2), high(3)])
            }
            Model::Rgba => [high(0), high(1), high(2)],
            Model::Cmyk => color::from_cmyk([high(0), high(1), high(2), high(3)]),
            Model::Ycbcr => {
                let pixel = [high(0), high(1), high(2)];
                match self.compression {
                    UNCOMPRESSED => color::from_ycbcr_as_pillow(pixel),
                    JPEG => color::from_ycbcr(pixel),
                    _ => color::from_ycbcr_as_libtiff(pixel),
                }
            }
        }
    }

    /// A sample in 8 bits: the high ones, or fewer ones spread.
    fn high(&self, x: usize, y: usize, channel: usize) -> u8 {
        match self.kind.bits {
            16 => (u16::from_ne_bytes(self.raw(x, y, channel)) >> 8) as u8,
            8 => self.raw::<1>(x, y, channel)[0],
            bits => self.index(x, y) * (255 / ((1 << bits) - 1)) as u8,
        }
    }

    /// A sample of at most 8 bits, as it is.
    fn index(&self, x: usize, y: usize) -> u8 {
        let bits = self.kind.bits;
        if bits == 8 {
            return self.raw::<1>(x, y, 0)[0];
        }
        let at = x * bits;
        let byte = self.bytes.get(y * self.row_bytes + at / 8).copied().unwrap_or(0);
        byte << (at % 8) >> (8 - bits)
    }

    fn raw<const N: usize>(&self, x: usize, y: usize, channel: usize) -> [u8; N] {
        let place = if self.plane_bytes > 0 {
            channel * self.plane_bytes + x * N
        } else {
            (x * self.kind.channels + channel) * N
        };
        let at = y * self.row_bytes + place;
        self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
    }
}
