//! Pixels against Pillow's: every file of tests/data/pictures, which make_pictures.py wrote.

use safetensors::SafeTensors;

use super::super::{ImageLimits, decode, orientation_of_file};

/// Decoders of JPEG differ in how they round and widen chroma, by so many levels at most …
const JPEG_LEVELS: u8 = 6;
/// … and by so many on average over a picture.
const JPEG_LEVELS_MEAN: f64 = 0.8;

/// A file and the pixels that it holds.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) file: Vec<u8>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

pub(super) fn pictures() -> Vec<Picture> {
    let bytes = std::fs::read(super::data_dir().join("pictures/pictures.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let same = header.metadata().as_ref().unwrap();
    let mut names: Vec<&str> = tensors.names().into_iter().filter(|name| !name.ends_with(".rgb")).collect();
    names.sort_unstable();
    assert!(names.len() > 150, "only {} pictures", names.len());
    let picture = |name: &str| {
        let of = same.get(name).map_or(name, String::as_str);
        let rgb = tensors.tensor(&format!("{of}.rgb")).unwrap();
        let [height, width, 3] = rgb.shape()[..] else { panic!("{name}: {:?}", rgb.shape()) };
        Picture {
            name: name.to_owned(),
            file: tensors.tensor(name).unwrap().data().to_vec(),
            width: width as u32,
            height: height as u32,
            rgb: rgb.data().to_vec(),
        }
    };
    names.into_iter().map(picture).collect()
}

#[test]
fn pixels_are_pillows() {
    let mut wrong = Vec::new();
    for Picture { name, file, width, height, rgb } in pictures() {
        let image = match decode(&file, &ImageLimits::default()) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        if (image.width(), image.height()) != (width, height) {
            wrong.push(format!("{name}: {}x{}, not {width}x{height}", image.width(), image.height()));
            continue;
        }
        let differences = || image.data().iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b));
        let most = differences().max().unwrap_or(0);
        let mean = differences().map(f64::from).sum::<f64>() / rgb.len() as f64;
        let is_jpeg = name.contains("jpg") || name.starts_with("jpeg");
        let is_near = if is_jpeg { most <= JPEG_LEVELS && mean <= JPEG_LEVELS_MEAN } else { most == 0 };
        if !is_near {
            wrong.push(format!("{name}: off by up to {most}, {mean:.2} on average"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn orientations_are_those_that_decoding_applies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    let mut turned = 0;
    for picture in pictures() {
        std::fs::write(&path, &picture.file).unwrap();
        let orientation = orientation_of_file(&path, &ImageLimits::default()).unwrap();
        turned += usize::from(orientation > 1);
        let expected = match picture.name.as_str() {
            name if name.starts_with("orientation_") || name.starts_with("exif_") => {
                let digit = name.split(['_', '.']).nth(1).and_then(|part| part.parse().ok());
                digit.map(|digit| if (1..=8).contains(&digit) { digit } else { 1u8 })
            }
            _ => None,
        };
        assert!(expected.is_none_or(|expected| expected == orientation), "{}: {orientation}", picture.name);
    }
    assert!(turned > 50, "only {turned}");
}
