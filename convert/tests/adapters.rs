//! Adapters: where they are found, what their tensors may be called, and what is refused. What they do to weights is
//! held to peft in the tests of the whole system.

mod common;

use std::path::{Path, PathBuf};

use common::{Tensors, change_tensors, checkpoint, data, options, set_json};
use palmtop_convert::{Adapter, ConvertError, Options, Report, check_adapter, convert, read_config};
use safetensors::Dtype;
use serde_json::json;
use tempfile::TempDir;

const BASE: &str = "tiny1-f32";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const MODEL: &str = "model.safetensors";
const EMBED: &str = "language_model.model.embed_tokens.weight";
const Q_PROJ: &str = "base_model.model.model.language_model.layers.0.self_attn.q_proj";

/// A folder with a copy of an adapter of `tests/data/adapters`.
fn adapter(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in [CONFIG, WEIGHTS] {
        std::fs::copy(data("adapters").join(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn change_adapter(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join(WEIGHTS);
    let mut tensors = Tensors::load(&path);
    change(&mut tensors);
    tensors.save(&path);
}

fn with(adapters: &[Adapter]) -> Options {
    Options { adapters: adapters.to_vec(), ..options("int8") }
}

/// The report and the bytes of a converted checkpoint.
fn converted(dir: &Path, adapters: &[Adapter]) -> Result<(Report, Vec<u8>), ConvertError> {
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("model.palm");
    let report = convert(dir, &target, &with(adapters), &());
    if report.is_err() {
        assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "something is left behind");
    }
    Ok((report?, std::fs::read(target).unwrap()))
}

/// What the base gives with an adapter as peft saved it.
fn merged(name: &str) -> Vec<u8> {
    let base = checkpoint(BASE);
    converted(base.path(), &[Adapter::new(data("adapters").join(name))]).unwrap().1
}

#[track_caller]
fn assert_says(got: &str, parts: &[&str]) {
    for part in parts {
        assert!(got.contains(part), "{got:?} does not say {part:?}");
    }
}

fn copy_into(from: &Path, to: &Path) {
    for file in [CONFIG, WEIGHTS] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn an_adapter_beside_the_checkpoint_is_merged_once() {
    let base = checkpoint(BASE);
    let plain = converted(base.path(), &[]).unwrap().1;
    let lora = merged("lora");
    assert_ne!(plain, lora);
    copy_into(&data("adapters/lora"), base.path());
    let (report, beside) = converted(base.path(), &[]).unwrap();
    assert!(beside == lora);
    assert_says(
        &report.notes.join("\n"),
        &["in the checkpoint's folder was merged, as transformers applies it"],
    );
    assert_eq!(report.adapters[0].path, base.path());

    // Named once more, it is still one adapter, with the factor that was given.
    let half = Adapter { path: base.path().join("."), scale: 0.5 };
    let (report, named) = converted(base.path(), std::slice::from_ref(&half)).unwrap();
    assert_eq!((report.adapters.len(), report.adapters[0].scale), (1, 0.5));
    let other = checkpoint(BASE);
    let half = Adapter { path: data("adapters/lora"), ..half };
    assert!(named == converted(other.path(), &[half]).unwrap().1);

    // Another one comes behind it.
    let dora = Adapter::new(data("adapters/dora"));
    let both = converted(base.path(), std::slice::from_ref(&dora)).unwrap().1;
    let in_order = [Adapter::new(data("adapters/lora")), dora];
    assert!(both == converted(other.path(), &in_order).unwrap().1);
}

#[test]
fn names_of_all_dialects_mean_the_same() {
    let lora = merged("lora");
    let classic = |name: &str| {
        let name = name.replace("model.model.language_model.", "model.language_model.model.");
        name.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
    };
    let of_tower = |name: &str| name.replace("vision_tower.", "vision_tower.vision_model.");
    let wrapped = |name: &str| name.replace(".weight", ".default.weight");
    type Rename<'a> = &'a dyn Fn(&str) -> String;
    let renames: [Rename<'_>; 7] = [
        &classic,
        &of_tower,
        &wrapped,
        &|name| name.replace("base_model.model.", ""),
        &|name| name.replace("base_model.model.", "base_model.model.vlm.paligemma."),
        &|name| format!("module.{name}"),
        &|name| name.replace(".layers.", "._orig_mod.layers."),
    ];
    let base = checkpoint(BASE);
    for (at, rename) in renames.into_iter().enumerate() {
        let adapter = adapter("lora");
        change_adapter(adapter.path(), |t| {
            t.0 =
                std::mem::take(&mut t.0).into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        });
        let got =
            converted(base.path(), &[Adapter::new(adapter.path())]).unwrap_or_else(|e| panic!("{at}: {e}")).1;
        assert!(got == lora, "{at}");
    }
    // The base in the new dialect, and the adapter in the old one.
    let base = checkpoint(BASE);
    let path = base.path().join(MODEL);
    let new = |n: &str| format!("model.{}", n.replace("language_model.model.", "language_model."));
    Tensors::load(&path).renamed(new).save(&path);
    assert!(converted(base.path(), &[Adapter::new(data("adapters/lora"))]).unwrap().1 == lora);
}

/// The state dict of a model that peft has wrapped, as `Trainer` or `accelerate` save it: with `base_layer`, with the
/// adapter's name, and of a module that was saved as a whole with the base's beside.
fn wrapped(name: &str) -> TempDir {
    let base = checkpoint(BASE);
    let adapter = Tensors::load(&data("adapters").join(name).join(WEIGHTS));
    let linear = "multi_modal_projector.";
    let saves = adapter.0.keys().any(|n| n.contains(linear) && !n.contains("lora_"));
    let plain = |n: &str| n.replace("vision_model.", "").replace("language_model.model.", "language_model.");
    let adapted: Vec<String> =
        adapter.0.keys().filter_map(|n| n.strip_suffix(".lora_A.weight")).map(str::to_owned).collect();
    change_tensors(base.path(), |t| {
        let base = std::mem::take(&mut t.0).into_iter().map(|(n, tensor)| {
            let n = format!("base_model.model.model.{}", plain(&n));
            let (module, parameter) = n.rsplit_once('.').unwrap();
            let n = match () {
                () if adapted.iter().any(|m| m == module) => format!("{module}.base_layer.{parameter}"),
                () if saves => n.replace(linear, &format!("{linear}original_module.")),
                () => n,
            };
            (n, tensor)
        });
        t.0 = base.collect();
        t.0.extend(adapter.0.into_iter().map(|(n, tensor)| {
            let n = match n.contains("lora_") {
                true => n.replace(".weight", ".default.weight"),
                false => n.replace(linear, &format!("{linear}modules_to_save.default.")),
            };
            (n, tensor)
        }));
    });
    std::fs::copy(data("adapters").join(name).join(CONFIG), base.path().join(CONFIG)).unwrap();
    base
}

#[test]
fn a_state_dict_of_the_wrapped_model_is_the_base_with_its_adapter() {
    for name in ["lora", "saved_projector"] {
        let base = wrapped(name);
        let (report, got) = converted(base.path(), &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(got == merged(name), "{name}");
        assert_says(&report.notes.join("\n"), &["a model with an adapter in it"]);
    }
    let base = wrapped("lora");
    std::fs::remove_file(base.path().join(CONFIG)).unwrap();
    assert_says(
        &converted(base.path(), &[]).unwrap_err().to_string(),
        &["a model with an adapter in it", "without adapter_config.json", "copy adapter_config.json"],
    );
    let base = wrapped("lora");
    change_tensors(base.path(), |t| {
        let (name, tensor) =
            t.0.iter().find(|(n, _)| n.contains(".lora_A.")).map(|(n, t)| (n.clone(), t.clone())).unwrap();
        t.0.insert(name.replace(".default.", ".second."), tensor);
    });
    assert_says(
        &converted(base.path(), &[]).unwrap_err().to_string(),
        &["several adapters, 'default', 'second'"],
    );
}

/// An adapter that only saves whole tensors: names in PEFT's form, and what `modules_to_save` lists.
fn whole(tensors: &[(&str, &[u8])], saved: &[&str]) -> TempDir {
    let dir = adapter("saved_projector");
    set_json(&dir.path().join(CONFIG), "modules_to_save", json!(saved));
    change_adapter(dir.path(), |t| {
        t.0.retain(|name, _| name.contains("lora_"));
        for (name, bytes) in tensors {
            t.0.insert((*name).to_owned(), (Dtype::F32, vec![2176, 96], bytes.to_vec()));
        }
    });
    dir
}

/// Whether the embedding or the head, saved as a whole, change one matrix or two.
#[test]
fn whole_embeddings_and_heads_are_those_of_a_checkpoint_that_has_them() {
    const OF_EMBEDDING: &str = "base_model.model.model.language_model.embed_tokens.weight";
    const OF_HEAD: &str = "base_model.model.lm_head.weight";
    let mut other = Tensors::load(&data("checkpoints").join(BASE).join(MODEL)).0[EMBED].2.clone();
    let old = other.clone();
    other[..96 * 4].fill(0);
    other[4003] ^= 1;
    // As a checkpoint with these tensors, and the same LoRA.
    let expected = |embedding: &[u8], head: Option<&[u8]>| {
        let base = checkpoint(BASE);
        change_tensors(base.path(), |t| {
            t.0.get_mut(EMBED).unwrap().2 = embedding.to_vec();
            if let Some(head) = head {
                t.0.insert("lm_head.weight".into(), (Dtype::F32, vec![2176, 96], head.to_vec()));
            }
        });
        set_json(&base.path().join("config.json"), "tie_word_embeddings", json!(head.is_none()));
        converted(base.path(), &[Adapter::new(whole(&[], &[]).path())]).unwrap().1
    };
    let base_layer = OF_EMBEDDING.replace(".weight", ".base_layer.weight");
    for (tensors, saved, want) in [
        // Only the one that is listed is trained.
        (vec![(OF_HEAD, &other)], vec!["lm_head"], (&old, Some(&other))),
        (vec![(OF_EMBEDDING, &other)], vec!["embed_tokens"], (&other, Some(&old))),
        (vec![(OF_EMBEDDING, &other)], vec!["language_model.embed_tokens"], (&other, Some(&old))),
        (
            vec![(OF_EMBEDDING, &old), (OF_HEAD, &other)],
            vec!["embed_tokens", "lm_head"],
            (&old, Some(&other)),
        ),
        // Trained as one.
        (vec![(OF_EMBEDDING, &other), (OF_HEAD, &other)], vec!["embed_tokens", "lm_head"], (&other, None)),
        // Saved because it was resized, or because it is adapted: peft loads it into the one matrix.
        (vec![(OF_EMBEDDING, &other)], vec![], (&other, None)),
        (vec![(OF_EMBEDDING, &other), (OF_HEAD, &other)], vec![], (&other, None)),
        (vec![(OF_HEAD, &other)], vec![], (&other, None)),
        (vec![(base_layer.as_str(), &other)], vec![], (&other, None)),
    ] {
        let tensors: Vec<(&str, &[u8])> = tensors.iter().map(|(n, b)| (*n, &b[..])).collect();
        let names: Vec<&str> = tensors.iter().map(|(n, _)| *n).collect();
        let adapter = whole(&tensors, &saved);
        let (report, got) = converted(checkpoint(BASE).path(), &[Adapter::new(adapter.path())]).unwrap();
        let has_head = report.tensors.iter().any(|t| t.name == "text.head");
        assert_eq!(has_head, want.1.is_some(), "{names:?}, {saved:?}: {:?}", report.notes);
        assert!(got == expected(want.0, want.1.map(|h| &h[..])), "{names:?}, {saved:?}");
    }
    let two = whole(&[(OF_EMBEDDING, &old), (OF_HEAD, &other)], &[]);
    let error = converted(checkpoint(BASE).path(), &[Adapter::new(two.path())]).unwrap_err().to_string();
    assert_says(&error, &["a base layer for the embedding and another for the LM head"]);
}

/// The error for a changed copy of an adapter.
fn refusal(name: &str, change: impl FnOnce(&Path)) -> String {
    let adapter = adapter(name);
    change(adapter.path());
    let base = checkpoint(BASE);
    let result = converted(base.path(), &[Adapter::new(adapter.path())]).map(|_| ());
    result.expect_err("this must be refused").to_string()
}

/// The error for an adapter with other tensors.
fn of_tensors(name: &str, change: impl FnOnce(&mut Tensors)) -> String {
    refusal(name, |dir| change_adapter(dir, change))
}

/// Changes a value of a tensor in f32.
fn set(t: &mut Tensors, name: &str, index: usize, value: f32) {
    t.0.get_mut(name).unwrap().2[index * 4..][..4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn tensors_that_fit_nothing_are_listed() {
    let a = format!("{Q_PROJ}.lora_A.weight");
    let got = of_tensors("lora", |t| {
        let tensor = t.0[&a].clone();
        for i in 0..7 {
            t.0.insert(a.replace("layers.0", &format!("layers.{}", 40 + i)), tensor.clone());
        }
    });
    assert_says(
        &got,
        &["7 of its 35 tensors fit nothing in this model", ".layers.40.", "and 2 more", "'tiny1-f32'"],
    );
    let got = of_tensors("lora", |t| {
        t.0 =
            std::mem::take(&mut t.0).into_iter().map(|(n, x)| (n.replace("self_attn", "attn"), x)).collect();
    });
    assert_says(&got, &["none of its 28 tensors fits this model"]);
    let got = of_tensors("lora", |t| t.0.clear());
    assert_says(&got, &["no tensors that change this model"]);
    for name in ["lora_E", "lora_diag", "hada_w1_a", "vera_lambda_b", "custom"] {
        let got = of_tensors("lora", |t| {
            let tensor = t.0[&a].clone();
            t.0.insert(format!("{Q_PROJ}.{name}.weight"), tensor);
        });
        assert_says(&got, &["one of its 29 tensors fits nothing", name]);
    }
    // Biases that the decoder does not have.
    let got = of_tensors("lora", |t| {
        let bias = (Dtype::F32, vec![128], vec![0; 512]);
        t.0.insert(format!("{Q_PROJ}.lora_B.bias"), bias);
    });
    assert_says(&got, &["q_proj.lora_B.bias"]);
    let got = of_tensors("lora", |t| {
        let tensor = t.0[&a].clone();
        t.0.insert("base_model.model.custom_text_proj.lora_A.weight".into(), tensor);
    });
    assert_says(&got, &["ColPali"]);
    // Many made-up names are no more work than so many tensors are.
    let got = of_tensors("lora", |t| {
        let empty = (Dtype::F32, vec![0], Vec::new());
        t.0.extend((0..20_000).map(|i| (format!("{Q_PROJ}.{i}.{}", "x.".repeat(i % 50)), empty.clone())));
        t.0.insert("a.".repeat(1 << 18), empty);
    });
    assert_says(&got, &["20001 of its 20029 tensors", "and 19996 more"]);
}

#[test]
fn damaged_and_malformed_tensors_are_named() {
    let (a, b) = (format!("{Q_PROJ}.lora_A.weight"), format!("{Q_PROJ}.lora_B.weight"));
    assert_says(
        &of_tensors("lora", |t| drop(t.0.remove(&b))),
        &["q_proj.lora_A.weight", "not one of a pair", "lora_B"],
    );
    assert_says(
        &of_tensors("lora", |t| drop(t.0.remove(&a))),
        &["q_proj.lora_B.weight", "not one of a pair"],
    );
    let got = of_tensors("lora", |t| t.0.get_mut(&a).unwrap().1 = vec![96, 4]);
    assert_says(&got, &["lora_A.weight' is [96, 4] and should be [96, 96]"]);
    let got = of_tensors("lora", |t| t.0.get_mut(&b).unwrap().1 = vec![4, 128]);
    assert_says(&got, &["lora_B.weight' is [4, 128] and should be [128, 4]", "self_attn.q_proj.weight"]);
    for shape in [vec![0], vec![0, 96]] {
        let got = of_tensors("lora", |t| *t.0.get_mut(&a).unwrap() = (Dtype::F32, shape.clone(), Vec::new()));
        assert_says(&got, &["rank is 0", "ZeRO-3"]);
    }
    let got = of_tensors("lora", |t| {
        *t.0.get_mut(&a).unwrap() = (Dtype::F32, vec![2, 96], vec![0; 2 * 96 * 4]);
        *t.0.get_mut(&b).unwrap() = (Dtype::F32, vec![128, 2], vec![0; 128 * 2 * 4]);
    });
    assert_says(&got, &["has rank 2, and adapter_config.json says 4"]);
    for value in [f32::NAN, f32::INFINITY] {
        for name in [&a, &b] {
            let got = of_tensors("lora", |t| set(t, name, 7, value));
            assert_says(&got, &[name, "at index 7"]);
        }
    }
    let got = of_tensors("lora", |t| {
        set(t, &a, 9, 3e38);
        set(t, &b, 0, -3e38);
    });
    assert_says(&got, &["language_model.model.layers.0.self_attn.q_proj.weight", "overflow"]);
    let got = of_tensors("lora", |t| t.0.get_mut(&a).unwrap().0 = Dtype::I32);
    assert_says(&got, &["neither f32, f16 nor bf16", "q_proj.lora_A.weight' is I32"]);
    // The same module in both dialects.
    let got = of_tensors("lora", |t| {
        let tensor = t.0[&a].clone();
        t.0.insert(a.replace("model.model.language_model.", "model.language_model.model."), tensor);
    });
    assert_says(&got, &["has the same twice", &a]);
    let got = of_tensors("saved_projector", |t| {
        let name = "base_model.model.model.multi_modal_projector.linear.weight";
        let tensor = t.0[name].clone();
        t.0.insert(name.replace("linear.", "linear.base_layer."), tensor);
    });
    assert_says(&got, &["has the same twice"]);
    let got = refusal("lora", |dir| {
        let whole = std::fs::read(dir.join(WEIGHTS)).unwrap();
        std::fs::write(dir.join(WEIGHTS), &whole[..whole.len() / 2]).unwrap();
    });
    assert_says(&got, &[WEIGHTS]);
}

#[test]
fn a_configuration_that_does_not_fit_its_tensors_is_refused() {
    let of_config = |name: &str, key: &str, value: serde_json::Value| {
        refusal(name, |dir| set_json(&dir.join(CONFIG), key, value.clone()))
    };
    assert_says(
        &of_config("lora", "lora_alpha", json!(1e300)),
        &["the factor of 'model.language_model.layers", "1e6"],
    );
    assert_says(&of_config("lora", "lora_alpha", json!(1e8)), &["the factor of", "2.5e7"]);
    assert_says(&of_config("lora", "r", json!(0)), &["'r' is 0"]);
    assert_says(&of_config("lora", "r", json!(8)), &["has rank 4, and adapter_config.json says 8"]);
    assert_says(
        &of_config("lora", "use_dora", json!(true)),
        &["use_dora is set", "no lora_magnitude_vector"],
    );
    assert_says(
        &of_config("dora", "use_dora", json!(false)),
        &["lora_magnitude_vector", "does not set use_dora"],
    );
    assert_says(
        &of_config("lora", "peft_type", json!("VERA")),
        &["'peft_type' is 'VERA'", "merge_and_unload"],
    );
    assert_says(
        &of_config("tokens", "trainable_token_indices", json!([5, 2176, 7])),
        &["2176", "2176 tokens"],
    );
    assert_says(&of_config("tokens", "trainable_token_indices", json!([5, 5, 7])), &["names a token twice"]);
    assert_says(
        &of_config("tokens", "trainable_token_indices", json!([5])),
        &["is [3, 96] and should be [1, 96]"],
    );
    assert_says(
        &of_config("tokens", "trainable_token_indices", json!(null)),
        &["no trainable_token_indices for it"],
    );
    let zero = of_tensors("dora", |t| {
        // A row that the adapter makes zero has no direction.
        let at = "base_model.model.model.multi_modal_projector.linear.lora_";
        t.0.get_mut(&format!("{at}B.weight")).unwrap().2.fill(0);
        t.0.get_mut(&format!("{at}magnitude_vector")).unwrap().2[..4]
            .copy_from_slice(&f32::MAX.to_le_bytes());
    });
    assert_says(&zero, &["multi_modal_projector.linear.weight", "overflow"]);
}

#[test]
fn folders_that_are_no_adapters_say_what_they_are() {
    let base = checkpoint(BASE);
    let error = |path: &Path| converted(base.path(), &[Adapter::new(path)]).unwrap_err().to_string();
    let dir = tempfile::tempdir().unwrap();
    assert_says(&error(&dir.path().join("nothing")), &["nothing", "no such folder"]);
    assert_says(&error(dir.path()), &["has no adapter_config.json"]);
    std::fs::create_dir(dir.path().join("checkpoint-90")).unwrap();
    std::fs::create_dir(dir.path().join("checkpoint-500")).unwrap();
    for inside in ["checkpoint-90", "checkpoint-500"] {
        copy_into(&data("adapters/lora"), &dir.path().join(inside));
    }
    assert_says(&error(dir.path()), &["adapters inside", "checkpoint-500, ", "checkpoint-90"]);
    assert_says(&error(&data("adapters/lora").join(WEIGHTS)), &["is a file; name the adapter's folder"]);
    assert_says(&error(base.path()), &["is a checkpoint and no adapter"]);
    let got =
        refusal("lora", |dir| std::fs::rename(dir.join(WEIGHTS), dir.join("adapter_model.bin")).unwrap());
    assert_says(&got, &["adapter_model.bin is a pickle", "save_file"]);
    assert_says(
        &refusal("lora", |dir| std::fs::remove_file(dir.join(WEIGHTS)).unwrap()),
        &["no adapter_model.safetensors"],
    );
    let got = refusal("lora", |dir| {
        std::fs::remove_file(dir.join(CONFIG)).unwrap();
        std::fs::write(dir.join("adapters.safetensors"), "").unwrap();
    });
    assert_says(&got, &["an adapter of mlx"]);
    // An adapter's configuration without the adapter, beside a checkpoint.
    std::fs::copy(data("adapters/lora").join(CONFIG), base.path().join(CONFIG)).unwrap();
    let got = converted(base.path(), &[]).unwrap_err().to_string();
    assert_says(
        &got,
        &["has adapter_config.json and no adapter_model.safetensors", "remove adapter_config.json"],
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_no_absent_adapters() {
    for file in [CONFIG, WEIGHTS] {
        let base = checkpoint(BASE);
        copy_into(&data("adapters/lora"), base.path());
        std::fs::remove_file(base.path().join(file)).unwrap();
        std::os::unix::fs::symlink("../../blobs/0", base.path().join(file)).unwrap();
        assert_says(&converted(base.path(), &[]).unwrap_err().to_string(), &[file, "link"]);
    }
}

#[test]
fn a_folder_with_only_an_adapter_names_its_base() {
    let adapter = adapter("lora");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(data("tokenizer").join(file), adapter.path().join(file)).unwrap();
    }
    match converted(adapter.path(), &[]) {
        Err(ConvertError::OnlyAdapter { path, base }) => {
            assert_eq!((path, base.as_deref()), (adapter.path().to_owned(), Some(BASE)));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    // The reason comes before what is wrong with a model that is not there.
    set_json(&adapter.path().join(CONFIG), "peft_type", json!("IA3"));
    assert_says(&converted(adapter.path(), &[]).unwrap_err().to_string(), &["'peft_type' is 'IA3'"]);
}

#[test]
fn what_is_worth_knowing_is_noted() {
    let notes = |change: &dyn Fn(&Path)| {
        let (base, adapter) = (checkpoint(BASE), adapter("lora"));
        change(adapter.path());
        converted(base.path(), &[Adapter::new(adapter.path())]).unwrap().0.notes.join("\n")
    };
    let of_config = |key: &'static str, value: serde_json::Value| {
        notes(&move |dir: &Path| set_json(&dir.join(CONFIG), key, value.clone()))
    };
    assert_says(&notes(&|_| ()), &["was trained on 'tiny1-f32', and this checkpoint is '"]);
    let got = of_config("target_modules", json!(["q_proj", "v_proj", "gate_proj"]));
    assert_says(&got, &["lists modules for which it has no tensors: 'gate_proj'"]);
    assert_says(&of_config("brand_new", json!(true)), &["sets 'brand_new', which palmtop does not know"]);
    let got = notes(&|dir| {
        change_adapter(dir, |t| {
            for (_, tensor) in t.0.iter_mut().filter(|(n, _)| n.contains("lora_B")) {
                tensor.2.fill(0);
            }
        });
    });
    assert_says(&got, &["adds nothing: it is all zeros"]);
    let with_tokenizer = |text: &'static str| {
        notes(&move |dir| {
            let tokenizer = std::fs::read_to_string(data("tokenizer/tokenizer.json")).unwrap();
            std::fs::write(dir.join("tokenizer.json"), tokenizer.replace("<loc0000>", text)).unwrap();
        })
    };
    assert!(!with_tokenizer("<loc0000>").contains("tokenizer"));
    assert_says(&with_tokenizer("<place0000>"), &["has a tokenizer that differs", "--tokenizer"]);
}

#[test]
fn the_report_counts_what_was_matched() {
    let adapter = Adapter { path: data("adapters/rank_stabilized"), scale: 2.0 };
    let base = checkpoint(BASE);
    let (report, _) = converted(base.path(), std::slice::from_ref(&adapter)).unwrap();
    let matched = &report.adapters[0].matched;
    let rows: Vec<_> = matched.iter().map(|m| (m.part, &m.module[..], m.change, m.count, m.rank)).collect();
    let want = [
        ("vision", "fc1", "lora", 1, Some([3, 3])),
        ("projector", "linear", "lora", 1, Some([4, 4])),
        ("text", "down_proj", "lora", 2, Some([2, 2])),
        ("text", "gate_proj", "lora", 2, Some([4, 4])),
    ];
    assert_eq!(rows, want);
    // A pattern has to match to the end of a name, so 'mlp.down' is none for 'mlp.down_proj'.
    let alphas = [7.0 / 3f64.sqrt(), 1.0, 2.0 / 2f64.sqrt(), 2.5];
    for (row, alpha) in matched.iter().zip(alphas) {
        assert_eq!(row.factor, Some([2.0 * alpha; 2]), "{}", row.module);
    }
    assert_says(
        &report.to_string(),
        &["rank_stabilized, trained on tiny1-f32, times 2", "down_proj", "lora"],
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["adapters"][0]["matched"][2]["count"], 2);
    // Without weights of a base, it is known as well.
    let checked = check_adapter(&adapter, &read_config(base.path()).unwrap()).unwrap();
    assert_eq!(&checked.matched, matched);
}

#[test]
fn an_argument_is_a_folder_first_and_then_a_folder_with_a_factor() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(dir.path().join("a=0.25")).unwrap();
    let read = |text: &str| Adapter::from_argument(text).map(|a| (a.path, a.scale));
    let is = |path: String, scale: f64| Ok((PathBuf::from(path), scale));
    assert_eq!(read(&path("a=0.25")), is(path("a=0.25"), 1.0));
    assert_eq!(read(&path("a=0.25=0.5")), is(path("a=0.25"), 0.5));
    assert_eq!(read(&path("b=-1e-1")), is(path("b"), -0.1));
    assert_eq!(read(&path("b")), is(path("b"), 1.0));
    for wrong in ["b=", "b=half", "b=inf", "b=nan"] {
        let error = read(&path(wrong)).unwrap_err();
        assert_says(&error, &["there is no folder", "not a number to scale"]);
    }
}
