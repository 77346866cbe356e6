//! Nothing is allocated after a session is made, from the picture's pixels to the last token, on any thread; and a
//! session allocates what its plan says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, Limits, Sampling, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};

/// The system's allocator, with the calls and the bytes counted over all threads.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size.saturating_sub(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts are over the whole process, the test harness included, so this file has one test.
#[test]
fn the_memory_of_a_session_is_fixed() {
    nothing_is_allocated_from_the_pixels_to_the_last_token();
    a_session_takes_what_its_plan_says();
}

fn nothing_is_allocated_from_the_pixels_to_the_last_token() {
    let picture = decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).unwrap();
    for (name, format) in
        [("tiny1", WeightFormat::Int8), ("tiny2", WeightFormat::Int4), ("tiny2", WeightFormat::F32)]
    {
        let model = converted(name, uniform(format)).open();
        let mut limits = Limits::default();
        (limits.batch, limits.threads, limits.new_tokens) = (3, Some(3), 40);
        let mut session = Session::new(&model, &limits).unwrap();
        let mut features = session.new_features().unwrap();
        let mut options = GenerateOptions::default();
        options.stop_at_eos = false;
        let mut sampled = options.clone();
        sampled.sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, seed: 1 };
        let before = CALLS.load(Ordering::SeqCst);
        let mut heard = 0;
        for round in 0..100 {
            session.encode(picture.view(), &mut features, &options).unwrap();
            let prompts =
                ["caption en", "detect cat ; dog ; traffic light", "answer en where is Größe 猫 😀?"];
            let how = if round % 2 == 0 { &options } else { &sampled };
            session
                .answer(&features, &prompts, how, &mut |piece| {
                    heard += piece.text.len();
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        let calls = CALLS.load(Ordering::SeqCst) - before;
        assert!(heard > 0);
        assert_eq!(calls, 0, "{name} {format}");
    }
}

fn a_session_takes_what_its_plan_says() {
    for (name, format) in [("tiny1", WeightFormat::Int8), ("tiny2", WeightFormat::F32)] {
        let model = converted(name, uniform(format)).open();
        for (batch, threads, side) in [(1, 1, 16384), (4, 3, 1000)] {
            let mut limits = Limits::default();
            (limits.batch, limits.threads, limits.image_side) = (batch, Some(threads), side);
            let plan = model.plan(&limits).unwrap();
            let before = BYTES.load(Ordering::SeqCst);
            let session = Session::new(&model, &limits).unwrap();
            let features = session.new_features().unwrap();
            let taken = BYTES.load(Ordering::SeqCst) - before;
            assert_eq!(*session.plan(), plan);
            // What the plan does not name: a handful of bookkeeping for threads and lists.
            let planned = plan.session_bytes();
            assert!(
                (planned..planned + 16 * 1024).contains(&taken),
                "{name} {format}: {taken} bytes taken, planned:\n{plan}"
            );
            drop((session, features));
        }
    }
}
