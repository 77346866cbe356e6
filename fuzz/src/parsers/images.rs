//! Pictures.

use palmtop::image::{
    DecodeOptions, Decoded, Filter, Frame, ImageLimits, Normaliser, PixelFormat, Plane, Resizer, RgbImage,
    Rotation, YuvColor, decode, decode_into, decode_with, orientation_of_file,
};
use palmtop_watch::stream::{Any, Splitter};

use super::{Numbers, in_folder, write};

/// An encoded picture of any kind, whole or cut short.
pub fn image(bytes: &[u8]) {
    let mut options = DecodeOptions::default();
    options.limits = ImageLimits { side_max: 512, decoded_bytes_max: 4 << 20, encoded_bytes_max: 1 << 20 };
    let whole = decode(bytes, &options.limits);
    options.allow_truncated = true;
    let any = decode_with(bytes, &options);
    if let Ok(whole) = &whole {
        let any = any.as_ref().expect("a whole picture");
        assert!(!any.is_truncated && any.image == *whole, "a whole picture is not cut short");
    }
    // The same in memory that another picture was in.
    let mut used = RgbImage::new(2, 1, vec![7; 6]).expect("two pixels");
    match (&any, decode_into(bytes, &options, &mut used)) {
        (Ok(fresh), Ok(is_truncated)) => {
            assert!(used == fresh.image && is_truncated == fresh.is_truncated, "used memory changes nothing");
        }
        (any, into) => assert!(any.is_err() && into.is_err(), "used memory changes nothing"),
    }
    let Ok(Decoded { image, .. }) = any else { return };
    let (width, height) = (image.width(), image.height());
    assert!(width > 0 && height > 0 && width <= 512 && height <= 512);
    assert_eq!(image.data().len(), 3 * width as usize * height as usize);
    if whole.is_ok() {
        in_folder(|folder| {
            let orientation = orientation_of_file(write(folder, "picture", bytes), &options.limits);
            assert!((1..=8).contains(&orientation.expect("a whole picture")));
        });
    }
}

/// A frame of a camera, in any layout, through to the numbers that the model sees.
pub fn frames(bytes: &[u8]) {
    let mut numbers = Numbers(bytes);
    let (layout, width, height) = (numbers.byte(), numbers.number() as u32, numbers.number() as u32);
    let turn = numbers.byte();
    let color = match numbers.byte() % 4 {
        0 => YuvColor::Bt601Limited,
        1 => YuvColor::Bt601Full,
        2 => YuvColor::Bt709Limited,
        _ => YuvColor::Bt709Full,
    };
    let filter = [Filter::Bicubic, Filter::Bilinear, Filter::BilinearAliased][usize::from(turn / 4) % 3];
    let mut plane = || {
        let (stride_bytes, step_bytes) = (numbers.number(), numbers.number());
        Plane { data: numbers.bytes(), stride_bytes, step_bytes }
    };
    let (a, b, c) = (plane(), plane(), plane());
    let packed = |format| Frame::packed(format, width, height, a.stride_bytes, a.data);
    let frame = match layout % 10 {
        0 => packed(PixelFormat::Rgb),
        1 => packed(PixelFormat::Bgr),
        2 => packed(PixelFormat::Rgba),
        3 => packed(PixelFormat::Bgra),
        4 => packed(PixelFormat::Grey),
        5 => Frame::nv12(width, height, a, b),
        6 => Frame::nv21(width, height, a, b),
        7 => Frame::yuv420(width, height, a, b, c),
        8 => Frame::yuyv(width, height, a.stride_bytes, a.data),
        _ => Frame::uyvy(width, height, a.stride_bytes, a.data),
    };
    let Ok(frame) = frame else { return };
    let rotation = Rotation::from_degrees(90 * u32::from(turn % 4)).expect("a quarter");
    let frame = frame.coloured(color).turned(rotation);
    let mut row = vec![0; 3 * frame.width() as usize];
    for y in [0, frame.height() / 2, frame.height() - 1] {
        frame.write_row(y, &mut row);
    }
    let side = 8;
    let side_in_max = frame.width().max(frame.height()).min(1 << 12);
    let mut resizer = Resizer::new(filter, side, side, side_in_max).expect("a small resizer");
    let mut out = vec![0; 3 * (side * side) as usize];
    if resizer.resize(frame, &mut out).is_ok() {
        let view = palmtop::image::RgbView::new(side, side, 3 * side as usize, &out).expect("a picture");
        let normaliser = Normaliser::new([0.5; 3], [0.5; 3], 1.0 / 255.0).expect("numbers");
        let mut values = vec![0.0; 3 * (side * side) as usize];
        normaliser.patches(view, 4, &mut values).expect("patches of four");
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
    }
}

/// What cameras and pipes give without an end, cut into pictures: the same whatever the pieces that it comes in.
pub fn streams(bytes: &[u8]) {
    const BYTES_MAX: usize = 3000;
    let Some((&pieces, stream)) = bytes.split_first() else { return };
    let at_once = cut(stream, stream.len().max(1), BYTES_MAX);
    let in_pieces = cut(stream, usize::from(pieces).max(1), BYTES_MAX);
    assert_eq!(at_once, in_pieces, "pieces change nothing");
}

/// Whole pictures, how many were broken, and whether it ended with an error. What the error shows of the stream is what
/// had come.
fn cut(stream: &[u8], pieces: usize, bytes_max: usize) -> (Vec<Vec<u8>>, u64, bool) {
    let (mut splitter, mut picture, mut pictures) = (Any::new(bytes_max), Vec::new(), Vec::new());
    for mut piece in stream.chunks(pieces) {
        while !piece.is_empty() {
            let Ok(taken) = splitter.take(piece, &mut picture) else {
                return (pictures, splitter.broken(), true);
            };
            assert!(taken.bytes > 0 && picture.len() <= bytes_max + 1, "it goes on, within its limit");
            piece = &piece[taken.bytes..];
            if taken.is_complete {
                let layout = splitter.layout().expect("known with the first picture");
                assert!(
                    layout.frame(&picture).is_none_or(|frame| frame.is_ok()),
                    "as many bytes as pixels need"
                );
                pictures.push(picture.clone());
            }
        }
    }
    (pictures, splitter.broken(), false)
}
