//! Tells the program what it is built for and of which commit: `palmtop --version --verbose`.
//!
//! `PALMTOP_COMMIT` names the commit, as `release/build` does. Without it git is asked, but not for debug builds, which
//! every commit would make anew. From an archive of the sources it is unknown.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PALMTOP_COMMIT");
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    println!("cargo::rustc-env=PALMTOP_TARGET={}", variable("TARGET").expect("cargo names the target"));
    let is_debug = variable("PROFILE").is_none_or(|profile| profile == "debug");
    let commit = variable("PALMTOP_COMMIT").or_else(|| if is_debug { None } else { commit_of_git() });
    println!("cargo::rustc-env=PALMTOP_COMMIT={}", commit.unwrap_or_default());
}

/// What git answers in the folder of the sources, if it is the top of a checkout and not just inside of another one.
fn commit_of_git() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.canonicalize().ok()?;
    let ask = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&root).args(arguments).output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    if Path::new(&ask(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    // Every commit and every checkout is written there. Where git keeps no such log, it is asked at every build.
    let log = root.join(ask(&["rev-parse", "--git-path", "logs/HEAD"])?);
    println!("cargo::rerun-if-changed={}", log.display());
    ask(&["rev-parse", "--short=12", "HEAD"])
}
