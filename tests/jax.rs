//! JAX checkpoints against those of the hub with the same weights: files whose every tensor is the same.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use palmtop::format::Storage;
use palmtop::image::{ImageLimits, decode_file};
use palmtop::model::config::Config;
use palmtop::{Error, GenerateOptions, Grammar, Limits, Model, Session, UsageError};
use palmtop_convert::{Adapter, Asking, ConvertError, Options, QueryForm, Recipe, convert, read_config};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::npz::{Array, archive, jax};
use palmtop_tests::{checkpoint, data, trace, uniform};
use tempfile::TempDir;

/// A folder with `jax.npz` of a reference checkpoint, and the small tokenizer.
fn folder(name: &str, stacked: bool, prefix: &str, zip64: bool) -> (TempDir, Config) {
    let hub = checkpoint(name);
    let config = read_config(hub.path()).unwrap();
    let arrays = jax(&hub.path().join("model.safetensors"), &config, stacked);
    let arrays = arrays.into_iter().map(|(key, array)| (format!("{prefix}{key}"), array)).collect();
    let dir = written(&arrays, zip64);
    (dir, config)
}

fn written(arrays: &BTreeMap<String, Array>, zip64: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("jax.npz"), archive(arrays, zip64)).unwrap();
    std::fs::copy(data().join("tokenizer/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    dir
}

fn with_recipe(recipe: Recipe) -> Options {
    Options { recipe, threads: Some(2), ..Options::default() }
}

/// Compares the tensors of two files, but for rows of the embedding that only `hub` has.
fn assert_same_tensors(jax: &Path, hub: &Path) {
    let (a, b) = (Model::open(jax).unwrap(), Model::open(hub).unwrap());
    let (a, b) = (a.file(), b.file());
    let names =
        |f: &palmtop::format::PalmFile| f.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for tensor in a.tensors() {
        let other = b.tensor(&tensor.name).unwrap();
        assert_eq!(tensor.storage, other.storage);
        if tensor.name != "text.embed" {
            assert_eq!(tensor.shape, other.shape, "{}", tensor.name);
            assert!(a.data(tensor) == b.data(other), "{}", tensor.name);
            continue;
        }
        assert!(matches!(tensor.storage, Storage::Packed(_)));
        let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
        assert!(rows < other.shape[0] && cols == other.shape[1]);
        let (a, b) = (a.matrix("text.embed", rows, cols), b.matrix("text.embed", other.shape[0], cols));
        let (a, b) = (a.unwrap(), b.unwrap());
        let (mut x, mut y) = (vec![0.0; cols], vec![0.0; cols]);
        for row in 0..rows {
            a.dequantize_row(row, &mut x);
            b.dequantize_row(row, &mut y);
            assert!(x.iter().zip(&y).all(|(x, y)| x.to_bits() == y.to_bits()), "row {row}");
        }
    }
}

#[test]
fn adapters_are_merged_into_them() {
    let (dir, _) = folder("tiny1-f32", true, "params/", false);
    let (jax, hub) = (dir.path().join("jax.palm"), dir.path().join("hub.palm"));
    let adapters =
        ["lora", "dora", "vision_embeddings"].map(|name| Adapter::new(data().join("adapters").join(name)));
    let options = Options { adapters: adapters.to_vec(), ..with_recipe(uniform(WeightFormat::F32)) };
    let report = convert(&dir.path().join("jax.npz"), &jax, &options, &()).unwrap();
    assert_eq!(report.adapters.len(), 3);
    convert(checkpoint("tiny1-f32").path(), &hub, &options, &()).unwrap();
    assert_same_tensors(&jax, &hub);
}

#[test]
fn the_same_weights_make_the_same_tensors() {
    // Both generations in all three types, both forms of the image encoder, all prefixes, both kinds of archive.
    for (name, format, stacked, prefix, zip64) in [
        ("tiny1", WeightFormat::Int8, true, "params/", false),
        ("tiny1-f16", WeightFormat::F32, true, "", true),
        ("tiny1-f32", WeightFormat::Int4, false, "opt/target/", false),
        ("tiny2", WeightFormat::Int4, true, "params/", true),
        ("tiny2-f32", WeightFormat::F32, true, "", false),
        ("tiny2-wide", WeightFormat::Int8, false, "params/", false),
    ] {
        let (dir, config) = folder(name, stacked, prefix, zip64);
        let (jax, hub) = (dir.path().join("jax.palm"), dir.path().join("hub.palm"));
        let options = with_recipe(uniform(format));
        convert(dir.path(), &jax, &options, &()).unwrap_or_else(|e| panic!("{name}: {e}"));
        convert(checkpoint(name).path(), &hub, &options, &()).unwrap();
        assert_same_tensors(&jax, &hub);

        let mut made = Model::open(&jax).unwrap().config().clone();
        assert_eq!(made.text.vocab as u32, config.tokens.image);
        // What no array tells is big_vision's; the reference checkpoints of Gemma 2 are odd on purpose.
        made.text.vocab = config.text.vocab;
        if name.starts_with("tiny2") {
            assert_eq!(made.text.query_scalar, made.text.head_dim as f64);
            assert_eq!(made.text.windows[..2], [Some(4096), None]);
            made.text.query_scalar = config.text.query_scalar;
            made.text.windows = config.text.windows.clone();
        }
        assert_eq!(made, config, "{name}");
    }
}

#[test]
fn a_file_and_a_tokenizer_are_enough() {
    let (dir, _) = folder("tiny1", true, "params/", false);
    let (file, target) = (dir.path().join("jax.npz"), dir.path().join("model.palm"));
    let elsewhere = tempfile::tempdir().unwrap();
    let tokenizer = elsewhere.path().join("paligemma_tokenizer.model");
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    std::fs::copy(data().join("tokenizer/tokenizer.model"), &tokenizer).unwrap();
    let error = convert(&file, &target, &with_recipe(Recipe::default()), &()).unwrap_err();
    assert!(matches!(&error, ConvertError::Tokenizer { .. }), "{error}");
    let options = Options { tokenizer: Some(tokenizer), ..with_recipe(Recipe::default()) };
    convert(&file, &target, &options, &()).unwrap();
    let model = Model::open(&target).unwrap();
    assert_eq!(model.file().metadata().text("general.name").unwrap(), "jax");
    assert_eq!(model.tokenizer().piece(model.config().tokens.image), Some("<image>"));
}

#[test]
fn answers_are_the_same_and_never_have_a_token_without_a_row() {
    let (dir, _) = folder("tiny1", true, "params/", false);
    let (jax, hub) = (dir.path().join("jax.palm"), dir.path().join("hub.palm"));
    let options = with_recipe(Recipe::default());
    convert(dir.path(), &jax, &options, &()).unwrap();
    convert(checkpoint("tiny1").path(), &hub, &options, &()).unwrap();
    let mut limits = Limits::default();
    (limits.threads, limits.new_tokens) = (Some(2), 8);
    let picture = data().join("images/noise_97x61.png");
    let mut session = Session::new(&Model::open(&jax).unwrap(), &limits).unwrap();
    let a = trace(&mut session, &picture, "caption en", 8);
    let b =
        trace(&mut Session::new(&Model::open(&hub).unwrap(), &limits).unwrap(), &picture, "caption en", 8);
    assert_eq!(a["input_ids"].values, b["input_ids"].values);
    let (rows, of_a, of_b) = (a["gen.tokens"].values.len(), &a["gen.logits"], &b["gen.logits"]);
    assert_eq!((of_a.shape[1], of_b.shape[1]), (2161, 2176));
    // From the first token on that the other can choose and this one cannot, they go apart.
    let alike = (0..rows).take_while(|&i| b["gen.tokens"].values[i] < 2161.0).count();
    assert!(alike > 0, "nothing to compare");
    for i in 0..alike {
        assert_eq!(of_a.values[i * 2161..][..2161], of_b.values[i * 2176..][..2161], "token {i}");
        assert_eq!(a["gen.tokens"].values[i], b["gen.tokens"].values[i]);
    }
    assert!(a["gen.tokens"].values.iter().all(|&token| token < 2161.0));

    // The picture's token has no row, so a prompt that spells it is refused as before.
    let (mut features, options) = (session.new_features().unwrap(), GenerateOptions::default());
    session
        .encode(decode_file(&picture, &ImageLimits::default()).unwrap().view(), &mut features, &options)
        .unwrap();
    let refused =
        session.answer(&features, &["what is <image>?"], &options, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::Usage(UsageError::ImageTokenInPrompt))));
    for grammar in [Grammar::tokens(session.model(), [2161]), Grammar::choices(session.model(), ["<image>"])]
    {
        assert!(grammar.is_err());
    }
}

#[test]
fn other_archives_are_refused_and_say_why() {
    let hub = checkpoint("tiny1");
    let config = read_config(hub.path()).unwrap();
    let good = || jax(&hub.path().join("model.safetensors"), &config, true);
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Array>)| {
        let mut arrays = good();
        change(&mut arrays);
        let dir = written(&arrays, false);
        let target = dir.path().join("model.palm");
        let error = convert(dir.path(), &target, &with_recipe(Recipe::default()), &()).unwrap_err();
        assert!(!target.exists());
        error.to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, Array>);
    let cases: [(Change<'_>, &str); 9] = [
        (
            &|a| {
                let linear = a.get_mut("llm/layers/mlp/linear").unwrap();
                linear.shape[1] = 0;
                linear.bytes.clear();
            },
            "its arrays make no model: 'text.intermediate' is 0",
        ),
        (&|a| a.clear(), "is no PaliGemma checkpoint of big_vision: it has no array 'img/embedding/kernel'"),
        (&|a| drop(a.remove("llm/final_norm/scale")), "missing (1): 'llm/final_norm/scale'"),
        (
            &|a| {
                let bias = a.remove("img/head/bias").unwrap();
                a.insert("img/head/bios".into(), bias);
            },
            "missing (1): 'img/head/bias'; unknown (1): 'img/head/bios'",
        ),
        (
            &|a| a.get_mut("llm/layers/attn/q_einsum/w").unwrap().shape.swap(1, 2),
            "'llm/layers/attn/q_einsum/w' is [4, 96, 4, 32] and should be [4, 96, 96, 32]",
        ),
        (
            &|a| a.get_mut("llm/layers/mlp/gating_einsum").unwrap().shape.swap(2, 3),
            "'llm/layers/mlp/gating_einsum' is [4, 2, 200, 96] and should be [4, 2, 96, 200]",
        ),
        (
            &|a| a.get_mut("img/pos_embedding").unwrap().shape = vec![1, 18, 64],
            "18 patches, which make no square",
        ),
        (&|a| a.get_mut("img/head/bias").unwrap().descr = ">f2", "its values are of type \">f2\""),
        (
            &|a| {
                let embedding = a.get_mut("llm/embedder/input_embedding").unwrap();
                embedding.shape[0] -= 1;
                embedding.bytes.truncate(2160 * 96 * 2);
            },
            "the tokenizer gives <image> the id 2161, but the embedding has 2160 rows",
        ),
    ];
    for (change, text) in cases {
        let got = refused(change);
        assert!(got.contains(text), "{got:?} does not say {text:?}");
    }
    // A value that is not finite is named by its place in the array: bf16's NaN in the up half of the second layer.
    let got = refused(&|a| {
        let gating = a.get_mut("llm/layers/mlp/gating_einsum").unwrap();
        let at = ((2 + 1) * 96 + 5) * 200 + 7;
        gating.bytes[2 * at..2 * at + 2].copy_from_slice(&[0xc0, 0x7f]);
    });
    let at = ((2 + 1) * 96 + 5) * 200 + 7;
    assert!(got.contains(&format!("'llm/layers/mlp/gating_einsum' holds NaN at index {at}")), "{got}");
}

#[test]
fn a_damaged_archive_makes_no_model() {
    let (dir, _) = folder("tiny1", true, "", false);
    let (file, target) = (dir.path().join("jax.npz"), dir.path().join("model.palm"));
    let good = std::fs::read(&file).unwrap();
    let mut damaged = good.clone();
    // In the middle of the values of some array.
    damaged[good.len() / 2] ^= 1;
    for (bytes, text) in
        [(damaged, "size or checksum is wrong"), (good[..good.len() - 9].to_vec(), "not a .npz file")]
    {
        std::fs::write(&file, bytes).unwrap();
        let error =
            convert(dir.path(), &target, &with_recipe(Recipe::default()), &()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(!target.exists());
    }
    // Nor does a sound one that is asked for a form of questions.
    std::fs::write(&file, good).unwrap();
    let asking = Asking { form: Some(QueryForm::Plain), ..Asking::default() };
    let options = Options { asking, ..with_recipe(Recipe::default()) };
    let error = convert(dir.path(), &target, &options, &()).unwrap_err();
    assert!(matches!(error, ConvertError::NotForRetrieval { .. }) && !target.exists(), "{error}");
}

#[test]
fn the_file_names_which_rows_have_windows_or_has_none() {
    let (jax, _) = folder("tiny2", true, "", false);
    let hub = checkpoint("tiny2");
    for from in [jax.path().join("jax.npz"), hub.path().to_owned()] {
        for no_windows in [false, true] {
            let target = jax.path().join("model.palm");
            let options = Options { no_windows, ..with_recipe(Recipe::default()) };
            convert(&from, &target, &options, &()).unwrap();
            let model = Model::open(&target).unwrap();
            assert_eq!(model.config().text.windows.iter().all(Option::is_none), no_windows);
            let named = model.file().metadata().text("text.windows_of").ok();
            assert_eq!(named.as_deref(), (!no_windows).then_some("generated"));
            std::fs::remove_file(&target).unwrap();
        }
    }
}
