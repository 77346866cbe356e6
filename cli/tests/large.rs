//! Model files with hundreds of thousands of tensors: each command reads and prints them in moments. If it went through
//! all of them for each, it would take many minutes. Nothing measures time.

mod common;

use std::fs;

use common::{assert_says, fail, scene, succeed, text};
use palmtop::format::{Head, Storage, TensorInfo, checksum};

#[test]
fn every_command_takes_a_file_of_many_tensors() {
    const MANY: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.palm");
    let mut head = Head::default();
    for i in 0..MANY {
        // Made-up names, of which none folds, and the layers of one tensor, which all do.
        for name in [format!("other{i}.layer.7.x"), format!("text.layer.{i}.x")] {
            let tensor = TensorInfo::new(name, Storage::Bytes, &[0]).unwrap();
            head.tensors.push(TensorInfo { checksum: checksum(&[]), ..tensor });
        }
    }
    head.metadata.set("list", vec![7u64; MANY]);
    let length = head.place();
    let mut file = head.encode();
    file.resize(length as usize, 0);
    fs::write(&path, file).unwrap();
    let file = text(&path);
    let inspected = succeed(["inspect", file]).stdout;
    assert_says(&inspected, &["400000 tensors", "text.layer.{0..199999}.x", "other199999.layer.7.x"]);
    assert_says(&succeed(["inspect", file, "--all"]).stdout, &["text.layer.199999.x"]);
    assert_says(&succeed(["inspect", file, "--json"]).stdout, &["text.layer.199999.x"]);
    for args in [
        &["verify", file][..],
        &["plan", file],
        &["bench", "-m", file],
        &["caption", text(&scene()), "-m", file],
    ] {
        assert_says(&fail(1, args), &["general.architecture"]);
    }
}
