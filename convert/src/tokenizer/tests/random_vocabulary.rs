//! Vocabularies made up at random: every rule of merging and matching in strange combinations.

use proptest::prelude::*;
use serde_json::json;

use super::Pair;

#[derive(Debug, Clone)]
struct Recipe {
    /// Each joins two earlier pieces, chosen by index modulo their number.
    merges: Vec<(u16, u16)>,
    /// Only two letters are joined, to short pieces: most pieces are then made in several ways.
    dense: bool,
    /// Text, special, normalised, strips on the left and on the right.
    added: Vec<(String, bool, bool, bool, bool)>,
    /// Bytes that have a byte piece.
    bytes: Vec<u8>,
    fuse_unk: bool,
    byte_fallback: bool,
    pairs: bool,
    texts: Vec<String>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let added = "[ab<>é]{1,4}|[ab \u{2581}\n]{1,3}";
    let added = (added, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (
        prop::collection::vec(any::<(u16, u16)>(), 0..60),
        any::<bool>(),
        prop::collection::vec(added, 0..6),
        prop_oneof![Just((0..=255).collect()), prop::collection::vec(any::<u8>(), 0..300)],
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(
            "[abc <>éü\u{2581}😀]{0,40}|[ab<> \n\t\u{a0}\u{2581}]{0,40}|[ab]{0,60}|[ab]{0,60}|[ a]{0,30}",
            1..20,
        ),
    )
        .prop_map(|(merges, dense, added, bytes, fuse_unk, byte_fallback, pairs, texts)| Recipe {
            merges,
            dense,
            added,
            bytes,
            fuse_unk,
            byte_fallback,
            pairs,
            texts,
        })
}

impl Recipe {
    fn tokenizer_json(&self) -> Vec<u8> {
        let mut pieces: Vec<String> = ["<unk>", "a", "b", "c", "\u{2581}", "é"].map(String::from).into();
        let mut merges = Vec::new();
        let (letters, piece_bytes_max) = if self.dense { (1..3, 5) } else { (1..6, 40) };
        // Nothing is made of the unknown token, which is the first.
        let mut parts = pieces[letters].to_vec();
        for &(left, right) in &self.merges {
            let pick = |index: u16| parts[usize::from(index) % parts.len()].clone();
            let (left, right) = (pick(left), pick(right));
            let piece = format!("{left}{right}");
            if piece.len() > piece_bytes_max {
                continue;
            }
            if !pieces.contains(&piece) {
                pieces.push(piece.clone());
                parts.push(piece);
            }
            merges.push(if self.pairs { json!([left, right]) } else { json!(format!("{left} {right}")) });
        }
        for byte in &self.bytes {
            let piece = format!("<0x{byte:02X}>");
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
        let vocab: serde_json::Map<_, _> =
            pieces.iter().enumerate().map(|(id, p)| (p.clone(), json!(id))).collect();
        let mut added_tokens: Vec<serde_json::Value> = Vec::new();
        for (content, special, normalized, lstrip, rstrip) in &self.added {
            if added_tokens.iter().any(|token| token["content"] == **content) {
                continue;
            }
            let id = pieces.iter().position(|piece| piece == content).unwrap_or_else(|| {
                pieces.push(content.clone());
                pieces.len() - 1
            });
            let normalized = *normalized && !content.contains(' ');
            // White space that strips on its left, behind what strips on its right, panics in `tokenizers`.
            let lstrip = *lstrip && !content.trim().is_empty();
            added_tokens
                .push(json!({"id": id, "content": content, "special": special, "normalized": normalized,
                "single_word": false, "lstrip": lstrip, "rstrip": rstrip}));
        }
        added_tokens.sort_by_key(|token| token["id"].as_u64());
        let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        json!({
            "version": "1.0",
            "added_tokens": added_tokens,
            "normalizer": if self.pairs { blanks.clone() } else { json!({"type": "Sequence", "normalizers": [blanks]}) },
            "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": self.fuse_unk,
                "byte_fallback": self.byte_fallback, "vocab": vocab, "merges": merges},
        })
        .to_string()
        .into_bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn random_vocabularies_behave_as_in_hugging_face(recipe in recipe()) {
        let pair = Pair::of(&recipe.tokenizer_json());
        for text in &recipe.texts {
            pair.check_encode(text);
            pair.check_decode(&super::encode(&pair.ours(), text));
        }
    }
}
