//! Encoding and detokenizing allocate nothing once their memory has been made, whatever the text.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use palmtop::tokenizer::{Detokenizer, EncodeScratch, TokenizerLayout};

/// The system's allocator, counting what the current thread asks for.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to `System` unchanged; the counters have constant initialisers and no
// destructor, so that touching them does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + layout.size());
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, because `alloc` passes everything on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Number of allocations and bytes of what `work` does.
fn allocations<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = (CALLS.get(), BYTES.get());
    let result = work();
    (CALLS.get() - before.0, BYTES.get() - before.1, result)
}

#[test]
fn nothing_is_allocated_after_the_start() {
    let table = palmtop_convert::tokenizer::build_table(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join("tokenizer"),
    )
    .unwrap();
    let layout = TokenizerLayout::parse(&table).unwrap();
    let tokenizer = layout.bind(&table);
    let texts = [
        "",
        " ",
        "detect cat ; dog\n",
        "<image><bos>caption en\n<loc0012><seg001>",
        "日本語の猫 😀🚗 été",
        "\u{0}\u{1}\u{2}",
        "a quick brown fox",
        "<<<<loc<loc0",
        "▁▁▁▁▁▁",
    ];
    let repeated = texts.map(|text| text.repeat(2000 / text.len().max(1)));
    let text_bytes_max = 2000;
    let ids_max = text_bytes_max;

    let (_, bytes, mut scratch) = allocations(|| EncodeScratch::with_capacity(text_bytes_max));
    assert_eq!(bytes, 55 * text_bytes_max);
    let mut ids = Vec::with_capacity(ids_max);
    let mut text = String::with_capacity(tokenizer.decoded_bytes_max(ids_max));
    let mut stream = Detokenizer::with_capacity(ids_max, false);

    let (calls, bytes, ()) = allocations(|| {
        for prompt in texts.into_iter().chain(repeated.iter().map(String::as_str)) {
            ids.clear();
            tokenizer.encode(prompt, &mut scratch, &mut ids).unwrap();
            for skip in [false, true] {
                text.clear();
                stream.reset(skip);
                for &id in &ids {
                    stream.push(&tokenizer, id, &mut text).unwrap();
                }
                stream.finish(&mut text);
            }
        }
        // Nothing but bytes that make no characters: all of them are held back, and each grows to three.
        let byte = tokenizer.id_of("<0xFF>").unwrap();
        text.clear();
        for _ in 0..ids_max {
            stream.push(&tokenizer, byte, &mut text).unwrap();
        }
        stream.finish(&mut text);
    });
    assert_eq!((calls, bytes), (0, 0));
    assert_eq!(text.chars().count(), ids_max);
}
