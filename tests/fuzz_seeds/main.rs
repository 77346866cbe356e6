//! The seeds of the fuzz targets, and whatever fuzzing has once found: none of them makes a parser panic.

mod make;
#[path = "../../fuzz/src/parsers/mod.rs"]
mod parsers;

use std::path::{Path, PathBuf};

use palmtop::Model;
use palmtop::image::{ImageLimits, decode};
use palmtop::tokenizer::TokenizerLayout;
use palmtop_convert::npz::Npz;
use palmtop_convert::{examples, tokenizer};
use palmtop_retrieval::Index;
// The parsers show what they have found, take requests and read cameras with these.
use palmtop_present as _;
use palmtop_serve as _;
use palmtop_watch as _;

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

/// A seed that is refused at once would lead nowhere.
#[test]
fn whole_seeds_are_accepted() {
    let of = |name: &str| {
        let entries = std::fs::read_dir(seeds().join(name)).unwrap();
        entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap()))
    };
    for (path, _) in of("head") {
        Model::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    for (path, bytes) in of("tokenizer_table") {
        TokenizerLayout::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    for (path, bytes) in of("tokenizer_json") {
        tokenizer::json::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    for (path, bytes) in of("tokenizer_model") {
        tokenizer::model::parse(&bytes, &Default::default())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    for (path, bytes) in of("image") {
        decode(&bytes, &ImageLimits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    for (path, _) in of("index") {
        let index = Index::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(index.pages().len() > 1 && index.unused_bytes() > 0 && index.verify(|_| {}).is_empty());
    }
    for (path, bytes) in of("npz").chain(of("jax")) {
        let npz = Npz::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            npz.names().len() > 0 && npz.names().all(|name| npz.read_f32(name).is_ok()),
            "{}",
            path.display()
        );
    }
    for (path, bytes) in of("http") {
        let given = parsers::http_given(&bytes);
        assert!(!given.pictures.is_empty(), "{}: {:?}", path.display(), given.said);
    }
    #[cfg(target_os = "linux")]
    for (path, bytes) in of("v4l2") {
        let given = palmtop_watch::source::fuzz::v4l2(&bytes, parsers::BYTES_MAX);
        assert_eq!(given.pictures.len(), 6, "{}: {:?}", path.display(), given.said);
    }
    for (path, _) in of("example_lines") {
        examples::read_examples(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
