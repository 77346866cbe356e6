//! Conversion with calibration: what it gains, what it chooses, and that it does not depend on the machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use palmtop::config::Part;
use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{
    AutoRecipe, Calibration, ConvertError, Formats, Options, Progress, Report, convert, convert_source,
    tokenizer,
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

fn calibrated(folder: &Path, auto: Option<AutoRecipe>) -> Options {
    let calibration = Calibration { examples: examples(folder), auto };
    Options { recipe: uniform(WeightFormat::Int4), calibration: Some(calibration), ..Options::default() }
}

/// Logits of all prompts about a picture, along a fixed answer.
fn logits(model: &Path, picture: &str) -> Vec<f32> {
    let mut session = Session::new(&Model::open(model).unwrap(), &Limits::default()).unwrap();
    let options = GenerateOptions::default();
    let picture = decode_file(data().join("images").join(picture), &ImageLimits::default()).unwrap();
    let mut features = session.new_features().unwrap();
    session.encode(picture.view(), &mut features, &options).unwrap();
    let mut out = Vec::new();
    for prompt in PROMPTS {
        session
            .force(&features, prompt, &[400, 500, 600], &options, &mut |_, row| out.extend_from_slice(row))
            .unwrap();
    }
    out
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[test]
fn calibrated_int4_is_nearer_to_f32_than_plain_int4() {
    for name in ["tiny1", "tiny2"] {
        let (from, to) = (checkpoint(name), tempfile::tempdir().unwrap());
        let write = |file: &str, options: &Options| {
            let target = to.path().join(file);
            let report =
                convert(from.path(), &target, options, &()).unwrap_or_else(|e| panic!("{name}: {e}"));
            (target, report)
        };
        let plain = |format| Options { recipe: uniform(format), ..Options::default() };
        let (exact, _) = write("f32.palm", &plain(WeightFormat::F32));
        let (int4, _) = write("int4.palm", &plain(WeightFormat::Int4));
        let (calibrated, report) = write("calibrated.palm", &calibrated(to.path(), None));
        // A picture that was not calibrated with.
        for picture in ["scene_640x361.png", "scene_small_40x30.png"] {
            let exact = logits(&exact, picture);
            let distance = |model: &Path| squared_distance(&logits(model, picture), &exact);
            let ratio = distance(&calibrated) / distance(&int4);
            println!("{name} {picture}: squared distance {ratio:.3} of plain rounding's");
            assert!(ratio < 0.7, "{name} {picture}: {ratio:.3} of plain rounding's squared distance");
        }
        for tensor in &report.tensors {
            let has = tensor.storage == "int4 packed"
                && !["text.embed", "vision.patch_embed.weight"].contains(&&*tensor.name);
            assert_eq!(tensor.output_error.is_some(), has, "{}", tensor.name);
            assert!(
                tensor.output_error.is_none_or(|e| e > 0.0 && e < 0.15),
                "{}: {:?}",
                tensor.name,
                tensor.output_error
            );
        }
        let model = Model::open(&calibrated).unwrap();
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
    let auto = AutoRecipe { target_bits: 6.0, pinned: vec![] };
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
    for bits in [5.5, 6.5, 7.5] {
        let report = automatic(folder.path(), bits, vec![]).unwrap();
        assert!(
            report.matrix_bits <= bits && report.matrix_bits > before.max(bits - 0.7),
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
    let report = automatic(folder.path(), 6.5, vec![Part::Embedding, Part::Projector]).unwrap();
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
    assert!(fails(&eight_bits, &()).to_string().contains("calibration is for int4"));

    let line =
        |image: &Path, prompt: &str| format!("{}\n", serde_json::json!({"image": image, "prompt": prompt}));
    let scene = data().join("images/scene_640x361.png");
    let path = to.path().join("examples.jsonl");
    for (text, says) in [
        (String::new(), "has no examples"),
        (line(&scene, "ocr") + "{}", "line 2: is no example"),
        (line(&scene, "ocr") + &line(Path::new("gone.png"), "ocr"), "line 2: cannot use picture"),
        (line(&scene, "ocr") + &line(&scene, &"long ".repeat(2000)), "line 2: the prompt has 10000 bytes"),
        (line(&scene, "caption <image>"), "line 1: the prompt has the image token"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = fails(&good, &()).to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}

/// A source of weights that holds infinities only where nobody looks would be refused before; too large activations are not
/// seen until the model runs.
#[test]
fn inputs_that_overflow_are_refused() {
    struct Huge(Synthetic);
    impl palmtop_convert::WeightSource for Huge {
        fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
            self.0.read(name, start, out)?;
            if name.contains("multi_modal_projector") {
                out.iter_mut().for_each(|w| *w *= 1e30);
            }
            if name.contains("o_proj") {
                out.iter_mut().for_each(|w| *w *= 1e38);
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
    assert!(error.contains("are too large for numbers"), "{error}");
    assert!(!target.exists());
}
