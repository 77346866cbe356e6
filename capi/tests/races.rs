//! ThreadSanitizer over C programs and the whole library, Rust's standard library included, whose locks it understands
//! only if that is compiled for it. It takes a nightly toolchain with `rust-src`, some two minutes, and to be asked
//! for:
//!
//! ```sh
//! cargo test -p palmtop-capi --test races -- --ignored
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{compilers, crate_dir, run};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::skipped;
use palmtop_tests::{converted, uniform};

const WHAT: &str = "the library under ThreadSanitizer";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A library that notes its accesses to memory, and what they are noted in.
struct Watched {
    library: PathBuf,
    runtime: PathBuf,
}

impl Watched {
    /// Builds it, unless this machine cannot.
    fn build() -> Option<Self> {
        let sysroot = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).output();
        let Some(sysroot) = sysroot.ok().filter(|output| output.status.success()) else {
            skipped(WHAT, "it takes a nightly toolchain");
            return None;
        };
        let here = Path::new(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib/rustlib");
        let runtime = here.join(TARGET).join("lib/librustc-nightly_rt.tsan.a");
        if !here.join("src/rust/library").exists() || !runtime.exists() {
            skipped(WHAT, "it takes this: rustup component add rust-src --toolchain nightly");
            return None;
        }
        let target = crate_dir().join("../target/thread-sanitizer");
        let mut cargo = Command::new("cargo");
        cargo.args([
            "+nightly",
            "rustc",
            "--quiet",
            "-Zbuild-std",
            "-p",
            "palmtop-capi",
            "--lib",
            "--release",
        ]);
        cargo.args(["--target", TARGET, "--crate-type", "staticlib", "--target-dir"]).arg(&target);
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-Zsanitizer=thread");
        run(cargo.current_dir(crate_dir()));
        Some(Self { library: target.join(TARGET).join("release/libpalmtop_capi.a"), runtime })
    }

    /// Builds a program of `c` with it, and runs it.
    fn run(&self, source: &str, arguments: &[&str]) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let [object, program] = ["object.o", "program"].map(|name| folder.path().join(name));
        let compiler = compilers()[0];
        let mut command = compiler.c();
        command.args(["-std=c11", "-g", "-O1", "-fsanitize=thread", "-I"]).arg(crate_dir());
        command.arg("-c").arg(crate_dir().join("tests/c").join(source)).arg("-o").arg(&object);
        run(&mut command);
        // With the runtime of Rust's compiler, since there can be only one.
        let mut command = compiler.c();
        command.arg(&object).arg(&self.library).arg("-Wl,--whole-archive").arg(&self.runtime);
        command.args(["-Wl,--no-whole-archive", "-lpthread", "-ldl", "-lm", "-lrt", "-o"]).arg(&program);
        run(&mut command);
        // With the kernels of plain Rust, since accesses wider than 16 bytes are not noted.
        Command::new(program).args(arguments).env("PALMTOP_ISA", "scalar").output().unwrap()
    }
}

#[test]
#[ignore = "takes a nightly toolchain with rust-src, and two minutes"]
fn threads_do_not_race() {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        skipped(WHAT, "it is set up for x86-64 Linux");
        return;
    }
    let Some(watched) = Watched::build() else { return };
    let model = converted("tiny1", uniform(WeightFormat::Int8));
    let path = model.path.to_str().unwrap();
    for program in ["threads.c", "watch_threads.c"] {
        let stormy = watched.run(program, &[path, "5"]);
        let said = String::from_utf8_lossy(&stormy.stderr);
        assert!(stormy.status.success() && said.is_empty(), "{program}: {}: {said}", stormy.status);
        assert!(stormy.stdout.starts_with(b"ok: "), "{program}");
    }
    // And it would have been seen.
    let racing = watched.run("race.c", &[path]);
    let said = String::from_utf8_lossy(&racing.stderr);
    assert!(
        !racing.status.success() && said.contains("ThreadSanitizer: data race"),
        "{}: {said}",
        racing.status
    );
    assert!(said.contains("palmtop::image"), "a race with the library, and not only with C: {said}");
}
