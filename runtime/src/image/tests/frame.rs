//! Frames are resized as if they had been converted to RGB and turned before.

use super::generated;
use crate::image::{Filter, Frame, PixelFormat, Plane, Resizer, RgbImage, Rotation};

const ROTATIONS: [Rotation; 4] =
    [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270];

/// The upright picture, whole.
fn converted(frame: Frame) -> RgbImage {
    let row_bytes = frame.width() as usize * 3;
    let mut data = vec![0; row_bytes * frame.height() as usize];
    data.chunks_mut(row_bytes).zip(0..).for_each(|(row, y)| frame.write_row(y, row));
    RgbImage::new(frame.width(), frame.height(), data).unwrap()
}

#[test]
fn frames_are_resized_as_their_rgb_is() {
    // Smaller and larger than the output, as wide, as high, both, and odd.
    for (width, height) in [(120, 90), (20, 30), (56, 90), (90, 56), (56, 40), (40, 56), (81, 33), (1, 1)] {
        let (w, h) = (width as usize, height as usize);
        let noise = generated(2 * width + 10, 2 * height + 2, 3).into_data();
        let stride = 2 * w + 6;
        let (luma, chroma) = (Plane::new(&noise, stride), Plane::new(&noise[7..], stride));
        let packed = |format: PixelFormat| {
            Frame::packed(format, width, height, format.bytes() * w + 2, &noise[1..]).unwrap()
        };
        let frames = [
            Frame::nv12(width, height, luma, chroma).unwrap(),
            Frame::nv21(width, height, luma, chroma).unwrap(),
            Frame::yuv420(width, height, luma, chroma, Plane::new(&noise[3..], stride)).unwrap(),
            Frame::yuyv(width, height, stride, &noise).unwrap(),
            Frame::uyvy(width, height, stride, &noise).unwrap(),
            packed(PixelFormat::Rgb),
            packed(PixelFormat::Bgr),
            packed(PixelFormat::Grey),
        ];
        assert!(noise.len() > stride * h);
        let mut resizer = Resizer::new(Filter::Bicubic, 56, 40, 240).unwrap();
        let (mut ours, mut expected) = (vec![1; 56 * 40 * 3], vec![2; 56 * 40 * 3]);
        for frame in frames.iter().flat_map(|f| ROTATIONS.map(|r| f.turned(r))) {
            resizer.resize(frame, &mut ours).unwrap();
            resizer.resize(converted(frame).view(), &mut expected).unwrap();
            assert!(ours == expected, "{frame:?}");
        }
    }
}

#[test]
fn resizing_stops_when_it_is_told_to() {
    let image = generated(90, 90, 1);
    let mut resizer = Resizer::new(Filter::Bicubic, 56, 40, 90).unwrap();
    let mut out = vec![0; 56 * 40 * 3];
    for (rows, whole) in [(0, false), (7, false), (39, false), (40, true)] {
        let mut left = rows;
        let mut stop = || {
            left -= 1;
            left < 0
        };
        assert_eq!(resizer.resize_unless(image.view().into(), &mut out, &mut stop).unwrap(), whole);
    }
    // It is as good as new afterwards.
    let mut again = vec![0; 56 * 40 * 3];
    resizer.resize(image.view(), &mut again).unwrap();
    assert!(again == out);
}
