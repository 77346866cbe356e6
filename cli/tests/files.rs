//! Model files: convert, inspect, verify, plan, trace, completions.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_says, data, fail, lay_out_checkpoint, model, run, scene, succeed, text};
use safetensors::SafeTensors;

#[test]
fn every_command_explains_itself() {
    assert_says(
        &succeed(["--help"]).stdout,
        &["caption", "detect", "convert", "verify", "palmtop caption PICTURE"],
    );
    for command in [
        "caption",
        "ask",
        "ocr",
        "detect",
        "segment",
        "run",
        "convert",
        "inspect",
        "verify",
        "plan",
        "trace",
        "bench",
        "doctor",
        "completions",
    ] {
        let help = succeed([command, "--help"]).stdout;
        assert_says(&help, &["Usage: palmtop", command]);
    }
}

#[test]
fn the_version_says_what_the_program_is_made_of() {
    let number = env!("CARGO_PKG_VERSION");
    for flag in ["--version", "-V"] {
        assert_eq!(succeed([flag]).stdout, format!("palmtop {number}\n"));
    }
    let said = succeed(["--version", "--verbose"]).stdout;
    for args in [&["-V", "-v"][..], &["-v", "-V"], &["-vV"], &["-Vv"], &["--verbose", "--version"]] {
        assert_eq!(succeed(args).stdout, said, "{args:?}");
    }
    let facts: Vec<(&str, &str)> = said.lines().map(|line| line.split_once(": ").expect(line)).collect();
    let names = ["version", "commit", "target", "features", "model files", "instruction sets", "of this CPU"];
    assert!(facts.iter().map(|(name, _)| name).eq(&names), "{said}");
    let [version, _, target, features, files, compiled, available] = facts.try_into().unwrap();
    assert_eq!((version.1, features.1, files.1), (number, "none", "version 1"));
    assert!(target.1.starts_with(std::env::consts::ARCH), "{said}");
    // What `doctor` finds here is what this CPU has, and nothing is had that was not compiled.
    let doctor = &succeed(["doctor", "--json", "--threads", "1"]).json()[0]["isas"];
    let found = doctor.as_array().unwrap().iter().filter(|isa| isa["available"] == true);
    assert!(found.map(|isa| isa["name"].as_str().unwrap()).eq(available.1.split(", ")), "{said}");
    assert!(available.1.split(", ").all(|name| compiled.1.split(", ").any(|had| had == name)), "{said}");
}

#[test]
fn a_model_answers_the_same_however_it_is_loaded() {
    let noise = data("images/noise_97x61.png");
    let answer = |how: &[&str]| {
        let args = [&["caption", text(&noise), "-m", model(), "--max-new-tokens", "4"], how].concat();
        succeed(args).stdout
    };
    let want = answer(&[]);
    assert!(!want.is_empty());
    for how in ["map", "preload", "read"] {
        assert_eq!(answer(&["--load", how]), want, "{how}");
    }
    // Not every user may lock memory; if not, that is said.
    let args = ["caption", text(&noise), "-m", model(), "--max-new-tokens", "4", "--load", "lock"];
    let locked = run(args);
    if locked.code == Some(0) {
        assert_eq!(locked.stdout, want);
    } else {
        assert_says(&locked.stderr, &["error: cannot lock the", "ulimit -l"]);
    }
}

#[test]
fn completions_are_scripts() {
    for (shell, says) in
        [("bash", "_palmtop()"), ("zsh", "#compdef palmtop"), ("fish", "complete -c palmtop")]
    {
        assert_says(&succeed(["completions", shell]).stdout, &[says]);
    }
}

#[test]
fn every_format_converts_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("tiny1");
    lay_out_checkpoint("tiny1", &checkpoint);
    // What a conversion that was killed has left.
    fs::write(folder.path().join(".palmtop-Killed.part"), "half of a model").unwrap();
    let mut sizes = Vec::new();
    for format in ["f32", "f16", "int8", "int4"] {
        let target = folder.path().join(format!("{format}.palm"));
        let ran = succeed(["convert", text(&checkpoint), "-o", text(&target), "-w", format]);
        assert_says(&ran.stdout, &["part", "text", format, "bits a weight"]);
        assert_says(&succeed(["verify", text(&target)]).stdout, &[format, "all as written"]);
        sizes.push(fs::metadata(&target).unwrap().len());
    }
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "nothing but the checkpoint and the models: {left:?}");
}

#[test]
fn recipes_and_flags_of_parts_reach_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("tiny1");
    lay_out_checkpoint("tiny1", &checkpoint);
    let target = folder.path().join("m.palm");
    let ran = succeed([
        "convert",
        text(&checkpoint),
        "-o",
        text(&target),
        "--weights",
        "int4",
        "--recipe",
        "projector=f32",
        "--head",
        "f16",
        "--vision",
        "int4",
        "--report",
        "json",
    ]);
    assert_says(&ran.stderr, &["part", "bits a weight"]);
    let report = ran.json().remove(0);
    assert_eq!(report["recipe"], "patch=f16,vision=int4,projector=f32,text=int4,head=f16");
    assert!(report["tensors"].as_array().unwrap().iter().any(|t| t["relative_error"].as_f64() > Some(0.0)));
    let file = succeed(["inspect", text(&target), "--json"]).json().remove(0);
    assert_eq!(file["metadata"]["quantization.recipe"], report["recipe"]);
    assert_eq!(file["metadata"]["general.license"], "gemma");
    assert!(file["metadata"]["general.license_notice"].as_str().unwrap().contains("Gemma Terms of Use"));
    let storage = |name: &str| {
        let tensors = file["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap()["storage"].as_str().unwrap().to_owned()
    };
    assert_eq!(storage("text.embed"), "f16 packed");
    assert_eq!(storage("text.layer.0.mlp.down.weight"), "int4 packed");
    assert_eq!(storage("projector.weight"), "f32 packed");
}

#[test]
fn adapters_are_merged_named_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("tiny1-f32");
    lay_out_checkpoint("tiny1-f32", &checkpoint);
    let target = folder.path().join("m.palm");
    let (lora, dora) = (data("adapters/lora"), data("adapters/dora"));
    let half = format!("{}=0.5", text(&lora));
    let args =
        ["convert", text(&checkpoint), "-o", text(&target), "--adapter", &half, "--adapter", text(&dora)];
    let ran = succeed(args);
    assert_says(
        &ran.stdout,
        &["adapters/lora, trained on tiny1-f32, times 0.5", "q_proj", "adapters/dora", "fc2"],
    );
    let report = succeed([&args[..], &["--report", "json"]].concat()).json().remove(0);
    assert_eq!(report["adapters"].as_array().unwrap().len(), 2);
    assert_eq!(report["adapters"][0]["scale"], 0.5);
    assert_eq!(report["adapters"][1]["matched"][0]["change"], "dora");
    let file = succeed(["inspect", text(&target), "--json"]).json().remove(0);
    assert_eq!(file["metadata"]["general.name"], "tiny1-f32 + lora=0.5 + dora");
}

#[test]
fn weights_of_another_licence_carry_no_notice_of_gemma_s() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("tiny1");
    lay_out_checkpoint("tiny1", &checkpoint);
    let target = folder.path().join("m.palm");
    succeed(["convert", text(&checkpoint), "-o", text(&target), "--license", "Apache-2.0"]);
    let metadata = succeed(["inspect", text(&target), "--json"]).json().remove(0)["metadata"].take();
    assert_eq!(metadata["general.license"], "Apache-2.0");
    assert!(metadata.get("general.license_notice").is_none());
}

#[test]
fn inspect_folds_layers_and_lists_all() {
    let folded = succeed(["inspect", model()]).stdout;
    assert_says(
        &folded,
        &["metadata", "general.architecture", "paligemma", "sizes", "text.layer.{0..3}.attn.qkv.weight"],
    );
    let all = succeed(["inspect", model(), "--all"]).stdout;
    assert_says(&all, &["text.layer.0.attn.qkv.weight", "text.layer.3.attn.qkv.weight"]);
    assert!(all.lines().count() > folded.lines().count());
}

#[test]
fn verify_names_the_damaged_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.palm");
    let mut bytes = fs::read(model()).unwrap();
    let file = succeed(["inspect", model(), "--json"]).json().remove(0);
    let tensors = file["tensors"].as_array().unwrap();
    let embed = tensors.iter().find(|t| t["name"] == "text.embed").unwrap();
    bytes[embed["offset"].as_u64().unwrap() as usize + 100] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let says = fail(1, ["verify", text(&damaged)]);
    assert_says(
        &says,
        &["error: ", "is damaged in 1 of", "text.embed: checksum", "hint: copy the file again"],
    );
}

#[test]
fn plan_counts_every_byte_beforehand() {
    let plan = |more: &[&str]| succeed([&["plan", model(), "--json"], more].concat()).json().remove(0);
    let one = plan(&[]);
    let parts =
        ["kv_bytes", "activation_bytes", "thread_bytes", "image_bytes", "text_bytes", "features_bytes"];
    let sum: u64 = parts.iter().map(|p| one[p].as_u64().unwrap()).sum();
    assert_eq!(one["session_bytes"].as_u64(), Some(sum));
    let kv_bytes = |more: &[&str]| plan(more)["kv_bytes"].as_u64().unwrap();
    assert!(kv_bytes(&["--batch", "4"]) > kv_bytes(&[]));
    let [f32s, f16s, int8] = ["f32", "f16", "int8"].map(|kv| kv_bytes(&["--kv", kv]));
    assert!(f32s == 2 * f16s && f16s / 2 < int8 && int8 < f16s, "{f32s}, {f16s}, {int8}");
    assert_says(&succeed(["plan", model()]).stdout, &["weights (mapped)", "keys and values", "session"]);
}

#[test]
fn a_trace_has_the_names_and_shapes_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("trace.safetensors");
    let scene = scene();
    let args = [
        "trace",
        text(&scene),
        "--prompt",
        "caption en",
        "-m",
        model(),
        "-o",
        text(&target),
        "--tokens",
        "4",
    ];
    assert_says(&succeed(args).stderr, &["wrote", "values", "trace.safetensors"]);
    let (ours, theirs) =
        (fs::read(&target).unwrap(), fs::read(data("vectors/tiny1/scene-cap.safetensors")).unwrap());
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    let mut compared = 0;
    for (name, theirs) in theirs.tensors() {
        // The vectors hold these besides what a trace has.
        if ["resized", "token_type_ids", "gen.margin"].contains(&name.as_str()) {
            continue;
        }
        let ours = ours.tensor(&name).unwrap_or_else(|_| panic!("{name} is missing"));
        assert_eq!(ours.dtype(), theirs.dtype(), "{name}");
        // Another number of tokens was asked for.
        if !name.starts_with("gen.") {
            assert_eq!(ours.shape(), theirs.shape(), "{name}");
        }
        compared += 1;
    }
    assert!(compared > 15 && ours.len() == compared, "{compared} of {}", ours.len());
    assert_eq!(ours.tensor("input_ids").unwrap().data(), theirs.tensor("input_ids").unwrap().data());
    assert_eq!(ours.tensor("gen.logits").unwrap().shape(), [4, 2176]);
}

/// Of several pictures every value is there once, in the shapes that the page says.
#[test]
fn a_trace_of_several_pictures_has_the_rows_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("trace.safetensors");
    let pictures = ["scene_640x361.png", "noise_97x61.png", "gradient_400x300.png"];
    let pictures = pictures.map(|name| data("images").join(name));
    let pictures = pictures.each_ref().map(|path| text(path));
    let trace = |pictures: &[&str]| {
        let more = ["--prompt", "caption en", "-m", model(), "-o", text(&target)];
        succeed([&["trace"], pictures, &more].concat());
        fs::read(&target).unwrap()
    };
    let (all, last) = (trace(&pictures), trace(&pictures[2..]));
    let (all, last) = (SafeTensors::deserialize(&all).unwrap(), SafeTensors::deserialize(&last).unwrap());
    assert_eq!(all.len(), last.len());
    let shape = |name: &str| all.tensor(name).unwrap().shape().to_vec();
    let rows = last.tensor("image_features").unwrap().shape()[0];
    assert_eq!(shape("image_features")[0], 3 * rows);
    assert_eq!(shape("vision.layer.0")[0], 3 * rows);
    assert_eq!(shape("pixel_values")[..2], [3, 3]);
    assert_eq!(shape("input_ids")[0], last.tensor("input_ids").unwrap().shape()[0] + 2 * rows);
    // The last picture is encoded as alone, and its rows stand last.
    for name in ["pixel_values", "vision.last_hidden_state", "image_features"] {
        let (all, last) = (all.tensor(name).unwrap().data(), last.tensor(name).unwrap().data());
        assert_eq!(all[all.len() - last.len()..], *last, "{name}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene();
    let trace = |target: &Path, prompt: &str| {
        run(["trace", text(&scene), "--prompt", prompt, "-m", model(), "-o", text(target)])
    };
    let ran = trace(&folder.path().join("missing/out.safetensors"), "ocr");
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["error: cannot write", "there is no folder", "hint: make the folder"]);
    assert_eq!(trace(&folder.path().join("out.safetensors"), &"long ".repeat(10_000)).code, Some(1));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_built_in_model_is_one_of_those_that_are_inspected_and_planned() {
    assert_says(&succeed(["inspect", "demo"]).stdout, &["demo: ", "general.architecture", "paligemma"]);
    let planned = succeed(["plan", "demo", "--json"]).json().remove(0);
    let file = [env!("CARGO_MANIFEST_DIR"), "../demo/demo.palm"].iter().collect::<PathBuf>();
    assert_eq!(planned, succeed(["plan", text(&file), "--json"]).json().remove(0));
    assert_says(&fail(2, ["verify", "demo"]), &["part of the program"]);
}
