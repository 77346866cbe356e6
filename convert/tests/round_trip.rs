//! What goes into a `.palm` file comes out of it.

mod common;

use common::{Tensors, checkpoint, options, set_json};
use half::{bf16, f16};
use palmtop::format::{PalmFile, Storage};
use palmtop::model::config::{Config, Generation, gate_up_padded};
use palmtop_convert::{convert, convert_source, read_config, synthetic};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

const CHECKPOINTS: [&str; 7] =
    ["tiny1", "tiny1-f16", "tiny1-f32", "tiny1-sharded", "tiny2", "tiny2-f32", "tiny2-wide"];

/// A checkpoint's tensor, read by a program of its own.
fn tensor(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let t = file.tensor(name).unwrap();
    let bytes = t.data();
    match t.dtype() {
        Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::BF16 => bytes.chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        Dtype::F16 => bytes.chunks(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        other => panic!("{other:?}"),
    }
}

fn matrix(file: &PalmFile, name: &str) -> (usize, Vec<f32>) {
    let shape = file.tensor(name).unwrap().shape.clone();
    let m = file.matrix(name, shape[0], shape[1]).unwrap();
    let mut out = vec![0.0; shape[0] * shape[1]];
    for (n, row) in out.chunks_mut(shape[1]).enumerate() {
        m.dequantize_row(n, row);
    }
    (shape[1], out)
}

fn plain(file: &PalmFile, name: &str) -> Vec<f32> {
    file.f32s(name, &file.tensor(name).unwrap().shape).unwrap().to_vec()
}

#[test]
fn f32_files_hold_exactly_the_checkpoints_values() {
    for name in ["tiny1", "tiny1-f16", "tiny1-f32", "tiny2", "tiny2-f32"] {
        let dir = checkpoint(name);
        let target = dir.path().join("model.palm");
        convert(dir.path(), &target, &options("f32"), &()).unwrap();
        let palm = PalmFile::open(&target).unwrap();
        assert!(palm.verify(|_| ()).is_empty());
        let config = Config::from_metadata(palm.metadata()).unwrap();
        assert_eq!(config, read_config(dir.path()).unwrap());
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let from = SafeTensors::deserialize(&bytes).unwrap();
        let v = |n: &str| tensor(&from, &format!("vision_tower.vision_model.{n}"));
        let t = |n: &str| tensor(&from, &format!("language_model.model.{n}"));
        let one_plus = |n: &str| t(n).iter().map(|w| 1.0 + w).collect::<Vec<f32>>();

        assert_eq!(matrix(&palm, "vision.patch_embed.weight").1, v("embeddings.patch_embedding.weight"));
        assert_eq!(plain(&palm, "vision.patch_embed.bias"), v("embeddings.patch_embedding.bias"));
        assert_eq!(plain(&palm, "vision.position"), v("embeddings.position_embedding.weight"));
        for i in 0..config.vision.layers {
            let (at, of) = (format!("vision.layer.{i}"), format!("encoder.layers.{i}"));
            for (a, b) in [
                ("norm1", "layer_norm1"),
                ("norm2", "layer_norm2"),
                ("attn.out", "self_attn.out_proj"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ] {
                assert_eq!(plain(&palm, &format!("{at}.{a}.bias")), v(&format!("{of}.{b}.bias")));
                let weight = format!("{at}.{a}.weight");
                let got =
                    if a.starts_with("norm") { plain(&palm, &weight) } else { matrix(&palm, &weight).1 };
                assert_eq!(got, v(&format!("{of}.{b}.weight")), "{weight}");
            }
            let qkv =
                |kind: &str| ["q", "k", "v"].map(|x| v(&format!("{of}.self_attn.{x}_proj.{kind}"))).concat();
            assert_eq!(matrix(&palm, &format!("{at}.attn.qkv.weight")).1, qkv("weight"));
            assert_eq!(plain(&palm, &format!("{at}.attn.qkv.bias")), qkv("bias"));
        }
        assert_eq!(plain(&palm, "vision.norm.weight"), v("post_layernorm.weight"));
        assert_eq!(plain(&palm, "vision.norm.bias"), v("post_layernorm.bias"));
        assert_eq!(matrix(&palm, "projector.weight").1, tensor(&from, "multi_modal_projector.linear.weight"));
        assert_eq!(plain(&palm, "projector.bias"), tensor(&from, "multi_modal_projector.linear.bias"));
        for i in 0..config.text.layers {
            let (at, of) = (format!("text.layer.{i}"), format!("layers.{i}"));
            let norms: &[_] = match config.text.generation {
                Generation::Gemma1 => {
                    &[("attn.pre_norm", "input_layernorm"), ("mlp.pre_norm", "post_attention_layernorm")]
                }
                Generation::Gemma2 => &[
                    ("attn.pre_norm", "input_layernorm"),
                    ("attn.post_norm", "post_attention_layernorm"),
                    ("mlp.pre_norm", "pre_feedforward_layernorm"),
                    ("mlp.post_norm", "post_feedforward_layernorm"),
                ],
            };
            for (a, b) in norms {
                assert_eq!(plain(&palm, &format!("{at}.{a}")), one_plus(&format!("{of}.{b}.weight")));
            }
            let qkv = ["q", "k", "v"].map(|x| t(&format!("{of}.self_attn.{x}_proj.weight"))).concat();
            assert_eq!(matrix(&palm, &format!("{at}.attn.qkv.weight")).1, qkv);
            assert_eq!(
                matrix(&palm, &format!("{at}.attn.out.weight")).1,
                t(&format!("{of}.self_attn.o_proj.weight"))
            );
            assert_eq!(
                matrix(&palm, &format!("{at}.mlp.down.weight")).1,
                t(&format!("{of}.mlp.down_proj.weight"))
            );
            let (gate, up) =
                (t(&format!("{of}.mlp.gate_proj.weight")), t(&format!("{of}.mlp.up_proj.weight")));
            let (cols, both) = matrix(&palm, &format!("{at}.mlp.gate_up.weight"));
            let rows: Vec<&[f32]> = both.chunks(cols).collect();
            for r in 0..gate_up_padded(config.text.intermediate) {
                let row = r / 16 * 32 + r % 16;
                let is_there = r < config.text.intermediate;
                let want = |w: &[f32]| {
                    if is_there { w[r * cols..(r + 1) * cols].to_vec() } else { vec![0.0; cols] }
                };
                assert_eq!(rows[row], want(&gate), "gate row {r}");
                assert_eq!(rows[row + 16], want(&up), "up row {r}");
            }
        }
        assert_eq!(plain(&palm, "text.norm"), one_plus("norm.weight"));
        assert_eq!(matrix(&palm, "text.embed").1, t("embed_tokens.weight"));
    }
}

#[test]
fn every_checkpoint_converts_to_every_format() {
    for name in CHECKPOINTS {
        let dir = checkpoint(name);
        for recipe in ["f32", "f16", "int8", "int4", "int4,vision=int4,head=int4,projector=f16"] {
            let target = dir.path().join("model.palm");
            let options = options(recipe);
            let report = convert(dir.path(), &target, &options, &()).unwrap();
            let palm = PalmFile::open(&target).unwrap();
            assert!(palm.verify(|_| ()).is_empty(), "{name} {recipe}");
            assert_eq!(report.bytes, palm.bytes());
            let config = Config::from_metadata(palm.metadata()).unwrap();
            for spec in config.tensors() {
                let t = palm.tensor(&spec.name).unwrap();
                assert_eq!(t.shape, spec.shape);
                let format = spec.matrix().map(|part| options.recipe.format(part));
                assert_eq!(t.storage, format.map_or(Storage::F32, Storage::Packed), "{name} {recipe}");
                let error = report.tensors.iter().find(|r| r.name == spec.name).unwrap().relative_error;
                let bound = match t.storage {
                    Storage::Packed(f) => match f.name() {
                        "int4" => 0.12,
                        "int8" => 0.01,
                        "f16" => 0.001,
                        _ => 0.0,
                    },
                    _ => 0.0,
                };
                assert!(error.unwrap_or(0.0) <= bound, "{name} {recipe} {}: {error:?}", spec.name);
            }
            let _ = report.to_string();
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_shards() {
    for recipe in ["int8", "int4"] {
        let mut files = Vec::new();
        for (name, threads) in [("tiny1", 1), ("tiny1", 2), ("tiny1", 5), ("tiny1-sharded", 2)] {
            let dir = checkpoint(name);
            let target = dir.path().join("model.palm");
            let options = palmtop_convert::Options { threads: Some(threads), ..options(recipe) };
            convert(dir.path(), &target, &options, &()).unwrap();
            files.push(std::fs::read(target).unwrap());
        }
        assert!(files.iter().all(|f| *f == files[0]), "{recipe}");
    }
}

#[test]
fn random_weights_become_a_file_of_any_architecture() {
    for name in ["tiny", "tiny2"] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model.palm");
        let source = synthetic::Synthetic::new(synthetic::preset(name).unwrap(), 1);
        let config = source.config().clone();
        convert_source(&source, &config, Vec::new(), &target, &options("int4"), &()).unwrap();
        let palm = PalmFile::open(&target).unwrap();
        assert!(palm.verify(|_| ()).is_empty());
        assert_eq!(Config::from_metadata(palm.metadata()).unwrap(), config);
    }
}

/// The spellings of `names.rs`, on whole checkpoints; transformers 5.23 writes the third and the fourth.
#[test]
fn newer_names_and_files_give_the_same_model() {
    fn without_model(n: &str) -> String {
        n.replace("language_model.model.", "language_model.")
    }
    fn in_model(n: &str) -> String {
        format!("model.{}", without_model(n))
    }
    fn scratch_saved(n: &str) -> String {
        n.replace("vision_tower.vision_model.", "vision_tower.")
    }
    fn newest(n: &str) -> String {
        scratch_saved(&in_model(n))
    }
    for name in ["tiny1", "tiny2"] {
        let dir = checkpoint(name);
        let target = dir.path().join("model.palm");
        let read = || {
            convert(dir.path(), &target, &options("int8"), &()).unwrap();
            std::fs::read(&target).unwrap()
        };
        let classic = read();
        let path = dir.path().join("model.safetensors");
        let original = std::fs::read(&path).unwrap();
        for rename in [without_model, in_model, scratch_saved, newest] {
            std::fs::write(&path, &original).unwrap();
            Tensors::load(&path).renamed(rename).save(&path);
            assert!(read() == classic, "{name}");
        }
        // transformers 5 spells out what was a default, and moves the image processor into another file.
        let config = dir.path().join("config.json");
        set_json(&config, "image_token_id", json!(2161));
        set_json(&config, "image_token_index", json!(null));
        set_json(&config, "text_config.rope_parameters", json!({"rope_theta": 1e4, "rope_type": "default"}));
        set_json(&config, "text_config.attention_bias", json!(false));
        set_json(&config, "text_config.use_bidirectional_attention", json!(true));
        set_json(&config, "vision_config.hidden_act", json!("gelu_pytorch_tanh"));
        set_json(&config, "text_config.eos_token_id", json!([1, 107]));
        if name == "tiny2" {
            let types = ["sliding_attention", "full_attention"].repeat(2);
            set_json(&config, "text_config.layer_types", json!(types));
            set_json(&config, "vocab_size", json!(257152)); // transformers' default; nobody reads it
        }
        let old = dir.path().join("preprocessor_config.json");
        let processor: serde_json::Value = serde_json::from_slice(&std::fs::read(&old).unwrap()).unwrap();
        std::fs::remove_file(old).unwrap();
        let new = dir.path().join("processor_config.json");
        std::fs::write(new, json!({"image_processor": processor}).to_string()).unwrap();
        assert!(read() == classic, "{name}");
    }
}

#[test]
fn answers_end_where_generation_config_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "paligemma",
        "text_config": {"model_type": "gemma2", "vocab_size": 257_216, "eos_token_id": [1, 107]},
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(read_config(dir.path()).unwrap().tokens.eos, [1, 107]);
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [1, 106]}"#).unwrap();
    assert_eq!(read_config(dir.path()).unwrap().tokens.eos, [1, 106]);
}

#[test]
fn reports_say_all_in_json_and_a_summary_in_text() {
    let dir = checkpoint("tiny1");
    let target = dir.path().join("model.palm");
    let report = convert(dir.path(), &target, &options("int4"), &()).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["recipe"], "patch=f16,vision=int8,projector=int8,text=int4,head=int8");
    let tensors = json["tensors"].as_array().unwrap();
    let find = |name: &str| tensors.iter().find(|t| t["name"] == name).unwrap();
    let down = find("text.layer.3.mlp.down.weight");
    assert_eq!(
        (&down["storage"], &down["part"], &down["shape"]),
        (&json!("int4 packed"), &json!("text"), &json!([96, 200]))
    );
    assert!((0.05..0.1).contains(&down["relative_error"].as_f64().unwrap()));
    assert!(find("text.norm")["relative_error"].is_null());
    let text = report.to_string();
    for part in ["text       int4 packed", "head       int8 packed", "bits a weight", "relative error"] {
        assert!(text.contains(part), "{text}");
    }
}
