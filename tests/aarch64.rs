//! The kernels for 64-bit Arm, cross-built and run in emulation: see `aarch64.sh`.

use std::path::Path;
use std::process::Command;

/// The script's exit code where this system cannot have what it needs.
const CANNOT: i32 = 77;

#[test]
fn neon_kernels_have_equal_bits_in_emulation() {
    if cfg!(target_arch = "aarch64") {
        println!("SKIPPED: the tests of the kernels run on this very CPU");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aarch64.sh");
    let Ok(ran) = Command::new("bash").arg(&script).output() else {
        println!("SKIPPED: there is no bash to run {}", script.display());
        return;
    };
    let said = String::from_utf8_lossy(&ran.stdout);
    if ran.status.code() == Some(CANNOT) && std::env::var_os("CI").is_none() {
        // Straight to the terminal, since the output of a test that passes is not shown.
        let _ = std::fs::write("/dev/stderr", format!("SKIPPED: {said}"));
        return;
    }
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}
