//! A checkpoint that is converted as it comes gives the bytes of one that is there, wherever its way is cut.

mod common;

use std::collections::BTreeMap;
use std::io::{Error, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::{change_tensors, checkpoint, data, set_json};
use palmtop_convert::part::Part;
use palmtop_convert::stream::{ByteSource, Remote, RemoteFile, convert_as_it_comes};
use palmtop_convert::{Adapter, Calibration, ConvertError, Formats, Options, Progress, Report, convert};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Files of a folder, whose bytes are cut off when so many have been read.
struct Files {
    dir: PathBuf,
    left: AtomicU64,
    /// What was asked for: file, first byte.
    asked: Mutex<Vec<(String, u64)>>,
    /// A byte of a file that comes changed.
    damage: Mutex<Option<(String, u64)>>,
}

impl Files {
    fn new(dir: &Path, left: u64) -> Arc<Self> {
        let (asked, damage) = Default::default();
        Arc::new(Self { dir: dir.to_owned(), left: AtomicU64::new(left), asked, damage })
    }
}

struct Cut {
    bytes: Vec<u8>,
    at: usize,
    files: Arc<Files>,
}

impl Read for Cut {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = out.len().min(self.bytes.len() - self.at).min(1000);
        let left = &self.files.left;
        let may =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(n as u64)));
        let n = n.min(may.unwrap() as usize);
        if n == 0 && !out.is_empty() {
            return Err(Error::other("the line was cut"));
        }
        out[..n].copy_from_slice(&self.bytes[self.at..][..n]);
        self.at += n;
        Ok(n)
    }
}

/// An [`Arc`] of it is what a conversion reads.
struct Source(Arc<Files>);

impl ByteSource for Source {
    fn open(
        &self,
        file: &str,
        start: u64,
        end: u64,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        let mut bytes = std::fs::read(self.0.dir.join(file))?;
        if let Some((_, at)) = self.0.damage.lock().unwrap().as_ref().filter(|(name, _)| name == file) {
            bytes[*at as usize] ^= 1;
        }
        let bytes = bytes[start as usize..end as usize].to_vec();
        self.0.asked.lock().unwrap().push((file.to_owned(), start));
        Ok(Box::new(Cut { bytes, at: 0, files: self.0.clone() }))
    }
}

/// A checkpoint cut into what is small and what is elsewhere.
struct Elsewhere {
    whole: TempDir,
    small: TempDir,
    files: Vec<RemoteFile>,
}

impl Elsewhere {
    fn new(whole: TempDir) -> Self {
        let small = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(whole.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match name.ends_with(".safetensors") && name != "adapter_model.safetensors" {
                false => drop(std::fs::copy(&path, small.path().join(name)).unwrap()),
                true => {
                    let bytes = std::fs::read(&path).unwrap();
                    let sha256 = Sha256::digest(&bytes).into();
                    files.push(RemoteFile { name, bytes: bytes.len() as u64, sha256 });
                }
            }
        }
        Self { whole, small, files }
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// One run, to its end or until so many bytes have come.
    fn run(
        &self,
        target: &Path,
        options: &Options,
        source: &Arc<Files>,
        connections: usize,
    ) -> Result<Report, ConvertError> {
        let remote = Remote {
            folder: self.small.path(),
            name: "org/model",
            revision: Some("0123abc"),
            files: &self.files,
            source: Arc::new(Source(source.clone())),
        };
        convert_as_it_comes(&remote, Part::open(target)?, options, connections, &())
    }

    /// What a conversion of the whole folder gives.
    fn wanted(&self, options: &Options) -> Vec<u8> {
        let target = self.small.path().join("wanted.palm");
        let options = Options {
            name: options.name.clone().or_else(|| {
                // As a checkpoint of this name would be called, with its adapters.
                let adapters = options
                    .adapters
                    .iter()
                    .map(|a| format!(" + {}", a.path.canonicalize().unwrap().file_name().unwrap().display()));
                Some(std::iter::once("org/model".to_owned()).chain(adapters).collect())
            }),
            revision: Some("0123abc".into()),
            ..options.clone()
        };
        convert(self.whole.path(), &target, &options, &()).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        std::fs::remove_file(target).unwrap();
        bytes
    }
}

fn recipe(text: &str) -> Options {
    let formats = Formats::default().apply(text).unwrap();
    Options { recipe: formats.recipe, exceptions: formats.exceptions, threads: Some(2), ..Options::default() }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_comes_gives_the_bytes_of_what_is_there() {
    for name in ["tiny1", "tiny1-f32", "tiny1-sharded", "tiny2", "tiny1-f16"] {
        let model = Elsewhere::new(checkpoint(name));
        for (text, connections) in
            [("int8", 1), ("int4", 4), ("f32", 2), ("f16,text=int4,text.layer.0.mlp.down.weight=int8", 3)]
        {
            let options = recipe(text);
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("model.palm");
            let source = Files::new(model.whole.path(), u64::MAX);
            let report = model.run(&target, &options, &source, connections).unwrap();
            assert!(std::fs::read(&target).unwrap() == model.wanted(&options), "{name} {text}");
            assert_eq!(names(dir.path()), ["model.palm"], "nothing else is left");
            // The report is that of a conversion, too.
            let whole = convert(model.whole.path(), &dir.path().join("b.palm"), &options, &()).unwrap();
            let told = |r: &Report| serde_json::to_value(&r.tensors).unwrap();
            assert_eq!(told(&report), told(&whole), "{name} {text}");
            assert_eq!((report.source, report.target), ("org/model".into(), target));
        }
    }
}

/// Places at which cuts are of different kinds: in the header's length, in a header, between tensors, within one,
/// before the last byte.
fn places(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let parsed: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..][..header as usize]).unwrap();
    let ends = parsed.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let mut ends: Vec<u64> = ends.map(|end| end + 8 + header).collect();
    ends.sort_unstable();
    let some = ends.iter().step_by(ends.len() / 6).flat_map(|&end| [end, end + 33]);
    let length = bytes.len() as u64;
    let all = [0, 5, 8, 100, 8 + header, length - 1].into_iter().chain(some);
    all.filter(|&at| at < length).collect()
}

#[test]
fn a_cut_at_any_place_goes_on_where_it_was() {
    for name in ["tiny1", "tiny1-sharded"] {
        let model = Elsewhere::new(checkpoint(name));
        let options = recipe("int4");
        let wanted = model.wanted(&options);
        let headers: u64 = model.files.iter().map(|file| file.bytes.min(128 << 10)).sum();
        let first = model.whole.path().join(&model.files[0].name);
        for cut in places(&first) {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("model.palm");
            let source = Files::new(model.whole.path(), headers + cut);
            let error = model.run(&target, &options, &source, 1).unwrap_err();
            assert_eq!(error.to_string(), "the line was cut");
            assert!(!target.exists());
            source.left.store(u64::MAX, Ordering::SeqCst);
            source.asked.lock().unwrap().clear();
            model.run(&target, &options, &source, 1).unwrap();
            assert!(std::fs::read(&target).unwrap() == wanted, "{name}, cut behind {cut}");
            assert_eq!(names(dir.path()), ["model.palm"]);
        }
    }
}

#[test]
fn many_cuts_lose_little_and_nothing_is_kept_but_the_target() {
    let model = Elsewhere::new(checkpoint("tiny1-sharded"));
    let options = recipe("int8");
    let wanted = model.wanted(&options);
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    // A third of it, again and again.
    let headers: u64 = model.files.iter().map(|file| file.bytes.min(128 << 10)).sum();
    let (mut runs, mut read) = (0, 0);
    let most = loop {
        let each = headers + model.bytes() / 3;
        let source = Files::new(model.whole.path(), each);
        let done = model.run(&target, &options, &source, 1);
        runs += 1;
        read += each - source.left.load(Ordering::SeqCst);
        match done {
            Ok(_) => break runs,
            Err(ConvertError::Fetch(_)) => {}
            Err(other) => panic!("{other}"),
        }
        let part = dir.path().join("model.palm.part");
        assert_eq!(names(&part), ["journal.json", "lock", "model"]);
        assert_eq!(part.join("model").metadata().unwrap().len(), wanted.len() as u64);
        assert!(runs < 12, "it does not go on");
    };
    assert!(std::fs::read(&target).unwrap() == wanted);
    // Beside the headers of each run, little came twice: parts of tensors that waited for others.
    assert!(most >= 3 && read < runs * headers + 2 * model.bytes(), "{read} of {} in {runs}", model.bytes());
}

#[test]
fn adapters_are_merged_into_what_comes() {
    let folder = |name: &str| {
        let adapter = data("adapters").join(name);
        assert!(adapter.join("adapter_config.json").exists(), "{name}");
        adapter
    };
    let all = std::fs::read_dir(data("adapters")).unwrap().map(|e| e.unwrap());
    let mut merged = 0;
    let model = Elsewhere::new(checkpoint("tiny1-f32"));
    for entry in all.filter(|e| e.path().join("adapter_config.json").exists()) {
        let name = entry.file_name().into_string().unwrap();
        let options = Options { adapters: vec![Adapter::new(folder(&name))], ..recipe("int4") };
        let whole = convert(model.whole.path(), &model.small.path().join("x.palm"), &options, &());
        let _ = std::fs::remove_file(model.small.path().join("x.palm"));
        if whole.is_err() {
            continue; // It belongs to another checkpoint.
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model.palm");
        let source = Files::new(model.whole.path(), u64::MAX);
        match model.run(&target, &options, &source, 2) {
            Ok(report) => {
                assert!(std::fs::read(&target).unwrap() == model.wanted(&options), "{name}");
                assert_eq!(report.adapters.len(), 1);
                merged += 1;
            }
            // DoRA of an embedding asks for norms over all of its rows.
            Err(ConvertError::NeedsWhole { what }) => assert!(what.contains("embed"), "{name}: {what}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
    assert!(merged >= 3, "{merged}");
}

#[test]
fn a_head_that_is_there_is_compared_on_the_way() {
    for differs in [false, true] {
        let dir = checkpoint("tiny1");
        set_json(&dir.path().join("config.json"), "tie_word_embeddings", json!(!differs));
        change_tensors(dir.path(), |tensors| {
            let name = tensors.0.keys().find(|name| name.ends_with("embed_tokens.weight")).unwrap().clone();
            let mut head = tensors.0[&name].clone();
            if differs {
                // The last value, so that all is compared.
                *head.2.last_mut().unwrap() ^= 0x80;
            }
            tensors.0.insert("language_model.lm_head.weight".into(), head);
        });
        let model = Elsewhere::new(dir);
        let options = recipe("int8");
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.palm");
        let cut = model.bytes() * 2;
        let source = Files::new(model.whole.path(), cut);
        if model.run(&target, &options, &source, 1).is_err() {
            source.left.store(u64::MAX, Ordering::SeqCst);
            model.run(&target, &options, &source, 1).unwrap();
        }
        assert!(std::fs::read(&target).unwrap() == model.wanted(&options), "{differs}");
    }
}

#[test]
fn a_wrong_hash_gives_no_target_and_comes_anew() {
    let model = Elsewhere::new(checkpoint("tiny1-sharded"));
    let options = recipe("int8");
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let source = Files::new(model.whole.path(), u64::MAX);
    let last = model.files.iter().find(|file| file.name.contains("00003-of")).unwrap();
    *source.damage.lock().unwrap() = Some((last.name.clone(), last.bytes - 2));
    match model.run(&target, &options, &source, 1).unwrap_err() {
        ConvertError::WrongHash { name, found, wanted } => {
            assert_eq!(name, last.name);
            assert!(found != wanted && found.len() == 64 && wanted.len() == 64);
        }
        other => panic!("{other}"),
    }
    assert!(!target.exists());
    *source.damage.lock().unwrap() = None;
    source.asked.lock().unwrap().clear();
    model.run(&target, &options, &source, 1).unwrap();
    assert!(std::fs::read(&target).unwrap() == model.wanted(&options));
    // Headers of all, and then what had not come: that file from its start, and none before it.
    let asked = source.asked.lock().unwrap().split_off(model.files.len());
    assert!(asked.contains(&(last.name.clone(), 0)));
    let before = asked.iter().filter(|(name, start)| name.contains("00001-of") && *start == 0);
    assert_eq!(before.count(), 0, "{asked:?}");
}

#[test]
fn other_weights_or_another_recipe_begin_anew() {
    let model = Elsewhere::new(checkpoint("tiny1"));
    let headers = 128 << 10;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let source = Files::new(model.whole.path(), headers + model.bytes() / 2);
    model.run(&target, &recipe("int8"), &source, 1).unwrap_err();
    source.left.store(u64::MAX, Ordering::SeqCst);
    // Another recipe.
    model.run(&target, &recipe("int4"), &source, 1).unwrap();
    assert!(std::fs::read(&target).unwrap() == model.wanted(&recipe("int4")));
    // Other weights under the same names.
    let source = Files::new(model.whole.path(), headers + model.bytes() / 2);
    model.run(&target, &recipe("int8"), &source, 1).unwrap_err();
    let other = checkpoint("tiny1");
    change_tensors(other.path(), |tensors| {
        let tensor = tensors.0.values_mut().next().unwrap();
        tensor.2[0] ^= 1;
    });
    let other = Elsewhere::new(other);
    let source = Files::new(other.whole.path(), u64::MAX);
    other.run(&target, &recipe("int8"), &source, 1).unwrap();
    assert!(std::fs::read(&target).unwrap() == other.wanted(&recipe("int8")));
    // A journal that is no journal.
    let source = Files::new(model.whole.path(), headers + model.bytes() / 2);
    model.run(&target, &recipe("int8"), &source, 1).unwrap_err();
    std::fs::write(dir.path().join("model.palm.part/journal.json"), "{").unwrap();
    source.left.store(u64::MAX, Ordering::SeqCst);
    model.run(&target, &recipe("int8"), &source, 1).unwrap();
    assert!(std::fs::read(&target).unwrap() == model.wanted(&recipe("int8")));
}

#[test]
fn what_must_see_weights_twice_is_refused() {
    let model = Elsewhere::new(checkpoint("tiny1"));
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let source = Files::new(model.whole.path(), u64::MAX);
    let calibration = Some(Calibration { examples: "examples.jsonl".into(), auto: None });
    let options = Options { calibration, ..recipe("int4") };
    let error = model.run(&target, &options, &source, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "calibration needs the whole checkpoint, which is not kept while it is converted as it comes"
    );
    assert_eq!(names(dir.path()), [""; 0], "nothing is left of what never began");
}

#[test]
fn headers_that_lie_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let dir = checkpoint("tiny1");
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let model = Elsewhere::new(dir);
        let folder = tempfile::tempdir().unwrap();
        let source = Files::new(model.whole.path(), u64::MAX);
        let error = model.run(&folder.path().join("m.palm"), &recipe("int8"), &source, 1).unwrap_err();
        error.to_string()
    };
    for (change, says) in [
        (
            &(|b: &mut Vec<u8>| b.truncate(7)) as &dyn Fn(&mut Vec<u8>),
            "is too short to be a safetensors file",
        ),
        (&|b: &mut Vec<u8>| b[..8].fill(0xff), "its header would be longer than 100 MB or the file"),
        (&|b: &mut Vec<u8>| b[8] = b'x', "its header cannot be read"),
        (&|b: &mut Vec<u8>| b.push(0), "is not the length that its header states"),
        (&|b: &mut Vec<u8>| b.truncate(b.len() - 1), "is not the length that its header states"),
    ] {
        let text = refused(change);
        assert!(text.starts_with("org/model/model.safetensors") && text.contains(says), "{text}");
    }
}

#[test]
fn one_process_makes_a_target_and_the_next_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let part = Part::open(&target).unwrap();
    let error = Part::open(&target).unwrap_err();
    let says = format!("is being made by another palmtop (process {})", std::process::id());
    assert!(error.to_string().ends_with(&says), "{error}");
    drop(part);
    drop(Part::open(&target).unwrap());
    assert_eq!(names(dir.path()), [""; 0]);
    std::fs::write(&target, "a letter").unwrap();
    let error = Part::open(&target).unwrap_err().to_string();
    assert!(error.contains("exists and is not a .palm file"), "{error}");
}

/// Cancels after so many bytes.
struct Cancel(AtomicU64, u64);

impl Progress for Cancel {
    fn advance(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= self.1
    }
}

#[test]
fn what_was_cancelled_goes_on() {
    let model = Elsewhere::new(checkpoint("tiny2"));
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let source = Files::new(model.whole.path(), u64::MAX);
    let remote = Remote {
        folder: model.small.path(),
        name: "org/model",
        revision: Some("0123abc"),
        files: &model.files,
        source: Arc::new(Source(source.clone())),
    };
    let cancel = Cancel(AtomicU64::new(0), model.bytes() / 2);
    let part = Part::open(&target).unwrap();
    let error = convert_as_it_comes(&remote, part, &recipe("int8"), 1, &cancel).unwrap_err();
    assert!(matches!(error, ConvertError::Cancelled));
    source.asked.lock().unwrap().clear();
    model.run(&target, &recipe("int8"), &source, 1).unwrap();
    let asked = source.asked.lock().unwrap();
    assert!(asked[1].1 > model.bytes() / 4, "{asked:?}");
    assert!(std::fs::read(&target).unwrap() == model.wanted(&recipe("int8")));
}

#[test]
fn a_journal_that_claims_too_much_is_found_out() {
    let model = Elsewhere::new(checkpoint("tiny1"));
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.palm");
    let source = Files::new(model.whole.path(), (128 << 10) + model.bytes() / 2);
    model.run(&target, &recipe("int8"), &source, 1).unwrap_err();
    let path = dir.path().join("model.palm.part/journal.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!journal["finished"].as_object().unwrap().is_empty());
    journal["finished"] = json!({});
    std::fs::write(&path, journal.to_string()).unwrap();
    source.left.store(u64::MAX, Ordering::SeqCst);
    let error = model.run(&target, &recipe("int8"), &source, 1).unwrap_err().to_string();
    assert_eq!(error, "what an earlier run left was damaged, and is removed");
    assert_eq!(names(dir.path()), [""; 0]);
    model.run(&target, &recipe("int8"), &source, 1).unwrap();
    assert!(std::fs::read(&target).unwrap() == model.wanted(&recipe("int8")));
}
