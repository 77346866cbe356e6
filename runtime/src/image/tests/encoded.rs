//! Small files for the decoder's tests: made by the encoders of the `image` crate, and edited by hand.

use image::{ExtendedColorType, ImageFormat};

pub(super) const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];

/// `samples`, `[height, width, channels]`, as a file.
pub(super) fn encode(
    format: ImageFormat,
    width: u32,
    height: u32,
    samples: &[u8],
    color: ExtendedColorType,
) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut file, samples, width, height, color, format).unwrap();
    file.into_inner()
}

/// A file under tests/data/encoded: 24 x 18 pixels, orange on the left, blue on the right.
#[derive(Clone)]
pub(super) struct Committed {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// All files that make_encoded.py wrote.
pub(super) fn committed() -> Vec<Committed> {
    let folder = std::fs::read_dir(super::data_dir().join("encoded")).unwrap();
    let paths =
        folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e != "py"));
    let files: Vec<_> = paths
        .map(|path| Committed {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect();
    assert!(files.len() >= 10, "only {} files", files.len());
    files
}

/// An Exif block that says only the orientation.
pub(super) fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    exif
}

/// Puts an APP1 segment with `exif` behind the start marker of a JPEG.
pub(super) fn jpeg_with_exif(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    let len = u16::try_from(2 + 6 + exif.len()).unwrap();
    [&jpeg[..2], b"\xff\xe1", &len.to_be_bytes(), b"Exif\0\0", exif, &jpeg[2..]].concat()
}

/// Puts a chunk behind the header of a PNG.
pub(super) fn png_with_chunk(png: &[u8], kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    const HEADER_END: usize = 8 + 25;
    [&png[..HEADER_END], &png_chunk(kind, body), &png[HEADER_END..]].concat()
}

/// A PNG of the given header and parts, none of which need agree.
pub(super) fn png(width: u32, height: u32, bit_depth: u8, color: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bit_depth, color, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(png_chunk(b"IHDR", &header));
    png.extend(chunks.concat());
    png.extend(png_chunk(b"IEND", b""));
    png
}

pub(super) fn png_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let covered = [kind, body].concat();
    [&len.to_be_bytes()[..], &covered, &crc32(&covered).to_be_bytes()].concat()
}

/// A TIFF file of a directory (tag, type, count, value or its place) and what follows it, from [`tiff_end`] on.
pub(super) fn tiff(entries: &[(u16, u16, u32, u32)], rest: &[u8]) -> Vec<u8> {
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    assert_eq!(file.len(), tiff_end(entries.len()) as usize);
    file.extend(rest);
    file
}

/// Where the directory of so many entries ends.
pub(super) fn tiff_end(entries: usize) -> u32 {
    8 + 2 + 12 * entries as u32 + 4
}

/// A zlib stream that stores `raw` as it is.
pub(super) fn zlib_stored(raw: &[u8]) -> Vec<u8> {
    let len = u16::try_from(raw.len()).unwrap();
    let mut zlib = vec![0x78, 0x01, 0x01];
    zlib.extend(len.to_le_bytes());
    zlib.extend((!len).to_le_bytes());
    zlib.extend(raw);
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in raw {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    zlib.extend((b << 16 | a).to_be_bytes());
    zlib
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
