//! Tables against Hugging Face: its recorded ids, and its tokenizers crate on random texts and vocabularies.

mod hostile;
mod random_vocabulary;

use std::path::{Path, PathBuf};

use palmtop::tokenizer::{Detokenizer, EncodeScratch, Tokenizer, TokenizerError, TokenizerLayout};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data");

fn small_dir() -> PathBuf {
    Path::new(DATA).join("tokenizer")
}

/// The small tokenizer without its `tokenizer.json`, and with some of the files beside it.
fn small_dir_with(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(small_dir().join(file), dir.path().join(file)).unwrap();
    }
    dir
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

fn check_vectors(table: &[u8]) {
    let vectors = std::fs::read(Path::new(DATA).join("vectors/tokenizer_small.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&vectors).unwrap();
    let layout = TokenizerLayout::parse(table).unwrap();
    let tokenizer = layout.bind(table);
    tokenizer.verify().unwrap();

    let id = |name: &str| vectors["ids"][name].as_u64().map(|id| id as u32);
    assert_eq!(tokenizer.pad_id(), id("pad"));
    assert_eq!(tokenizer.eos_id(), id("eos"));
    assert_eq!(tokenizer.bos_id(), id("bos"));
    assert_eq!(tokenizer.unk_id(), id("unk"));
    assert_eq!(tokenizer.image_id(), id("image"));
    assert_eq!(tokenizer.newline_id(), id("newline"));
    assert_eq!(Some(tokenizer.piece_count()), id("n"));
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

#[test]
fn tokenizer_json_gives_the_recorded_ids() {
    check_vectors(&build_table(&small_dir()).unwrap());
}

#[test]
fn tokenizer_model_with_its_config_gives_the_recorded_ids() {
    check_vectors(
        &build_table(
            small_dir_with(&["tokenizer.model", "tokenizer_config.json", "added_tokens.json"]).path(),
        )
        .unwrap(),
    );
    check_vectors(
        &build_table(small_dir_with(&["tokenizer.model", "tokenizer_config.json"]).path()).unwrap(),
    );
}

#[test]
fn tokenizer_model_alone_gives_the_same_pieces() {
    let json = vocabulary_of(&small_dir()).unwrap();
    for files in [&["tokenizer.model"][..], &["tokenizer.model", "added_tokens.json"]] {
        let model = vocabulary_of(small_dir_with(files).path()).unwrap();
        assert_eq!(model.pieces, json.pieces);
        let image = model.pieces.iter().position(|piece| piece == "<image>").unwrap() as u32;
        assert_eq!(model.added[&image], json.added[&image]);
        assert_eq!(model.added.keys().collect::<Vec<_>>(), json.added.keys().collect::<Vec<_>>());
        let merges = |vocabulary: &Vocabulary| {
            vocabulary.merges.iter().map(|m| (m.piece, m.left_bytes)).collect::<Vec<_>>()
        };
        assert_eq!(merges(&model), merges(&json));
    }
}

#[test]
fn a_token_missing_from_tokenizer_json_comes_from_the_config() {
    let dir = small_dir_with(&["tokenizer_config.json"]);
    let text = std::fs::read_to_string(small_dir().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "<image>");
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    check_vectors(&build_table(dir.path()).unwrap());
}

#[test]
fn a_folder_without_a_tokenizer_is_refused() {
    let error = build_table(small_dir_with(&["tokenizer_config.json"]).path()).unwrap_err();
    assert!(matches!(error, BuildError::NotFound { .. }), "{error}");
}

/// The small tokenizer in both programs.
struct Pair {
    table: Vec<u8>,
    layout: TokenizerLayout,
    theirs: tokenizers::Tokenizer,
}

impl Pair {
    fn small() -> Self {
        Self::of(&std::fs::read(small_dir().join("tokenizer.json")).unwrap())
    }

    fn of(tokenizer_json: &[u8]) -> Self {
        let table = json::parse(tokenizer_json).unwrap().to_table().unwrap();
        let layout = TokenizerLayout::parse(&table).unwrap();
        let theirs = tokenizers::Tokenizer::from_bytes(tokenizer_json).unwrap();
        Self { table, layout, theirs }
    }

    fn ours(&self) -> Tokenizer<'_> {
        self.layout.bind(&self.table)
    }

    fn check_encode(&self, text: &str) {
        let theirs = self.theirs.encode(text, false).unwrap();
        assert_eq!(encode(&self.ours(), text), theirs.get_ids(), "{text:?}");
    }

    /// Decodes in one go and as a stream.
    fn check_decode(&self, ids: &[u32]) {
        for skip in [false, true] {
            let theirs = self.theirs.decode(ids, skip).unwrap();
            assert_eq!(decode(&self.ours(), ids, skip), theirs, "{ids:?}");
            let mut stream = Detokenizer::with_capacity(ids.len(), skip);
            let (mut whole, mut piece) = (String::new(), String::new());
            for &id in ids {
                piece.clear();
                stream.push(&self.ours(), id, &mut piece).unwrap();
                whole.push_str(&piece);
            }
            stream.finish(&mut whole);
            assert_eq!(whole, theirs, "{ids:?}");
            assert!(whole.len() <= self.ours().decoded_bytes_max(ids.len()));
        }
    }
}

/// Texts that a tokenizer may stumble over: parts of tokens, runs, blanks of all kinds, any character at all.
fn hostile_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z ]{1,12}",
        2 => any::<char>().prop_map(String::from),
        2 => prop::sample::select(vec![
            "<bos>", "<eos>", "<pad>", "<unk>", "<image>", "<mask>", "[@BOS@]", "<unused1>", "</table>", "<h1>",
            "<start_of_turn>", "<0x41>", "<0x09>", "<0xC3>", "<loc", "<seg", ">", "<", "</", "[@", "\u{2581}",
            "detect cat ; dog", "é", "e\u{301}", "日本語", "😀", "👩\u{200d}👩", "\u{feff}", "\u{0}", "\r\n",
        ]).prop_map(String::from),
        2 => "<loc[0-9]{3,5}>?|<seg[0-9]{2,4}>?",
        2 => (prop::sample::select(vec!["\n", "\t", " ", "\u{2581}", "a", "<", "ab", "1"]), 1_usize..40)
            .prop_map(|(unit, count)| unit.repeat(count)),
        1 => "\\PC{1,8}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn random_texts_give_the_ids_of_hugging_face() {
    let pair = Pair::small();
    let mut runner = runner();
    runner
        .run(&hostile_text(), |text| {
            pair.check_encode(&text);
            let ids = encode(&pair.ours(), &text);
            prop_assert!(ids.len() <= text.len());
            pair.check_decode(&ids);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_ids_decode_as_in_hugging_face() {
    let pair = Pair::small();
    let byte = pair.ours().id_of("<0x00>").unwrap();
    assert_eq!(pair.ours().id_of("<0xFF>"), Some(byte + 255));
    // Bytes that begin, continue and break characters, special tokens between them, and ids without a piece.
    let id = prop_oneof![
        3 => 0..pair.ours().piece_count() + 3,
        4 => byte..byte + 256,
        4 => prop::sample::select(vec![0xc3_u32, 0xa9, 0xf0, 0x9f, 0x98, 0x80, 0xe6, 0x97, 0xa5, 0x41, 0xff])
            .prop_map(move |value| byte + value),
        2 => prop::sample::select(vec![0_u32, 1, 2, 3, 2161, u32::MAX]),
    ];
    let mut runner = runner();
    runner
        .run(&prop::collection::vec(id, 0..40), |ids| {
            pair.check_decode(&ids);
            Ok(())
        })
        .unwrap();
}

#[test]
fn long_texts_are_merged_as_in_hugging_face() {
    let pair = Pair::small();
    for unit in ["a", " ", "\u{2581}", "ab", "<", "<loc", "the cat ", "\n", "é", "\u{1f600}", "<0x41>"] {
        pair.check_encode(&unit.repeat(100_000 / unit.len()));
    }
}

#[test]
fn a_text_over_the_limit_is_refused_and_leaves_the_output() {
    let pair = Pair::small();
    let mut scratch = EncodeScratch::with_capacity(7);
    let mut ids = vec![42];
    let error = pair.ours().encode("a cat sat", &mut scratch, &mut ids).unwrap_err();
    assert_eq!(error, TokenizerError::TextTooLong { bytes: 9, bytes_max: 7 });
    assert_eq!(ids, [42]);
    pair.ours().encode("a cat s", &mut scratch, &mut ids).unwrap();
    assert_eq!(ids[1..], encode(&pair.ours(), "a cat s"));
}

#[test]
fn every_piece_is_found_by_its_text() {
    let pair = Pair::small();
    for id in 0..pair.ours().piece_count() {
        let piece = pair.ours().piece(id).unwrap();
        assert_eq!(pair.ours().id_of(piece), Some(id));
        assert_eq!(pair.theirs.token_to_id(piece), Some(id));
    }
    assert_eq!(pair.ours().id_of("<loc1024>"), None);
    assert_eq!(pair.ours().piece(pair.ours().piece_count()), None);
    assert!(pair.ours().is_special(2) && !pair.ours().is_special(pair.ours().loc_ids().unwrap().start));
}
