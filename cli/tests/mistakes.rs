//! What users do wrong: each gets a clear error, an exit code, and nothing half done.

mod common;

use std::fs;
use std::path::Path;

use common::{assert_says, data, fail, lay_out_checkpoint, model, run, scene, text};

#[test]
fn models_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let scene = scene();
    let caption = |model: &Path| fail(1, ["caption", text(&scene), "-m", text(model)]);

    let says = caption(&at("missing.palm"));
    assert_says(&says, &["error: there is no model file", "missing.palm", "hint: ", "palmtop pull"]);

    lay_out_checkpoint("tiny1", &at("checkpoint"));
    assert_says(
        &caption(&at("checkpoint")),
        &["is a folder", "hint: it looks like a checkpoint", "palmtop convert"],
    );

    fs::write(at("zero.palm"), b"").unwrap();
    assert_says(&caption(&at("zero.palm")), &["error: cannot use", "zero.palm", "because: "]);

    fs::copy(&scene, at("picture.palm")).unwrap();
    assert_says(&caption(&at("picture.palm")), &["error: cannot use", "because: not a .palm file", "hint: "]);

    let whole = fs::read(model()).unwrap();
    for cut in [9, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(at("cut.palm"), &whole[..cut]).unwrap();
        let says = caption(&at("cut.palm"));
        assert_says(&says, &["error: cannot use", "cut.palm", "because: "]);
        for command in ["inspect", "verify", "plan"] {
            fail(1, [command, text(&at("cut.palm"))]);
        }
    }
}

#[test]
fn a_broken_picture_among_good_ones_is_reported_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(scene(), folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("b.png"), b"").unwrap();
    fs::write(folder.path().join("c.jpg"), b"not a picture at all").unwrap();
    fs::copy(scene(), folder.path().join("d.png")).unwrap();
    let ran = run(["caption", text(folder.path()), "-m", model(), "--json", "--max-new-tokens", "2"]);
    assert_eq!(ran.code, Some(1));
    let lines = ran.json();
    let errors: Vec<Option<&str>> = lines.iter().map(|l| l["error"].as_str()).collect();
    assert_eq!(lines.len(), 4);
    assert!(errors[0].is_none() && errors[3].is_none());
    assert_says(errors[1].unwrap(), &["cannot use picture", "b.png", "empty"]);
    assert_says(errors[2].unwrap(), &["c.jpg", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"]);
    assert_says(
        &ran.stderr,
        &["b.png", "because: ", "c.jpg", "because: ", "2 of 4 pictures could not be used"],
    );
}

#[test]
fn sources_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let caption = |source: &str| fail(1, ["caption", source, "-m", model()]);
    assert_says(&caption(text(folder.path())), &["error: no picture in folder", "hint: "]);
    assert_says(&caption(text(&folder.path().join("*.png"))), &["error: no file matches"]);
    assert_says(
        &caption("missing.png"),
        &["error: there is no file or folder missing.png", "hint: SOURCE is"],
    );
    assert_says(&caption("-"), &["error: cannot use picture -", "because: the image is empty"]);
    let twice = fail(1, ["caption", "-", "-", "-m", model()]);
    assert_says(&twice, &["error: standard input (-) is given twice"]);
}

#[test]
fn command_lines_that_do_not_fit_together() {
    let scene = scene();
    let scene = text(&scene);
    for (args, says) in [
        (&["caption"][..], "SOURCE"),
        (&["caption", scene, "--lang", "english"], "not a language code"),
        (&["caption", scene, "--max-new-tokens", "0"], "0 is not in"),
        (&["caption", scene, "--threads", "many"], "invalid value 'many'"),
        (&["caption", scene, "--isa", "mmx"], "unknown instruction set 'mmx'"),
        (&["caption", scene, "--temperature", "hot"], "a number from 0 to 100"),
        (&["caption", scene, "--top-k", "5"], "--temperature"),
        (&["ask", scene], "--question"),
        (&["ask", scene, "-q", "  "], "empty"),
        (&["ask", scene, "-q", "is it?", "--choose", "yes;;no"], "one of the choices is empty"),
        (&["caption", scene, "--choose", "yes"], "--choose"),
        (&["detect", scene], "--label"),
        (&["detect", scene, "-l", "a<b"], "ends a label"),
        (&["detect", scene, scene, "-l", "cat", "--save", "one.png"], "there are 2 pictures, and one file"),
        (&["detect", scene, "-l", "cat", "--save", "out.tiff"], "saved as .png or .jpg"),
        (&["detect", scene, "-l", "cat", "--save", scene], "would overwrite the picture itself"),
        (&["convert", "somewhere"], "--output"),
        (&["convert", "somewhere", "-o", "m.palm", "-w", "q4"], "use f32, f16, int8 or int4"),
        (&["convert", "somewhere", "-o", "m.palm", "--recipe", "lm=int4"], "unknown part 'lm'"),
        (&["convert", "x", "-o", "m.palm", "--head", "f16", "--embeddings", "f32"], "head is its embedding"),
        (&["convert", "x", "-o", "m.palm", "--query-form", "both"], "use question, query or plain"),
        (&["convert", "x", "-o", "m.palm", "--query-mask", "some"], "use whole or causal"),
        (&["dance"], "unrecognized subcommand"),
    ] {
        assert_says(&fail(2, args), &["error: ", says]);
    }
}

#[test]
fn prompts_that_are_too_much() {
    let scene = scene();
    let says = fail(1, ["run", text(&scene), "-p", &"long ".repeat(10_000), "-m", model()]);
    assert_says(&says, &["error: ", "the prompt has", "shorten it"]);
    let says = fail(1, ["run", text(&scene), "-p", "a <image> b", "-m", model()]);
    assert_says(&says, &["error: ", "image token"]);
}

#[test]
fn choices_that_cannot_be() {
    let scene = scene();
    let ask = |more: &[&str]| {
        let args = ["ask", text(&scene), "-q", "is it?", "-m", model()];
        fail(1, [&args[..], more].concat())
    };
    let says = ask(&["--choose", "yes;no<eos>"]);
    assert_says(
        &says,
        &["error: cannot choose", "because: choice 2 has the control token 1", "leave it out"],
    );
    let says = ask(&["--choose", "yes", "--choose", "no,\u{2581}maybe"]);
    assert_says(&says, &["error: cannot choose", "because: choice 2", "would be answered as \"no, maybe\""]);
    let says = ask(&["--choose", "yes;certainly not at all", "--max-new-tokens", "2"]);
    assert_says(&says, &["error: the longest choice has", "an answer at most 2", "allow more new tokens"]);
}

#[test]
fn checkpoints_that_are_none_leave_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let convert = |checkpoint: &Path| fail(1, ["convert", text(checkpoint), "-o", text(&at("m.palm"))]);
    assert_says(&convert(&at("missing")), &["error: ", "missing"]);
    fs::create_dir(at("empty")).unwrap();
    assert_says(&convert(&at("empty")), &["error: ", "empty", "hint: "]);

    lay_out_checkpoint("tiny1", &at("wordless"));
    for name in ["tokenizer.json", "tokenizer.model"] {
        fs::remove_file(at("wordless").join(name)).unwrap();
    }
    assert_says(&convert(&at("wordless")), &["error: ", "tokenizer", "hint: "]);

    lay_out_checkpoint("tiny1", &at("cut"));
    let weights = at("cut/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert_says(&convert(&at("cut")), &["error: ", "model.safetensors"]);

    lay_out_checkpoint("tiny1", &at("good"));
    let nowhere = fail(1, ["convert", text(&at("good")), "-o", text(&at("no/such/folder/m.palm"))]);
    assert_says(&nowhere, &["error: cannot write", "there is no folder", "hint: make the folder"]);
    let again = fail(1, ["convert", model(), "-o", text(&at("m.palm"))]);
    assert_says(&again, &["error: ", "hint: it is a model file already"]);
    let onto_itself = fail(1, ["convert", text(&at("good")), "-o", text(&at("good/config.json"))]);
    assert_says(&onto_itself, &["error: ", "config.json"]);

    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["cut", "empty", "good", "wordless"]);
}

#[test]
fn adapters_that_do_not_fit_say_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    lay_out_checkpoint("tiny1", &at("base"));
    lay_out_checkpoint("tiny2", &at("other"));
    let target = at("m.palm");
    let convert = |args: &[&str]| fail(1, [&["convert", "-o", text(&target)], args].concat());
    let of_hub = |base: &str| {
        fs::create_dir_all(at("an adapter")).unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(data("adapters/lora").join(name), at("an adapter").join(name)).unwrap();
        }
        let config = at("an adapter/adapter_config.json");
        let changed = fs::read_to_string(&config).unwrap().replace("tiny1-f32", base);
        fs::write(config, changed).unwrap();
        convert(&[text(&at("an adapter"))])
    };
    let says = of_hub("google/paligemma-3b-pt-224");
    let command = format!(
        "hint: pull that model with it: palmtop pull google/paligemma-3b-pt-224 --adapter '{}' -o {}",
        text(&at("an adapter")),
        text(&target)
    );
    assert_says(&says, &["holds an adapter trained on 'google/paligemma-3b-pt-224' and no model", &command]);
    assert_says(&of_hub("/home/somebody/base"), &["palmtop convert base --adapter '"]);
    let here = text(&at("base")).to_owned();
    assert_says(
        &of_hub(&here),
        &[&format!("hint: convert that model with it: palmtop convert {here} --adapter '")],
    );

    let lora = data("adapters/lora");
    assert_says(
        &convert(&[text(&at("other")), "--adapter", text(&lora)]),
        &["error: ", "adapters/lora: ", "q_proj"],
    );
    assert_says(
        &convert(&[text(&at("base")), "--adapter", text(&at("nowhere"))]),
        &["nowhere", "no such folder"],
    );
    let no_factor = format!("{}=much", text(&lora));
    let says = fail(2, ["convert", text(&at("base")), "-o", text(&target), "--adapter", &no_factor]);
    assert_says(&says, &["there is no folder", "'much' is not a number"]);
    assert!(!target.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_a_hint() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = common::palmtop(["inspect", model()]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let says = String::from_utf8(output.stderr).unwrap();
    assert_says(&says, &["error: cannot write to standard output", "because: ", "hint: make room"]);
}
