//! Pictures as people hand them over: folders of phones, names that mislead, files that are cut, and what must never be
//! overwritten.

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, assert_says, data, fail, model, run, scene, succeed, text};

const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";

fn ocr(args: &[&str]) -> Ran {
    run([&["ocr", "-m", model(), "--max-new-tokens", "1"], args].concat())
}

/// The files that were answered about, without their folders.
fn answered(ran: &Ran) -> Vec<String> {
    let name = |source: &str| source.rsplit('/').next().unwrap().to_owned();
    ran.json().iter().map(|line| name(line["source"].as_str().unwrap())).collect()
}

/// A picture as JPEG, whole.
fn jpeg() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image::open(data("images/noise_97x61.png"))
        .unwrap()
        .into_rgb8()
        .write_to(&mut file, image::ImageFormat::Jpeg)
        .unwrap();
    file.into_inner()
}

#[test]
fn a_folder_from_a_phone_and_a_mac() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a.png", "b.jfif", "c.JPE", "d.jpg", "e"] {
        fs::copy(scene(), at(name)).unwrap();
    }
    for name in ["._a.png", ".f.png"] {
        fs::write(at(name), b"\0\x05\x16\x07\0\x02\0\0Mac OS X").unwrap();
    }
    for name in ["g.HEIC", "h.heic", "i.jpg.heic"] {
        fs::write(at(name), HEIC).unwrap();
    }
    fs::write(at("notes.txt"), "words").unwrap();
    let ran = ocr(&[text(folder.path()), "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(answered(&ran), ["a.png", "b.jfif", "c.JPE", "d.jpg", "e"]);
    assert_says(&ran.stderr, &["passed over 4 files", "3 HEIC, 1 .txt", "heif-convert"]);
}

#[test]
fn a_folder_of_other_pictures_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.heic", "b.heic"] {
        fs::write(folder.path().join(name), HEIC).unwrap();
    }
    let says = fail(1, ["caption", text(folder.path())]);
    assert_says(&says, &["error: no picture in folder", "(but 2 HEIC)", "hint: ", "TIFF", "heif-convert"]);
}

#[test]
fn files_that_are_something_else_are_named_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    for (name, bytes, says, advice) in [
        ("lfs.png", &lfs[..], "a Git LFS pointer", "git lfs pull"),
        ("page.jpg", b"<!doctype html>\n<html>", "a web page", "download it again"),
        ("error.png", b"{\"message\": \"Not Found\"}", "JSON", "download it again"),
        ("empty.png", b"", "empty", "written or sent completely"),
        ("photo.jpg", HEIC, "it looks like HEIC", "heif-convert"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_says(&fail(1, ["caption", text(&path)]), &["error: cannot use picture", name, says, advice]);
    }
}

#[test]
fn one_missing_picture_among_many_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, none) = (folder.path().join("gone.png"), folder.path().join("none*.png"));
    let scene = scene();
    let ran = ocr(&[text(&scene), text(&gone), text(&none), text(&scene), "--json"]);
    assert_eq!(ran.code, Some(1));
    let lines = ran.json();
    let errors: Vec<bool> = lines.iter().map(|line| line["error"].is_string()).collect();
    assert_eq!(errors, [false, true, true, false]);
    assert_eq!(lines[1]["source"], text(&gone));
    assert_says(&ran.stderr, &["error: there is no file or folder", "gone.png", "error: no file matches"]);
    assert_says(&ran.stderr, &["2 of 4 pictures could not be used"]);
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("gone[1].png");
    std::os::unix::fs::symlink("nowhere.png", &link).unwrap();
    let scene = scene();
    let ran = ocr(&[text(&link), text(&scene), "--json"]);
    assert_eq!((ran.code, ran.json().len()), (Some(1), 2));
    assert_says(&ran.stderr, &["cannot use picture", "gone[1].png", "hint: it is a link to nowhere.png"]);
}

#[test]
fn cut_pictures_are_refused_unless_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = jpeg();
    let half = whole.len() * 2 / 3;
    let png = fs::read(data("images/noise_97x61.png")).unwrap();
    for (name, bytes) in [
        ("cut.jpg", whole[..half].to_vec()),
        ("ended.jpg", [&whole[..half], b"\xff\xd9"].concat()),
        ("cut.png", png[..png.len() / 2].to_vec()),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let ran = ocr(&[text(&path), "--json"]);
        assert_eq!(ran.code, Some(1), "{name}");
        assert_says(&ran.stderr, &["image is truncated", "hint: --allow-truncated"]);
        let ran = ocr(&[text(&path), "--json", "--allow-truncated"]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        assert_eq!(ran.json()[0]["image"], serde_json::json!({"width": 97, "height": 61, "truncated": true}));
        assert_says(&ran.stderr, &["note: ", name, "ends too early"]);
    }
    // Whole, though it does not say so, and with a maker's notes behind it.
    let path = folder.path().join("trailer.jpg");
    fs::write(&path, [&whole[..whole.len() - 2], b"SEFTnotes"].concat()).unwrap();
    let ran = ocr(&[text(&path), "--json"]);
    assert_eq!((ran.code, &ran.json()[0]["image"]["truncated"]), (Some(0), &false.into()));
}

#[test]
fn what_is_saved_replaces_no_picture() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["cat.png", "cat.detect.png"] {
        fs::copy(scene(), at(name)).unwrap();
    }
    fs::copy(scene(), at("cat.1.x.png")).unwrap();
    let before = fs::read(scene()).unwrap();
    let (cat, other, mask) = (at("cat.png"), at("cat.detect.png"), at("cat.1.x.png"));
    let common = ["-l", "cat", "-m", model()];
    let says =
        fail(2, [&["detect", text(&cat), text(&other), "--save", text(folder.path())], &common[..]].concat());
    assert_says(&says, &["error: --save: ", "cat.detect.png", "would replace the picture"]);
    let masks = ["--save-masks", text(folder.path())];
    let says = fail(2, [&["segment", text(&cat), text(&mask)], &masks[..], &common[..]].concat());
    assert_says(&says, &["error: --save-masks ", "a mask could replace the picture", "cat.1.x.png"]);
    let out = ["--prompt", "ocr", "-m", model(), "-o", text(&cat)];
    assert_says(&fail(2, [&["trace", text(&cat)], &out[..]].concat()), &["error: ", "would replace"]);
    for path in [&cat, &other, &mask] {
        assert!(fs::read(path).unwrap() == before, "{}", path.display());
    }
}

/// Whatever is between the two, no control character of a name or an answer reaches a terminal.
fn is_tame(ran: &Ran) -> bool {
    let tame = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    tame(&ran.stdout) && tame(&ran.stderr)
}

#[cfg(unix)]
#[test]
fn names_cannot_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (good, bad) = (at("a\x1b[31m.png"), at("b\x1b]0;title\x07.png"));
    fs::copy(scene(), &good).unwrap();
    fs::write(&bad, b"").unwrap();
    fs::create_dir(at("c\x1b[2J")).unwrap();
    let gone = at("d\u{9b}.png");
    let empty = at("c\x1b[2J");
    let out = at("out\x1b[1m");
    let paths: Vec<&Path> = vec![&good, &bad, &gone, &empty];
    let args: Vec<&str> = paths.iter().map(|path| text(path)).collect();
    let ran = ocr(&[&args[..], &["-v"]].concat());
    assert!(ran.code == Some(1) && is_tame(&ran), "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("a\u{fffd}[31m.png"), "{}", ran.stdout);
    assert_says(&ran.stderr, &["b\u{fffd}]0;title\u{fffd}.png", "d\u{fffd}.png", "c\u{fffd}[2J"]);
    // JSON says it exactly, in its own way.
    let line = ocr(&[text(&good), "--json"]).json().remove(0);
    assert_eq!(line["source"], text(&good));
    for args in [
        &["detect", text(&good), "-l", "cat\x1b[31m", "-m", model(), "--max-new-tokens", "2"][..],
        &["detect", text(&good), "-l", "cat", "-m", model(), "--max-new-tokens", "2", "--save", text(&out)],
        &["inspect", text(&good)],
        &["verify", text(&gone)],
        &["convert", text(&empty), "-o", "x.palm"],
        &["caption", text(&good), "-m", text(&gone)],
        &["eval", text(&gone), "-m", model()],
        &["caption", "--lang", "\x1b[31m"],
        &["\x1b[31mcaption"],
    ] {
        assert!(is_tame(&run(args)), "{args:?}");
    }
}

#[test]
fn tiff_is_read() {
    let folder = tempfile::tempdir().unwrap();
    // Two pixels of grey, the first directory behind the header.
    let entries: [(u16, u16, u32, u32); 8] = [
        (256, 3, 1, 2),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 110),
        (278, 3, 1, 1),
        (279, 4, 1, 2),
    ];
    let mut file = b"II*\0\x08\0\0\0\x08\0".to_vec();
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0, 0, 0, 0, 10, 200]);
    let path = folder.path().join("scan.tif");
    fs::write(&path, file).unwrap();
    let line =
        succeed(["ocr", text(&path), "-m", model(), "--max-new-tokens", "1", "--json"]).json().remove(0);
    assert_eq!(line["image"]["width"], 2);
}
