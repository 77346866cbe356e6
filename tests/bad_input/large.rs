//! Files with two hundred thousand entries. Reading them takes moments; if any step went through all entries for
//! each of them, a test here would take many minutes instead. Nothing measures time.

use std::collections::BTreeMap;
use std::fmt::Write;

use palmtop::Model;
use palmtop::format::{FormatError, Head, PalmFile, Storage, TensorInfo};
use palmtop::tasks::Detections;
use palmtop_convert::npz::Npz;
use palmtop_convert::{Adapter, ConvertError, Options, check_adapter, convert, read_config, tokenizer};
use palmtop_tests::npz::{Array, archive};
use palmtop_tests::{checkpoint, data};

const MANY: usize = 200_000;

#[test]
fn a_head_of_many_tensors() {
    let mut head = Head::default();
    for i in 0..MANY {
        head.tensors.push(TensorInfo::new(format!("mask_codec.layer.{i}.x"), Storage::F32, &[1]).unwrap());
        head.metadata.set(format!("key.{i}"), "value");
    }
    let length = head.place();
    let mut file = head.encode();
    file.resize(length as usize, 0);
    assert_eq!(Head::parse(&file).unwrap().tensors.len(), MANY);
    assert!(Model::from_memory(Aligned::of(&file)).is_err());
    let file = PalmFile::from_memory(Aligned::of(&file)).unwrap();
    assert!((0..MANY).all(|i| file.find(&format!("mask_codec.layer.{i}.x")).is_some()));
    let damaged = file.verify(|_| {});
    assert_eq!(damaged.len(), MANY);
    assert!(matches!(damaged[0], FormatError::DataChecksum { .. }));
}

/// Bytes that begin at a multiple of 64.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn of(file: &[u8]) -> Self {
        let mut bytes = vec![0; file.len() + 64];
        let start = bytes.as_ptr().align_offset(64);
        bytes[start..start + file.len()].copy_from_slice(file);
        bytes.truncate(start + file.len());
        Self { bytes, start }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// A safetensors file of tensors of one f32 each, `before` in front of each number.
fn safetensors(before: &str) -> Vec<u8> {
    let mut head = String::from("{");
    for i in 0..MANY {
        let (comma, at) = (if i > 0 { "," } else { "" }, 4 * i);
        let offsets = format!("[{at},{}]", at + 4);
        write!(head, "{comma}\"{before}{i}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{offsets}}}")
            .unwrap();
    }
    head.push('}');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head.as_bytes());
    file.resize(file.len() + 4 * MANY, 0);
    file
}

#[test]
fn a_checkpoint_of_many_tensors() {
    for before in ["x", "model.language_model.layers.", "a.b.vision_tower.", "_orig_mod.lora_A."] {
        let dir = checkpoint("tiny1");
        std::fs::write(dir.path().join("model.safetensors"), safetensors(before)).unwrap();
        let target = dir.path().join("model.palm");
        let error = convert(dir.path(), &target, &Options::default(), &()).unwrap_err();
        assert!(matches!(error, ConvertError::Tensors(..)), "{error}");
        assert!(error.to_string().len() < 4096, "{error}");
    }
}

#[test]
fn an_index_of_many_tensors() {
    let dir = checkpoint("tiny1");
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("other.safetensors")).unwrap();
    for file in ["other.safetensors", "missing"] {
        let entry = |i| match file {
            "missing" => format!("\"x{i}\": \"missing{i}.safetensors\""),
            _ => format!("\"x{i}.lm_head.weight\": \"{file}\""),
        };
        let entries: Vec<String> = (0..MANY).map(entry).collect();
        let json = format!("{{\"weight_map\": {{{}}}}}", entries.join(","));
        std::fs::write(dir.path().join("model.safetensors.index.json"), json).unwrap();
        let converted = convert(dir.path(), &dir.path().join("model.palm"), &Options::default(), &());
        assert_eq!(converted.is_ok(), file != "missing");
    }
}

#[test]
fn an_adapter_of_many_tensors_targets_and_patterns() {
    let base = read_config(checkpoint("tiny1").path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = |targets: usize, patterns: usize| {
        let targets: Vec<String> = (0..targets).map(|i| format!("a{i}.q_proj")).collect();
        let patterns: serde_json::Map<_, _> = (0..patterns).map(|i| (format!("x{i}.*y"), 4.into())).collect();
        let json = serde_json::json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": targets, "rank_pattern": patterns,
        });
        std::fs::write(dir.path().join("adapter_config.json"), json.to_string()).unwrap();
    };
    let check = || check_adapter(&Adapter::new(dir.path()), &base);
    // Tensors that fit nothing, of modules that are there and of others.
    for before in ["base_model.model.x", "base_model.model.language_model.model.layers."] {
        std::fs::write(dir.path().join("adapter_model.safetensors"), safetensors(before)).unwrap();
        config(10, 1000);
        let error = check().unwrap_err().to_string();
        assert!(error.len() < 4096, "{error}");
    }
    // A sound adapter whose configuration speaks of much else.
    let sound = data().join("adapters/bias_lora_only/adapter_model.safetensors");
    std::fs::copy(sound, dir.path().join("adapter_model.safetensors")).unwrap();
    config(MANY, 4000);
    let _ = check();
}

#[test]
fn an_archive_of_many_arrays() {
    let array = || Array { descr: "<f4", shape: vec![1], bytes: vec![0; 4] };
    for prefix in ["params/", ""] {
        let arrays: BTreeMap<_, _> =
            (0..MANY).map(|i| (format!("{prefix}llm/layers/{i}"), array())).collect();
        let file = archive(&arrays, true);
        let npz = Npz::parse(&file).unwrap();
        let names: Vec<&str> = npz.names().collect();
        assert!(names.iter().all(|name| npz.read_f32(name).is_ok()));
        let dir = checkpoint("tiny1");
        let path = dir.path().join("jax.npz");
        std::fs::write(&path, file).unwrap();
        let error = convert(&path, &dir.path().join("model.palm"), &Options::default(), &()).unwrap_err();
        assert!(matches!(error, ConvertError::Jax { .. }), "{error}");
    }
}

#[test]
fn a_tokenizer_of_many_pieces_merges_and_added_tokens() {
    let dir = tempfile::tempdir().unwrap();
    // Letters, then pieces of one more letter each up to the longest there may be, over and over.
    let mut pieces: Vec<String> =
        ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}", "\n", "<", "1", "2"].map(String::from).into();
    pieces.extend(('a'..='z').map(String::from));
    let mut merges = Vec::new();
    'all: for first in 'a'..='z' {
        for second in 'a'..='z' {
            let mut piece = format!("{first}{second}");
            merges.push(format!("\"{first} {second}\""));
            pieces.push(piece.clone());
            for i in 0..150 {
                let letter = char::from(b'a' + (i % 25) as u8);
                merges.push(format!("\"{piece} {letter}\""));
                piece.push(letter);
                pieces.push(piece.clone());
                if pieces.len() > 100_000 {
                    break 'all;
                }
            }
        }
    }
    pieces.sort_by_key(|piece| piece.len() > 1);
    pieces.dedup();
    let vocab: Vec<String> =
        pieces.iter().enumerate().map(|(id, p)| format!("{}:{id}", serde_json::json!(p))).collect();
    let added: Vec<String> = (0..MANY)
        .map(|i| format!("{{\"id\":{},\"content\":\"<added{i}>\",\"special\":false}}", pieces.len() + i))
        .collect();
    let json = format!(
        "{{\"added_tokens\":[{}],\"normalizer\":{{\"type\":\"Replace\",\"pattern\":{{\"String\":\" \"}},\"content\":\
         \"\u{2581}\"}},\"decoder\":{{\"type\":\"Sequence\",\"decoders\":[{{\"type\":\"Replace\",\"pattern\":\
         {{\"String\":\"\u{2581}\"}},\"content\":\" \"}},{{\"type\":\"ByteFallback\"}},{{\"type\":\"Fuse\"}}]}},\"model\":\
         {{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{{{}}},\
         \"merges\":[{}]}}}}",
        added.join(","),
        vocab.join(","),
        merges.join(",")
    );
    std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    let table = tokenizer::build_table(dir.path()).unwrap();
    let layout = palmtop::tokenizer::TokenizerLayout::parse(&table).unwrap();
    let tokenizer = layout.bind(&table);
    tokenizer.verify().unwrap();
    assert_eq!(tokenizer.piece_count() as usize, pieces.len() + MANY);
    // A text of nothing but what nearly merges and what nearly is an added token.
    let text = "abab<added<added12".repeat(50_000);
    let mut scratch = palmtop::tokenizer::EncodeScratch::with_capacity(text.len());
    let mut ids = Vec::with_capacity(text.len());
    tokenizer.encode(&text, &mut scratch, &mut ids).unwrap();
    let mut spelled = String::new();
    tokenizer.decode(&ids, false, &mut spelled).unwrap();
    assert!(spelled == text);
}

#[test]
fn an_answer_of_many_objects() {
    let object = "<loc0001><loc0002><loc0003><loc0004> cat ; ";
    for (text, objects) in [
        (object.repeat(MANY), MANY),
        ("<loc0001><loc0002><loc0003>".repeat(MANY), MANY * 3 / 4),
        ("<loc0001><loc0002><loc0003><loc0004>".repeat(MANY), MANY),
        (" ; <".repeat(MANY), 0),
    ] {
        let ends: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
        let mut found = Detections::read_tokens(&text, &ends, 640, 480);
        found.set_scores(&vec![0.5; ends.len()]);
        assert_eq!(found.objects.len(), objects);
    }
}
