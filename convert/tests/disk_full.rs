//! A file system that takes no more: an error, and no half-written target.
//!
//! The conversion runs in a child process, under a limit that the parent sets with the shell's own means.
#![cfg(target_os = "linux")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::path::Path;
use std::process::{Command, Output};

use common::{checkpoint, options};
use palmtop_convert::convert;

const CHILD: &str = "PALMTOP_TEST_CHECKPOINT";
const TARGET: &str = "PALMTOP_TEST_TARGET";

/// What the children run.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child() {
    let (Ok(checkpoint), Ok(target)) = (std::env::var(CHILD), std::env::var(TARGET)) else { return };
    let target = Path::new(&target);
    let error = convert(checkpoint.as_ref(), target, &options("f32"), &()).unwrap_err();
    let left = std::fs::read_dir(target.parent().unwrap()).unwrap().count();
    println!("child: {error}; left behind: {left}");
}

/// Runs the child by `script`, in which `"$@"` is its command line and `$DIR` the target's folder.
fn run(script: &str) -> Output {
    let (from, to) = (checkpoint("tiny1"), tempfile::tempdir().unwrap());
    let child = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    if !script.contains("mount") {
        command = Command::new("sh");
        command.args(["-c", script, "sh"]);
    }
    command
        .arg(child)
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD, from.path())
        .env(TARGET, to.path().join("model.palm"))
        .env("DIR", to.path())
        .output()
        .unwrap()
}

#[test]
fn a_limit_on_the_length_of_files() {
    let output = run("trap '' XFSZ; ulimit -f 1000; exec \"$@\"");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("model.palm: File too large"), "{output:?}");
    assert!(text.contains("left behind: 0"), "{text}");
}

#[test]
fn a_disk_that_fills_up_while_writing() {
    let mount = "mount -t tmpfs -o size=1500k none \"$DIR\" 2>/dev/null || exit 77; exec \"$@\"";
    let output = run(mount);
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare") {
        skip::skipped("a full disk", "this machine lets nobody mount a small file system");
        return;
    }
    assert!(text.contains("model.palm: No space left on device"), "{output:?}");
    assert!(text.contains("left behind: 0"), "{text}");
}
