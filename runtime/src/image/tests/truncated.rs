//! Files that end too early: refused, or decoded as far as they go if that is allowed, and then it is said.

use image::{ExtendedColorType, ImageFormat};

use super::super::{DecodeOptions, Decoded, ImageError, ImageLimits, RgbImage, decode, decode_with};
use super::encoded::{encode, tiff, tiff_end};
use super::generated;
use super::pictures::{Picture, pictures};

const END: &[u8] = b"\xff\xd9";

fn allowed(file: &[u8]) -> Result<Decoded, ImageError> {
    let options = DecodeOptions { allow_truncated: true, ..DecodeOptions::default() };
    decode_with(file, &options)
}

fn is_truncated(file: &[u8]) -> bool {
    matches!(decode(file, &ImageLimits::default()), Err(ImageError::Truncated { .. }))
}

/// Where the data of the first scan begin.
fn scan_data(jpeg: &[u8]) -> usize {
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]))
}

/// All kinds of JPEG that end with an end marker, without it.
fn jpegs() -> Vec<(String, Vec<u8>)> {
    let is_one = |picture: &Picture| {
        picture.name.ends_with(".jpg") && picture.file.ends_with(END) && !picture.name.starts_with("fill")
    };
    let jpegs: Vec<_> = pictures()
        .into_iter()
        .filter(is_one)
        .map(|picture| (picture.name, picture.file[..picture.file.len() - END.len()].to_vec()))
        .collect();
    assert!(jpegs.len() > 60, "only {} files", jpegs.len());
    jpegs
}

#[test]
fn jpegs_that_stop_within_a_scan_are_refused_with_and_without_an_end_marker() {
    for (name, file) in jpegs() {
        let from = scan_data(&file);
        // The last byte may hold only bits that fill it.
        for len in (from..file.len() - 1).step_by(7).chain([file.len() - 2]) {
            let cut = &file[..len];
            assert!(is_truncated(cut), "{name} cut to {len} of {}", file.len());
            // A progressive picture may end behind any of its scans, if it says so.
            if !name.contains("progressive") {
                assert!(is_truncated(&[cut, END].concat()), "{name} ended at {len} of {}", file.len());
            }
        }
    }
}

#[test]
fn jpegs_that_stop_within_a_scan_are_decoded_if_that_is_allowed() {
    for (name, file) in jpegs() {
        let from = scan_data(&file);
        for len in (from..file.len() - 1).step_by(11) {
            for cut in [file[..len].to_vec(), [&file[..len], END].concat()] {
                let decoded = allowed(&cut).unwrap_or_else(|e| panic!("{name} cut to {len}: {e}"));
                let may_end = name.contains("progressive") && cut.ends_with(END);
                assert!(decoded.is_truncated || may_end, "{name} cut to {len}");
            }
        }
        assert!(allowed(&file[..from - 3]).is_err(), "{name} has no scan");
        let whole = allowed(&[&file, END].concat()).unwrap();
        let unended = decode(&file, &ImageLimits::default()).unwrap();
        assert!(!whole.is_truncated && whole.image == unended, "{name}");
    }
}

#[test]
fn a_jpeg_with_a_wrong_code_in_its_scan_is_broken() {
    let image = generated(64, 64, 3);
    let mut file = encode(ImageFormat::Jpeg, 64, 64, image.data(), ExtendedColorType::Rgb8);
    let middle = (scan_data(&file) + file.len()) / 2;
    // No code consists of ones only; within a scan such a byte has a zero behind it.
    for pair in file[middle..middle + 16].chunks_exact_mut(2) {
        pair.copy_from_slice(&[0xff, 0]);
    }
    let error = decode(&file, &ImageLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Broken { format: "JPEG", .. }), "{error}");
    assert!(allowed(&file).unwrap().is_truncated);
}

#[test]
fn what_is_there_of_a_picture_is_its_own() {
    let image = generated(48, 64, 2);
    let rows = |image: &RgbImage, count: usize| image.data()[..count * 48 * 3].to_vec();
    let encode = |format| encode(format, 48, 64, image.data(), ExtendedColorType::Rgb8);
    for (name, file) in [
        ("JPEG", encode(ImageFormat::Jpeg)),
        ("PNG", encode(ImageFormat::Png)),
        ("BMP", encode(ImageFormat::Bmp)),
        ("GIF", encode(ImageFormat::Gif)),
        ("TIFF", tiff_with_directory_first(&image)),
    ] {
        let whole = decode(&file, &ImageLimits::default()).unwrap();
        let cut = &file[..file.len() * 3 / 4];
        let error = decode(cut, &ImageLimits::default()).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { format } if format == name), "{name}: {error}");
        let decoded = allowed(cut).unwrap();
        assert!(decoded.is_truncated && decoded.image != whole, "{name}");
        if name == "BMP" {
            // The last row stands first.
            let last = |image: &RgbImage| image.view().row(63).to_vec();
            assert_eq!(last(&decoded.image), last(&whole));
        } else {
            assert_eq!(rows(&decoded.image, 24), rows(&whole, 24), "{name}");
        }
        for len in 0..16 {
            assert!(allowed(&file[..len]).is_err(), "{name} cut to {len}");
        }
    }
}

/// Uncompressed, in strips of a row each.
fn tiff_with_directory_first(image: &RgbImage) -> Vec<u8> {
    let (width, height) = (image.width(), image.height());
    let row = 3 * width;
    let bits = tiff_end(8);
    let (offsets, lens) = (bits + 6, bits + 6 + 4 * height);
    let data = lens + 4 * height;
    let entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, bits),
        (262, 3, 1, 2),
        (273, 4, height, offsets),
        (277, 3, 1, 3),
        (278, 4, 1, 1),
        (279, 4, height, lens),
    ];
    let mut rest = vec![8, 0, 8, 0, 8, 0];
    rest.extend((0..height).flat_map(|y| (data + y * row).to_le_bytes()));
    rest.extend((0..height).flat_map(|_| row.to_le_bytes()));
    rest.extend(image.data());
    tiff(&entries, &rest)
}

#[test]
fn a_cut_lossy_webp_is_decoded_if_that_is_allowed() {
    let lossy = pictures().into_iter().find(|picture| picture.name == "lossy.webp").unwrap();
    let cut = &lossy.file[..lossy.file.len() * 3 / 4];
    assert!(is_truncated(cut));
    let decoded = allowed(cut).unwrap();
    assert!(decoded.is_truncated);
    assert_eq!((decoded.image.width(), decoded.image.height()), (lossy.width, lossy.height));
}
