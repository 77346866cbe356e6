//! Whether library, converter and program compile for systems other than this one, as far as their standard libraries
//! are here (`rustup target add`, or Debian's packages). Nothing is linked and nothing runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use palmtop_tests::skip::skipped;

/// Those of the README.
const TARGETS: [&str; 6] = [
    "aarch64-apple-darwin",
    "aarch64-linux-android",
    "aarch64-unknown-linux-gnu",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-msvc",
];

/// cargo and rustc of a toolchain that has the standard library of `target`: of the one that built this test, or of
/// Debian's.
fn toolchain(target: &str) -> Option<(PathBuf, PathBuf)> {
    let mine = (PathBuf::from(env!("CARGO")), PathBuf::from("rustc"));
    let debian = ("/usr/bin/cargo".into(), "/usr/bin/rustc".into());
    [mine, debian].into_iter().find(|(cargo, rustc)| {
        let libraries = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output();
        let has_std = |folder: &Path| {
            std::fs::read_dir(folder).is_ok_and(|entries| {
                entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
            })
        };
        cargo.exists()
            && libraries
                .is_ok_and(|output| has_std(Path::new(String::from_utf8_lossy(&output.stdout).trim())))
    })
}

#[test]
fn other_systems_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for target in TARGETS {
        let Some((cargo, rustc)) = toolchain(target) else {
            skipped(
                format_args!("compiling for {target}"),
                "its standard library is not here (rustup target add)",
            );
            continue;
        };
        let mut check = Command::new(&cargo);
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
        check.args(["--target", target, "--target-dir"]).arg(root.join("target-check"));
        // Warnings are clippy's business, on the system of whoever writes.
        check.env("RUSTC", &rustc).env("RUSTFLAGS", "--cap-lints warn");
        for variable in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"]
        {
            check.env_remove(variable);
        }
        let output = check.current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{target}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
