//! Tokenizers as checkpoints have them.

use palmtop::tokenizer::{EncodeScratch, TokenizerLayout};
use palmtop_convert::tokenizer::added::AddedFiles;
use palmtop_convert::tokenizer::{BuildError, Vocabulary, json, model};

use super::files;

/// `tokenizer.json`.
pub fn tokenizer_json(bytes: &[u8]) {
    if let Ok(vocabulary) = json::parse(bytes) {
        use_it(&vocabulary);
    }
}

/// `tokenizer.model`.
pub fn tokenizer_model(bytes: &[u8]) {
    if let Ok(vocabulary) = model::parse(bytes, &AddedFiles::default()) {
        use_it(&vocabulary);
    }
}

/// `tokenizer_config.json` and `added_tokens.json`, with a byte of zero between them.
pub fn added_tokens(bytes: &[u8]) {
    let [config, added] = files::<2>(bytes);
    let Ok(files) = AddedFiles::parse(Some(config), Some(added)) else { return };
    let pieces = ["<unk>", "\u{2581}", "\n", "a", "b", "ab"].map(str::to_owned).to_vec();
    let vocabulary = Vocabulary { pieces, ..Vocabulary::default() };
    for overlay in [AddedFiles::overlay, AddedFiles::append_missing] {
        let mut vocabulary = vocabulary.clone();
        if overlay(&files, &mut vocabulary).is_ok() {
            use_it(&vocabulary);
        }
    }
}

/// A vocabulary that was read gives a sound table or is refused.
fn use_it(vocabulary: &Vocabulary) {
    let table = match vocabulary.to_table() {
        Ok(table) => table,
        Err(BuildError::Verify(error)) => panic!("a table of ours is wrong: {error}"),
        Err(_) => return,
    };
    let layout = TokenizerLayout::parse(&table).expect("a table of ours");
    let tokenizer = layout.bind(&table);
    tokenizer.verify().expect("a sound table");
    let sample = "caption en a\u{2581}b <image><loc0001> \u{7f}\u{e9}\n\t  the";
    let (mut ids, mut text) = (Vec::new(), String::new());
    tokenizer.encode(sample, &mut EncodeScratch::with_capacity(sample.len()), &mut ids).expect("room");
    assert!(ids.len() <= sample.len() && ids.iter().all(|&id| id < tokenizer.piece_count()));
    tokenizer.decode(&ids, false, &mut text).expect("ids of its own");
}
