//! WebP: chunks, with sizes and notes in them.

use super::bytes::{le16, le24, le32};
use super::native::Outline;

const RIFF_HEADER: usize = 12;
const CHUNK_HEADER: usize = 8;
/// Position, size and flags of a frame, before the chunks of its picture.
const FRAME_HEADER: usize = 16;
/// Flags of the extended header.
const HAS_EXIF: u8 = 0x08;
const HAS_XMP: u8 = 0x04;

/// Walks over the chunks, all of which must end within the file. `None` if they do not.
pub(super) fn outline(bytes: &[u8]) -> Option<Outline<'_>> {
    let riff_end = usize::try_from(le32(bytes, 4)?).ok()?.checked_add(CHUNK_HEADER)?;
    bytes.get(..riff_end)?;
    // A lossless picture is decoded with alpha, then copied; a lossy one through planes: at most 4 bytes.
    let mut outline = Outline { extra_bytes_per_pixel: 4, ..Outline::default() };
    let mut flags = 0;
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
            b"VP8X" => {
                flags = *body.first()?;
                outline.sizes.push((1 + le24(body, 4)?, 1 + le24(body, 7)?));
            }
            // Notes count if the header announces them; of several the first.
            b"EXIF" if flags & HAS_EXIF != 0 && outline.notes.exif.is_none() => {
                outline.notes.exif = Some(body.into());
            }
            b"XMP " if flags & HAS_XMP != 0 && outline.notes.xmp.is_none() => {
                outline.notes.xmp = Some(body.into());
            }
            b"ANMF" => {
                // A canvas and a frame beside the output.
                outline.extra_bytes_per_pixel = 12;
                outline.sizes.push((1 + le24(body, 6)?, 1 + le24(body, 9)?));
                let mut rest = body.get(FRAME_HEADER..)?;
                while let Some(header) = rest.get(..CHUNK_HEADER) {
                    let len = le32(header, 4)? as usize;
                    let body = rest.get(CHUNK_HEADER..)?.get(..len)?;
                    push_size(header, body, &mut outline.sizes)?;
                    rest = rest.get(CHUNK_HEADER + len + (len & 1)..).unwrap_or_default();
                }
            }
            _ => push_size(header, body, &mut outline.sizes)?,
        }
        at = end + (len & 1);
    }
    Some(outline)
}

/// Adds the size in the header of a lossy or lossless bit stream, if `body` is one.
fn push_size(header: &[u8], body: &[u8], sizes: &mut Vec<(u32, u32)>) -> Option<()> {
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

/// The file as long as it says that it is, with zeros for what is missing; `None` if that is more than `bytes_max`.
/// A decoder of lossy pictures reads them as flat colour below what is there.
pub(super) fn filled_up(bytes: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let declared = u64::from(le32(bytes, 4)?) + CHUNK_HEADER as u64;
    let mut filled = bytes.to_vec();
    filled.resize(usize::try_from(declared).ok().filter(|_| declared <= bytes_max)?, 0);
    Some(filled)
}
