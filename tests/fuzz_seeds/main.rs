//! The seeds of the fuzz targets, and whatever fuzzing has once found: none of them makes a parser panic.

mod make;
#[path = "../../fuzz/src/parsers/mod.rs"]
mod parsers;

use std::path::{Path, PathBuf};

// The parsers show what they have found with it.
use palmtop_present as _;

/// What libFuzzer starts with, a folder for each target.
fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds")
}

#[test]
fn every_parser_takes_its_seeds() {
    for (name, parse) in parsers::ALL {
        let folder = seeds().join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            parse(&bytes);
            // Cut short, and with something wrong near the start, in the middle and at the end.
            for part in 1..16 {
                parse(&bytes[..bytes.len() * part / 16]);
                let mut wrong = bytes.clone();
                let at = bytes.len() * part / 16;
                wrong[at] ^= 1 << (part % 8);
                parse(&wrong);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

/// Writes the seeds that are made of the project's own formats; the others were put there by hand.
#[test]
#[ignore = "changes the repository"]
fn seeds_are_made() {
    make::all(&seeds());
}

#[test]
fn every_target_is_there_and_has_a_parser() {
    let targets = seeds().join("../fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "c_calls")
        .collect();
    names.sort();
    assert_eq!(names, parsers::ALL.map(|(name, _)| name));
}
