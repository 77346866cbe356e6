//! Adapters merged by the converter against what peft makes of the same ones (`data/adapters/make_adapters.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use palmtop::{Limits, Model, Session};
use palmtop_convert::{Adapter, AutoRecipe, Calibration, Options, Report, convert};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{Tensor, checkpoint, checkpoint_tensors, data, relative_error, tensors, trace, uniform};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// A weight of a merged model may differ from peft's by so many roundings of f32 of the largest weight of its tensor
/// (3.5 were seen): a product of rank 4 and its sum with the base round some ten times, DoRA's norms a few times more.
const ROUNDINGS: f64 = 8.0;

/// What is expected of a folder of `data/adapters`.
struct Case {
    name: String,
    checkpoint: String,
    adapters: Vec<Adapter>,
    expected: BTreeMap<String, Tensor>,
}

fn cases() -> Vec<Case> {
    let folder = data().join("adapters");
    let entries = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|p| p.join("case.json").exists()).collect();
    folders.sort();
    let case = |path: &Path| {
        let text = std::fs::read(path.join("case.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let adapter = |a: &serde_json::Value| Adapter {
            path: folder.join(a["name"].as_str().unwrap()),
            scale: a["scale"].as_f64().unwrap(),
        };
        Case {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            checkpoint: json["checkpoint"].as_str().unwrap().to_owned(),
            adapters: json["adapters"].as_array().unwrap().iter().map(adapter).collect(),
            expected: tensors(&path.join("expected.safetensors")),
        }
    };
    folders.iter().map(|path| case(path)).collect()
}

fn converted(checkpoint: &Path, adapters: &[Adapter], to: &Path) -> Report {
    let options = Options {
        recipe: uniform(WeightFormat::F32),
        adapters: adapters.to_vec(),
        name: Some("test".into()),
        ..Options::default()
    };
    convert(checkpoint, to, &options, &()).unwrap_or_else(|e| panic!("{adapters:?}: {e}"))
}

fn logits(model: &Path) -> Vec<f64> {
    let mut session = Session::new(&Model::open(model).unwrap(), &Limits::default()).unwrap();
    let picture = data().join("images/gradient_400x300.png");
    trace(&mut session, &picture, "caption en", 1)["logits.prefill"].values.clone()
}

#[test]
fn merged_weights_are_pefts_and_answers_follow() {
    let cases = cases();
    assert!(cases.len() >= 20);
    let mut worst = 0f64;
    for case in cases {
        let name = &case.name;
        let folder = checkpoint(&case.checkpoint);
        let at = |file: &str| folder.path().join(file);
        converted(folder.path(), &[], &at("base.palm"));
        let report = converted(folder.path(), &case.adapters, &at("merged.palm"));
        assert_eq!(report.adapters.len(), case.adapters.len());
        let (base, merged) = (checkpoint_tensors(&at("base.palm")), checkpoint_tensors(&at("merged.palm")));
        let changed = |(name, rows): &(&String, &Vec<Vec<f32>>)| base.get(*name) != Some(*rows);
        let changed: BTreeSet<&str> = merged.iter().filter(changed).map(|(name, _)| name.as_str()).collect();
        let want: BTreeSet<&str> = case.expected.keys().filter_map(|k| k.strip_suffix(".sums")).collect();
        assert_eq!(changed, want, "{name}");
        for tensor in want {
            let rows = &merged[tensor];
            let largest = rows.iter().flatten().fold(0f64, |most, w| most.max(f64::from(w.abs())));
            let bound = ROUNDINGS * f64::from(f32::EPSILON) / 2.0 * largest;
            let (three, sums) =
                (&case.expected[&format!("{tensor}.rows")], &case.expected[&format!("{tensor}.sums")]);
            let cols = rows[0].len();
            for (want, row) in three.values.chunks(cols).zip([0, rows.len() / 2, rows.len() - 1]) {
                for (got, want) in rows[row].iter().zip(want) {
                    let off = (f64::from(*got) - want).abs();
                    worst = worst.max(off / (f64::from(f32::EPSILON) / 2.0 * largest));
                    assert!(off <= bound, "{name}: {tensor}, row {row}: {got} instead of {want}");
                }
            }
            assert_eq!(sums.values.len(), rows.len(), "{name}: {tensor}");
            for (row, (got, want)) in rows.iter().zip(&sums.values).enumerate() {
                let weight = |j: usize| ((j * 37 % 64) as f64 - 31.5) / 32.0;
                let sum: f64 = got.iter().enumerate().map(|(j, w)| f64::from(*w) * weight(j)).sum();
                assert!(
                    (sum - want).abs() <= bound * cols as f64,
                    "{name}: {tensor}, row {row}: {sum} instead of {want}"
                );
            }
        }
        let (before, after) = (logits(&at("base.palm")), logits(&at("merged.palm")));
        let want = &case.expected["logits"].values;
        assert!(relative_error(&after, want) < 1e-4, "{name}: {:.1e}", relative_error(&after, want));
        assert!(relative_error(&before, want) > 0.02, "{name} changes nothing that is seen");
    }
    println!("largest difference of a weight: {worst:.2} roundings of the largest weight of its tensor");
}

/// A checkpoint whose weights are those of another with adapters merged into them.
fn premerged(name: &str, adapters: &[Adapter]) -> TempDir {
    let folder = checkpoint(name);
    let palm = folder.path().join("merged.palm");
    converted(folder.path(), adapters, &palm);
    let merged = checkpoint_tensors(&palm);
    std::fs::remove_file(palm).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str, view: &TensorView<'_>| match name.contains("norm") {
        // A norm's weight lies in the file with one added, and adapters of this test change none.
        true => view.data().to_vec(),
        false => merged[name].iter().flatten().flat_map(|w| w.to_le_bytes()).collect(),
    };
    let all: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name.clone(), view.shape().to_vec(), values(&name, &view)))
        .collect();
    let views = all.iter().map(|(n, s, b)| (n, TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
    folder
}

#[test]
fn every_way_of_storing_is_as_with_merged_weights() {
    let adapters = ["lora", "dora", "vision_embeddings", "tokens"]
        .map(|n| Adapter::new(data().join("adapters").join(n)));
    let (plain, merged) = (checkpoint("tiny1-f32"), premerged("tiny1-f32", &adapters));
    let examples = plain.path().join("examples.jsonl");
    let image = data().join("images/scene_640x361.png");
    std::fs::write(&examples, serde_json::json!({"image": image, "prompt": "caption en"}).to_string())
        .unwrap();
    let calibration = |auto| Some(Calibration { examples: examples.clone(), auto });
    let auto = AutoRecipe { target_bits: 6.0, pinned: Vec::new() };
    let ways = [
        Options { mask_codec: Some(data().join("vectors/seg/vae-random.npz")), ..Options::default() },
        Options {
            recipe: "f16,text=int4,head=int4".parse().unwrap(),
            threads: Some(1),
            ..Options::default()
        },
        Options { recipe: "int4".parse().unwrap(), calibration: calibration(None), ..Options::default() },
        Options { calibration: calibration(Some(auto)), ..Options::default() },
    ];
    for way in ways {
        let file = |folder: &TempDir, adapters: &[Adapter]| {
            let target = folder.path().join("model.palm");
            let options = Options {
                adapters: adapters.to_vec(),
                name: Some("test".into()),
                revision: None,
                ..way.clone()
            };
            convert(folder.path(), &target, &options, &()).unwrap_or_else(|e| panic!("{way:?}: {e}"));
            std::fs::read(target).unwrap()
        };
        assert!(file(&plain, &adapters) == file(&merged, &[]), "{way:?}");
    }
}
