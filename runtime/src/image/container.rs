//! What the file's own structure says, read before a decoder is trusted with it: which format, how large, complete
//! or not. The decoders allocate from declared sizes, and some fill what is missing with grey; both end here.

use image::ImageFormat;

use super::ImageError;

/// The format that the first bytes announce.
///
/// # Errors
/// If it is none of the supported ones.
pub(super) fn sniff(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    const SUPPORTED: [ImageFormat; 5] =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];
    match image::guess_format(bytes) {
        Ok(format) if SUPPORTED.contains(&format) => Ok(format),
        _ => Err(ImageError::UnknownFormat { looks_like: looks_like(bytes) }),
    }
}

/// A format's name in messages.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        _ => "unknown",
    }
}

/// What the walk over a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    /// Width and height of pictures inside, where the file declares them in a place of its own.
    pub(super) sizes: Vec<(u32, u32)>,
    /// Memory per pixel that the decoder holds beside its output, in bytes.
    pub(super) extra_bytes_per_pixel: u64,
}

/// Walks over the structure of `bytes` without decoding anything.
///
/// # Errors
/// [`ImageError::Truncated`] if the file ends before the picture does.
pub(super) fn outline(format: ImageFormat, bytes: &[u8]) -> Result<Outline, ImageError> {
    let outline = match format {
        ImageFormat::Jpeg => outline_jpeg(bytes),
        ImageFormat::Png => outline_png(bytes),
        ImageFormat::WebP => outline_webp(bytes),
        _ => Some(Outline::default()),
    };
    outline.ok_or(ImageError::Truncated { format: name(format) })
}

/// Names of common formats that are not supported, for the message.
fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let brand = (bytes.get(4..8) == Some(b"ftyp")).then(|| bytes.get(8..12)).flatten();
    match brand {
        Some(b"avif" | b"avis") => return Some("AVIF"),
        Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => return Some("HEIC"),
        Some(_) => return Some("a video"),
        None => {}
    }
    let text = bytes.trim_ascii_start();
    [
        (&b"II*\0"[..], "TIFF or a camera's raw format"),
        (b"MM\0*", "TIFF or a camera's raw format"),
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
        (b"<?xml", "SVG or other XML"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\0\0\x01\0", "an icon file"),
        (b"qoif", "QOI"),
        (b"8BPS", "Photoshop"),
    ]
    .into_iter()
    .find(|(magic, _)| text.starts_with(magic) || bytes.starts_with(magic))
    .map(|(_, name)| name)
}

/// JPEG: markers up to the end-of-image marker, which must be there. The decoder would fill the missing part of a
/// truncated picture with grey and say nothing.
fn outline_jpeg(bytes: &[u8]) -> Option<Outline> {
    let mut scans = 0;
    let mut outline = Outline::default();
    let mut components = 3;
    let mut progressive = false;
    let mut at = 2;
    loop {
        // The next marker: 0xff and neither stuffing (0), nor filling (0xff), nor a restart within a scan.
        let marker = loop {
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            match *bytes.get(at + 1)? {
                0xff => at += 1,
                0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
                marker => break marker,
            }
        };
        if marker == 0xd9 {
            break;
        }
        let body = bytes.get(at + 4..)?;
        let len = usize::from(be16(bytes, at + 2)?);
        match marker {
            // Start of frame; 0xc4, 0xc8 and 0xcc are tables and an extension.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let (height, width) = (be16(body, 1)?, be16(body, 3)?);
                outline.sizes.push((u32::from(width), u32::from(height)));
                components = u64::from(*body.get(5)?);
                progressive = marker & 0x03 == 2;
            }
            0xda => scans += 1,
            _ => {}
        }
        at += 2 + len;
    }
    if progressive || scans > 1 {
        // Coefficients of all components are kept, 16 bits each, until the last scan is read.
        outline.extra_bytes_per_pixel = 2 * components;
    }
    Some(outline)
}

/// PNG: the size in the header, which comes first.
fn outline_png(bytes: &[u8]) -> Option<Outline> {
    if bytes.get(12..16)? != b"IHDR" {
        // Not a matter of size: the decoder says what is wrong.
        return Some(Outline::default());
    }
    let size = (be32(bytes, 16)?, be32(bytes, 20)?);
    Some(Outline { sizes: vec![size], extra_bytes_per_pixel: 0 })
}

/// WebP: chunks, all of which must end within the file, up to the first picture's.
fn outline_webp(bytes: &[u8]) -> Option<Outline> {
    const RIFF_HEADER: usize = 12;
    const CHUNK_HEADER: usize = 8;
    /// Position, size and flags of a frame, before the chunks of its picture.
    const FRAME_HEADER: usize = 16;

    let riff_end = usize::try_from(le32(bytes, 4)?).ok()?.checked_add(CHUNK_HEADER)?;
    bytes.get(..riff_end)?;
    // A lossless picture is decoded with alpha, then copied; a lossy one through planes: at most 4 bytes.
    let mut outline = Outline { sizes: Vec::new(), extra_bytes_per_pixel: 4 };
    let mut at = RIFF_HEADER;
    // Chunks after the declared end are walked too, because the decoder does.
    while at < bytes.len() {
        let Some(header) = bytes.get(at..at + CHUNK_HEADER) else { break };
        let body_at = at + CHUNK_HEADER;
        let len = le32(header, 4)? as usize;
        let end = body_at.checked_add(len)?;
        let Some(body) = bytes.get(body_at..end) else {
            // Rubbish after the declared end is not the picture's business, unless a decoder would allocate it.
            return if at >= riff_end && !header[..4].is_ascii() { Some(outline) } else { None };
        };
        match &header[..4] {
            b"VP8X" => outline.sizes.push((1 + le24(body, 4)?, 1 + le24(body, 7)?)),
            b"ANMF" => {
                // A canvas and a frame beside the output.
                outline.extra_bytes_per_pixel = 12;
                outline.sizes.push((1 + le24(body, 6)?, 1 + le24(body, 9)?));
                let mut rest = body.get(FRAME_HEADER..)?;
                while let Some(header) = rest.get(..CHUNK_HEADER) {
                    let len = le32(header, 4)? as usize;
                    let body = rest.get(CHUNK_HEADER..)?.get(..len)?;
                    push_webp_size(header, body, &mut outline.sizes)?;
                    rest = rest.get(CHUNK_HEADER + len + (len & 1)..).unwrap_or_default();
                }
            }
            _ => push_webp_size(header, body, &mut outline.sizes)?,
        }
        at = end + (len & 1);
    }
    Some(outline)
}

/// Adds the size in the header of a lossy or lossless bit stream, if `body` is one.
fn push_webp_size(header: &[u8], body: &[u8], sizes: &mut Vec<(u32, u32)>) -> Option<()> {
    const SIDE_MASK: u32 = 0x3fff;
    match &header[..4] {
        b"VP8 " => {
            let (width, height) = (le16(body, 6)?, le16(body, 8)?);
            sizes.push((u32::from(width) & SIDE_MASK, u32::from(height) & SIDE_MASK));
        }
        b"VP8L" => {
            let bits = le32(body, 1)?;
            sizes.push((1 + (bits & SIDE_MASK), 1 + (bits >> 14 & SIDE_MASK)));
        }
        _ => {}
    }
    Some(())
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
