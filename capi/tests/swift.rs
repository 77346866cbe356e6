//! `mobile/swift` over the real library, where a Swift compiler is (Debian 13 and newer: `swiftlang`).

mod common;

use std::path::Path;
use std::process::Command;

use common::{crate_dir, exists, libraries, run, tiny_model_and_caption};
use palmtop_tests::bits;
use palmtop_tests::skip::skipped;

#[test]
fn swift_hears_what_the_rust_library_says() {
    if !exists("swift") {
        skipped("the Swift package", "no Swift compiler is here (tests/setup.sh)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = format!("{}palmtop{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = format!("{}palmtop_capi{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    std::fs::copy(libraries().join(built), folder.path().join(library)).unwrap();
    let (model, picture, caption) = tiny_model_and_caption(80);
    let swift = |program: &str, arguments: [&Path; 2]| {
        let mut command = Command::new("swift");
        command.args(["run", "--quiet", "--package-path"]).arg(crate_dir().join("../mobile/swift"));
        command.arg("--scratch-path").arg(folder.path().join("build"));
        command.args(["-Xcc", "-I", "-Xcc"]).arg(crate_dir());
        command.args(["-Xlinker", "-L", "-Xlinker"]).arg(folder.path()).env("LD_LIBRARY_PATH", folder.path());
        command.arg(program).args(arguments);
        command
    };
    assert_eq!(run(&mut swift("check", [&model.path, &picture])), bits(&caption));
    let sample = run(&mut swift("caption", [&model.path, &picture]));
    assert!(sample.starts_with(&caption.text), "{sample}");
    let refused = swift("caption", [Path::new("/no/model"), &picture]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/no/model"));
}
