//! PNG: the size in its header, and the notes in its chunks, which may stand behind the pixels.

use std::borrow::Cow;

use super::bytes::be32;
use super::native::Outline;
use super::notes::Notes;

const SIGNATURE_BYTES: usize = 8;
/// Texts that unpack to more than this are left out, as Pillow does.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The size, and the notes. What is wrong with the chunks the decoder says, except that one behind the pixels is cut.
pub(super) fn outline(bytes: &[u8]) -> Option<Outline<'_>> {
    if bytes.get(12..16)? != b"IHDR" {
        return Some(Outline::default());
    }
    let size = (be32(bytes, 16)?, be32(bytes, 20)?);
    let (notes, is_cut) = notes(bytes);
    Some(Outline { sizes: vec![size], notes, is_cut, ..Outline::default() })
}

/// Exif in a chunk of its own, else as hexadecimal digits in a text; of chunks of one name the last one counts. Also
/// whether a chunk behind the pixels is cut off.
fn notes(bytes: &[u8]) -> (Notes<'_>, bool) {
    let mut exif = None;
    let (mut profile, mut xmp) = (None, None);
    let (mut is_animated, mut is_behind_pixels) = (false, false);
    let mut at = SIGNATURE_BYTES;
    let mut is_cut = false;
    // Checksums are not looked at.
    while let Some(len) = be32(bytes, at)
        && let Some(kind) = bytes.get(at + 4..).and_then(|rest| rest.first_chunk::<4>())
    {
        let body = bytes.get(at + 8..).and_then(|rest| rest.get(..len as usize));
        let Some(body) = body else {
            is_cut = is_behind_pixels && kind != b"IDAT" && kind.is_ascii();
            break;
        };
        match kind {
            b"IEND" => break,
            b"eXIf" => exif = Some(Text { bytes: body, is_packed: false }),
            b"IDAT" => is_behind_pixels = true,
            b"acTL" => is_animated = true,
            // What follows belongs to another frame.
            b"fcTL" if is_animated && is_behind_pixels => break,
            b"tEXt" | b"zTXt" | b"iTXt" => match text(kind, body) {
                Some((b"exif", text)) if kind == b"tEXt" => exif = Some(text),
                Some((b"Raw profile type exif", text)) => profile = Some(text),
                Some((b"XML:com.adobe.xmp", text)) => xmp = Some(text),
                _ => {}
            },
            _ => {}
        }
        at += 12 + len as usize;
    }
    // Only those that count are unpacked.
    let exif = match exif {
        Some(exif) => Some(exif.bytes.into()),
        None => profile.and_then(Text::unpacked).and_then(|text| raw_profile(&text)).map(Cow::Owned),
    };
    (Notes { exif, xmp: xmp.and_then(Text::unpacked) }, is_cut)
}

/// What a text chunk says.
struct Text<'a> {
    bytes: &'a [u8],
    is_packed: bool,
}

impl<'a> Text<'a> {
    fn unpacked(self) -> Option<Cow<'a, [u8]>> {
        if self.is_packed { unpack(self.bytes).map(Cow::Owned) } else { Some(self.bytes.into()) }
    }
}

/// The name and the text of a text chunk.
fn text<'a>(kind: &[u8; 4], body: &'a [u8]) -> Option<(&'a [u8], Text<'a>)> {
    let (name, rest) = split(body)?;
    match kind {
        b"tEXt" => Some((name, Text { bytes: rest, is_packed: false })),
        b"zTXt" => Some((name, Text { bytes: rest.strip_prefix(b"\0")?, is_packed: true })),
        _ => {
            let is_packed = *rest.first()? != 0;
            let (_language, rest) = split(rest.get(2..)?)?;
            let (_translated, text) = split(rest)?;
            Some((name, Text { bytes: text, is_packed }))
        }
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};
    match decompress_to_vec_zlib_with_limit(packed, TEXT_BYTES_MAX) {
        Ok(text) => Some(text),
        // Without its end, but right so far.
        Err(error) if error.status == TINFLStatus::FailedCannotMakeProgress => Some(error.output),
        Err(_) => None,
    }
}

/// The bytes of ImageMagick's profiles: an empty line, a name, a length, and lines of hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let digits: Vec<u8> = lines.flatten().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some((nibble(high)? << 4 | nibble(low)?) as u8)).collect()
}
