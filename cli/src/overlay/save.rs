//! Writes pictures and masks to files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, ImageFormat, RgbImage};
use palmtop::tasks::Mask;

use crate::files::Replacement;

const JPEG_QUALITY: u8 = 92;

/// Writes a picture as PNG or JPEG, by the extension of `path`. A file there is replaced once the new one is whole.
pub fn save_picture(picture: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let format = match extension(path).as_str() {
        "png" => ImageFormat::Png,
        "jpg" | "jpeg" => ImageFormat::Jpeg,
        _ => bail!("{}: pictures are written as .png, .jpg or .jpeg; choose such a name", path.display()),
    };
    replace(path, |file| {
        match format {
            ImageFormat::Jpeg => {
                picture.write_with_encoder(JpegEncoder::new_with_quality(file, JPEG_QUALITY))?
            }
            _ => picture.write_with_encoder(image::codecs::png::PngEncoder::new(file))?,
        }
        Ok(())
    })
}

/// A mask as a picture of one channel and the size of the original: 255 where it is set, else 0.
fn mask_image(mask: &Mask) -> GrayImage {
    let mut image = GrayImage::new(mask.image_width(), mask.image_height());
    for (y, row) in (mask.y()..).zip(mask.rows()) {
        for (x, is_set) in (mask.x()..).zip(row) {
            if is_set {
                image.put_pixel(x, y, image::Luma([255]));
            }
        }
    }
    image
}

/// Writes [`mask_image`] as PNG. A file there is replaced once the new one is whole.
pub fn save_mask(mask: &Mask, path: &Path) -> anyhow::Result<()> {
    if extension(path) != "png" {
        bail!("{}: masks are written as .png; choose such a name", path.display());
    }
    let image = mask_image(mask);
    replace(path, |file| Ok(image.write_with_encoder(image::codecs::png::PngEncoder::new(file))?))
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// Writes a temporary file beside `path`, then gives it that name.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut replacement = Replacement::new(path)?;
    let mut buffered = BufWriter::new(replacement.file());
    write(&mut buffered).with_context(context)?;
    buffered.flush().with_context(context)?;
    drop(buffered);
    replacement.finish()
}

#[cfg(test)]
mod tests {
    use palmtop::tasks::BoxRounding;

    use super::*;

    fn files_in(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn pictures_are_written_by_extension_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8 * 12, y as u8 * 25, 7]));
        for name in ["a.png", "a.PNG", "a.jpg", "a.jpeg"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "old").unwrap();
            save_picture(&picture, &path).unwrap();
            let read = image::ImageReader::open(&path).unwrap().with_guessed_format().unwrap();
            let is_jpeg = name.contains("jp");
            let format = if is_jpeg { ImageFormat::Jpeg } else { ImageFormat::Png };
            assert_eq!(read.format(), Some(format));
            let read = read.decode().unwrap().into_rgb8();
            assert_eq!(read.dimensions(), (20, 10));
            assert!(is_jpeg || read == picture);
        }
        assert_eq!(files_in(folder.path()), 4);
    }

    #[test]
    fn other_names_and_places_are_refused_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::new(1, 1);
        for name in ["a", "a.gif", ".png"] {
            let error = save_picture(&picture, &folder.path().join(name)).unwrap_err();
            assert!(error.to_string().contains("choose such a name"), "{error}");
        }
        let error = save_picture(&picture, &folder.path().join("none/a.png")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
        // The encoders refuse a picture without pixels; the half-written file goes away.
        assert!(save_picture(&RgbImage::new(0, 0), &folder.path().join("a.jpg")).is_err());
        assert_eq!(files_in(folder.path()), 0);
    }

    #[test]
    fn a_mask_is_a_picture_of_black_and_white() {
        let folder = tempfile::tempdir().unwrap();
        let mask = Mask::paste(&[1.0; 4096], [256, 512, 768, 1023], 8, 4, BoxRounding::Nearest).unwrap();
        let path = folder.path().join("mask.png");
        save_mask(&mask, &path).unwrap();
        let read = image::open(&path).unwrap();
        assert_eq!(read.color(), image::ColorType::L8);
        for (x, y, pixel) in read.into_luma8().enumerate_pixels() {
            assert_eq!(pixel.0[0] == 255, x >= 4 && (1..3).contains(&y), "column {x}, row {y}");
        }
        assert!(save_mask(&mask, &folder.path().join("mask.jpg")).is_err());
    }
}
