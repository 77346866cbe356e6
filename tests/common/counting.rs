//! The system's allocator, with calls and bytes counted. It is that of each program that has this file (`#[path]`), so
//! it is no part of the library beside it.

#![allow(dead_code, reason = "not every test program needs all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What was asked of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Allocations, and memory that was to grow or shrink.
    pub calls: usize,
    /// The sizes that were asked for, whatever was given back since.
    pub bytes: usize,
}

impl Asked {
    /// Nothing.
    pub const NOTHING: Self = Self { calls: 0, bytes: 0 };

    /// By all threads until now.
    pub fn by_all_threads() -> Self {
        Self { calls: CALLS.load(Ordering::SeqCst), bytes: BYTES.load(Ordering::SeqCst) }
    }

    /// What came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self { calls: self.calls - before.calls, bytes: self.bytes - before.bytes }
    }
}

/// By all threads while `work` runs.
pub fn by_all_threads<T>(work: impl FnOnce() -> T) -> (T, Asked) {
    let before = Asked::by_all_threads();
    let result = work();
    (result, Asked::by_all_threads().since(before))
}

/// By this thread while `work` runs.
pub fn by_this_thread<T>(work: impl FnOnce() -> T) -> (T, Asked) {
    let before = OF_THREAD.get();
    let result = work();
    (result, OF_THREAD.get().since(before))
}

/// Bytes that the whole process holds now.
pub fn held_bytes() -> usize {
    HELD.load(Ordering::SeqCst)
}

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OF_THREAD: Cell<Asked> = const { Cell::new(Asked::NOTHING) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    HELD.fetch_add(bytes, Ordering::Relaxed);
    let asked = OF_THREAD.get();
    OF_THREAD.set(Asked { calls: asked.calls + 1, bytes: asked.bytes + bytes });
}

// SAFETY: every call is passed on unchanged to the system's allocator. Counting touches atomics and a cell of the
// thread that has no destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}
