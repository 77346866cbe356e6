//! What cannot be converted is refused by name, and leaves nothing behind.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Tensors, change_tensors, checkpoint, data, options, set_json, try_convert};
use palmtop_convert::{ConvertError, Options, Progress, convert};
use safetensors::Dtype;
use serde_json::json;

const EMBED: &str = "language_model.model.embed_tokens.weight";
const NORM: &str = "language_model.model.layers.2.input_layernorm.weight";
const FC1: &str = "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight";

fn left_in(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect()
}

/// The error for a changed checkpoint; the folder of the target must stay empty.
fn refusal(name: &str, change: impl FnOnce(&Path)) -> String {
    let (dir, out) = (checkpoint(name), tempfile::tempdir().unwrap());
    change(dir.path());
    let error = try_convert(dir.path(), out.path()).expect_err("this must be refused").to_string();
    assert!(left_in(out.path()).is_empty(), "{error}: leaves {:?}", left_in(out.path()));
    error
}

fn assert_says(got: &str, parts: &[&str]) {
    for part in parts {
        assert!(got.contains(part), "{got:?} does not say {part:?}");
    }
}

#[test]
fn wrong_tables_of_tensors_are_listed() {
    let got = refusal("tiny1", |dir| {
        change_tensors(dir, |t| {
            t.0.remove(NORM);
            t.0.remove(FC1);
            let norm = t.0["language_model.model.norm.weight"].clone();
            t.0.insert("language_model.model.layers.4.input_layernorm.weight".into(), norm.clone());
            t.0.insert("score.weight".into(), norm);
            let embed = t.0.get_mut(EMBED).unwrap();
            embed.1 = vec![1088, 192];
        });
    });
    assert_says(
        &got,
        &[
            "the tensors do not fit config.json",
            &format!("missing (2): '{NORM}', '{FC1}'"),
            "unknown (2): 'language_model.model.layers.4.input_layernorm.weight', 'score.weight'",
            &format!("misshapen (1): '{EMBED}' is [1088, 192] and should be [2176, 96]"),
        ],
    );
    // Hundreds of names are cut short, but counted.
    let got = refusal("tiny1", |dir| {
        let path = dir.join("model.safetensors");
        Tensors::load(&path).renamed(|n| n.replace('_', "-")).save(&path);
    });
    assert_says(&got, &["missing (93): ", " and 88 more", "unknown (93): 'language-model.", "and 88 more"]);
}

#[test]
fn types_that_are_not_read_are_named() {
    let got = refusal("tiny1", |dir| {
        change_tensors(dir, |t| {
            let norm = t.0.get_mut(NORM).unwrap();
            norm.0 = Dtype::I16;
        });
    });
    assert_says(&got, &[&format!("neither f32, f16 nor bf16 (1): '{NORM}' is I16")]);
}

#[test]
fn values_that_are_no_numbers_are_named() {
    for (name, tensor, at, bytes, value) in [
        ("tiny1", NORM, 7, &[0xc0, 0x7f][..], "NaN"),
        ("tiny1", FC1, 5000, &[0x80, 0xff], "-inf"),
        ("tiny1-f16", EMBED, 100_001, &[0x00, 0x7c], "inf"),
        ("tiny1-f32", EMBED, 96 * 2176 - 1, &[0xff, 0xff, 0xff, 0xff], "NaN"),
        ("tiny1-f32", "language_model.model.layers.3.mlp.up_proj.weight", 0, &[0, 0, 0x80, 0x7f], "inf"),
    ] {
        let got = refusal(name, |dir| {
            change_tensors(dir, |t| {
                let data = &mut t.0.get_mut(tensor).unwrap().2;
                data[at * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
            });
        });
        assert_says(
            &got,
            &["model.safetensors", &format!("tensor '{tensor}' holds {value} at index {at}: the checkpoint")],
        );
    }
}

#[test]
fn weights_beyond_f16_are_refused_only_for_f16() {
    let (dir, out) = (checkpoint("tiny1-f32"), tempfile::tempdir().unwrap());
    change_tensors(dir.path(), |t| {
        t.0.get_mut(FC1).unwrap().2[..4].copy_from_slice(&70000f32.to_le_bytes());
    });
    let target = out.path().join("model.palm");
    let got = convert(dir.path(), &target, &options("f16"), &()).unwrap_err().to_string();
    assert_says(&got, &["'vision.layer.1.mlp.fc1.weight' holds 70000", "use f32 or int8 for 'vision'"]);
    assert!(left_in(out.path()).is_empty());
    convert(dir.path(), &target, &options("int8"), &()).unwrap();
}

#[test]
fn damaged_safetensors_are_refused_with_the_file_named() {
    type Change = fn(&mut Vec<u8>);
    let header = |json: &str| {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file
    };
    let cases: [(Change, &str); 7] = [
        (|f| f.clear(), "is an empty file: download it again"),
        (|f| f.truncate(7), "is cut short or not a safetensors file (7 bytes)"),
        (|f| f.truncate(1000), "is cut short or not a safetensors file (1000 bytes)"),
        (|f| f.truncate(400_000), "its length of 400000 bytes is not the length that its header states"),
        (|f| f.push(0), "is not the length that its header states"),
        (|f| f[7] = 1, "its header would be larger than 100 MB"),
        (|f| f[8] = b'[', "is not a safetensors file: invalid JSON in header"),
    ];
    for (change, says) in cases {
        let got = refusal("tiny1", |dir| {
            let path = dir.join("model.safetensors");
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        });
        assert_says(&got, &["model.safetensors: ", says]);
    }
    for json in [
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        r#"{"a":7}"#,
    ] {
        let got =
            refusal("tiny1", |dir| std::fs::write(dir.join("model.safetensors"), header(json)).unwrap());
        assert_says(&got, &["model.safetensors: "]);
    }
}

#[test]
fn no_flipped_bit_of_a_header_makes_the_reader_panic() {
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let path = dir.path().join("model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for at in (0..header).step_by(97).chain(0..8) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, bad).unwrap();
        // Most bits are refused; some change nothing that counts, such as a blank.
        if try_convert(dir.path(), out.path()).is_err() {
            assert!(left_in(out.path()).is_empty());
        } else {
            std::fs::remove_file(out.path().join("model.palm")).unwrap();
        }
    }
}

#[test]
fn shards_must_all_be_there_and_hold_what_the_index_says() {
    const INDEX: &str = "model.safetensors.index.json";
    let got = refusal("tiny1-sharded", |dir| {
        for i in [2, 5] {
            std::fs::remove_file(dir.join(format!("model-0000{i}-of-00006.safetensors"))).unwrap();
        }
    });
    assert_says(
        &got,
        &[INDEX, "are missing: model-00002-of-00006.safetensors, model-00005-of-00006.safetensors"],
    );
    for file in ["../model.safetensors", "/etc/passwd", "a/../b", "..", "", "sub/model.safetensors", "a\\b"] {
        let got = refusal("tiny1-sharded", |dir| {
            let path = dir.join(INDEX);
            let text = std::fs::read_to_string(&path).unwrap();
            let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
            index["weight_map"][NORM] = json!(file);
            std::fs::write(path, index.to_string()).unwrap();
        });
        let says = format!("tensor '{NORM}' is in {}, but the folder has no such file", json!(file));
        assert_says(&got, &[INDEX, &says]);
    }
    let got = refusal("tiny1-sharded", |dir| {
        let path = dir.join(INDEX);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
        index["weight_map"]["language_model.model.score"] = json!("model-00001-of-00006.safetensors");
        std::fs::write(path, index.to_string()).unwrap();
    });
    let says = "'language_model.model.score' is in model-00001-of-00006.safetensors, but no file has it";
    assert_says(&got, &[INDEX, says]);
    let got = refusal("tiny1-sharded", |dir| {
        let path = dir.join("model-00002-of-00006.safetensors");
        let mut other = Tensors::load(&dir.join("model-00001-of-00006.safetensors"));
        let mut tensors = Tensors::load(&path);
        let (name, tensor) = other.0.pop_first().unwrap();
        tensors.0.insert(name, tensor);
        tensors.save(&path);
    });
    assert_says(&got, &["appears twice: as '", "model-00001-of-00006", "model-00002-of-00006"]);
    for (text, says) in [
        ("[]", "is not a JSON object"),
        ("{", "is not valid JSON"),
        ("{}", "has no 'weight_map'"),
        (r#"{"weight_map":{}}"#, "'weight_map' is empty"),
        (r#"{"weight_map":{"a":3}}"#, "tensor 'a' is in 3, but the folder has no such file"),
    ] {
        let got = refusal("tiny1-sharded", |dir| std::fs::write(dir.join(INDEX), text).unwrap());
        assert_says(&got, &[INDEX, says]);
    }
}

#[test]
fn two_spellings_of_one_tensor_are_refused() {
    let got = refusal("tiny1", |dir| {
        change_tensors(dir, |t| {
            let norm = t.0[NORM].clone();
            t.0.insert("model.language_model.layers.2.input_layernorm.weight".into(), norm);
        });
    });
    assert_says(&got, &[&format!("tensor '{NORM}' appears twice"), "'model.language_model.layers.2"]);
}

#[test]
fn folders_without_weights_say_what_is_wanted() {
    let got = refusal("tiny1", |dir| {
        std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    });
    assert_says(&got, &["has weights in PyTorch's pickle format", "save_pretrained"]);
    let out = tempfile::tempdir().unwrap();
    let missing = out.path().join("no-such-folder");
    assert_says(&try_convert(&missing, out.path()).unwrap_err().to_string(), &["does not exist"]);
    let file = data("checkpoints/tiny1/model.safetensors");
    let got = try_convert(&file, out.path()).unwrap_err().to_string();
    assert_says(&got, &["is a file; name the checkpoint's folder"]);
    for name in ["config.json", "tokenizer.json"] {
        let got = refusal("tiny1", |dir| {
            let _ = std::fs::remove_file(dir.join("tokenizer.model"));
            std::fs::remove_file(dir.join(name)).unwrap();
        });
        assert_says(&got, &[name]);
    }
}

#[test]
fn pipes_are_not_waited_for() {
    for name in ["model.safetensors", "config.json", "generation_config.json"] {
        let got = refusal("tiny1", |dir| {
            std::fs::remove_file(dir.join(name)).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(dir.join(name)).status().unwrap().success());
        });
        assert_says(&got, &[name, "is not a regular file"]);
    }
}

#[test]
fn progress_adds_up_to_what_was_announced() {
    #[derive(Default)]
    struct Count(AtomicU64, AtomicU64);
    impl Progress for Count {
        fn start(&self, total_bytes: u64) {
            self.0.store(total_bytes, Ordering::Relaxed);
        }
        fn advance(&self, bytes: u64) {
            self.1.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let (dir, count) = (checkpoint("tiny2"), Count::default());
    convert(dir.path(), &dir.path().join("model.palm"), &options("int4"), &count).unwrap();
    assert!(count.0.load(Ordering::Relaxed) > 0);
    assert_eq!(count.0.load(Ordering::Relaxed), count.1.load(Ordering::Relaxed));
}

#[test]
fn architectures_that_are_not_run_are_refused_by_key() {
    let gemma1 = [
        ("model_type", json!("llava"), "'model_type' is 'llava'; palmtop runs 'paligemma'"),
        ("model_type", json!(null), "'model_type' is missing"),
        ("image_token_index", json!(-1), "'image_token_index' is -1, which is not a token id below 4194304"),
        ("vision_config", json!(3), "'vision_config' is not an object"),
        (
            "vision_config.model_type",
            json!("clip_vision_model"),
            "'vision_config.model_type' is 'clip_vision",
        ),
        ("vision_config.hidden_act", json!("gelu"), "'vision_config.hidden_act' is 'gelu'"),
        ("vision_config.num_channels", json!(4), "'vision_config.num_channels' is not 3"),
        (
            "vision_config.num_attention_heads",
            json!(5),
            "'vision_config.num_attention_heads' is 5, which does",
        ),
        ("vision_config.image_size", json!([56, 112]), "'vision_config.image_size' is a list"),
        ("vision_config.patch_size", json!(13), "'vision_config.patch_size' is 13, which does not divide 56"),
        ("vision_config.layer_norm_eps", json!(-1), "'vision_config.layer_norm_eps' is -1"),
        ("text_config.model_type", json!("gemma3_text"), "'text_config.model_type' is 'gemma3_text'"),
        ("text_config.hidden_act", json!("silu"), "'text_config.hidden_act' is 'silu'"),
        ("text_config.hidden_activation", json!("gelu"), "'text_config.hidden_activation' is 'gelu'"),
        ("text_config.attention_bias", json!(true), "'text_config.attention_bias' is true"),
        ("text_config.attention_bias", json!("no"), "'text_config.attention_bias' is \"no\", neither"),
        (
            "text_config.use_bidirectional_attention",
            json!(false),
            "'text_config.use_bidirectional_attention'",
        ),
        (
            "text_config.rope_scaling",
            json!({"type": "linear"}),
            "'text_config.rope_scaling.type' is 'linear'",
        ),
        (
            "text_config.rope_parameters.rope_type",
            json!("yarn"),
            "'text_config.rope_parameters.rope_type' is",
        ),
        ("text_config.head_dim", json!(31), "'text_config.head_dim' is 31, which is odd"),
        ("text_config.head_dim", json!(4096), "'text_config.head_dim' is 4096, outside 1..=1024"),
        (
            "text_config.num_key_value_heads",
            json!(3),
            "'text_config.num_key_value_heads' is 3, which does not",
        ),
        ("text_config.hidden_size", json!(-96), "'text_config.hidden_size' is -96"),
        ("text_config.hidden_size", json!(96.5), "'text_config.hidden_size' is 96.5"),
        (
            "text_config.num_hidden_layers",
            json!(1u64 << 40),
            "'text_config.num_hidden_layers' is 1099511627776",
        ),
        ("text_config.rms_norm_eps", json!("small"), "'text_config.rms_norm_eps' is \"small\""),
        ("eos_token_id", json!([]), ""), // generation_config.json has its own
    ];
    for (key, value, says) in gemma1 {
        if says.is_empty() {
            let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
            set_json(&dir.path().join("config.json"), key, value);
            try_convert(dir.path(), out.path()).unwrap();
            continue;
        }
        let got = refusal("tiny1", |dir| set_json(&dir.join("config.json"), key, value));
        assert_says(&got, &["config.json: ", says]);
    }
    for (key, value, says) in [
        ("text_config.hidden_activation", json!("gelu"), "'text_config.hidden_activation' is 'gelu'"),
        (
            "text_config.layer_types",
            json!(["full_attention"]),
            "'text_config.layer_types' is not a list of 4",
        ),
        (
            "text_config.layer_types",
            json!(["full_attention", "chunked_attention", "full_attention", "full_attention"]),
            "'text_config.layer_types' has the unknown entry \"chunked_attention\"",
        ),
        ("text_config.sliding_window", json!(0), "'text_config.sliding_window' is 0"),
        ("text_config.attn_logit_softcapping", json!(-50), "'text_config.attn_logit_softcapping' is -50"),
    ] {
        let got = refusal("tiny2", |dir| set_json(&dir.join("config.json"), key, value));
        assert_says(&got, &["config.json: ", says]);
    }
    for (key, value, says) in [
        ("size", json!({"height": 224, "width": 224}), "and the image encoder takes 56 by 56"),
        ("image_mean", json!([0.5, 0.5]), "'image_mean' is [0.5,0.5], not a list of three numbers"),
        ("image_std", json!([0.5, 0.0, 0.5]), "'image_std' has a zero"),
        ("rescale_factor", json!(0), "'rescale_factor' is 0"),
    ] {
        let got = refusal("tiny1", |dir| set_json(&dir.join("preprocessor_config.json"), key, value));
        assert_says(&got, &[says]);
    }
    let got = refusal("tiny1", |dir| std::fs::write(dir.join("config.json"), "{\"model_type\": ").unwrap());
    assert_says(&got, &["config.json: is not valid JSON"]);
    let got = refusal("tiny1", |dir| std::fs::write(dir.join("config.json"), "[".repeat(1 << 20)).unwrap());
    assert_says(&got, &["config.json: is not valid JSON"]);
}

#[test]
fn targets_that_hold_something_else_are_kept() {
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let refused = |target: &Path| convert(dir.path(), target, &options("int8"), &()).unwrap_err().to_string();
    assert_says(&refused(out.path()), &["is a folder; name the .palm file itself"]);
    assert_says(&refused(&out.path().join("no/such/model.palm")), &["No such file"]);
    let weights = dir.path().join("model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    assert_says(&refused(&weights), &["exists and is not a .palm file"]);
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    let pipe = out.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_says(&refused(&pipe), &["is not a regular file"]);
    std::fs::remove_file(pipe).unwrap();
    // An older .palm file is replaced.
    let target = out.path().join("model.palm");
    convert(dir.path(), &target, &options("int4"), &()).unwrap();
    let small = std::fs::metadata(&target).unwrap().len();
    convert(dir.path(), &target, &options("f32"), &()).unwrap();
    assert!(std::fs::metadata(&target).unwrap().len() > small);
    assert_eq!(left_in(out.path()), ["model.palm"]);
}

#[test]
fn an_interruption_leaves_an_older_file_as_it_was() {
    struct StopAfter(AtomicU64);
    impl Progress for StopAfter {
        fn advance(&self, bytes: u64) {
            let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
            self.0.store(left, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) == 0
        }
    }
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let target = out.path().join("model.palm");
    for old in [false, true] {
        if old {
            convert(dir.path(), &target, &options("int4"), &()).unwrap();
        }
        let before = left_in(out.path());
        let bytes = std::fs::read(&target).ok();
        for after in [0, 1, 100_000, 300_000] {
            let stop = StopAfter(AtomicU64::new(after));
            let error = convert(dir.path(), &target, &options("f32"), &stop).unwrap_err();
            assert!(matches!(error, ConvertError::Cancelled), "{error}");
            assert_eq!(left_in(out.path()), before);
            assert_eq!(std::fs::read(&target).ok(), bytes);
        }
    }
}

#[test]
fn mask_codecs_are_added_whole_or_refused() {
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let target = out.path().join("model.palm");
    let with = |file: &Path| {
        let options = Options { mask_codec: Some(file.to_owned()), ..options("int8") };
        convert(dir.path(), &target, &options, &()).map_err(|e| e.to_string())
    };
    let good = data("vectors/seg/vae-random.npz");
    with(&good).unwrap();
    let model = palmtop::model::Model::open(&target).unwrap();
    assert!(model.mask_codec().unwrap().is_some());
    std::fs::remove_file(&target).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let bad = dir.path().join("bad.npz");
    std::fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    assert_says(&with(&bad).unwrap_err(), &["bad.npz: "]);
    assert_says(&with(&dir.path().join("none.npz")).unwrap_err(), &["none.npz: No such file"]);
    assert_says(&with(&dir.path().join("config.json")).unwrap_err(), &["config.json: "]);
    let expected = data("vectors/seg/vae-random-expect.npz");
    assert_says(&with(&expected).unwrap_err(), &["vae-random-expect.npz: ", "_vq_vae._embedding"]);
    assert!(left_in(out.path()).is_empty());
}
