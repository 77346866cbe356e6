//! The kernels for 64-bit Arm, cross-built and run in emulation: see `aarch64.sh`. And the arithmetic by which
//! `benches/arm.py` predicts boards, which takes a trace of two blocks and nothing else.

use std::path::Path;
use std::process::Command;

use palmtop_tests::skip::{missing, skipped};

/// The script's exit code where this system lacks what it needs.
const LACKS: i32 = 77;
const WHAT: &str = "the NEON kernels in emulation";

#[test]
fn neon_kernels_have_equal_bits_in_emulation() {
    if cfg!(target_arch = "aarch64") {
        skipped(WHAT, "their tests run on this very CPU");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aarch64.sh");
    let Ok(ran) = Command::new("bash").arg(&script).output() else {
        missing(WHAT, "there is no bash");
        return;
    };
    let said = String::from_utf8_lossy(&ran.stdout);
    if ran.status.code() == Some(LACKS) {
        missing(WHAT, said.trim());
        return;
    }
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn predictions_of_boards_are_what_was_worked_out_by_hand() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/arm/test.py");
    let Ok(ran) = Command::new("python3").arg("-B").arg(&script).output() else {
        missing("predictions of boards", "there is no python3");
        return;
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
