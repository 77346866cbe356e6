//! Damaged tables and files: an error or wrong ids, never a panic.

use palmtop::tokenizer::{Detokenizer, EncodeScratch, TokenizerError, TokenizerLayout, format};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TEXT: &str = "<bos>detect the  small cat ; dog\n<loc0012><seg001> é日😀\t<h1>▁▁ aaaa \u{0}";

/// Uses a table as if it were sound. Whatever comes out is right as long as it comes out.
fn use_table(table: &[u8]) {
    let Ok(layout) = TokenizerLayout::parse(table) else { return };
    let tokenizer = layout.bind(table);
    let mut ids = Vec::with_capacity(TEXT.len());
    let mut scratch = EncodeScratch::with_capacity(TEXT.len());
    tokenizer.encode(TEXT, &mut scratch, &mut ids).unwrap();
    assert!(ids.len() <= TEXT.len(), "more ids than a sound table can give");
    ids.extend([0, 1, 300, 2161, u32::MAX]);
    let mut stream = Detokenizer::with_capacity(ids.len(), true);
    let mut text = String::new();
    for id in ids {
        let _ = stream.push(&tokenizer, id, &mut text);
    }
    stream.finish(&mut text);
    let _ = (tokenizer.id_of("cat"), tokenizer.piece(7), tokenizer.loc_ids(), tokenizer.verify());
}

/// A table small enough to damage it in every place: 30 pieces or so.
fn tiny_table() -> Vec<u8> {
    let mut vocabulary = Vocabulary { fuse_unk: true, byte_fallback: true, ..Vocabulary::default() };
    let pieces = "<pad> <eos> <bos> <unk> \n ▁ a c t e h d o g s m l ca cat th the do dog sm sma ▁▁ é <0xE6> <loc0000>";
    vocabulary.pieces = pieces.split(' ').map(String::from).collect();
    vocabulary.unk_id = 3;
    let id = |text: &str| vocabulary.pieces.iter().position(|piece| piece == text).unwrap() as u32;
    let merges = [
        ("c", "a"),
        ("ca", "t"),
        ("t", "h"),
        ("th", "e"),
        ("d", "o"),
        ("do", "g"),
        ("s", "m"),
        ("sm", "a"),
        ("▁", "▁"),
    ];
    let merges = (0..).zip(merges).map(|(rank, (left, right))| Merge {
        piece: id(&format!("{left}{right}")),
        left_bytes: left.len() as u16,
        rank,
    });
    let merges: Vec<Merge> = merges.collect();
    vocabulary.set_merges(merges);
    for (text, special, normalized) in
        [("<bos>", true, false), ("<loc0000>", false, true), ("\n", false, false)]
    {
        let id = vocabulary.pieces.iter().position(|piece| piece == text).unwrap() as u32;
        vocabulary.added.insert(id, AddedToken { special, normalized, ..AddedToken::default() });
    }
    vocabulary.to_table().unwrap()
}

#[test]
fn every_truncation_is_refused() {
    let table = tiny_table();
    for length in 0..table.len() {
        let error = TokenizerLayout::parse(&table[..length]).unwrap_err();
        let expected = length < 8 && error == TokenizerError::NotATable;
        assert!(expected || matches!(error, TokenizerError::WrongLength { .. }), "{length}: {error}");
    }
    let longer = [&table[..], &[0]].concat();
    assert!(matches!(TokenizerLayout::parse(&longer), Err(TokenizerError::WrongLength { .. })));
}

#[test]
fn any_damaged_bit_is_survived() {
    let mut table = tiny_table();
    for at in 0..table.len() {
        for bit in 0..8 {
            table[at] ^= 1 << bit;
            use_table(&table);
            table[at] ^= 1 << bit;
        }
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let before = std::mem::replace(&mut table[at], value);
            use_table(&table);
            table[at] = before;
        }
    }
}

#[test]
fn the_small_vocabulary_damaged_in_every_byte_is_survived() {
    let mut table = build_table(&small_dir()).unwrap();
    // One bit of each byte, another one each time; all of them are tried on the tiny table.
    for at in 0..table.len() {
        let mask = 1 << ((at * 5 + at / 8) % 8);
        table[at] ^= mask;
        use_table(&table);
        table[at] ^= mask;
    }
}

#[test]
fn verify_finds_damage_outside_the_ranks() {
    let sound = tiny_table();
    let layout = TokenizerLayout::parse(&sound).unwrap();
    layout.bind(&sound).verify().unwrap();
    let at = |section: format::Section, field: usize| {
        let start = format::header::SECTIONS + 16 * section as usize + field;
        u64::from_le_bytes(sound[start..start + 8].try_into().unwrap()) as usize
    };
    use format::Section::{Added, ByteIds, Flags, Hash, MergeLefts, MergeStarts, Text, TextStarts};
    for section in [TextStarts, Text, Flags, MergeStarts, MergeLefts, ByteIds, Added] {
        // Bit 5 of a flag says that an added token strips white space, which no other part of the table contradicts.
        let bit = if section as usize == Flags as usize { 0x40 } else { 0x20 };
        for byte in at(section, 0)..at(section, 0) + at(section, 8) {
            let mut table = sound.clone();
            table[byte] ^= bit;
            let found = TokenizerLayout::parse(&table).and_then(|layout| layout.bind(&table).verify());
            assert!(found.is_err(), "byte {byte} of {section:?}");
        }
    }
    // A filled empty slot does no harm to pieces; an emptied slot loses one.
    for slot in (at(Hash, 0)..at(Hash, 0) + at(Hash, 8)).step_by(4) {
        let mut table = sound.clone();
        if table[slot..slot + 4] != [0; 4] {
            table[slot..slot + 4].fill(0);
            let found = TokenizerLayout::parse(&table).and_then(|layout| layout.bind(&table).verify());
            assert!(found.is_err(), "slot at byte {slot}");
        }
    }
}

proptest! {
    #[test]
    fn scrambled_tables_are_survived(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60)) {
        let mut table = tiny_table();
        for (at, value) in damage {
            // Behind the fields that parse refuses outright.
            let at = format::header::SPECIAL_IDS + at.index(table.len() - format::header::SPECIAL_IDS);
            table[at] = value;
        }
        use_table(&table);
    }

    #[test]
    fn random_bytes_as_a_model_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(model::parse(&bytes, &AddedFiles::default()).is_err());
    }

    #[test]
    fn a_damaged_model_is_survived(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = std::fs::read(small_dir().join("tokenizer.model")).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = model::parse(&bytes, &AddedFiles::default()).and_then(|vocabulary| vocabulary.to_table());
        bytes.truncate(cut.index(bytes.len()));
        let _ = model::parse(&bytes, &AddedFiles::default()).and_then(|vocabulary| vocabulary.to_table());
    }

    #[test]
    fn a_damaged_json_is_survived(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = std::fs::read(small_dir().join("tokenizer.json")).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = json::parse(&bytes).and_then(|vocabulary| vocabulary.to_table());
        prop_assert!(json::parse(&bytes[..at]).is_err());
    }
}

/// A sound file that is then changed by `change`, and what is said about it.
fn json_error(change: impl FnOnce(&mut Value)) -> BuildError {
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(small_dir().join("tokenizer.json")).unwrap()).unwrap();
    change(&mut file);
    json::parse(file.to_string().as_bytes()).and_then(|v| v.to_table()).map(|table| table.len()).unwrap_err()
}

#[test]
fn unsupported_tokenizers_are_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 12] = [
        ("model is Unigram", |file| file["model"]["type"] = json!("Unigram")),
        ("model is WordPiece", |file| file["model"]["type"] = json!("WordPiece")),
        ("dropout", |file| file["model"]["dropout"] = json!(0.1)),
        ("whole words", |file| file["model"]["ignore_merges"] = json!(true)),
        ("suffix", |file| file["model"]["end_of_word_suffix"] = json!("</w>")),
        ("unknown token is missing", |file| file["model"]["unk_token"] = json!(null)),
        ("normalizer is {\"type\":\"NFKC\"}", |file| file["normalizer"] = json!({"type": "NFKC"})),
        ("normalizer is null", |file| file["normalizer"] = json!(null)),
        ("pre-tokenizer", |file| file["pre_tokenizer"] = json!({"type": "ByteLevel"})),
        ("decoder", |file| file["decoder"] = json!({"type": "ByteLevel"})),
        ("\"<pad>\", which stands for whole words", |file| {
            file["added_tokens"][0]["single_word"] = json!(true)
        }),
        ("save the tokenizer without the others", |file| {
            file["normalizer"] =
                json!({"type": "Sequence", "normalizers": [file["normalizer"], {"type": "NFKC"}]})
        }),
    ];
    for (message, change) in cases {
        let error = json_error(change);
        assert!(matches!(error, BuildError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn contradictions_in_a_json_are_named() {
    let error = json_error(|file| file["model"]["vocab"]["new"] = json!(7));
    assert!(matches!(error, BuildError::ConflictingId { id: 7, .. }), "{error}");
    let error = json_error(|file| file["model"]["vocab"]["new"] = json!(4_000_000_000_u32));
    assert!(matches!(error, BuildError::MissingId { .. }), "{error}");
    let error = json_error(|file| file["model"]["vocab"]["new"] = json!(-1));
    assert!(matches!(error, BuildError::Json { .. }), "{error}");
    let error = json_error(|file| file["added_tokens"][4]["id"] = json!(5));
    assert!(matches!(error, BuildError::ConflictingId { id: 5, .. }), "{error}");
    let error = json_error(|file| {
        file["added_tokens"].as_array_mut().unwrap().last_mut().unwrap()["id"] = json!(9999)
    });
    assert!(matches!(error, BuildError::MissingId { id: 2161 }), "{error}");
    let error = json_error(|file| file["added_tokens"][4]["content"] = json!(""));
    assert!(matches!(error, BuildError::BadPiece { .. }), "{error}");
    let error = json_error(|file| {
        file["added_tokens"].as_array_mut().unwrap().last_mut().unwrap()["content"] = json!("a")
    });
    assert!(matches!(error, BuildError::DuplicatePiece { .. }), "{error}");
    let error = json_error(|file| file["model"]["vocab"]["x".repeat(1025)] = json!(2161));
    assert!(matches!(error, BuildError::BadPiece { .. }), "{error}");
    let error = json_error(|file| file["model"]["unk_token"] = json!("<nothing>"));
    assert!(matches!(error, BuildError::BadPiece { .. }), "{error}");
    for merge in
        [json!("t h e"), json!("the"), json!("qq zz"), json!(["t", "\u{1f600}"]), json!("<unk> a"), json!("")]
    {
        let error = json_error(|file| file["model"]["merges"][0] = merge.clone());
        assert!(matches!(error, BuildError::BadMerge { .. }), "{merge}: {error}");
    }
    let twice = br#"{"model":{"type":"BPE","unk_token":"a","vocab":{"a":0,"a":1},"merges":[]}}"#;
    let text = String::from_utf8(twice.to_vec()).unwrap();
    let pipeline = json_pipeline();
    let text = text.replacen('{', &format!("{{{pipeline},"), 1);
    let error = json::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(error, BuildError::DuplicatePiece { .. }), "{error}");
}

fn json_pipeline() -> String {
    let file: Value =
        serde_json::from_slice(&std::fs::read(small_dir().join("tokenizer.json")).unwrap()).unwrap();
    format!(r#""normalizer":{},"decoder":{}"#, file["normalizer"], file["decoder"])
}

/// The parts of a small sentencepiece model, as bytes.
fn model_bytes(trainer: &[u8], normalizer: &[u8], pieces: &[(&str, u8)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut field = |number: u8, content: &[u8]| {
        bytes.extend([number << 3 | 2, content.len() as u8]);
        bytes.extend(content);
    };
    for (text, kind) in pieces {
        let score = [0x15, 0, 0, 0, 0];
        field(1, &[&[0x0a, text.len() as u8], text.as_bytes(), &score, &[0x18, *kind]].concat());
    }
    field(2, trainer);
    field(3, normalizer);
    bytes
}

#[test]
fn unsupported_models_are_named() {
    const BPE: &[u8] = &[3 << 3, 2, 0x98, 0x02, 1];
    const PLAIN: &[u8] = &[3 << 3, 0, 4 << 3, 0];
    const PIECES: &[(&str, u8)] = &[("<unk>", 2), ("\u{2581}", 1), ("a", 1), ("<0x09>", 6)];
    let parse = |bytes: &[u8]| {
        model::parse(bytes, &AddedFiles::default()).and_then(|v| v.to_table()).map(|table| table.len())
    };
    parse(&model_bytes(BPE, PLAIN, PIECES)).unwrap();

    type Pieces<'a> = &'a [(&'a str, u8)];
    let cases: [(&str, &[u8], &[u8], Pieces<'_>); 9] = [
        ("Unigram", &[0x98, 0x02, 1], PLAIN, PIECES),
        ("Word", &[3 << 3, 3], PLAIN, PIECES),
        ("Char", &[3 << 3, 4], PLAIN, PIECES),
        ("without byte fallback", &[3 << 3, 2], PLAIN, PIECES),
        ("maps characters", BPE, &[2 << 3 | 2, 1, 0, 3 << 3, 0, 4 << 3, 0], PIECES),
        ("adds, removes or moves blanks", BPE, &[4 << 3, 0], PIECES),
        ("adds, removes or moves blanks", BPE, &[3 << 3, 0], PIECES),
        ("unknown token is missing", BPE, PLAIN, &[("\u{2581}", 1)]),
        ("lacks it", BPE, PLAIN, &[("<unk>", 2)]),
    ];
    for (message, trainer, normalizer, pieces) in cases {
        let error = parse(&model_bytes(trainer, normalizer, pieces)).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let twice = model_bytes(BPE, PLAIN, &[("<unk>", 2), ("\u{2581}", 1), ("a", 1), ("a", 1)]);
    assert!(matches!(parse(&twice), Err(BuildError::DuplicatePiece { .. })));
}
