//! Weights that bitsandbytes quantized: what cannot be read is named. What is read is held to bitsandbytes in the tests
//! of the whole system.

mod common;

use common::{Tensors, change_tensors, checkpoint, data, options, try_convert};
use palmtop_convert::{Adapter, Options, convert};
use safetensors::Dtype;

const FOUR: &str = "language_model.model.layers.0.self_attn.q_proj.weight";
const EIGHT: &str = "language_model.model.layers.2.self_attn.q_proj";
const MODEL: &str = "model.safetensors";

/// A checkpoint with quantized weights among the others, changed.
fn quantized(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let dir = checkpoint("tiny1-f32");
    change_tensors(dir.path(), |t| {
        t.0.extend(Tensors::load(&data("bitsandbytes/quantized.safetensors")).0);
        change(t);
    });
    dir
}

fn refusal(change: impl FnOnce(&mut Tensors)) -> String {
    let (dir, out) = (quantized(change), tempfile::tempdir().unwrap());
    let error =
        try_convert(dir.path(), out.path()).map(|_| ()).expect_err("this must be refused").to_string();
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "{error}: leaves something behind");
    error
}

#[track_caller]
fn assert_says(got: &str, parts: &[&str]) {
    for part in parts {
        assert!(got.contains(part), "{got:?} does not say {part:?}");
    }
}

#[test]
fn all_dialects_and_prefixes_are_read_alike() {
    let file = |dir: &std::path::Path| {
        let target = dir.join("model.palm");
        convert(dir, &target, &options("int8"), &()).unwrap();
        std::fs::read(target).unwrap()
    };
    let plain = file(quantized(|_| ()).path());
    let new = |n: &str| format!("model.{}", n.replace("language_model.model.", "language_model."));
    for rename in [&new as &dyn Fn(&str) -> String, &|n| format!("module.{n}")] {
        let dir = quantized(|_| ());
        let path = dir.path().join(MODEL);
        Tensors::load(&path).renamed(rename).save(&path);
        assert!(file(dir.path()) == plain);
    }
}

#[test]
fn an_adapter_goes_onto_what_the_weights_stand_for() {
    let dir = quantized(|_| ());
    let target = dir.path().join("model.palm");
    let adapters = vec![Adapter::new(data("adapters/lora"))];
    let report = convert(dir.path(), &target, &Options { adapters, ..options("int8") }, &()).unwrap();
    assert_eq!(report.adapters.len(), 1);
    assert_says(
        &report.notes.join("\n"),
        &["6 matrices were read from 4 bits of bitsandbytes", "a better model"],
    );
}

#[test]
fn damaged_states_of_4_bits_are_named() {
    let state = format!("{FOUR}.quant_state.bitsandbytes__nf4");
    let of_state = |json: &str| {
        refusal(|t| {
            t.0.insert(state.clone(), (Dtype::U8, vec![json.len()], json.as_bytes().to_vec()))
                .map(|_| ())
                .unwrap()
        })
    };
    let base = "convert the checkpoint that bitsandbytes quantized";
    assert_says(&of_state(&"\0".repeat(80)), &[&state, "not the JSON", base]);
    assert_says(&of_state("{}"), &[&state, "not the JSON"]);
    assert_says(&of_state(&" ".repeat(5000)), &[&state, "too long"]);
    let json = |kind: &str, block: &str, shape: &str, more: &str| {
        of_state(&format!(
            r#"{{"quant_type":"{kind}","blocksize":{block},"dtype":"float32","shape":{shape}{more}}}"#
        ))
    };
    let nested = r#","nested_blocksize":256,"nested_offset":0.3"#;
    assert_says(&json("fp4", "64", "[128,96]", nested), &["says that it is 'fp4'"]);
    assert_says(&json("", "64", "[128,96]", nested), &["says that it is ''"]);
    assert_says(&json("nf4", "0", "[128,96]", nested), &["sizes that cannot be"]);
    assert_says(&json("nf4", "64", "[4294967296,4294967296]", nested), &["sizes that cannot be"]);
    assert_says(&json("nf4", "64", "[128,0]", nested), &["sizes that cannot be"]);
    assert_says(&json("nf4", "-64", "[128,96]", nested), &["not the JSON"]);
    assert_says(&json("nf4", "64", "[128,97]", nested), &[FOUR, "has 6144 bytes for 12416 values"]);
    assert_says(&json("nf4", "128", "[128,96]", nested), &["absmax' is [192] of U8, and should be 96 bytes"]);
    assert_says(&json("nf4", "64", "[96,128]", nested), &["is [96, 128] and should be [128, 96]"]);
    assert_says(&json("nf4", "64", "[128,96]", ""), &["no nested_blocksize"]);
    let zero = r#","nested_blocksize":0,"nested_offset":0.3"#;
    assert_says(&json("nf4", "64", "[128,96]", zero), &["no nested_blocksize"]);
    let huge = r#","nested_blocksize":256,"nested_offset":1e300"#;
    assert_says(&json("nf4", "64", "[128,96]", huge), &["nested_offset"]);
}

#[test]
fn missing_and_misshapen_parts_are_named() {
    for part in ["absmax", "quant_map"] {
        let got = refusal(|t| drop(t.0.remove(&format!("{FOUR}.{part}"))));
        assert_says(&got, &[&format!("'{FOUR}.{part}' is missing")]);
    }
    assert_says(&refusal(|t| drop(t.0.remove(FOUR))), &[&format!("'{FOUR}' is missing")]);
    // Without the table of the scales, they are no floats.
    let got = refusal(|t| drop(t.0.remove(&format!("{FOUR}.nested_quant_map"))));
    assert_says(&got, &["absmax' is [192] of U8, and should be 192 floats"]);
    let got = refusal(|t| {
        t.0.get_mut(&format!("{FOUR}.quant_map")).unwrap().2[..4].copy_from_slice(&[0, 0, 0xc0, 0x7f])
    });
    assert_says(&got, &["quant_map", "NaN at index 0"]);
    let got = refusal(|t| {
        t.0.get_mut(&format!("{FOUR}.nested_absmax")).unwrap().2.copy_from_slice(&f32::MAX.to_le_bytes());
        t.0.get_mut(&format!("{FOUR}.quant_map")).unwrap().2[60..].copy_from_slice(&f32::MAX.to_le_bytes());
    });
    assert_says(&got, &[FOUR, "inf"]);
    // What is left where only the weights were saved.
    let got = refusal(|t| t.0.retain(|name, _| !name.contains("q_proj.weight.")));
    assert_says(&got, &[FOUR, "the state that it takes to read them is not in the file"]);

    let got =
        refusal(|t| *t.0.get_mut(&format!("{EIGHT}.SCB")).unwrap() = (Dtype::F32, vec![96], vec![0; 384]));
    assert_says(&got, &["SCB' is [96] of F32, and there are 128 rows"]);
    assert_says(&refusal(|t| drop(t.0.remove(&format!("{EIGHT}.weight")))), &["q_proj.weight' is missing"]);
    let got = refusal(|t| t.0.get_mut(&format!("{EIGHT}.weight_format")).unwrap().2 = vec![2]);
    assert_says(&got, &["weight_format", "order of a GPU's matrix unit"]);
    let got = refusal(|t| t.0.get_mut(&format!("{EIGHT}.weight")).unwrap().0 = Dtype::U8);
    assert_says(&got, &["has bitsandbytes' scales for 8 bits"]);
    let got = refusal(|t| drop(t.0.remove(&format!("{EIGHT}.SCB"))));
    assert_says(&got, &["neither f32, f16 nor bf16", "I8"]);
}
