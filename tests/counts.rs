//! Whether kernels, and a whole answer of the demo's model, take no more instructions than they did: a count is the
//! same on every machine, whatever else it does. `benches/counts.rs` is what is counted, as users get it compiled,
//! under valgrind; `benches/counts.txt` has what it took.
//!
//! Only what valgrind can run is counted: plain Rust and AVX2. AVX-VNNI shares the source of AVX2.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use palmtop::Isa;
use palmtop_tests::skip::{missing, no_instruction_set, skipped};

const WHAT: &str = "instructions of kernels";
const ISAS: [&str; 2] = [Isa::Scalar.name(), Isa::Avx2.name()];
/// So many percent more are let pass: what a compiler's next version may do, and the keys of hash tables.
const PERCENT: u64 = 3;

/// An instruction set, the name of what was counted, and its instructions.
type Count = (&'static str, String, u64);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file() -> PathBuf {
    root().join("benches/counts.txt")
}

/// The output of a command that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sets that can be counted here; what cannot is said.
fn isas() -> Vec<&'static str> {
    if !cfg!(target_arch = "x86_64") {
        skipped(WHAT, "they are counted on x86-64");
        return Vec::new();
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        missing(WHAT, "valgrind is not here");
        return Vec::new();
    }
    let has_avx2 = Isa::Avx2.is_available();
    if !has_avx2 {
        no_instruction_set(Isa::Avx2);
    }
    ISAS.into_iter().filter(|&isa| isa == Isa::Scalar.name() || has_avx2).collect()
}

/// Compiles the program, a release, and counts.
fn count(isas: &[&'static str]) -> Vec<Count> {
    let target = root().join("target-counts");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "--release", "-p", "palmtop-benches", "--bin", "counts"]);
    build.arg("--target-dir").arg(&target).current_dir(root());
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        build.env_remove(variable);
    }
    run(&mut build);
    let folder = tempfile::tempdir().unwrap();
    let mut counts = Vec::new();
    for &isa in isas {
        let out = folder.path().join(isa);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--tool=callgrind", "--toggle-collect=counts::counted"]);
        valgrind.arg("--dump-before=counts::written").arg(format!("--callgrind-out-file={}", out.display()));
        valgrind.arg(target.join("release/counts")).arg(isa);
        for (i, name) in run(&mut valgrind).lines().enumerate() {
            let dump = std::fs::read_to_string(out.with_extension((i + 1).to_string())).unwrap();
            let total =
                dump.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a dump has a total");
            counts.push((isa, name.to_owned(), total.trim().parse().unwrap()));
        }
    }
    counts
}

/// The counts of the file, in its order.
fn written() -> Vec<Count> {
    let text = std::fs::read_to_string(file()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (count, isa) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
            let isa = ISAS.into_iter().find(|&known| known == isa).expect("a set that is counted");
            (isa, words.collect::<Vec<_>>().join(" "), count)
        })
        .collect()
}

fn compiler() -> String {
    run(Command::new("rustc").arg("--version").current_dir(root())).trim().to_owned()
}

const RENEW: &str = "cargo test -p palmtop-tests --test counts -- --ignored";

/// What is wrong with `counted`, a line each.
fn complaints(counted: &[Count], written: &[Count]) -> String {
    let mut text = String::new();
    for (isa, name, count) in counted {
        let Some((.., before)) = written.iter().find(|(i, n, _)| (i, n) == (isa, name)) else {
            writeln!(text, "{name}, {isa}: {count} instructions, and no bound").unwrap();
            continue;
        };
        let bound = before + before * PERCENT / 100;
        if *count > bound {
            let more = 100.0 * (*count as f64 / *before as f64 - 1.0);
            writeln!(
                text,
                "{name}, {isa}: {count} instructions, {more:.1} % more than {before}; the bound is {bound}"
            )
            .unwrap();
        }
    }
    let isas: Vec<_> = counted.iter().map(|(isa, ..)| isa).collect();
    for (isa, name, _) in written.iter().filter(|(isa, ..)| isas.contains(&isa)) {
        if !counted.iter().any(|(i, n, _)| (i, n) == (isa, name)) {
            writeln!(text, "{name}, {isa}: has a bound, and was not counted").unwrap();
        }
    }
    text
}

#[test]
fn nothing_takes_more_instructions_than_it_did() {
    let isas = isas();
    if isas.is_empty() {
        return;
    }
    let wrong = complaints(&count(&isas), &written());
    assert!(
        wrong.is_empty(),
        "\n{wrong}Find out why, or if that is meant, renew benches/counts.txt, and commit it with what needs it:\n    \
         {RENEW}\nThis compiler: {}; the file names the one that it was written with.",
        compiler()
    );
}

#[test]
#[ignore = "writes benches/counts.txt anew"]
fn counts_are_written_anew() {
    let isas = isas();
    assert_eq!(isas, ISAS, "the file has all sets: renew it where all can be counted");
    let compiler = compiler();
    let mut text = format!(
        "# Instructions that benches/counts.rs takes, by instruction set and name; tests/counts.rs allows\n\
         # {PERCENT} % more. Written by `{RENEW}`\n\
         # with {compiler}.\n"
    );
    for (isa, name, count) in count(&isas) {
        writeln!(text, "{count:>11} {isa:<7} {name}").unwrap();
    }
    std::fs::write(file(), text).unwrap();
}

#[test]
fn more_instructions_are_found() {
    let counts = |counts: &[(&'static str, &str, u64)]| -> Vec<Count> {
        counts.iter().map(|&(isa, name, count)| (isa, name.to_owned(), count)).collect()
    };
    let before = counts(&[("avx2", "norm", 1000), ("scalar", "norm", 3000)]);
    assert_eq!(complaints(&counts(&[("avx2", "norm", 1030)]), &before), "");
    let slower = complaints(&counts(&[("avx2", "norm", 1031)]), &before);
    assert_eq!(slower, "norm, avx2: 1031 instructions, 3.1 % more than 1000; the bound is 1030\n");
    let other = complaints(&counts(&[("avx2", "gelu", 1)]), &before);
    assert_eq!(
        other,
        "gelu, avx2: 1 instructions, and no bound\nnorm, avx2: has a bound, and was not counted\n"
    );
}
