//! Conversion with calibration: what it gains, what it chooses, and that it does not depend on the machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use palmtop::image::{ImageLimits, decode_file};
use palmtop::model::tensors::Part;
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{
    AutoRecipe, Calibration, ConvertError, Formats, Options, Progress, Recipe, Report, WeightSource, convert,
    convert_source, tokenizer,
};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{checkpoint, data, uniform};

const PROMPTS: [&str; 4] = ["caption en", "ocr", "answer en what is it?", "detect cat ; dog"];

/// A file of examples about two pictures, some with answers.
fn examples(folder: &Path) -> PathBuf {
    let mut text = String::new();
    for picture in ["scene_640x361.png", "gradient_400x300.png", "noise_97x61.png"] {
        for (prompt, expected) in PROMPTS.iter().zip(["a red car on the road", "42", "", "<loc0100> cat"]) {
            let image = data().join("images").join(picture);
            text += &serde_json::json!({"image": image, "prompt": prompt, "expected": expected}).to_string();
            text += "\n";
        }
    }
    let path = folder.join("examples.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

/// int4 but for what calibration leaves alone, which is exact.
fn int4() -> Recipe {
    "f32,vision=int4,projector=int4,text=int4".parse().unwrap()
}

fn calibrated(folder: &Path, auto: Option<AutoRecipe>) -> Options {
    let calibration = Calibration { examples: examples(folder), auto };
    Options { recipe: int4(), calibration: Some(calibration), ..Options::default() }
}

/// The features of a picture, and the logits of all prompts about it along a fixed answer.
fn seen(model: &Path, picture: &str) -> (Vec<f32>, Vec<f32>) {
    let mut session = Session::new(&Model::open(model).unwrap(), &Limits::default()).unwrap();
    let options = GenerateOptions::default();
    let picture = decode_file(data().join("images").join(picture), &ImageLimits::default()).unwrap();
    let mut features = session.new_features().unwrap();
    session.encode(picture.view(), &mut features, &options).unwrap();
    let mut out = Vec::new();
    for prompt in PROMPTS {
        session
            .force(&[&features], prompt, &[400, 500, 600], &options, &mut |_, row| out.extend_from_slice(row))
            .unwrap();
    }
    (features.values().to_vec(), out)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Random weights, but that the norms let some inputs through far larger than others, as trained ones do: with inputs
/// all alike there would be little to gain.
struct Uneven(Synthetic);

impl WeightSource for Uneven {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        self.0.read(name, start, out)?;
        if name.contains("norm") && name.ends_with(".weight") && !name.contains("post_feedforward") {
            (start..).zip(out).filter(|(i, _)| i % 13 == 5).for_each(|(_, w)| *w = *w * 8.0 + 7.0);
        }
        Ok(())
    }
}

/// A model with more patches than inputs of its matrices.
fn write(name: &str, target: &Path, options: &Options) -> Report {
    let mut config = preset(name).unwrap();
    config.vision.image_size = 12 * config.vision.patch_size;
    let table = tokenizer::build_table(&data().join("tokenizer")).unwrap();
    let source = Uneven(Synthetic::new(config.clone(), 5));
    convert_source(&source, &config, table, target, options, &()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn calibrated_int4_is_nearer_to_f32_than_plain_int4() {
    for name in ["tiny", "tiny2"] {
        let to = tempfile::tempdir().unwrap();
        let plain = |recipe| Options { recipe, ..Options::default() };
        let [exact, int4_, calibrated_] =
            ["f32", "int4", "calibrated"].map(|f| to.path().join(f).with_extension("palm"));
        write(name, &exact, &plain(uniform(WeightFormat::F32)));
        write(name, &int4_, &plain(int4()));
        let report = write(name, &calibrated_, &calibrated(to.path(), None));
        // Two pictures that were calibrated with and one that was not: what the encoder sees, and what the decoder says.
        let all = |model: &Path| {
            let pictures = ["scene_640x361.png", "noise_97x61.png", "scene_small_40x30.png"];
            let (features, logits): (Vec<_>, Vec<_>) =
                pictures.map(|picture| seen(model, picture)).into_iter().unzip();
            [features.concat(), logits.concat()]
        };
        let [want, plain, calibrated] = [&exact, &int4_, &calibrated_].map(|m| all(m));
        let ratio =
            |i: usize| squared_distance(&calibrated[i], &want[i]) / squared_distance(&plain[i], &want[i]);
        let (features, logits) = (ratio(0), ratio(1));
        println!("{name}: squared distance of plain rounding's: features {features:.3}, logits {logits:.3}");
        assert!(features < 0.5 && logits < 0.85, "{name}: {features:.3}, {logits:.3}");
        for tensor in &report.tensors {
            let has = tensor.storage == "int4 packed";
            assert_eq!(tensor.output_error.is_some(), has, "{}", tensor.name);
            assert!(
                tensor.output_error.is_none_or(|e| e > 0.0 && e < 0.15),
                "{}: {:?}",
                tensor.name,
                tensor.output_error
            );
        }
        let model = Model::open(&calibrated_).unwrap();
        assert!(model.file().verify(|_| {}).is_empty());
        // Nothing is left behind.
        let mut files: Vec<_> =
            std::fs::read_dir(to.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["calibrated.palm", "examples.jsonl", "f32.palm", "int4.palm"]);
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let (from, to) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let auto = AutoRecipe { target_bits: 8.0, pinned: vec![] };
    let mut files = Vec::new();
    for threads in [1, 3] {
        let target = to.path().join("model.palm");
        let options = Options { threads: Some(threads), ..calibrated(to.path(), Some(auto.clone())) };
        convert(from.path(), &target, &options, &()).unwrap();
        files.push(std::fs::read(&target).unwrap());
    }
    assert!(files[0] == files[1]);
}

fn automatic(folder: &Path, bits: f64, pinned: Vec<Part>) -> Result<Report, ConvertError> {
    let mut options = calibrated(folder, Some(AutoRecipe { target_bits: bits, pinned }));
    options.recipe = "int8".parse().unwrap();
    convert(checkpoint("tiny2").path(), &folder.join("auto.palm"), &options, &())
}

#[test]
fn an_automatic_recipe_keeps_to_its_bits_and_spends_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0f64;
    for bits in [6.3, 7.0, 8.0] {
        let report = automatic(folder.path(), bits, vec![]).unwrap();
        assert!(
            report.matrix_bits <= bits && report.matrix_bits > before,
            "{} of {bits}",
            report.matrix_bits
        );
        before = report.matrix_bits;
        let of = |storage: &str| report.tensors.iter().filter(|t| t.storage == storage).count();
        assert!(of("int4 packed") > 0 && of("int8 packed") > 0);
        // What it was chosen by is told, and less is lost in more bits.
        let chosen = report.tensors.iter().filter(|t| t.part.is_some_and(|p| p != "patch"));
        assert!(chosen.clone().count() > 10);
        for t in chosen {
            let sensitivity = t.sensitivity.unwrap();
            assert!(sensitivity.int8 < sensitivity.int4, "{}", t.name);
        }
        // The file tells the recipe, which leads to the same formats without any choice.
        let model = Model::open(&folder.path().join("auto.palm")).unwrap();
        let recipe = model.file().metadata().text("quantization.recipe").unwrap();
        assert_eq!(recipe, report.recipe);
        let formats = Formats::default().apply(&recipe).unwrap();
        for tensor in model.config().tensors() {
            let Some(format) = formats.of(&tensor) else { continue };
            let stored = report.tensors.iter().find(|t| t.name == tensor.name).unwrap().storage;
            assert_eq!(stored, format!("{format} packed"), "{}", tensor.name);
        }
    }
}

#[test]
fn pinned_parts_stay_and_bits_that_cannot_be_reached_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let report = automatic(folder.path(), 8.0, vec![Part::Embedding, Part::Projector]).unwrap();
    for t in report.tensors.iter().filter(|t| t.part.is_some_and(|p| p == "head" || p == "projector")) {
        assert_eq!((t.storage, t.sensitivity), ("int8 packed", None));
    }
    let error = automatic(folder.path(), 4.2, vec![]).unwrap_err().to_string();
    assert!(error.contains("4.2 bits a weight cannot be reached"), "{error}");
}

/// A bar that is cancelled after so many runs of an example.
struct CancelAfter(u64, AtomicU64);

impl Progress for CancelAfter {
    fn calibrated(&self, done: u64, total: u64) {
        assert!(done <= total && total == 3);
        self.1.store(done, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= self.0
    }
}

#[test]
fn what_goes_wrong_leaves_nothing_and_is_said_with_its_line() {
    let (from, to) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let target = to.path().join("model.palm");
    let good = calibrated(to.path(), None);
    let fails = |options: &Options, progress: &dyn Progress| {
        let error = convert(from.path(), &target, options, progress).unwrap_err();
        let left = std::fs::read_dir(to.path()).unwrap().count();
        assert_eq!(left, 1, "only the examples are left: {error}");
        error
    };
    assert!(matches!(fails(&good, &CancelAfter(1, AtomicU64::new(0))), ConvertError::Cancelled));
    let eight_bits = Options { recipe: "int8".parse().unwrap(), ..good.clone() };
    assert!(fails(&eight_bits, &()).to_string().contains("calibration only affects int4"));

    let line =
        |image: &Path, prompt: &str| format!("{}\n", serde_json::json!({"image": image, "prompt": prompt}));
    let scene = data().join("images/scene_640x361.png");
    let path = to.path().join("examples.jsonl");
    for (text, says) in [
        (String::new(), "has no examples"),
        (line(&scene, "ocr") + "{}", "line 2: is not an example"),
        (line(&scene, "ocr") + &line(Path::new("gone.png"), "ocr"), "line 2: cannot use picture"),
        (line(&scene, "ocr") + &line(&scene, &"long ".repeat(2000)), "line 2: the prompt has 10000 bytes"),
        (line(&scene, "caption <image>"), "line 1: the text of the prompt contains the image token"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = fails(&good, &()).to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}

/// Weights that are finite each, and lead to products that are not.
#[test]
fn inputs_that_overflow_are_refused() {
    struct Huge(Synthetic);
    impl WeightSource for Huge {
        fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
            self.0.read(name, start, out)?;
            if name.contains("gate_proj") || name.contains("up_proj") {
                out.iter_mut().for_each(|w| *w *= 1e30);
            }
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = preset("tiny").unwrap();
    let table = tokenizer::build_table(&data().join("tokenizer")).unwrap();
    let options = calibrated(folder.path(), None);
    let target = folder.path().join("model.palm");
    let source = Huge(Synthetic::new(config.clone(), 1));
    let result = convert_source(&source, &config, table, &target, &options, &());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("overflow"), "{error}");
    assert!(!target.exists());
}
