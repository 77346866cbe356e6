//! What decoding makes of files that are broken, hostile, or something else.

use image::{ExtendedColorType, ImageFormat};
use proptest::prelude::*;

use super::super::{DecodeOptions, ImageError, ImageLimits, decode, decode_with};
use super::encoded::{
    FORMATS, committed, encode, exif, jpeg_with_exif, png, png_chunk, tiff, tiff_end, zlib_stored,
};
use super::generated;
use super::pictures::{Picture, pictures};

/// Limits under which a broken file cannot make a test slow.
const SMALL: ImageLimits =
    ImageLimits { side_max: 512, decoded_bytes_max: 4 << 20, encoded_bytes_max: 1 << 20 };

const MAGICS: &[&[u8]] = &[
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"RIFF\x40\0\0\0WEBP",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0",
];

fn sample(format: ImageFormat) -> Vec<u8> {
    encode(format, 40, 28, generated(40, 28, 2).data(), ExtendedColorType::Rgb8)
}

/// One file of each format, and the committed ones.
fn samples() -> Vec<(String, Vec<u8>)> {
    let committed = committed().into_iter().map(|file| (file.name, file.bytes));
    FORMATS.iter().map(|&format| (format!("{format:?}"), sample(format))).chain(committed).collect()
}

/// The same, and those of every kind that people have.
fn all_samples() -> Vec<(String, Vec<u8>)> {
    let mut samples = samples();
    samples.extend(pictures().into_iter().map(|picture| (picture.name, picture.file)));
    samples
}

fn error(bytes: &[u8]) -> ImageError {
    decode(bytes, &ImageLimits::default()).unwrap_err()
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    assert!(matches!(error(b""), ImageError::Empty));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    const NONE: &str = "not a JPEG, PNG, WebP, BMP, GIF or TIFF image";
    for (bytes, says, advice) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "(it looks like HEIC)", "heif-convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "(it looks like HEIC)", "heif-convert"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "(it looks like AVIF)", "avifdec"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "(it looks like AVIF)", "avifdec"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "(it looks like a video)", "ffmpeg"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "(it looks like a camera's raw format)", "develop it"),
        (b"II*\0\x10\0\0\0CR\x02\0", "(it looks like a camera's raw format)", "develop it"),
        (b"  <svg xmlns=''>", "(it looks like SVG)", "convert it to one of these first"),
        (b"<?xml version='1.0'?><svg>", "(it looks like SVG)", "convert it to one of these first"),
        (b"hello", NONE, "convert it to one of these first"),
        (b"\0", NONE, "convert it to one of these first"),
        (b"\xff\xd8", NONE, "convert it to one of these first"),
        (b"[hello]", NONE, "convert it to one of these first"),
        (b"%PDF-1.7", "not a picture, but PDF", "pdftoppm"),
        (pointer, "not a picture, but a Git LFS pointer", "git lfs pull"),
        (b"<!doctype html>\n<html>", "not a picture, but a web page", "download it again"),
        (b"\xef\xbb\xbf <HTML>", "not a picture, but a web page", "download it again"),
        (b"{\"error\": \"not found\"}", "not a picture, but JSON", "download it again"),
        (b"[]", "not a picture, but JSON", "download it again"),
        (b"<?xml version='1.0'?><Error>", "not a picture, but XML", "download it again"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "not a picture, but a Mac's AppleDouble file", "without ._"),
    ] {
        let error = error(bytes);
        let ImageError::UnknownFormat { .. } = error else { panic!("{error:?}") };
        let message = error.to_string();
        assert!(message.contains(says) && message.contains(advice), "{message}");
    }
}

/// A truncated picture is refused, unless only what follows its pixels is gone: never other pixels, silently.
#[test]
fn truncated_files_are_refused() {
    for (name, file) in samples() {
        let whole = decode(&file, &SMALL).unwrap();
        let step = (file.len() / 64).max(1);
        for len in (1..file.len()).step_by(step).chain(file.len().saturating_sub(40)..file.len()) {
            match decode(&file[..len], &SMALL) {
                Ok(image) => {
                    assert!(image == whole, "{name} cut to {len} of {} decodes to other pixels", file.len())
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        for sixteenth in 0..16 {
            let cut = &file[..file.len() * sixteenth / 16];
            let first_frame_is_whole = name.starts_with("animated") && sixteenth >= 8;
            assert!(
                first_frame_is_whole || decode(cut, &SMALL).is_err(),
                "{name} cut to {sixteenth}/16 was taken"
            );
        }
    }
}

#[test]
fn cut_files_of_every_kind_are_refused_or_whole() {
    for Picture { name, file, .. } in pictures() {
        let whole = decode(&file, &SMALL).unwrap();
        // If the notes behind the pixels are gone nobody knows that they were there.
        let may_lie = ["behind", "twice", "packed"].iter().any(|word| name.contains(word));
        for len in (1..file.len()).step_by((file.len() / 64).max(1)) {
            if let Ok(image) = decode(&file[..len], &SMALL) {
                assert!(may_lie || image == whole, "{name} cut to {len} of {}", file.len());
            }
        }
    }
}

#[test]
fn a_truncated_jpeg_with_a_whole_thumbnail_is_truncated() {
    let jpeg = sample(ImageFormat::Jpeg);
    // The thumbnail's own end marker must not be taken for the picture's.
    let exif = [exif(1), jpeg.clone()].concat();
    let file = jpeg_with_exif(&jpeg, &exif);
    assert!(decode(&file, &SMALL).is_ok());
    let cut = &file[..file.len() - jpeg.len() / 4];
    assert!(matches!(decode(cut, &SMALL), Err(ImageError::Truncated { format: "JPEG" })));
}

#[test]
fn declared_sizes_are_refused_before_anything_is_allocated() {
    let idat = png_chunk(b"IDAT", &zlib_stored(&[0; 16]));
    for side in [16385, 60000, 1 << 31, u32::MAX] {
        let error = error(&png(side, side, 8, 2, std::slice::from_ref(&idat)));
        assert!(matches!(error, ImageError::SideTooLarge { width, .. } if width == side), "{error}");
    }
    let message = error(&png(60000, 60000, 8, 2, std::slice::from_ref(&idat))).to_string();
    let expected =
        "the image is 60000x60000 pixels, more than the limit of 16384 per side: make it smaller first";
    assert_eq!(message, expected);

    // Within the sides, but 768 MiB of pixels from a file of 100 bytes.
    let error = error(&png(16384, 16384, 8, 2, std::slice::from_ref(&idat)));
    assert!(matches!(error, ImageError::TooManyBytes { needed_bytes: 805_306_368, .. }), "{error}");

    let mut jpeg = sample(ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let error = decode(&jpeg, &ImageLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::SideTooLarge { width: 65535, height: 65535, .. }), "{error}");

    for (width, height) in [(0, 4), (4, 0)] {
        let error = decode(&png(width, height, 8, 2, std::slice::from_ref(&idat)), &SMALL).unwrap_err();
        assert!(matches!(error, ImageError::Broken { format: "PNG", .. }), "{error}");
    }
}

#[test]
fn an_end_marker_in_the_headers_of_a_jpeg_is_none() {
    // A frame that no walk goes through, since a component is sampled 13 times; its bytes look like the end.
    let mut file =
        vec![0xff, 0xd8, 0xff, 0xc2, 0, 17, 8, 0, 8, 0, 8, 3, 1, 0x11, 0, 2, 0x11, 0, 0xff, 0xd9, 0];
    file.extend_from_slice(&[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 0xff, 0, 0, 63, 0, 1, 2, 3, 4]);
    let error = error(&file);
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
}

#[test]
fn a_decompression_bomb_stays_within_its_picture() {
    // 65 kB of zeros where a picture of 4 x 1 needs 13 bytes: the rest is not kept.
    let idat = png_chunk(b"IDAT", &zlib_stored(&[0; 65535]));
    if let Ok(image) = decode(&png(4, 1, 8, 2, &[idat]), &SMALL) {
        assert_eq!(image.data(), [0; 12]);
    }
}

#[test]
fn webp_chunks_that_claim_more_than_the_file_are_refused() {
    let webp = sample(ImageFormat::WebP);
    // The extended header with the Exif flag, the picture, and an Exif chunk that claims 4 GB.
    let mut body = b"VP8X\x0a\0\0\0\x08\0\0\0\x27\0\0\x1b\0\0".to_vec();
    body.extend(&webp[12..]);
    body.extend(b"EXIF\xf0\xff\xff\xff");
    let len = u32::try_from(4 + body.len()).unwrap();
    let file = [b"RIFF", &len.to_le_bytes()[..], b"WEBP", &body].concat();
    assert!(matches!(decode(&file, &SMALL), Err(ImageError::Truncated { format: "WebP" })));
}

/// Entries of a grey picture of one strip, which follows the directory.
fn grey_tiff(width: u32, height: u32, compression: u32, strip_bytes: u32) -> Vec<(u16, u16, u32, u32)> {
    vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, tiff_end(8)),
        (278, 4, 1, height),
        (279, 4, 1, strip_bytes),
    ]
}

#[test]
fn sizes_in_a_tiff_are_refused_before_anything_is_allocated() {
    for (width, height) in [(20000, 4), (4, u32::MAX), (u32::MAX, u32::MAX)] {
        let error = error(&tiff(&grey_tiff(width, height, 1, 16), &[0; 16]));
        assert!(matches!(error, ImageError::SideTooLarge { .. }), "{width}x{height}: {error}");
    }
    let error = error(&tiff(&grey_tiff(16384, 16384, 1, 16), &[0; 16]));
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    for (width, height) in [(0, 4), (4, 0)] {
        assert!(decode(&tiff(&grey_tiff(width, height, 1, 16), &[0; 16]), &SMALL).is_err());
    }
}

#[test]
fn a_jpeg_in_a_tiff_is_no_larger_than_its_part() {
    let grey = |side: u32| {
        encode(ImageFormat::Jpeg, side, side, &vec![90; (side * side) as usize], ExtendedColorType::L8)
    };
    let with = |jpeg: &[u8]| tiff(&grey_tiff(16, 16, 7, jpeg.len() as u32), jpeg);
    assert_eq!(decode(&with(&grey(16)), &SMALL).unwrap().data(), [90; 16 * 16 * 3]);
    let error = error(&with(&grey(200)));
    assert!(error.to_string().contains("a part of 16x16 pixels is 200x200 itself"), "{error}");
}

#[test]
fn thumbnails_of_raw_files_are_not_taken_for_the_picture() {
    let mut entries = grey_tiff(4, 4, 1, 16);
    assert!(decode(&tiff(&entries, &[0; 16]), &SMALL).is_ok());
    entries[5].3 = tiff_end(9);
    entries.push((50706, 1, 4, 0x401));
    let error = error(&tiff(&entries, &[0; 16]));
    assert!(error.to_string().contains("a camera's raw format"), "{error}");
}

#[test]
fn headers_followed_by_noise_are_refused() {
    let noise = generated(100, 10, 1);
    for format in FORMATS {
        let file = sample(format);
        for header in [8, 16, 32, 64, 128] {
            let bytes = [&file[..header.min(file.len())], noise.data()].concat();
            // A BMP's pixels are raw: behind its whole header of 54 bytes, noise is a picture.
            assert!(
                format == ImageFormat::Bmp && header >= 54 || decode(&bytes, &SMALL).is_err(),
                "{format:?} {header}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Decoding returns, whatever is in the file.
    #[test]
    fn changed_bytes_never_panic(
        (_, mut file) in proptest::sample::select(all_samples()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        head_only: bool,
        cut in proptest::option::of(any::<prop::sample::Index>()),
        allow_truncated: bool,
    ) {
        for (at, byte) in changes {
            let range = if head_only { file.len().min(100) } else { file.len() };
            file[at.index(range)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let options = DecodeOptions { limits: SMALL, allow_truncated };
        if let Ok(decoded) = decode_with(&file, &options) {
            let image = decoded.image;
            prop_assert!(image.width() <= SMALL.side_max && image.height() <= SMALL.side_max);
            prop_assert!(allow_truncated || !decoded.is_truncated);
        }
    }

    #[test]
    fn random_bytes_never_panic(
        magic in proptest::sample::select(MAGICS),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = decode(&[magic, &bytes].concat(), &SMALL);
    }
}
