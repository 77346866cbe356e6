//! Configurations mean what transformers makes of them; `tests/data/configs/write_configs.py` has asked it.

mod common;

use common::{checkpoint, data, set_json, try_convert};
use palmtop::image::Filter;
use palmtop::model::config::{Config, Generation};
use palmtop_convert::read_config;
use serde_json::{Value, json};

fn vectors() -> Value {
    let text = std::fs::read(data("configs/configs.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The fields under the names of the vectors.
fn fields(config: &Config) -> Value {
    let (v, t) = (&config.vision, &config.text);
    json!({
        "image": config.tokens.image,
        "eos": config.tokens.eos,
        "pad": config.tokens.pad,
        "vision": {
            "hidden": v.hidden, "intermediate": v.intermediate, "layers": v.layers, "heads": v.heads,
            "image_size": v.image_size, "patch_size": v.patch_size, "norm_eps": v.norm_eps,
        },
        "text": {
            "generation": if t.generation == Generation::Gemma1 { 1 } else { 2 }, "hidden": t.hidden,
            "intermediate": t.intermediate, "layers": t.layers, "heads": t.heads, "kv_heads": t.kv_heads,
            "head_dim": t.head_dim, "vocab": t.vocab, "norm_eps": t.norm_eps, "rope_theta": t.rope_theta,
            "query_scalar": t.query_scalar, "attention_softcap": t.attention_softcap,
            "final_softcap": t.final_softcap, "windows": t.windows,
        },
    })
}

/// Equal, with numbers by their values: JSON tells 256 from 256.0.
fn assert_same(got: &Value, want: &Value, place: &str) {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            for (key, got) in got {
                assert_same(got, &want[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(got), Value::Array(want)) => {
            assert_eq!(got.len(), want.len(), "{place}");
            got.iter().zip(want).for_each(|(got, want)| assert_same(got, want, place));
        }
        _ => match (got.as_f64(), want.as_f64()) {
            (Some(got), Some(want)) => assert_eq!(got, want, "{place}"),
            _ => assert_eq!(got, want, "{place}"),
        },
    }
}

#[test]
fn absent_fields_have_the_defaults_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = vectors();
    let cases = vectors["configs"].as_array().unwrap();
    assert!(cases.len() >= 12);
    for (i, case) in cases.iter().enumerate() {
        std::fs::write(dir.path().join("config.json"), case["written"].to_string()).unwrap();
        let config = read_config(dir.path()).unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_same(&fields(&config), &case["resolved"], &format!("configs[{i}]"));
    }
}

#[test]
fn image_processors_have_the_defaults_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "paligemma"}"#).unwrap();
    for case in vectors()["processors"].as_array().unwrap() {
        std::fs::write(dir.path().join("preprocessor_config.json"), case["written"].to_string()).unwrap();
        let image = read_config(dir.path()).unwrap().image;
        let resample = match image.filter {
            Filter::Bicubic => 3,
            Filter::Bilinear => 2,
            Filter::BilinearAliased => unreachable!("transformers has no number for it"),
        };
        let got =
            json!({"mean": image.mean, "std": image.std, "rescale": image.rescale, "resample": resample});
        assert_same(&got, &case["resolved"], &case["written"].to_string());
    }
}

/// Reads tiny1's configuration with a key of one of its files changed.
fn changed(file: &str, key: &str, value: Value) -> Result<Config, String> {
    let dir = checkpoint("tiny1");
    set_json(&dir.path().join(file), key, value);
    read_config(dir.path()).map_err(|e| e.to_string())
}

#[test]
fn spellings_that_transformers_takes_are_taken() {
    let plain = read_config(checkpoint("tiny1").path()).unwrap();
    let processor = "preprocessor_config.json";
    for (file, key, value) in [
        ("config.json", "text_config.hidden_size", json!(96.0)),
        ("config.json", "vision_config.image_size", json!([56.0, 56])),
        ("config.json", "pad_token_id", json!(-1)),
        ("config.json", "vision_config.vision_use_head", json!(true)),
        ("config.json", "text_config.rope_scaling", json!({"rope_type": "default"})),
        ("config.json", "quantization_config", json!({"quant_method": "bitsandbytes"})),
        (processor, "image_mean", json!(0.5)),
        (processor, "size", json!(56)),
        (processor, "size", json!({"height": 56.0, "width": 56})),
        (processor, "size", json!({"shortest_edge": 56})),
        (processor, "do_convert_rgb", json!(true)),
        (processor, "do_convert_rgb", json!(null)),
        (processor, "do_center_crop", json!(true)),
        (processor, "resample", json!(3.0)),
        ("generation_config.json", "repetition_penalty", json!(1.0)),
        ("generation_config.json", "suppress_tokens", json!([])),
        ("generation_config.json", "num_beams", json!(1)),
        ("generation_config.json", "use_cache", json!(true)),
    ] {
        assert_eq!(changed(file, key, value.clone()), Ok(plain.clone()), "{key} {value}");
    }
    // What has no form in JSON, a mark before it, and white space.
    let dir = checkpoint("tiny1");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.trim_start().strip_prefix('{').unwrap().to_owned();
    std::fs::write(&path, format!("\u{feff}{{\"max_length\": Infinity, {text}")).unwrap();
    assert_eq!(read_config(dir.path()).unwrap(), plain);
}

#[test]
fn steps_of_the_image_processor_are_taken_or_refused() {
    let processor = |key, value| changed("preprocessor_config.json", key, value);
    let image = |key, value| processor(key, value).unwrap().image;
    assert_eq!(image("resample", json!(2)).filter, Filter::Bilinear);
    assert_eq!(image("do_rescale", json!(false)).rescale, 1.0);
    let plain = image("do_normalize", json!(false));
    assert_eq!((plain.mean, plain.std), ([0.0; 3], [1.0; 3]));
    for (key, value, says) in [
        ("resample", json!(0), "'resample' is 0; palmtop resizes by 2, bilinear, or 3, bicubic"),
        ("resample", json!("bicubic"), "'resample' is \"bicubic\""),
        ("do_resize", json!(false), "'do_resize' is false"),
        ("do_pad", json!(true), "'do_pad' is true"),
        ("do_normalize", json!("yes"), "'do_normalize' is \"yes\", neither true nor false"),
        ("size", json!({"height": 56, "width": 57}), "'size' is {\"height\":56,\"width\":57}, and the image"),
        ("size", json!({"shortest_edge": 64}), "'size' is {\"shortest_edge\":64}"),
        ("size", json!({"shortest_edge": 56, "longest_edge": 96}), "'size' is"),
    ] {
        let error = processor(key, value).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let dir = checkpoint("tiny1");
    let path = dir.path().join("preprocessor_config.json");
    set_json(&path, "do_center_crop", json!(true));
    for (key, value, says) in [
        ("crop_size", json!({"height": 48, "width": 48}), "'crop_size' is"),
        ("size", json!({"shortest_edge": 56}), "'do_center_crop' is true"),
    ] {
        let before = std::fs::read(&path).unwrap();
        set_json(&path, key, value);
        let error = read_config(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        std::fs::write(&path, before).unwrap();
    }
}

#[test]
fn what_changes_answers_is_refused() {
    for (key, value) in [
        ("repetition_penalty", json!(1.2)),
        ("bad_words_ids", json!([[7]])),
        ("forced_eos_token_id", json!(1)),
        ("forced_bos_token_id", json!(2)),
        ("suppress_tokens", json!([3, 4])),
        ("no_repeat_ngram_size", json!(3)),
        ("num_beams", json!(4)),
        ("min_new_tokens", json!(5)),
        ("guidance_scale", json!(1.5)),
        ("sequence_bias", json!([[[3], -10.0]])),
    ] {
        let error = changed("generation_config.json", key, value.clone()).unwrap_err();
        let says = format!("generation_config.json: '{key}' is {value}: it changes answers");
        assert!(error.contains(&says), "{error}");
    }
    // Without that file, config.json has the last word, as in transformers.
    let dir = checkpoint("tiny1");
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    set_json(&dir.path().join("config.json"), "no_repeat_ngram_size", json!(2));
    let error = read_config(dir.path()).unwrap_err().to_string();
    assert!(error.contains("config.json: 'no_repeat_ngram_size' is 2"), "{error}");
}

#[test]
fn what_is_left_out_is_noted() {
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    set_json(&dir.path().join("generation_config.json"), "do_sample", json!(true));
    set_json(&dir.path().join("config.json"), "quantization_config", json!({"load_in_4bit": true}));
    let report = try_convert(dir.path(), out.path()).unwrap();
    for says in
        ["asks for samples", "config.json has a quantization_config, but the weights are not quantized"]
    {
        assert!(report.notes.iter().any(|n| n.contains(says)), "{:?}", report.notes);
        assert!(report.to_string().contains(says), "{report}");
    }
}

#[test]
fn a_filter_is_in_the_file() {
    let (dir, out) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let target = out.path().join("model.palm");
    let filter_of = |options: palmtop_convert::Options| {
        palmtop_convert::convert(dir.path(), &target, &options, &()).unwrap();
        palmtop::Model::open(&target).unwrap().config().image.filter
    };
    assert_eq!(filter_of(common::options("int8")), Filter::Bicubic);
    let aliased =
        palmtop_convert::Options { filter: Some(Filter::BilinearAliased), ..common::options("int8") };
    assert_eq!(filter_of(aliased), Filter::BilinearAliased);
    set_json(&dir.path().join("preprocessor_config.json"), "resample", json!(2));
    assert_eq!(filter_of(common::options("int8")), Filter::Bilinear);
}
