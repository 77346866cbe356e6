//! Checkpoints as people have them: saved by other tools, wrapped, renamed, incomplete. What is clear is converted to
//! the same bytes as the plain one; what is not is named.

mod common;

use std::path::Path;

use common::{Tensors, change_tensors, checkpoint, options, set_json, try_convert};
use palmtop_convert::{ConvertError, Extra, Formats, Options, Report, convert};
use safetensors::Dtype;
use serde_json::json;

const EMBED: &str = "language_model.model.embed_tokens.weight";
const HEAD: &str = "language_model.lm_head.weight";
const PATCH: &str = "vision_tower.vision_model.embeddings.patch_embedding.weight";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The report and the bytes of a converted folder.
fn converted(dir: &Path, options: &Options) -> Result<(Report, Vec<u8>), ConvertError> {
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("model.palm");
    let report = convert(dir, &target, options, &())?;
    Ok((report, std::fs::read(target).unwrap()))
}

fn plain(name: &str) -> Vec<u8> {
    converted(checkpoint(name).path(), &options("int8")).unwrap().1
}

/// Converts a changed checkpoint, which must give the bytes of the plain one; its notes.
fn same(name: &str, change: impl FnOnce(&Path)) -> Vec<String> {
    let dir = checkpoint(name);
    change(dir.path());
    let (report, bytes) = converted(dir.path(), &options("int8")).unwrap_or_else(|e| panic!("{e}"));
    assert!(bytes == plain(name), "other bytes; notes: {:?}", report.notes);
    report.notes
}

fn refused(name: &str, change: impl FnOnce(&Path)) -> String {
    let (dir, out) = (checkpoint(name), tempfile::tempdir().unwrap());
    change(dir.path());
    let error = try_convert(dir.path(), out.path()).expect_err("this must be refused").to_string();
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "{error}: leaves something behind");
    error
}

fn rename(dir: &Path, rename: impl Fn(&str) -> String) {
    let path = dir.join(SINGLE);
    Tensors::load(&path).renamed(rename).save(&path);
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// The names of transformers from 4.52 on.
fn new_names(name: &str) -> String {
    match name.strip_prefix("language_model.model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{name}"),
    }
}

#[test]
fn a_prefix_of_all_names_is_taken_off() {
    for prefix in [
        "module.",
        "_orig_mod.",
        "model._orig_mod.",
        "vlm.",
        "base_model.model.",
        "model.paligemma_with_expert.paligemma.",
    ] {
        let notes = same("tiny1", |dir| rename(dir, |n| format!("{prefix}{n}")));
        let is_noted = notes.iter().any(|n| n.starts_with("the tensors' names begin with '"));
        assert_eq!(is_noted, !prefix.contains("_orig_mod"), "{prefix}: {notes:?}");
        same("tiny2", |dir| rename(dir, |n| format!("{prefix}{}", new_names(n))));
    }
    let notes = same("tiny1", |dir| rename(dir, |n| n.replace(".layers.", "._orig_mod.layers.")));
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn tensors_of_another_model_need_to_be_ignored() {
    let dir = checkpoint("tiny1");
    let expert: Vec<String> = (0..7).map(|i| format!("policy.expert.layers.{i}.weight")).collect();
    change_tensors(dir.path(), |t| {
        let tensor = t.0[EMBED].clone();
        t.0 =
            std::mem::take(&mut t.0).into_iter().map(|(n, t)| (format!("policy.paligemma.{n}"), t)).collect();
        t.0.extend(expert.iter().map(|name| (name.clone(), tensor.clone())));
    });
    let error = converted(dir.path(), &options("int8")).unwrap_err().to_string();
    assert_says(&error, &["unknown (7): 'policy.expert.layers.0.weight'", "and 2 more", "--ignore-extra"]);
    let ignoring = Options { extra: Extra::Ignore, ..options("int8") };
    let (report, bytes) = converted(dir.path(), &ignoring).unwrap();
    assert!(bytes == plain("tiny1"));
    assert_says(
        &report.notes.join("\n"),
        &["7 tensors were ignored: 'policy.expert.layers.0.weight'", "and 2 more"],
    );
}

#[test]
fn either_of_the_tied_pair_is_enough() {
    let only_head = |name: &'static str| {
        move |dir: &Path| {
            change_tensors(dir, |t| {
                let embed = t.0.remove(EMBED).unwrap();
                t.0.insert(name.into(), embed);
            });
        }
    };
    let notes = same("tiny1", only_head(HEAD));
    assert_says(&notes[0], &["there is no token embedding; 'language_model.lm_head.weight'"]);
    same("tiny2", only_head(HEAD));
    same("tiny1", |dir| {
        only_head("lm_head.weight")(dir);
        rename(dir, |n| if n == "lm_head.weight" { n.to_owned() } else { new_names(n) });
    });
    let both = |dir: &Path| change_tensors(dir, |t| drop(t.0.insert(HEAD.into(), t.0[EMBED].clone())));
    assert!(same("tiny1", both).is_empty());
    // Also if the configuration says that they differ.
    same("tiny1", |dir| {
        both(dir);
        set_json(&dir.join("config.json"), "tie_word_embeddings", json!(false));
    });
    let error =
        refused("tiny1", |dir| set_json(&dir.join("config.json"), "tie_word_embeddings", json!(false)));
    assert_says(&error, &["'tie_word_embeddings' is false, but the checkpoint has no 'lm_head.weight'"]);
    let error = refused("tiny1", |dir| {
        change_tensors(dir, |t| {
            let mut head = t.0[EMBED].clone();
            head.1[0] -= 1;
            head.2.truncate(head.1[0] * head.1[1] * 2);
            t.0.insert(HEAD.into(), head);
        });
    });
    assert_says(
        &error,
        &["misshapen (1): 'language_model.lm_head.weight' is [2175, 96] and should be [2176, 96]"],
    );
}

#[test]
fn a_head_of_its_own_becomes_a_second_matrix() {
    let dir = checkpoint("tiny1");
    change_tensors(dir.path(), |t| {
        let mut head = t.0[EMBED].clone();
        head.2[2 * 99_999] ^= 1;
        t.0.insert(HEAD.into(), head);
    });
    let formats = Formats::default().apply("int8,text.head=f16").unwrap();
    let options = Options { exceptions: formats.exceptions, ..options("int8") };
    let (report, _) = converted(dir.path(), &options).unwrap();
    assert_says(&report.notes.join("\n"), &["the LM head differs from the token embedding"]);
    let storage = |name: &str| report.tensors.iter().find(|t| t.name == name).unwrap().storage;
    assert_eq!((storage("text.embed"), storage("text.head")), ("int8 packed", "f16 packed"));
    let error = converted(checkpoint("tiny1").path(), &options).unwrap_err().to_string();
    assert_says(&error, &["this model has no matrix 'text.head'"]);
}

#[test]
fn files_under_other_names_are_found() {
    for (name, says) in [
        ("model.fp16.safetensors", "the folder has no model.safetensors; model.fp16.safetensors was read"),
        ("weights.safetensors", "weights.safetensors was read"),
    ] {
        let notes = same("tiny1", |dir| std::fs::rename(dir.join(SINGLE), dir.join(name)).unwrap());
        assert_says(&notes[0], &[says]);
    }
    let notes = same("tiny1-sharded", |dir| std::fs::remove_file(dir.join(INDEX)).unwrap());
    assert_says(&notes[0], &["the folder has no model.safetensors.index.json; its 6 shards were read"]);
    let notes = same("tiny1-sharded", |dir| {
        std::fs::rename(dir.join(INDEX), dir.join("model.safetensors.index.fp16.json")).unwrap();
    });
    assert_says(&notes[0], &["model.safetensors.index.fp16.json was read"]);
    let error = refused("tiny1-sharded", |dir| {
        std::fs::remove_file(dir.join(INDEX)).unwrap();
        std::fs::remove_file(dir.join("model-00003-of-00006.safetensors")).unwrap();
    });
    assert_says(&error, &["files of this checkpoint are missing: model-00003-of-00006.safetensors"]);
    let error = refused("tiny1", |dir| {
        std::fs::copy(dir.join(SINGLE), dir.join("a.safetensors")).unwrap();
        std::fs::rename(dir.join(SINGLE), dir.join("b.safetensors")).unwrap();
    });
    assert_says(&error, &["several weight files and no index: a.safetensors, b.safetensors"]);
}

#[test]
fn an_index_may_be_stale() {
    let change_index = |dir: &Path, change: &dyn Fn(&mut serde_json::Value)| {
        let text = std::fs::read(dir.join(INDEX)).unwrap();
        let mut index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        change(&mut index["weight_map"]);
        std::fs::write(dir.join(INDEX), index.to_string()).unwrap();
    };
    let notes = same("tiny1-sharded", |dir| {
        change_index(dir, &|map| {
            let map = map.as_object_mut().unwrap();
            let last = map.values().map(|file| file.as_str().unwrap().to_owned()).max().unwrap();
            let (_, file) = map.iter_mut().find(|(name, _)| name.ends_with("embed_tokens.weight")).unwrap();
            assert_ne!(*file, last);
            *file = json!(last);
        });
    });
    assert_says(
        &notes[0],
        &["names the wrong file for '", "embed_tokens.weight'; each was found in another"],
    );
    // Of a tied pair one is saved, and the index may know both.
    same("tiny1-sharded", |dir| {
        change_index(dir, &|map| map[HEAD] = json!("model-00006-of-00006.safetensors"));
    });
}

#[test]
fn kernels_with_channels_last_are_read_by_their_shape() {
    same("tiny1", |dir| {
        change_tensors(dir, |t| {
            let (_, shape, bytes) = t.0.get_mut(PATCH).unwrap();
            let &[outputs, channels, height, width] = &shape[..] else { panic!("{shape:?}") };
            let mut last = Vec::with_capacity(bytes.len());
            for o in 0..outputs {
                for at in 0..height * width {
                    for c in 0..channels {
                        let from = 2 * ((o * channels + c) * height * width + at);
                        last.extend_from_slice(&bytes[from..from + 2]);
                    }
                }
            }
            (*shape, *bytes) = (vec![outputs, height, width, channels], last);
        });
    });
}

#[test]
fn the_image_encoders_pooling_head_is_left_out() {
    let notes = same("tiny1", |dir| {
        change_tensors(dir, |t| {
            let probe = (Dtype::BF16, vec![1, 1, 72], vec![0; 144]);
            t.0.insert("vision_tower.vision_model.head.probe".into(), probe);
        });
    });
    assert_says(&notes[0], &["pooling head, which PaliGemma never reads"]);
}

#[test]
fn the_hub_cache_is_followed() {
    let dir = checkpoint("tiny1");
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--google--paligemma-3b-mix-224");
    let snapshot = repository.join("snapshots/d1d8734c9c3ad0cc");
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(repository.join("refs/main"), "d1d8734c9c3ad0cc").unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    let (report, _) = converted(&repository, &Options { name: None, ..options("int8") }).unwrap();
    assert_eq!(report.source, "google/paligemma-3b-mix-224");
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_errors() {
    for name in [
        SINGLE,
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "added_tokens.json",
    ] {
        let error = refused("tiny1", |dir| {
            let _ = std::fs::remove_file(dir.join(name));
            std::os::unix::fs::symlink("../../blobs/00", dir.join(name)).unwrap();
        });
        assert_says(&error, &[name, "is a link to ../../blobs/00, which is not there"]);
    }
}

#[test]
fn files_that_stand_in_for_others_are_named() {
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 5846714368\n", 0);
    for name in [SINGLE, "config.json", "tokenizer.json", "preprocessor_config.json"] {
        for (text, says) in [
            (&*pointer, "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
            ("<!DOCTYPE html><html>", "is a web page"),
            ("", "is an empty file"),
        ] {
            let error = refused("tiny1", |dir| std::fs::write(dir.join(name), text).unwrap());
            assert_says(&error, &[name, says]);
        }
    }
    let error = refused("tiny1", |dir| {
        std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
        std::fs::write(dir.join("tokenizer.model"), &pointer).unwrap();
    });
    assert_says(&error, &["tokenizer.model", "Git LFS pointer"]);
}

#[test]
fn checkpoints_of_other_programs_are_named() {
    for (files, says) in [
        (&["pytorch_model.bin"][..], "PyTorch's pickle format"),
        (&["consolidated.00.pth"], "PyTorch's pickle format"),
        (&["paligemma-3b-mix-224-text-model-q4_k_m.gguf"], "GGUF"),
        (&["model.onnx"], "ONNX"),
        (&["model.weights.h5"], "Keras"),
        (&["_METADATA"], "Orbax"),
        (&["flax_model.msgpack"], "TensorFlow or Flax"),
        (&["model.tflite"], "LiteRT"),
        (&["zero_to_fp32.py", "mp_rank_00_model_states.pt"], "DeepSpeed"),
        (&["notes.txt"], "has neither model.safetensors nor model.safetensors.index.json"),
    ] {
        let error = refused("tiny1", |dir| {
            std::fs::remove_file(dir.join(SINGLE)).unwrap();
            files.iter().for_each(|file| std::fs::write(dir.join(file), "x").unwrap());
        });
        assert_says(&error, &[says]);
    }
    let error = refused("tiny1", |dir| {
        std::fs::remove_file(dir.join(SINGLE)).unwrap();
        for step in [500, 1000, 90] {
            std::fs::create_dir(dir.join(format!("checkpoint-{step}"))).unwrap();
        }
    });
    assert_says(
        &error,
        &["checkpoint-90, checkpoint-500, checkpoint-1000: name one of them, such as checkpoint-1000"],
    );
    let out = tempfile::tempdir().unwrap();
    for (name, says) in [("a.gguf", "GGUF"), ("b.bin", "pickle"), ("c.onnx", "ONNX"), ("d.txt", "is a file")]
    {
        let path = out.path().join(name);
        std::fs::write(&path, "x").unwrap();
        assert_says(&try_convert(&path, out.path()).unwrap_err().to_string(), &[says]);
    }
}

/// Puts other tensors in the place of the decoder's matrices.
fn quantized(dir: &Path, tensors: impl Fn(&str) -> Vec<(String, (Dtype, Vec<usize>, Vec<u8>))>) {
    change_tensors(dir, |t| {
        let names: Vec<String> =
            t.0.keys()
                .filter(|n| n.starts_with("language") && n.ends_with("_proj.weight"))
                .cloned()
                .collect();
        for name in names {
            t.0.remove(&name);
            t.0.extend(tensors(&name));
        }
    });
}

#[test]
fn quantized_weights_are_named() {
    let one = |name: String, dtype| (name, (dtype, vec![4], vec![0; 4 * dtype_bytes(dtype)]));
    let parts = |name: &str, endings: &[(&str, Dtype)]| {
        let base = name.strip_suffix("weight").unwrap();
        endings.iter().map(|(end, dtype)| one(format!("{base}{end}"), *dtype)).collect()
    };
    for (endings, says) in [
        (&[("qweight", Dtype::I32), ("g_idx", Dtype::I32)][..], "quantized by GPTQ"),
        (&[("qweight", Dtype::I32), ("qzeros", Dtype::I32)], "quantized by AWQ or GPTQ"),
        (&[("weight", Dtype::F8_E4M3)], "quantized by FP8"),
        (&[("weight_packed", Dtype::I32)], "quantized by compressed-tensors"),
        (&[("weight", Dtype::U32), ("scales", Dtype::F16)], "quantized by MLX"),
    ] {
        let error = refused("tiny1", |dir| quantized(dir, |name| parts(name, endings)));
        assert_says(&error, &[says, "convert the checkpoint that it was made from"]);
    }
    let error = refused("tiny1", |dir| {
        change_tensors(dir, |t| {
            t.0.values_mut().for_each(|(_, shape, bytes)| (*shape, *bytes) = (vec![0], vec![]))
        });
    });
    assert_says(&error, &["ZeRO-3"]);
    // Half of a model for retrieval.
    let error = refused("tiny1", |dir| {
        change_tensors(dir, |t| {
            t.0.insert("custom_text_proj.weight".into(), (Dtype::BF16, vec![7, 95], vec![0; 2 * 7 * 95]));
        });
    });
    let misshapen = "'custom_text_proj.weight' is [7, 95] and should be [7, 96]";
    assert_says(&error, &[misshapen, "missing (1): 'custom_text_proj.bias'"]);
}

fn dtype_bytes(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

#[test]
fn the_image_token_needs_no_row() {
    let dir = checkpoint("tiny1");
    let config = dir.path().join("config.json");
    let text = std::fs::read(&config).unwrap();
    let image =
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["image_token_index"].as_u64().unwrap();
    let rows = |n: u64| {
        set_json(&config, "text_config.vocab_size", json!(n));
        change_tensors(dir.path(), |t| {
            let embed = t.0.get_mut(EMBED).unwrap();
            embed.1[0] = n as usize;
            embed.2.truncate(2 * n as usize * embed.1[1]);
        });
        converted(dir.path(), &options("int8"))
    };
    rows(image).unwrap();
    let error = rows(image - 1).unwrap_err().to_string();
    assert_says(&error, &["pieces and the embedding", "resize_token_embeddings"]);
    let other = checkpoint("tiny1");
    set_json(&other.path().join("config.json"), "image_token_index", json!(5));
    let error = converted(other.path(), &options("int8")).unwrap_err().to_string();
    assert_says(
        &error,
        &[&format!("'<image>' has the id {image}, and config.json's image_token_index is 5")],
    );
}

#[test]
fn sentencepiece_models_have_many_names() {
    for name in ["paligemma_tokenizer.model", "vocabulary.spm"] {
        let dir = checkpoint("tiny1");
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let usual = converted(dir.path(), &options("int8")).unwrap().1;
        std::fs::rename(dir.path().join("tokenizer.model"), dir.path().join(name)).unwrap();
        assert!(converted(dir.path(), &options("int8")).unwrap().1 == usual, "{name}");
    }
    let error = refused("tiny1", |dir| {
        std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
        std::fs::copy(dir.join("tokenizer.model"), dir.join("a.model")).unwrap();
        std::fs::rename(dir.join("tokenizer.model"), dir.join("b.model")).unwrap();
    });
    assert_says(&error, &["has neither tokenizer.json nor tokenizer.model"]);
}
