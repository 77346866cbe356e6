//! Encoding and detokenizing allocate nothing once their memory has been made, whatever the text.

#[path = "common/counting.rs"]
mod counting;

use std::path::Path;

use counting::{Asked, by_this_thread};
use palmtop::tokenizer::{Detokenizer, EncodeScratch, TokenizerLayout};

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

    let (mut scratch, asked) = by_this_thread(|| EncodeScratch::with_capacity(text_bytes_max));
    assert_eq!(asked.bytes, 55 * text_bytes_max);
    let mut ids = Vec::with_capacity(ids_max);
    let mut text = String::with_capacity(tokenizer.decoded_bytes_max(ids_max));
    let mut stream = Detokenizer::with_capacity(ids_max, false);

    let ((), asked) = by_this_thread(|| {
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
    assert_eq!(asked, Asked::NOTHING);
    assert_eq!(text.chars().count(), ids_max);
}
