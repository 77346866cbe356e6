//! Whether library, converter and program compile for the processors and systems of others, as far as their standard
//! libraries are here (`rustup target add`). Nothing is linked and nothing runs.

use std::path::Path;
use std::process::Command;

use palmtop_tests::skip::skipped;

/// Those of the README.
const TARGETS: [&str; 3] = ["aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-gnu"];

/// Whether the toolchain that built this test has the standard library of `target`.
fn has_std(target: &str) -> bool {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let libraries = |folder: &Path| {
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
        })
    };
    asked.is_ok_and(|output| libraries(Path::new(String::from_utf8_lossy(&output.stdout).trim())))
}

#[test]
fn other_systems_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (here, missing): (Vec<&str>, Vec<&str>) = TARGETS.into_iter().partition(|target| has_std(target));
    for target in missing {
        let what = format_args!("compiling for {target}");
        skipped(what, "its standard library is not here (rustup target add)");
    }
    if here.is_empty() {
        return;
    }
    // All at once: what runs here, such as macros, is compiled once, and no core waits.
    let mut check = Command::new(env!("CARGO"));
    check.args([
        "check",
        "--quiet",
        "--offline",
        "-p",
        "palmtop",
        "-p",
        "palmtop-convert",
        "-p",
        "palmtop-cli",
    ]);
    check.arg("--target-dir").arg(root.join("target-check"));
    for target in &here {
        check.args(["--target", target]);
        // The cryptography of TLS has parts in C. As nothing is linked, nothing need be compiled of them.
        let of_target = target.replace('-', "_");
        check.env(format!("CC_{of_target}"), "true").env(format!("AR_{of_target}"), "true");
    }
    // Warnings are clippy's business, on the system of whoever writes.
    check.env("RUSTFLAGS", "--cap-lints warn");
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        check.env_remove(variable);
    }
    let output = check.current_dir(&root).output().unwrap();
    assert!(output.status.success(), "{here:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}
