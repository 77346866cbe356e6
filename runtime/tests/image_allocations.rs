//! Resizing and normalising allocate nothing, and a resizer allocates exactly what it says beforehand.

#[path = "../../tests/common/counting.rs"]
mod counting;

use counting::{Asked, by_this_thread};
use palmtop::image::{Filter, Frame, Normaliser, Plane, Resizer, RgbImage, Rotation};

#[test]
fn resizers_allocate_what_they_say() {
    for (width, height, side) in
        [(224, 224, 4096), (896, 896, 16384), (448, 300, 100), (1, 1, 1), (5, 900, 65536)]
    {
        for filter in Filter::ALL {
            let (_, asked) = by_this_thread(|| Resizer::new(filter, width, height, side).unwrap());
            let said = Resizer::bytes_for(filter, width, height, side).unwrap();
            assert_eq!(asked.bytes, said, "{filter:?}, {width}x{height} from {side}");
        }
    }
}

#[test]
fn resizing_and_normalising_allocate_nothing() {
    Filter::ALL.into_iter().for_each(resizing_allocates_nothing);
}

fn resizing_allocates_nothing(filter: Filter) {
    let mut resizer = Resizer::new(filter, 56, 56, 500).unwrap();
    let normaliser = Normaliser::new([0.5; 3], [0.5; 3], 1.0 / 255.0).unwrap();
    let mut resized = vec![0; 56 * 56 * 3];
    let mut values = vec![0.0; 56 * 56 * 3];
    for (width, height) in [(500, 300), (3, 500), (56, 56), (56, 9), (9, 56), (500, 500)] {
        let image = RgbImage::new(width, height, vec![77; (width * height * 3) as usize]).unwrap();
        let ((), asked) = by_this_thread(|| {
            resizer.resize(image.view(), &mut resized).unwrap();
            let rgb = palmtop::image::RgbView::packed(56, 56, &resized).unwrap();
            normaliser.planes(rgb, &mut values).unwrap();
            normaliser.patches(rgb, 14, &mut values).unwrap();
        });
        assert_eq!(asked, Asked::NOTHING, "{width}x{height}");
        assert!(resized.iter().all(|&byte| byte == 77));
        let samples = vec![128; (width.next_multiple_of(2) * height) as usize];
        let plane = Plane::new(&samples, width.next_multiple_of(2) as usize);
        let ((), asked) = by_this_thread(|| {
            let frame = Frame::nv12(width, height, plane, plane).unwrap().turned(Rotation::Clockwise90);
            resizer.resize(frame, &mut resized).unwrap();
        });
        assert_eq!(asked, Asked::NOTHING, "NV12 of {width}x{height}");
        // 255 / 219 · (128 - 16) = 130.4
        assert!(resized.iter().all(|&byte| byte == 130));
    }
}
