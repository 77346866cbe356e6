//! `palmtop embed` and `palmtop find`: from pictures to an index, and from questions to pictures.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use common::{assert_says, data, fail, interrupt, palmtop, run, succeed, text};
use palmtop_retrieval::Index;
use palmtop_tests::colpali::{Layout, colpali};
use safetensors::SafeTensors;
use serde_json::Value;

/// Models for retrieval of f32 and of int8 weights, converted once.
fn model_of(weights: &str) -> String {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("retrieval");
        fs::create_dir_all(&folder).unwrap();
        let checkpoint = colpali(Layout::NewTransformers);
        for weights in ["f32", "int8"] {
            let target = folder.join(format!("{weights}.palm"));
            let name = ["--name", "vidore/tiny"];
            let args = ["convert", text(checkpoint.path()), "-o", text(&target), "--weights", weights];
            succeed(args.iter().chain(&name));
        }
        folder
    });
    text(&folder.join(format!("{weights}.palm"))).to_owned()
}

fn model() -> String {
    model_of("f32")
}

/// The pictures of which transformers has made vectors, in a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let about: Value =
        serde_json::from_str(&fs::read_to_string(data("retrieval/retrieval.json")).unwrap()).unwrap();
    let names = about["pages"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    let copy = |name: String| {
        let target = folder.join(&name);
        fs::copy(data("images").join(name), &target).unwrap();
        target
    };
    names.map(copy).collect()
}

fn questions() -> Vec<String> {
    let about: Value =
        serde_json::from_str(&fs::read_to_string(data("retrieval/retrieval.json")).unwrap()).unwrap();
    about["questions"].as_array().unwrap().iter().map(|q| q.as_str().unwrap().to_owned()).collect()
}

/// Scores of questions for pages by transformers, a list for each question.
fn scores() -> Vec<Vec<f32>> {
    let bytes = fs::read(data("retrieval/plain.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor("scores").unwrap();
    let values: Vec<f32> = view.data().chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    values.chunks(view.shape()[1]).map(<[f32]>::to_vec).collect()
}

#[test]
fn pages_are_found_with_the_scores_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    let (questions, scores) = (questions(), scores());
    for (vectors, most) in [("f16", 2e-3), ("int8", 2e-2)] {
        let index = folder.path().join(format!("{vectors}.index"));
        let mut args = vec!["embed", "-o", text(&index), "--vectors", vectors, "-m"];
        let model = model();
        args.push(&model);
        args.extend(pages.iter().map(|page| text(page)));
        let said = succeed(args).stdout;
        assert_says(&said, &["3 embedded, 0 unchanged", "index: 3 pages"]);
        let mut args = vec!["find", text(&index), "--json", "-m", &model];
        questions.iter().for_each(|question| args.extend(["-q", question]));
        let lines = succeed(args).json();
        assert_eq!(lines.len(), questions.len());
        for ((line, question), scores) in lines.iter().zip(&questions).zip(&scores) {
            assert_eq!(line["question"], question.as_str());
            assert_eq!((line["pages"].as_u64(), line["damaged"].as_array().unwrap().len()), (Some(3), 0));
            assert!(line["timings"]["search_ms"].is_f64() && line["vectors"].as_u64().unwrap() > 10);
            let hits = line["hits"].as_array().unwrap();
            let mut order: Vec<usize> = (0..3).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            for (hit, &page) in hits.iter().zip(&order) {
                let (score, want) = (hit["score"].as_f64().unwrap(), f64::from(scores[page]));
                assert!((score - want).abs() < most * want, "{vectors}: {score} for {want}");
                assert_eq!(hit["source"], text(&pages[page]), "{vectors}");
            }
            assert_eq!((hits.len(), hits[0]["width"].is_u64()), (3, true));
        }
        // The same as text: scores and names, the best first.
        let said = succeed(["find", text(&index), "-q", &questions[0], "--top", "2", "-m", &model]).stdout;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        for (line, hit) in lines.iter().zip(lines_of(&index, &questions[0], &model)) {
            assert_says(
                line,
                &[&format!("{:.3}", hit["score"].as_f64().unwrap()), hit["source"].as_str().unwrap()],
            );
        }
    }
}

fn lines_of(index: &Path, question: &str, model: &str) -> Vec<Value> {
    let line = succeed(["find", text(index), "-q", question, "--json", "-m", model]).json().remove(0);
    line["hits"].as_array().unwrap().clone()
}

#[test]
fn what_has_not_changed_is_passed_over_and_what_has_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (shots, index) = (folder.path().join("shots"), folder.path().join("pages.index"));
    fs::create_dir(&shots).unwrap();
    let pages = pages(&shots);
    fs::write(shots.join("notes.txt"), "no picture").unwrap();
    fs::write(shots.join("broken.png"), "no picture either").unwrap();
    // An index keeps names as UTF-8.
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"z\xff.png");
    fs::copy(&pages[0], shots.join(odd)).unwrap();
    let model = model();
    let embed = || run(["embed", text(&shots), "-o", text(&index), "--json", "-m", &model]);
    let ran = embed();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_says(
        &ran.stderr,
        &["cannot use picture", "broken.png", "its name is not UTF-8", "passed over 1 file"],
    );
    let lines = ran.json();
    let statuses = |lines: &[Value]| {
        let status = |line: &Value| line["status"].as_str().unwrap_or("failed").to_owned();
        lines.iter().map(status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&lines), ["failed", "embedded", "embedded", "embedded", "failed"]);
    assert_eq!(lines[0]["source"], text(&shots.join("broken.png")));
    assert!(lines[0]["error"].is_string());
    let done = &lines[1];
    assert!(done["vectors"].as_u64().unwrap() > 16 && done["image"]["width"].is_u64(), "{done}");
    assert!(done["timings"]["encode_ms"].is_f64() && done["timings"]["vectors_ms"].is_f64(), "{done}");
    let before = fs::read(&index).unwrap();

    fs::remove_file(shots.join("broken.png")).unwrap();
    fs::remove_file(shots.join(odd)).unwrap();
    let again = embed();
    assert_eq!((again.code, statuses(&again.json())), (Some(0), vec!["unchanged".to_owned(); 3]));
    assert_eq!(fs::read(&index).unwrap(), before);

    fs::copy(&pages[0], &pages[1]).unwrap();
    let changed = embed().json();
    let count = changed.iter().filter(|line| line["status"] == "embedded").count();
    assert_eq!(count, 1, "{changed:?}");
    let found = Index::open(&index).unwrap();
    assert_eq!(found.pages().len(), 3);
    // Two pictures that are the same have the same vectors.
    let at = |path: &Path| found.pages().iter().position(|page| *page.name == *text(path)).unwrap();
    assert_eq!(found.vectors(at(&pages[0])), found.vectors(at(&pages[1])));

    // Removed, and then its room given back.
    let gone = ["embed", "-o", text(&index), "--remove", text(&pages[0])];
    assert_says(&succeed(gone).stdout, &["2 pages"]);
    let said = fail(1, gone);
    assert_says(&said, &["the index has no page", "hint: palmtop inspect --all"]);
    let compacted = succeed(["embed", "-o", text(&index), "--compact"]);
    assert_says(&compacted.stderr, &["compacted the index from"]);
    let found = Index::open(&index).unwrap();
    assert_eq!((found.pages().len(), found.unused_bytes()), (2, 0));
    // From standard input.
    let mut child = palmtop(["embed", "-", "-o", text(&index), "-m", &model]);
    child.stdin(fs::File::open(&pages[2]).unwrap());
    let ran: common::Ran = child.output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(Index::open(&index).unwrap().pages().iter().any(|page| &*page.name == "-"));
}

#[test]
fn other_models_and_other_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    let index = folder.path().join("pages.index");
    let (model, other) = (model(), model_of("int8"));
    let page = text(&pages[0]);
    let make = ["embed", page, "-o", text(&index), "-m", &model];
    succeed(make);
    for args in [
        vec!["embed", page, "-o", text(&index), "-m", &other],
        vec!["find", text(&index), "-q", "a", "-m", &other],
    ] {
        let said = fail(1, args);
        assert_says(
            &said,
            &["the index was made with vidore/tiny", "hint: it is the same checkpoint", "--any-model"],
        );
    }
    let ran = succeed(["find", text(&index), "-q", "a", "-m", &other, "--any-model"]);
    assert_says(&ran.stderr, &["note: vidore/tiny", "made the index"]);
    assert_says(&ran.stdout, &[page]);
    assert_says(&fail(2, make.into_iter().chain(["--vectors", "int8"])), &["has vectors in f16"]);
    // What makes no vectors.
    for args in [
        vec!["embed", page, "-o", "new.index", "-m", "demo.palm"],
        vec!["find", text(&index), "-q", "a", "-m", "demo.palm"],
        // The built-in one, by its name.
        vec!["embed", page, "-o", "new.index", "-m", "demo"],
        vec!["find", text(&index), "-q", "a", "-m", "demo"],
    ] {
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        args.iter_mut().filter(|a| *a == "demo.palm").for_each(|a| *a = common::model().to_owned());
        args.iter_mut().filter(|a| *a == "new.index").for_each(|a| *a = text(&index).replace("pages", "new"));
        assert_says(&fail(1, args), &["not one for retrieval", "hint: convert a checkpoint of ColPali"]);
    }
    assert!(!folder.path().join("new.index").exists());
    // What is no index is not written over.
    let said = fail(1, ["embed", page, "-o", page, "-m", &model]);
    assert_says(&said, &["cannot use index", "because: it is not an index", "hint: an index is made by"]);
    assert_eq!(
        fs::read(&pages[0]).unwrap(),
        fs::read(data("images").join(pages[0].file_name().unwrap())).unwrap()
    );
    assert_says(&fail(1, ["find", page, "-q", "a", "-m", &model]), &["it is not an index"]);
    // No model is named, and none is there.
    assert_says(
        &fail(1, ["find", text(&index), "-q", "a"]),
        &["none of `palmtop models`", "hint: name it with -m"],
    );
    assert_says(
        &fail(1, ["embed", page, "-o", text(&folder.path().join("x"))]),
        &["makes vectors", "hint: name one"],
    );
}

#[test]
fn the_model_of_the_folder_that_made_an_index_asks_it() {
    let folder = tempfile::tempdir().unwrap();
    let (page, index) = (pages(folder.path()).remove(0), folder.path().join("pages.index"));
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    for weights in ["f32", "int8"] {
        fs::copy(model_of(weights), models.join(format!("tiny-{weights}.palm"))).unwrap();
    }
    let here = |args: &[&str]| {
        let output =
            palmtop(args).env("PALMTOP_MODELS", &models).env("PALMTOP_MODEL", common::model()).output();
        common::Ran::from(output.unwrap())
    };
    let made = here(&["embed", text(&page), "-o", text(&index)]);
    assert_says(&made.stderr, &["several of `palmtop models`", "hint: name one with -m"]);
    assert_eq!((made.code, index.exists()), (Some(1), false));
    let made = here(&["embed", text(&page), "-o", text(&index), "-m", "tiny-int8"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let found = here(&["find", text(&index), "-q", "a"]);
    assert_says(&found.stderr, &["note: tiny-int8 makes the vectors"]);
    assert_eq!((found.code, found.stdout.lines().count()), (Some(0), 1));
    // It does not answer from now on.
    let said = palmtop(["caption", text(&page)]).env("PALMTOP_MODELS", &models).output().unwrap();
    let said = common::Ran::from(said);
    assert!(said.code == Some(0) && !said.stderr.contains("tiny-"), "{}", said.stderr);
}

#[test]
fn an_index_is_inspected_verified_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let mut pages = pages(folder.path());
    // A name is its owner's: it must not reach the terminal as it is.
    let hostile = folder.path().join("a\u{1b}[2J\u{202e}.png");
    fs::copy(&pages[0], &hostile).unwrap();
    pages.push(hostile.clone());
    let index = folder.path().join("pages.index");
    let model = model();
    let mut make = vec!["embed", "-o", text(&index), "-m", &model];
    make.extend(pages.iter().map(|page| text(page)));
    succeed(&make);
    let said = succeed(["inspect", text(&index), "--all"]).stdout;
    assert_says(
        &said,
        &["an index of 4 pages", "vectors", "40 numbers, in f16", "vidore/tiny", "\u{fffd}[2J\u{fffd}.png"],
    );
    assert!(!said.contains('\u{1b}'));
    let found = succeed(["find", text(&index), "-q", "a", "-m", &model]).stdout;
    assert!(found.contains("\u{fffd}[2J") && !found.contains('\u{1b}'), "{found}");
    let facts = succeed(["inspect", text(&index), "--json"]).json().remove(0);
    assert_eq!((facts["dims"].as_u64(), facts["vectors"].as_str()), (Some(40), Some("f16")));
    assert_eq!(facts["model"]["name"], "vidore/tiny");
    let listed = facts["pages"].as_array().unwrap();
    assert!(listed.iter().any(|page| page["source"] == text(&hostile)), "JSON has names exactly");
    assert_says(&succeed(["verify", text(&index)]).stdout, &["in 4 pages, all as written"]);

    // The last page's vectors are damaged.
    let mut bytes = fs::read(&index).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 0x40;
    fs::write(&index, &bytes).unwrap();
    assert_says(
        &fail(1, ["verify", text(&index)]),
        &["damaged in 1 of 4 pages", "[2J", "hint: palmtop embed --compact"],
    );
    let ran = run(["find", text(&index), "-q", "a", "-m", &model]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 3));
    assert_says(&ran.stderr, &["are damaged, and it was left out", "hint: palmtop embed --compact"]);
    // Cut off: it is said, and what is whole is kept.
    fs::write(&index, &bytes[..at]).unwrap();
    let said = fail(1, ["find", text(&index), "-q", "a", "-m", &model]);
    assert_says(&said, &["cannot use index", "because: it is cut off", "hint: palmtop embed --compact -o"]);
    let ran = succeed(["embed", "-o", text(&index), "--compact"]);
    assert_eq!(ran.stderr.matches("compacted").count(), 1, "{}", ran.stderr);
    assert_says(&ran.stderr, &["was damaged; what is whole", "1 place of it could not be read, and is lost"]);
    make.push("--json");
    let lines = succeed(&make).json();
    let count = lines.iter().filter(|line| line["status"] == "embedded").count();
    assert_eq!(count, 1, "only what was lost is made anew: {lines:?}");
    assert_says(&succeed(["verify", text(&index)]).stdout, &["in 4 pages"]);

    // One command both throws away what is damaged and makes it anew.
    let mut bytes = fs::read(&index).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 0x40;
    fs::write(&index, &bytes).unwrap();
    make.push("--compact");
    let ran = succeed(&make);
    assert_says(&ran.stderr, &["lost, since its vectors were damaged"]);
    let count = ran.json().iter().filter(|line| line["status"] == "embedded").count();
    assert_eq!((count, succeed(["verify", text(&index)]).code), (1, Some(0)));

    // Without its beginning, nothing is known.
    fs::write(&index, &bytes[..100]).unwrap();
    let said = fail(1, ["embed", "-o", text(&index), "--compact"]);
    assert_says(&said, &["it is cut off", "hint: nothing of it can be kept", "remove the file"]);
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (model, first) = (model(), pages(folder.path()).remove(0));
    let gone = folder.path().join("gone.index");
    let find = |index: &Path| fail(1, ["find", text(index), "-q", "a", "-m", &model]);
    assert_says(&find(&gone), &["cannot use", "gone.index", "hint: an index is made by palmtop embed"]);
    assert_says(&find(folder.path()), &["it is a folder", "hint: name the file that palmtop embed has made"]);
    // Pages that nobody looked at are told even to those who want quiet.
    let shots = folder.path().join("shots");
    fs::create_dir(&shots).unwrap();
    fs::copy(&first, shots.join("1.png")).unwrap();
    fs::write(shots.join("report.pdf"), b"%PDF-1.4\n").unwrap();
    let ran = succeed(["embed", text(&shots), "-o", text(&gone), "-m", &model, "--quiet"]);
    assert_says(&ran.stderr, &["passed over 1 file", "1 PDF; make pictures of its pages first: pdftoppm"]);
    // Such a model answers in words that nobody should read.
    let ran = succeed(["caption", text(&first), "-m", &model, "--max-new-tokens", "2"]);
    assert_says(&ran.stderr, &["note: this is a model for retrieval", "palmtop embed", "palmtop find"]);
}

#[test]
fn ctrl_c_leaves_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let shots = folder.path().join("shots");
    fs::create_dir(&shots).unwrap();
    let first = pages(folder.path()).remove(0);
    // More than can be done before the signal comes.
    let png = fs::read(&first).unwrap();
    for n in 0..2000 {
        // Bytes behind the end of a picture count as another content.
        fs::write(shots.join(format!("{n:04}.png")), [&png[..], &[n as u8, (n >> 8) as u8]].concat())
            .unwrap();
    }
    let index = folder.path().join("pages.index");
    let model = model();
    let mut child = palmtop(["embed", text(&shots), "-o", text(&index), "-m", &model, "-v"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = common::wait_until_it_says(&mut child, "0003.png");
    // Only one writes, and others read.
    let busy = fail(1, ["embed", "-o", text(&index), "--compact"]);
    assert_says(&busy, &["is being written by another process", "hint: wait"]);
    assert_says(&succeed(["find", text(&index), "-q", "a", "-m", &model]).stdout, &[".png"]);
    interrupt(&child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert_says(&said, &["interrupted;", "of 2000 pages are done"]);
    let found = Index::open(&index).unwrap();
    let count = found.pages().len();
    assert!((4..2000).contains(&count) && found.verify(|_| {}).is_empty(), "{count}");
    assert!(!said.contains("panicked"), "{said}");
    // No page of them is made twice.
    let mut args = vec!["embed", "-o", text(&index), "--json", "-m", &model];
    let some: Vec<PathBuf> = (0..count + 2).map(|n| shots.join(format!("{n:04}.png"))).collect();
    args.extend(some.iter().map(|page| text(page)));
    let lines = succeed(args).json();
    let unchanged = lines.iter().filter(|line| line["status"] == "unchanged").count();
    assert_eq!((unchanged, lines.len()), (count, count + 2));
}
