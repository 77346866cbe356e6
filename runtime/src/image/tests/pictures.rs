//! Pixels against Pillow's: every file of tests/data/pictures, which make_pictures.py wrote.

use safetensors::SafeTensors;

use super::super::{ImageLimits, decode};

/// Decoders of JPEG differ in how they round and widen chroma, by so many levels at most …
const JPEG_LEVELS: u8 = 6;
/// … and by so many on average over a picture.
const JPEG_LEVELS_MEAN: f64 = 0.8;

/// Names of files, their bytes, and the pixels that they hold: width, height and RGB.
pub(super) fn pictures(visit: &mut dyn FnMut(&str, &[u8], (u32, u32), &[u8])) {
    let bytes = std::fs::read(super::data_dir().join("pictures/pictures.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> = tensors.names().into_iter().filter(|name| !name.ends_with(".rgb")).collect();
    names.sort_unstable();
    assert!(names.len() > 150, "only {} pictures", names.len());
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let same = header.metadata().as_ref().unwrap();
    for name in names {
        let of = same.get(name).map_or(name, String::as_str);
        let rgb = tensors.tensor(&format!("{of}.rgb")).unwrap();
        let [height, width, 3] = rgb.shape()[..] else { panic!("{name}: {:?}", rgb.shape()) };
        visit(name, tensors.tensor(name).unwrap().data(), (width as u32, height as u32), rgb.data());
    }
}

#[test]
fn pixels_are_pillows() {
    let mut wrong = Vec::new();
    pictures(&mut |name, file, size, expected| {
        let image = match decode(file, &ImageLimits::default()) {
            Ok(image) => image,
            Err(error) => return wrong.push(format!("{name}: {error}")),
        };
        if (image.width(), image.height()) != size {
            return wrong.push(format!("{name}: {}x{}, not {size:?}", image.width(), image.height()));
        }
        let differences = || image.data().iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
        let most = differences().max().unwrap_or(0);
        let mean = differences().map(f64::from).sum::<f64>() / expected.len() as f64;
        let is_jpeg = name.contains("jpg") || name.starts_with("jpeg");
        let is_near = if is_jpeg { most <= JPEG_LEVELS && mean <= JPEG_LEVELS_MEAN } else { most == 0 };
        if !is_near {
            wrong.push(format!("{name}: off by up to {most}, {mean:.2} on average"));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
