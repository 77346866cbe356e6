//! What decoding makes of well-formed files.

use image::{ExtendedColorType, ImageFormat};

use super::super::{
    DecodeOptions, ImageError, ImageLimits, RgbImage, decode, decode_file, decode_into, decode_with,
};
use super::encoded::{encode, exif, jpeg_with_exif, png, png_chunk, png_with_chunk, zlib_stored};
use super::generated;

fn decode_default(bytes: &[u8]) -> RgbImage {
    decode(bytes, &ImageLimits::default()).unwrap()
}

fn pixel(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
    image.view().row(y).as_chunks().0[x as usize]
}

#[test]
fn lossless_formats_keep_every_pixel() {
    let image = generated(37, 23, 3);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        let file = encode(format, 37, 23, image.data(), ExtendedColorType::Rgb8);
        assert!(decode_default(&file) == image, "{format:?}");
    }
    // A GIF has at most 256 colours: here the 8 that are left without the low bits.
    let few: Vec<u8> = image.data().iter().map(|&byte| if byte > 127 { 255 } else { 0 }).collect();
    let file = encode(ImageFormat::Gif, 37, 23, &few, ExtendedColorType::Rgb8);
    assert!(decode_default(&file).data() == few, "GIF");
}

#[test]
fn jpeg_is_near_its_source() {
    let flat: Vec<u8> = [200, 90, 30].repeat(40 * 20);
    let file = encode(ImageFormat::Jpeg, 40, 20, &flat, ExtendedColorType::Rgb8);
    let image = decode_default(&file);
    assert_eq!((image.width(), image.height()), (40, 20));
    assert!(image.data().iter().zip(&flat).all(|(a, b)| a.abs_diff(*b) <= 3));

    let grey: Vec<u8> = (0..40 * 20).map(|i| (i / 40 * 10) as u8).collect();
    let image = decode_default(&encode(ImageFormat::Jpeg, 40, 20, &grey, ExtendedColorType::L8));
    assert!(
        image.data().as_chunks::<3>().0.iter().zip(&grey).all(|(p, g)| p.iter().all(|v| v.abs_diff(*g) <= 6))
    );
}

/// Whatever the picture before was, and whether or not the file is whole.
#[test]
fn pictures_decoded_into_used_memory_are_those_of_fresh_memory() {
    let noise = generated(41, 30, 1);
    let colour = encode(ImageFormat::Jpeg, 41, 30, noise.data(), ExtendedColorType::Rgb8);
    let grey = encode(ImageFormat::Jpeg, 41, 90, noise.data(), ExtendedColorType::L8);
    let mut files: Vec<Vec<u8>> = super::encoded::committed().into_iter().map(|file| file.bytes).collect();
    files.extend((1..=8).map(|turn| jpeg_with_exif(&colour, &exif(turn))));
    files.extend([
        grey.clone(),
        colour.clone(),
        encode(ImageFormat::Png, 41, 30, noise.data(), ExtendedColorType::Rgb8),
    ]);
    files.extend([colour.len() / 2, colour.len() - 3, 30].map(|end| colour[..end].to_vec()));
    files.extend([grey[..grey.len() / 2].to_vec(), Vec::new(), b"no picture".to_vec()]);
    let strict = DecodeOptions::default();
    let tolerant = DecodeOptions { allow_truncated: true, ..strict };
    let small = DecodeOptions {
        limits: ImageLimits { side_max: 25, encoded_bytes_max: 900, ..strict.limits },
        ..strict
    };
    let mut image = RgbImage::new(1, 1, vec![7; 3]).unwrap();
    let mut refused = 0;
    for options in [strict, tolerant, small] {
        // Each behind each other one that has another place in the list.
        for step in [1, 2, 5] {
            for file in (0..files.len()).map(|i| &files[i * step % files.len()]) {
                match (decode_with(file, &options), decode_into(file, &options, &mut image)) {
                    (Ok(fresh), Ok(is_truncated)) => {
                        assert!(image == fresh.image);
                        assert_eq!(is_truncated, fresh.is_truncated);
                    }
                    (Err(fresh), Err(used)) => {
                        refused += 1;
                        assert_eq!(fresh.to_string(), used.to_string());
                    }
                    other => panic!("{other:?}"),
                }
                assert_eq!(image.data().len(), image.width() as usize * image.height() as usize * 3);
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

/// Progressive, subsampled, lossy and animated files that Pillow wrote; of animations, the first frame.
#[test]
fn files_of_other_encoders_decode() {
    for file in super::encoded::committed() {
        let image = decode_default(&file.bytes);
        assert_eq!((image.width(), image.height()), (24, 18), "{}", file.name);
        // CMYK is converted without its profile, to duller colours.
        let tolerance = if file.name == "cmyk.jpg" { 40 } else { 12 };
        for (x, expected) in [(4, [230u8, 120, 20]), (20, [20, 60, 200])] {
            for y in [2, 15] {
                let found = pixel(&image, x, y);
                let near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= tolerance);
                assert!(near, "{} at {x},{y}: {found:?}, not {expected:?}", file.name);
            }
        }
    }
}

#[test]
fn every_colour_type_becomes_rgb_as_pillow_converts() {
    let native = |values: &[u16]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
    let cases = [
        (ExtendedColorType::L8, vec![7, 200], [[7; 3], [200; 3]]),
        (ExtendedColorType::La8, vec![7, 0, 200, 128], [[7; 3], [200; 3]]),
        (ExtendedColorType::Rgb8, vec![1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        // Transparent pixels keep their colour: alpha is dropped, not blended.
        (ExtendedColorType::Rgba8, vec![1, 2, 3, 0, 4, 5, 6, 77], [[1, 2, 3], [4, 5, 6]]),
        // The high byte, not the nearest: 0x12ff is 0x12.
        (ExtendedColorType::L16, native(&[0x12ff, 0xfe00]), [[0x12; 3], [0xfe; 3]]),
        (ExtendedColorType::La16, native(&[0x12ff, 0, 0xfe00, 9]), [[0x12; 3], [0xfe; 3]]),
        (ExtendedColorType::Rgb16, native(&[0x1ff, 0x200, 0x3aa, 0, 0xff, 0xffff]), [[1, 2, 3], [0, 0, 255]]),
        (
            ExtendedColorType::Rgba16,
            native(&[0x1ff, 0x200, 0x3aa, 0, 0, 0xff, 0xffff, 0x8000]),
            [[1, 2, 3], [0, 0, 255]],
        ),
    ];
    for (color, samples, expected) in cases {
        let image = decode_default(&encode(ImageFormat::Png, 2, 1, &samples, color));
        assert_eq!([pixel(&image, 0, 0), pixel(&image, 1, 0)], expected, "{color:?}");
    }
    let rgba = [9, 8, 7, 0, 60, 50, 40, 255];
    for format in [ImageFormat::WebP, ImageFormat::Bmp] {
        let image = decode_default(&encode(format, 2, 1, &rgba, ExtendedColorType::Rgba8));
        assert_eq!(pixel(&image, 1, 0), [60, 50, 40], "{format:?}");
    }
}

#[test]
fn palettes_and_few_bits_are_expanded() {
    let palette = png_chunk(b"PLTE", &[10, 20, 30, 40, 50, 60, 70, 80, 90]);
    // The second colour is transparent, and stays a colour.
    let transparency = png_chunk(b"tRNS", &[255, 0]);
    // Two bits a pixel: 0, 1, 2, 1.
    let row = png_chunk(b"IDAT", &zlib_stored(&[0, 0b00_01_10_01]));
    for chunks in [vec![palette.clone(), row.clone()], vec![palette, transparency, row]] {
        let image = decode_default(&png(4, 1, 2, 3, &chunks));
        assert_eq!(image.data(), [10, 20, 30, 40, 50, 60, 70, 80, 90, 40, 50, 60]);
    }
    // One bit of grey: black and white.
    let row = png_chunk(b"IDAT", &zlib_stored(&[0, 0b1010_0000]));
    assert_eq!(decode_default(&png(3, 1, 1, 0, &[row])).data(), [[255; 3], [0; 3], [255; 3]].as_flattened());
}

#[test]
fn exif_orientation_is_applied() {
    // Quarters of 16x16 in a picture of 32x32 (rows: A B / C D), and where Exif's eight values put them.
    let [a, b, c, d] = [[220, 40, 40], [40, 200, 40], [40, 40, 220], [230, 230, 230u8]];
    let expected = [
        (1, [a, b, c, d]),
        (2, [b, a, d, c]),
        (3, [d, c, b, a]),
        (4, [c, d, a, b]),
        (5, [a, c, b, d]),
        (6, [c, a, d, b]),
        (7, [d, b, c, a]),
        (8, [b, d, a, c]),
        // Values that Exif does not define change nothing.
        (0, [a, b, c, d]),
        (9, [a, b, c, d]),
    ];
    let source: Vec<u8> = (0..32 * 32).flat_map(|i| [[a, b], [c, d]][i / 32 / 16][i % 32 / 16]).collect();
    let jpeg = encode(ImageFormat::Jpeg, 32, 32, &source, ExtendedColorType::Rgb8);
    let png = encode(ImageFormat::Png, 32, 32, &source, ExtendedColorType::Rgb8);
    for (orientation, quarters) in expected {
        let exif = exif(orientation);
        for (format, file) in
            [("JPEG", jpeg_with_exif(&jpeg, &exif)), ("PNG", png_with_chunk(&png, b"eXIf", &exif))]
        {
            let image = decode_default(&file);
            let found = [(8, 8), (24, 8), (8, 24), (24, 24)].map(|(x, y)| pixel(&image, x, y));
            let near =
                found.as_flattened().iter().zip(quarters.as_flattened()).all(|(a, b)| a.abs_diff(*b) < 12);
            assert!(near, "{format}, orientation {orientation}: {found:?}, not {quarters:?}");
        }
    }
}

#[test]
fn turned_images_exchange_their_sides() {
    let image = generated(7, 4, 3);
    let file = encode(ImageFormat::Png, 7, 4, image.data(), ExtendedColorType::Rgb8);
    let turned = decode_default(&png_with_chunk(&file, b"eXIf", &exif(6)));
    assert_eq!((turned.width(), turned.height()), (4, 7));
    for (x, y) in (0..4).flat_map(|x| (0..7).map(move |y| (x, y))) {
        assert_eq!(pixel(&turned, x, y), pixel(&image, y, 3 - x));
    }
}

#[test]
fn files_are_told_by_content_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let image = generated(5, 6, 1);
    let png = encode(ImageFormat::Png, 5, 6, image.data(), ExtendedColorType::Rgb8);
    let path = folder.path().join("named.jpg");
    std::fs::write(&path, &png).unwrap();
    assert!(decode_file(&path, &ImageLimits::default()).unwrap() == image);

    let limits = ImageLimits { encoded_bytes_max: png.len() as u64 - 1, ..ImageLimits::default() };
    assert!(matches!(decode_file(&path, &limits), Err(ImageError::FileTooLarge { .. })));
    let limits = ImageLimits { encoded_bytes_max: png.len() as u64, ..limits };
    assert!(decode_file(&path, &limits).is_ok());

    let missing = decode_file(folder.path().join("missing.png"), &limits).unwrap_err();
    assert!(matches!(missing, ImageError::Read { .. }) && missing.to_string().contains("missing.png"));
    assert!(matches!(decode_file(folder.path(), &limits), Err(ImageError::Read { .. })));
}
