//! Resizing and normalising allocate nothing, and a resizer allocates exactly what it says beforehand.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use palmtop::image::{Filter, Frame, Normaliser, Plane, Resizer, RgbImage, Rotation};

struct Counting;

thread_local! {
    /// Allocations of this thread and their bytes.
    static COUNT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches only a thread-local cell
// that has no destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (calls, bytes) = COUNT.get();
        COUNT.set((calls + 1, bytes + layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on, and `ptr` is from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and their bytes while `work` runs.
fn counted<T>(work: impl FnOnce() -> T) -> (T, (usize, usize)) {
    let before = COUNT.get();
    let result = work();
    let after = COUNT.get();
    (result, (after.0 - before.0, after.1 - before.1))
}

#[test]
fn resizers_allocate_what_they_say() {
    for (width, height, side) in
        [(224, 224, 4096), (896, 896, 16384), (448, 300, 100), (1, 1, 1), (5, 900, 65536)]
    {
        for filter in Filter::ALL {
            let (_, (_, bytes)) = counted(|| Resizer::new(filter, width, height, side).unwrap());
            let said = Resizer::bytes_for(filter, width, height, side).unwrap();
            assert_eq!(bytes, said, "{filter:?}, {width}x{height} from {side}");
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
        let ((), (calls, _)) = counted(|| {
            resizer.resize(image.view(), &mut resized).unwrap();
            let rgb = palmtop::image::RgbView::packed(56, 56, &resized).unwrap();
            normaliser.planes(rgb, &mut values).unwrap();
            normaliser.patches(rgb, 14, &mut values).unwrap();
        });
        assert_eq!(calls, 0, "{width}x{height}");
        assert!(resized.iter().all(|&byte| byte == 77));
        let samples = vec![128; (width.next_multiple_of(2) * height) as usize];
        let plane = Plane::new(&samples, width.next_multiple_of(2) as usize);
        let ((), (calls, _)) = counted(|| {
            let frame = Frame::nv12(width, height, plane, plane).unwrap().turned(Rotation::Clockwise90);
            resizer.resize(frame, &mut resized).unwrap();
        });
        assert_eq!(calls, 0, "NV12 of {width}x{height}");
        // 255 / 219 · (128 - 16) = 130.4
        assert!(resized.iter().all(|&byte| byte == 130));
    }
}
