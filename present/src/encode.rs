//! Pictures and masks as PNG or JPEG.

use std::io::Write;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, GrayImage, ImageEncoder};
use palmtop::image::RgbImage;
use palmtop::tasks::Mask;

const JPEG_QUALITY: u8 = 92;

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// PNG: every pixel as it is.
    Png,
    /// JPEG of quality 92, with sides of 65535 pixels at most.
    Jpeg,
}

impl PictureFormat {
    /// The format of a file that ends in `.png`, `.jpg` or `.jpeg`, in letters of either case.
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_string_lossy().to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            _ => None,
        }
    }

    /// The media type, as HTTP has it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }
}

/// Why a picture or a mask cannot be encoded: the writer's error, or a size that the format does not have.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EncodeError(#[from] image::ImageError);

/// Writes a picture.
///
/// # Errors
/// If the format has no such size, or `out` fails.
pub fn picture(picture: &RgbImage, format: PictureFormat, out: impl Write) -> Result<(), EncodeError> {
    let (width, height) = (picture.width(), picture.height());
    let (data, color) = (picture.data(), ExtendedColorType::Rgb8);
    match format {
        PictureFormat::Jpeg => {
            JpegEncoder::new_with_quality(out, JPEG_QUALITY).write_image(data, width, height, color)?;
        }
        PictureFormat::Png => PngEncoder::new(out).write_image(data, width, height, color)?,
    }
    Ok(())
}

/// Writes a mask as a PNG of one channel and the size of the original picture: 255 where it is set, else 0.
///
/// # Errors
/// If the picture has no pixels, or `out` fails.
pub fn mask(mask: &Mask, out: impl Write) -> Result<(), EncodeError> {
    let mut image = GrayImage::new(mask.image_width(), mask.image_height());
    for (y, row) in (mask.y()..).zip(mask.rows()) {
        for (x, is_set) in (mask.x()..).zip(row) {
            if is_set {
                image.put_pixel(x, y, image::Luma([255]));
            }
        }
    }
    Ok(image.write_with_encoder(PngEncoder::new(out))?)
}

#[cfg(test)]
mod tests {
    use palmtop::tasks::BoxRounding;

    use super::*;

    #[test]
    fn names_say_the_format() {
        let of_name = |name: &str| PictureFormat::of_name(Path::new(name));
        assert_eq!(of_name("a/b.png"), Some(PictureFormat::Png));
        assert_eq!(of_name("b.PNG"), Some(PictureFormat::Png));
        assert_eq!(of_name("b.jpg"), Some(PictureFormat::Jpeg));
        assert_eq!(of_name("b.Jpeg"), Some(PictureFormat::Jpeg));
        for name in ["a", "a.gif", ".png", "png", "a.png/b", ""] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }

    #[test]
    fn pictures_read_back_as_they_were() {
        let data: Vec<u8> = (0..20 * 10 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let rgb = RgbImage::new(20, 10, data.clone()).unwrap();
        for (format, guessed) in
            [(PictureFormat::Png, image::ImageFormat::Png), (PictureFormat::Jpeg, image::ImageFormat::Jpeg)]
        {
            let mut file = Vec::new();
            picture(&rgb, format, &mut file).unwrap();
            assert_eq!(image::guess_format(&file).unwrap(), guessed);
            assert_eq!(guessed.to_mime_type(), format.media_type());
            let read = image::load_from_memory(&file).unwrap().into_rgb8();
            assert_eq!(read.dimensions(), (20, 10));
            assert!(format == PictureFormat::Jpeg || *read.as_raw() == data);
        }
    }

    #[test]
    fn sizes_that_jpeg_does_not_have_are_refused() {
        let wide = RgbImage::new(65536, 1, vec![0; 65536 * 3]).unwrap();
        assert!(picture(&wide, PictureFormat::Jpeg, &mut Vec::new()).is_err());
        assert!(picture(&wide, PictureFormat::Png, &mut Vec::new()).is_ok());
    }

    #[test]
    fn a_mask_is_a_picture_of_black_and_white() {
        let pasted = Mask::paste(&[1.0; 4096], [256, 512, 768, 1023], 8, 4, BoxRounding::Nearest).unwrap();
        let mut file = Vec::new();
        mask(&pasted, &mut file).unwrap();
        let read = image::load_from_memory(&file).unwrap();
        assert_eq!(read.color(), image::ColorType::L8);
        for (x, y, pixel) in read.into_luma8().enumerate_pixels() {
            assert_eq!(pixel.0[0] == 255, x >= 4 && (1..3).contains(&y), "column {x}, row {y}");
        }
    }
}
