//! Tensors, metadata, tokenizers and mask decoders that do not make up a model.

use palmtop::format::{Metadata, Storage, TensorInfo, Value};
use palmtop::model::config::Config;
use palmtop::tasks::{BoxRounding, MaskCodec, MaskScratch, PixelBox, ReadOptions};
use palmtop::{GenerateOptions, Limits, Retrieval, Session};
use palmtop_kernels::layout::WeightFormat;

use crate::parts::*;

// Tensors that do not make up the architecture

#[test]
fn every_missing_tensor_is_named() {
    let parts = Parts::tiny();
    for name in tensor_names(&parts) {
        let mut parts = parts.clone();
        parts.remove(&name);
        assert_refused(&name, &parts.file(), &format!("tensor '{name}' is missing"));
    }
}

#[test]
fn every_tensor_of_another_shape_is_named() {
    let parts = Parts::tiny();
    for name in tensor_names(&parts).into_iter().filter(|n| n != "tokenizer") {
        let mut parts = parts.clone();
        let info = parts.tensor(&name).0.clone();
        let mut shape = info.shape.clone();
        *shape.last_mut().unwrap() += 1;
        parts.replace(&name, info.storage, &shape);
        let says = format!("tensor '{name}': shape {shape:?} where the architecture needs {:?}", info.shape);
        assert_refused(&name, &parts.file(), &says);
    }
}

#[test]
fn every_tensor_of_another_storage_is_named() {
    let parts = Parts::tiny();
    let mut changed = 0;
    for name in tensor_names(&parts) {
        let info = parts.clone().tensor(&name).0.clone();
        let (storage, says) = match info.storage {
            Storage::Bytes => (Storage::F32, "is not stored as bytes".to_owned()),
            Storage::Packed(_) => (Storage::F32, "storage 'f32 plain' does not fit its use".to_owned()),
            Storage::F32 if info.shape.len() == 2 => {
                (Storage::Packed(WeightFormat::F32), "storage 'f32 packed' does not fit its use".to_owned())
            }
            // A vector cannot be packed, but its bytes can be called just bytes.
            Storage::F32 => continue,
        };
        let mut parts = parts.clone();
        parts.replace(&name, storage, &info.shape);
        assert_refused(&name, &parts.file(), &format!("tensor '{name}': {says}"));
        changed += 1;
    }
    assert!(changed > 20);
    let mut parts = parts.clone();
    parts.replace("text.norm", Storage::Bytes, &[96]);
    assert_refused("text.norm", &parts.file(), "tensor 'text.norm': storage 'bytes' does not fit its use");
}

#[test]
fn unknown_tensors_and_metadata_are_passed_over() {
    let mut parts = Parts::tiny();
    parts.tensors.push((TensorInfo::new("of.a.later.version", Storage::Bytes, &[3]).unwrap(), vec![1, 2, 3]));
    parts.metadata.set("of.a.later.version", "anything");
    open(&parts.file()).expect("a file with more than is needed");
}

// Metadata

/// What the architecture is read from.
pub fn needed_metadata() -> Metadata {
    let mut metadata = Metadata::default();
    Config::from_metadata(&Parts::tiny().metadata).unwrap().to_metadata(&mut metadata);
    metadata
}

#[test]
fn every_missing_or_mistyped_metadata_is_named() {
    for (key, value) in needed_metadata().iter() {
        let kept = Parts::tiny().metadata.iter().filter(|(k, _)| *k != key).fold(
            Metadata::default(),
            |mut kept, (k, v)| {
                kept.set(k, v.clone());
                kept
            },
        );
        let got = Config::from_metadata(&kept).unwrap_err().to_string();
        let list_of_three = key == "image.mean" || key == "image.std";
        assert!(got == format!("metadata '{key}' is missing") || list_of_three, "{got}");
        for other in [Value::Bool(true), Value::Text("7".into()), Value::U64(7), Value::F64s(vec![1.0; 4])] {
            if std::mem::discriminant(&other) == std::mem::discriminant(value) && !list_of_three {
                continue;
            }
            let mut parts = Parts::tiny();
            parts.metadata.set(key, other.clone());
            assert_refused(&format!("{key} {other:?}"), &parts.file(), &format!("metadata '{key}' "));
        }
    }
}

#[test]
fn absurd_metadata_is_refused_with_a_reason() {
    let tiny1: [(&str, Value, &str); 40] = [
        ("general.architecture", "llama".into(), "is 'llama'; this program runs 'paligemma'"),
        ("general.generation", 3u64.into(), "is 3, not 1 or 2"),
        ("vision.hidden", 0u64.into(), "is 0, outside 1..=262144"),
        ("vision.hidden", u64::MAX.into(), "is 18446744073709551615, outside 1..=262144"),
        ("vision.hidden", 71u64.into(), "which does not divide 71"),
        ("vision.heads", 0u64.into(), "is 0, outside 1..="),
        ("vision.heads", 5u64.into(), "is 5, which does not divide 72"),
        ("vision.heads", 1000u64.into(), "metadata 'vision.heads'"),
        ("vision.layers", 0u64.into(), "is 0, outside 1..=1024"),
        ("vision.layers", 1_000_000u64.into(), "is 1000000, outside 1..=1024"),
        ("vision.image_size", 0u64.into(), "is 0, outside 1..=4096"),
        ("vision.image_size", 57u64.into(), "metadata 'vision.patch_size' is 14, which does not divide 57"),
        ("vision.image_size", 1u64.into(), "metadata 'vision.patch_size' is 14, outside 1..=1"),
        ("vision.image_size", 1_000_000u64.into(), "is 1000000, outside 1..=4096"),
        ("vision.patch_size", 0u64.into(), "is 0, outside 1..=4096"),
        ("vision.patch_size", 100u64.into(), "is 100, outside 1..=56"),
        ("vision.norm_eps", (-1e-6).into(), "is -0.000001, not a positive number"),
        ("vision.norm_eps", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.norm_eps", 0.0.into(), "is 0, not a positive number"),
        ("text.norm_eps", f64::INFINITY.into(), "is inf, not a positive number"),
        ("text.rope_theta", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.rope_theta", (-10000.0).into(), "is -10000, not a positive number"),
        ("text.query_scalar", 0.0.into(), "is 0, not a positive number"),
        ("text.attention_softcap", (-50.0).into(), "is -50, not a positive number"),
        ("text.final_softcap", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.layers", 1025u64.into(), "is 1025, outside 1..=1024"),
        ("text.layers", 5u64.into(), "metadata 'text.windows' has 4 entries for 5 layers"),
        ("text.heads", 0u64.into(), "is 0, outside 1..=1024"),
        ("text.kv_heads", 0u64.into(), "is 0, outside 1..=1024"),
        ("text.kv_heads", 3u64.into(), "is 3, which does not divide"),
        ("text.head_dim", 33u64.into(), "is 33, which is odd"),
        ("text.head_dim", 1u64.into(), "is 1, outside 2..=1024"),
        ("text.vocab", (1u64 << 40).into(), "is 1099511627776, outside 1..=4194304"),
        ("text.windows", vec![16u64, 0].into(), "has 2 entries for 4 layers"),
        ("text.windows_of", "all".into(), "is 'all'; this program knows windows of 'generated' rows"),
        ("tokens.image", (1u64 << 23).into(), "is 8388608, outside 0..=4194304"),
        ("tokens.bos", u64::MAX.into(), "outside 0..=2175"),
        ("tokens.eos", Vec::<u64>::new().into(), "is empty"),
        ("tokens.eos", vec![1u64, 2176].into(), "has 2176, outside 0..=2175"),
        ("tokens.eos", vec![(1u64 << 32) + 1].into(), "has 4294967297, outside 0..=2175"),
    ];
    for (key, value, says) in tiny1 {
        let mut parts = Parts::tiny();
        let what = format!("{key} {value:?}");
        parts.metadata.set(key, value);
        assert_refused(&what, &parts.file(), says);
    }
    for (key, value, says) in [
        ("image.mean", vec![0.5, 0.5], "metadata 'image.mean' does not have three numbers"),
        ("image.mean", vec![0.5, f64::NAN, 0.5], "metadata 'image.mean' is not a list of three numbers"),
        ("image.std", vec![0.5, 0.0, 0.5], "metadata 'image.std' has a zero"),
        ("image.std", vec![f64::INFINITY; 3], "metadata 'image.std' is not a list of three numbers"),
    ] {
        let mut parts = Parts::tiny();
        parts.metadata.set(key, value);
        assert_refused(key, &parts.file(), says);
    }
    let mut many = Parts::tiny();
    many.metadata.set("vision.image_size", 4096u64);
    many.metadata.set("vision.patch_size", 1u64);
    assert_refused("patches", &many.file(), "is 1, which gives 16777216 patches; 65536 are the most");
}

/// A model with a retrieval head.
fn with_retrieval() -> Parts {
    let mut parts = Parts::tiny();
    let mut config = Config::from_metadata(&parts.metadata).unwrap();
    config.retrieval = Some(Retrieval::new(8));
    config.to_metadata(&mut parts.metadata);
    let shapes: [(&str, Storage, &[usize]); 2] = [
        ("retrieval.weight", Storage::Packed(WeightFormat::F16), &[8, config.text.hidden]),
        ("retrieval.bias", Storage::F32, &[8]),
    ];
    for (name, storage, shape) in shapes {
        let info = TensorInfo::new(name, storage, shape).unwrap();
        let zeros = vec![0; info.length as usize];
        parts.tensors.push((info, zeros));
    }
    parts
}

#[test]
fn broken_retrieval_is_refused_and_vectors_of_zeros_stay_so() {
    for (key, value, says) in [
        ("retrieval.dim", Value::U64(0), "is 0, outside 1..=4096"),
        ("retrieval.dim", u64::MAX.into(), "is 18446744073709551615, outside 1..=4096"),
        ("retrieval.dim", 9u64.into(), "tensor 'retrieval.weight': shape [8, 96]"),
        ("retrieval.dim", "8".into(), "is not an unsigned integer"),
        ("retrieval.document_bos", 0u64.into(), "is 0, outside 1..=2"),
        ("retrieval.document_bos", 3u64.into(), "is 3, outside 1..=2"),
        ("retrieval.document_prompt", "x".repeat(1025).into(), "has 1025 bytes, and may have 1024"),
        ("retrieval.query_prefix", 7u64.into(), "is not a text"),
        ("retrieval.query_pads", 257u64.into(), "is 257, outside 0..=256"),
        ("retrieval.query_end", "x".repeat(2000).into(), "has 2000 bytes"),
        ("retrieval.query_mask", "both".into(), "unknown mask of questions 'both'"),
        ("retrieval.query_mask", true.into(), "is not a text"),
    ] {
        let mut parts = with_retrieval();
        parts.metadata.set(key, value);
        assert_refused(key, &parts.file(), says);
    }
    for name in ["retrieval.weight", "retrieval.bias"] {
        let mut parts = with_retrieval();
        parts.remove(name);
        assert_refused(name, &parts.file(), &format!("tensor '{name}' is missing"));
    }
    let model = open(&with_retrieval().file()).unwrap();
    let mut limits = Limits::default();
    limits.new_tokens = 0;
    let mut session = Session::new(&model, &limits).unwrap();
    let mut out = session.new_embedding().unwrap();
    session.embed_query("where?", &GenerateOptions::default(), &mut out).unwrap();
    assert!(out.rows() > 10 && out.values().iter().all(|&x| x == 0.0));
}

// Tokenizer and mask decoder

#[test]
fn broken_tokenizers_are_refused() {
    let table = Parts::tiny().tensor("tokenizer").1.clone();
    let with = |at: usize, bytes: &[u8]| {
        let mut table = table.clone();
        table[at..at + bytes.len()].copy_from_slice(bytes);
        table
    };
    for (blob, says) in [
        (vec![], "this is not a tokenizer table"),
        (vec![0xA5; 10_000], "this is not a tokenizer table"),
        (table[..100].to_vec(), "the tokenizer table has 100 bytes where it should have 256"),
        (table[..table.len() - 1].to_vec(), "the file is incomplete or damaged"),
        (with(8, &2u32.to_le_bytes()), "the tokenizer table has version 2, this program reads version 1"),
        (with(24, &[0; 4]), "the number of pieces is out of range"),
        (with(24, &[0xFF; 4]), "the number of pieces is out of range"),
        (with(32, &60u32.to_le_bytes()), "the hash is too large"),
        (with(112 + 16, &[0xFF; 8]), "a section is not where its size says"),
        (with(112 + 24, &[0xFF; 8]), "damaged"),
    ] {
        let mut parts = Parts::tiny();
        parts.replace("tokenizer", Storage::Bytes, &[blob.len()]);
        parts.tensor("tokenizer").1 = blob;
        assert_refused(says, &parts.file(), says);
    }
}

#[test]
fn a_vocabulary_smaller_than_its_tokenizer_is_refused() {
    let mut parts = Parts::tiny();
    parts.metadata.set("text.vocab", 2000u64);
    let shape = [2000, parts.tensor("text.embed").0.shape[1]];
    parts.replace("text.embed", Storage::Packed(WeightFormat::Int8), &shape);
    parts.metadata.set("tokens.image", 1999u64);
    let got = refusal("a small vocabulary", open(&parts.file()));
    assert!(
        got.contains("tensor 'tokenizer': has ") && got.contains("where the embedding has 2000 rows"),
        "{got}"
    );
}

fn with_mask_codec() -> Parts {
    let mut parts = Parts::tiny();
    for spec in MaskCodec::tensors() {
        let name = format!("{}{}", MaskCodec::PREFIX, spec.name);
        let info = TensorInfo::new(name, Storage::F32, &spec.shape_max()).unwrap();
        let values = (0..info.length / 4).flat_map(|i| ((i % 13) as f32 * 0.01 - 0.06).to_le_bytes());
        parts.tensors.push((info, values.collect()));
    }
    parts
}

#[test]
fn broken_mask_decoders_are_refused_when_they_are_asked_for() {
    let whole = with_mask_codec();
    assert!(open(&whole.file()).unwrap().mask_codec().unwrap().is_some());
    assert!(open(tiny()).unwrap().mask_codec().unwrap().is_none());
    for spec in MaskCodec::tensors() {
        let name = format!("{}{}", MaskCodec::PREFIX, spec.name);
        let refused = |parts: &Parts, says: &str| {
            let model = open(&parts.file()).expect("the rest of the model is sound");
            let got = model.mask_codec().expect_err("a broken mask decoder").to_string();
            assert!(got.contains(says), "{got:?} does not say {says:?}");
        };
        let mut parts = whole.clone();
        parts.remove(&name);
        refused(&parts, &format!("the model has no tensor {name}"));
        let mut parts = whole.clone();
        let mut shape = parts.tensor(&name).0.shape.clone();
        shape[0] += 1;
        parts.replace(&name, Storage::F32, &shape);
        refused(&parts, &format!("the tensor {name} has shape {shape:?}"));
    }
}

#[test]
fn answers_are_read_with_masks_only_if_these_are_wanted() {
    let codes: String = (0..16).map(|i| format!("<seg{:03}>", i * 7)).collect();
    let mut answer = palmtop::Answer::default();
    answer.text =
        format!("<loc0256><loc0128><loc0768><loc0512>{codes} cat ; <loc0000><loc0000><loc1023><loc0512> do");
    let mut with_masks = ReadOptions::default();
    with_masks.masks = true;
    let read = |parts: &Parts, options: &ReadOptions| {
        open(&parts.file())
            .unwrap()
            .read_answer(&answer, (200, 100), options)
            .map(|read| (read.objects, read.cut_short))
    };

    let whole = with_mask_codec();
    let (plain, cut_short) = read(&whole, &ReadOptions::default()).unwrap();
    assert!(cut_short && plain.iter().all(|object| object.mask.is_none()));
    assert_eq!(plain[0].pixel_box, PixelBox { x_min: 25, y_min: 25, x_max: 100, y_max: 75 });
    let relative = plain[0].relative_box();
    assert_eq!([relative.x_min, relative.y_min, relative.x_max, relative.y_max], [0.125, 0.25, 0.5, 0.75]);
    let (mut decoded, _) = read(&whole, &with_masks).unwrap();
    let mask = decoded[0].mask.take();
    assert_eq!(decoded, plain, "the same but for the one mask");
    let model = open(&whole.file()).unwrap();
    assert_eq!(mask, model.mask(&plain[0], (200, 100), BoxRounding::default()).unwrap());
    assert_eq!(mask.map(|mask| (mask.x(), mask.y(), mask.width(), mask.height())), Some((25, 25, 75, 50)));
    assert!(model.mask(&plain[1], (200, 100), BoxRounding::default()).unwrap().is_none());

    // Without a decoder there are boxes; with a broken one, an error where a mask is to be had.
    assert_eq!(read(&Parts::tiny(), &with_masks).unwrap().0, plain);
    let mut broken = whole.clone();
    broken.remove("mask_codec.decoder.12.bias");
    assert_eq!(read(&broken, &ReadOptions::default()).unwrap().0, plain);
    assert!(matches!(read(&broken, &with_masks), Err(palmtop::Error::MaskCodec(_))));
}

#[test]
fn mask_decoders_of_nothing_but_nan_decode() {
    let mut parts = with_mask_codec();
    for (info, data) in parts.tensors.iter_mut().filter(|(t, _)| t.name.starts_with(MaskCodec::PREFIX)) {
        *data = f32::NAN.to_le_bytes().repeat(info.length as usize / 4);
    }
    let model = open(&parts.file()).unwrap();
    let codec = model.mask_codec().unwrap().unwrap();
    let mut mask = [0.0; 64 * 64];
    codec.decode(&[255; 16], &mut MaskScratch::new(), &mut mask);
    assert!(mask.iter().all(|x| x.is_nan()));
}
