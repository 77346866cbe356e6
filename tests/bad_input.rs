//! Model files are untrusted: every way in which one can be bad gives an error that says what is wrong, or wrong
//! answers where only the weights are damaged; never a panic, a hang or an abort.

use std::error::Error as _;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use palmtop::config::{Config, Generation};
use palmtop::format::{FormatError, Head, Metadata, PalmFile, Storage, TensorInfo, Value, checksum};
use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::tasks::{MaskCodec, MaskScratch};
use palmtop::{Error, GenerateOptions, Limits, Model, Sampling, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};
use proptest::prelude::*;
use tempfile::TempDir;

/// A model file taken apart, to be put together again with something wrong in it.
#[derive(Clone)]
struct Parts {
    metadata: Metadata,
    /// Entry and data; offset, length and checksum of the entry are made anew.
    tensors: Vec<(TensorInfo, Vec<u8>)>,
}

impl Parts {
    fn of(file: &[u8]) -> Self {
        let head = Head::parse(file).expect("a sound file");
        let data = |t: &TensorInfo| file[t.offset as usize..][..t.length as usize].to_vec();
        Self {
            metadata: head.metadata,
            tensors: head.tensors.into_iter().map(|t| (t.clone(), data(&t))).collect(),
        }
    }

    /// tiny1 in int8.
    fn tiny() -> Self {
        Self::of(tiny())
    }

    fn tensor(&mut self, name: &str) -> &mut (TensorInfo, Vec<u8>) {
        self.tensors.iter_mut().find(|(t, _)| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    fn remove(&mut self, name: &str) {
        self.tensors.retain(|(t, _)| t.name != name);
    }

    /// Gives a tensor another storage and shape, and zeros for data.
    fn replace(&mut self, name: &str, storage: Storage, shape: &[usize]) {
        let info = TensorInfo::new(name, storage, shape).expect("a possible shape");
        let zeros = vec![0; info.length as usize];
        *self.tensor(name) = (info, zeros);
    }

    /// A file with right offsets, lengths and checksums.
    fn file(&self) -> Vec<u8> {
        let tensors = self.tensors.iter().map(|(t, data)| TensorInfo {
            length: data.len() as u64,
            checksum: checksum(data),
            ..t.clone()
        });
        let mut head = Head { metadata: self.metadata.clone(), tensors: tensors.collect() };
        let length = head.place();
        let mut file = head.encode();
        file.resize(length as usize, 0);
        for (t, (_, data)) in head.tensors.iter().zip(&self.tensors) {
            file[t.offset as usize..][..data.len()].copy_from_slice(data);
        }
        file
    }
}

/// The bytes of tiny1 in int8.
fn tiny() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| bytes_of("tiny1", WeightFormat::Int8))
}

fn bytes_of(checkpoint: &str, format: WeightFormat) -> Vec<u8> {
    std::fs::read(&converted(checkpoint, uniform(format)).path).expect("a file just converted")
}

/// A file that lives as long as this.
struct Written {
    path: PathBuf,
    _dir: TempDir,
}

fn write(bytes: &[u8]) -> Written {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("bad.palm");
    std::fs::write(&path, bytes).expect("writing a small file");
    Written { path, _dir: dir }
}

fn open(bytes: &[u8]) -> Result<Arc<Model>, Error> {
    Model::open(&write(bytes).path)
}

/// The text of the error that opening must give, causes included.
fn refusal(what: &str, opened: Result<Arc<Model>, Error>) -> String {
    let error = opened.err().unwrap_or_else(|| panic!("{what}: the file was taken"));
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn assert_refused(what: &str, bytes: &[u8], says: &str) {
    let got = refusal(what, open(bytes));
    assert!(got.contains(says), "{what}: {got:?} does not say {says:?}");
}

fn tensor_names(parts: &Parts) -> Vec<String> {
    parts.tensors.iter().map(|(t, _)| t.name.clone()).collect()
}

// Files

#[test]
fn paths_that_are_no_file_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&Path, &str); 2] = [
        (dir.path(), "is a folder; name the .palm file itself"),
        (&dir.path().join("none.palm"), "No such file"),
    ];
    for (path, says) in cases {
        let got = refusal(says, Model::open(path));
        assert!(got.contains(says) && got.contains(&*path.to_string_lossy()), "{got}");
    }
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        let got = refusal("a pipe", Model::open(&pipe));
        assert!(got.contains("is not a regular file"), "{got}");
    }
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let file = write(tiny());
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&file.path).is_ok() {
        eprintln!("skipped: this user may read any file");
        return;
    }
    let got = refusal("no permission", Model::open(&file.path));
    assert!(got.contains("Permission denied") && got.contains("bad.palm"), "{got}");
}

#[test]
fn other_files_are_named_for_what_they_are() {
    for (bytes, says) in [
        (&b""[..], "not a .palm file: the file is empty"),
        (b"P", "cut short"),
        (b"PALM\r\n\x1a\n", "the file is cut short: 48 bytes are needed and 8 are there"),
        (b"PALM\n\x1a\n\0\0\0\0\0", "its first bytes were changed in transfer"),
        (b"GGUF\x03\0\0\0", "it is a GGUF file; palmtop converts from safetensors"),
        (b"\x89PNG\r\n\x1a\n", "it does not begin with PALM; make one with `palmtop convert`"),
        (&[0; 4096], "it does not begin with PALM"),
    ] {
        assert_refused(says, bytes, says);
    }
}

#[test]
fn errors_of_a_file_name_it() {
    for bytes in [&b"GGUF"[..], &tiny()[..100], &Parts { tensors: vec![], ..Parts::tiny() }.file()] {
        let got = refusal("broken", open(bytes));
        assert!(got.starts_with("cannot use model file ") && got.contains("bad.palm"), "{got}");
    }
}

#[test]
fn cut_and_lengthened_files_are_refused() {
    let file = tiny();
    let head = Head::parse(file).unwrap();
    let ends = head.tensors.iter().flat_map(|t| [t.offset, t.offset + t.length]);
    let around = ends.flat_map(|end| [end - 1, end, end + 1]).map(|n| n as usize);
    let lengths = (0..200).chain((200..file.len()).step_by(file.len() / 200)).chain(around);
    let written = write(file);
    let handle = std::fs::OpenOptions::new().write(true).open(&written.path).unwrap();
    let mut lengths: Vec<usize> = lengths.filter(|&n| n < file.len()).collect();
    // Each cut is made from the one before: from the longest down.
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    for n in lengths {
        handle.set_len(n as u64).unwrap();
        let got = refusal("cut", Model::open(&written.path));
        let says = if n == 0 { "the file is empty" } else { "the file is cut short" };
        assert!(got.contains(says), "{n} bytes: {got}");
    }
    let mut long = file.to_vec();
    long.push(0);
    assert_refused(
        "one byte more",
        &long,
        &format!("has {} bytes where its head says {}", long.len(), file.len()),
    );
}

// Flipped bits

#[test]
fn flipped_bits_of_the_head_are_refused() {
    let file = tiny();
    let length = Head::parse(file).unwrap().encode().len();
    let written = write(file);
    let handle = std::fs::OpenOptions::new().write(true).open(&written.path).unwrap();
    for bit in (0..48 * 8).chain((48 * 8..length * 8).step_by(61)) {
        let at = bit / 8;
        handle.write_all_at(&[file[at] ^ 1 << (bit % 8)], at as u64).unwrap();
        let got = refusal("flipped", Model::open(&written.path));
        handle.write_all_at(&file[at..=at], at as u64).unwrap();
        let says = match at {
            0..8 => "not a .palm file",
            8..12 => "is not supported (this program reads version 1)",
            12..16 => "reserved flags are set",
            16..32 => "the ",
            _ => "the head of the file is damaged (checksum ",
        };
        assert!(got.contains(says), "bit {bit}: {got:?} does not say {says:?}");
    }
    Model::open(&written.path).expect("the file as it was");
}

#[test]
fn verifying_names_the_tensor_whose_bit_is_flipped() {
    let file = tiny();
    let head = Head::parse(file).unwrap();
    let from = head.encode().len() * 8;
    let written = write(file);
    let handle = std::fs::OpenOptions::new().write(true).open(&written.path).unwrap();
    let sound = PalmFile::open(&written.path).unwrap();
    assert_eq!(sound.verify(|_| ()), []);
    let mut named = 0;
    for bit in (from..file.len() * 8).step_by(997) {
        let at = bit / 8;
        handle.write_all_at(&[file[at] ^ 1 << (bit % 8)], at as u64).unwrap();
        let damaged = PalmFile::open(&written.path).expect("the head is sound").verify(|_| ());
        // Damage in the data is found when it is asked for, or met; opening may refuse a broken tokenizer.
        let opened = Model::open(&written.path).map(|_| ());
        handle.write_all_at(&file[at..=at], at as u64).unwrap();
        let inside = |t: &&TensorInfo| (t.offset..t.offset + t.length).contains(&(at as u64));
        let want = head.tensors.iter().find(inside).map(|t| t.name.as_str());
        let got: Vec<&str> = damaged
            .iter()
            .map(|error| match error {
                FormatError::DataChecksum { name, .. } => name.as_str(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(got, Vec::from_iter(want), "bit {bit}");
        assert!(opened.is_ok() || want == Some("tokenizer"), "bit {bit}: {opened:?}");
        named += got.len();
    }
    assert!(named > 1000, "{named} flips were inside tensors");
}

// Heads that lie, with a right checksum

/// The sound file under another head, whose checksum is right and whose stated length is the file's.
fn under_head(change: impl FnOnce(&mut Head)) -> Vec<u8> {
    let mut file = tiny().to_vec();
    let mut head = Head::parse(&file).unwrap();
    let length = head.encode().len();
    change(&mut head);
    let mut lie = head.encode();
    assert_eq!(lie.len(), length, "the lie must fit");
    lie[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
    file[..length].copy_from_slice(&lie);
    file
}

#[test]
fn lying_tensor_tables_are_refused() {
    // Tensor 1 is the patch embedding, 2 its bias of 72 values, 3 the positions.
    type Lie = fn(&mut Head);
    let lies: [(Lie, &str); 13] = [
        (|h| h.tensors[2].offset += 4, "is not aligned to 64"),
        (|h| h.tensors[2].offset = 0, "offset 0 overlaps what stands before it"),
        (|h| h.tensors[2].offset = h.tensors[1].offset, "overlaps what stands before it"),
        (|h| h.tensors.swap(2, 3), "overlaps what stands before it"),
        (|h| h.tensors[2].offset = 1 << 40, "reach past the end of the file"),
        (|h| h.tensors[2].offset = u64::MAX - 63, "reach past the end of the file"),
        (|h| h.tensors[2].length = 0, "0 bytes where shape [72] needs 288"),
        (|h| h.tensors[2].length = u64::MAX, "18446744073709551615 bytes where shape [72] needs 288"),
        (|h| h.tensors[2].shape = vec![73], "288 bytes where shape [73] needs 292"),
        (|h| h.tensors[2].shape = vec![0], "shape [0] is impossible for f32 plain"),
        (|h| h.tensors[2].shape = vec![usize::MAX], "is impossible for f32 plain"),
        (|h| h.tensors[1].shape = vec![1 << 62, 1 << 62], "is impossible for int8 packed"),
        (
            |h| h.tensors[2].storage = Storage::Packed(WeightFormat::Int8),
            "shape [72] is impossible for int8 packed",
        ),
    ];
    for (lie, says) in lies {
        assert_refused(says, &under_head(lie), says);
    }
    let twice = under_head(|h| {
        let second = h.tensors.iter_mut().find(|t| t.name == "vision.layer.0.norm2.weight");
        second.unwrap().name = "vision.layer.0.norm1.weight".into();
    });
    assert_refused("a name twice", &twice, "tensor 'vision.layer.0.norm1.weight': stands twice in the table");
}

#[test]
fn lying_fixed_fields_are_refused() {
    let with = |at: usize, value: u64| {
        let mut file = tiny().to_vec();
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        file
    };
    let length = tiny().len() as u64;
    for (file, says) in [
        (with(16, 0), "malformed at byte 16: a head of 0 bytes"),
        (with(16, 47), "malformed at byte 16: a head of 47 bytes"),
        (with(16, length + 1), "malformed at byte 16: a head of"),
        (with(16, u64::MAX), "malformed at byte 16: a head of 18446744073709551615 bytes"),
        (with(16, 48), "the head of the file is damaged"),
        (with(24, length - 1), "bytes where its head says"),
        (with(24, u64::MAX), "the file is cut short: 18446744073709551615 bytes are needed"),
        (with(24, 0), "malformed at byte 16"),
        (with(32, 0), "stated 0000000000000000"),
    ] {
        assert_refused(says, &file, says);
    }
    // Counts behind the checksum, with the checksum made right again.
    let head_bytes = u64::from_le_bytes(tiny()[16..24].try_into().unwrap()) as usize;
    for (at, value, says) in [
        (40, u32::MAX, "malformed"),
        (44, u32::MAX, "malformed"),
        (44, 0, "bytes are left over behind the tensor table"),
        (48, u32::MAX, "bytes are wanted and the head ends"),
    ] {
        let mut file = tiny().to_vec();
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let sum = checksum(&file[40..head_bytes]);
        file[32..40].copy_from_slice(&sum.to_le_bytes());
        let got = refusal(says, open(&file));
        assert!(got.contains(says) || got.contains("tensor"), "{got:?} does not say {says:?}");
    }
}

// Tensors that do not make up the architecture

#[test]
fn every_missing_tensor_is_named() {
    let parts = Parts::tiny();
    for name in tensor_names(&parts) {
        let mut parts = parts.clone();
        parts.remove(&name);
        assert_refused(&name, &parts.file(), &format!("tensor '{name}' is missing"));
    }
}

#[test]
fn every_tensor_of_another_shape_is_named() {
    let parts = Parts::tiny();
    for name in tensor_names(&parts).into_iter().filter(|n| n != "tokenizer") {
        let mut parts = parts.clone();
        let info = parts.tensor(&name).0.clone();
        let mut shape = info.shape.clone();
        *shape.last_mut().unwrap() += 1;
        parts.replace(&name, info.storage, &shape);
        let says = format!("tensor '{name}': shape {shape:?} where the architecture needs {:?}", info.shape);
        assert_refused(&name, &parts.file(), &says);
    }
}

#[test]
fn every_tensor_of_another_storage_is_named() {
    let parts = Parts::tiny();
    let mut changed = 0;
    for name in tensor_names(&parts) {
        let info = parts.clone().tensor(&name).0.clone();
        let (storage, says) = match info.storage {
            Storage::Bytes => (Storage::F32, "is not stored as bytes".to_owned()),
            Storage::Packed(_) => (Storage::F32, "storage 'f32 plain' does not fit its use".to_owned()),
            Storage::F32 if info.shape.len() == 2 => {
                (Storage::Packed(WeightFormat::F32), "storage 'f32 packed' does not fit its use".to_owned())
            }
            // A vector cannot be packed, but its bytes can be called just bytes.
            Storage::F32 => continue,
        };
        let mut parts = parts.clone();
        parts.replace(&name, storage, &info.shape);
        assert_refused(&name, &parts.file(), &format!("tensor '{name}': {says}"));
        changed += 1;
    }
    assert!(changed > 20);
    let mut parts = parts.clone();
    parts.replace("text.norm", Storage::Bytes, &[96]);
    assert_refused("text.norm", &parts.file(), "tensor 'text.norm': storage 'bytes' does not fit its use");
}

#[test]
fn unknown_tensors_and_metadata_are_passed_over() {
    let mut parts = Parts::tiny();
    parts.tensors.push((TensorInfo::new("of.a.later.version", Storage::Bytes, &[3]).unwrap(), vec![1, 2, 3]));
    parts.metadata.set("of.a.later.version", "anything");
    open(&parts.file()).expect("a file with more than is needed");
}

// Metadata

/// What the architecture is read from.
fn needed_metadata() -> Metadata {
    let mut metadata = Metadata::default();
    Config::from_metadata(&Parts::tiny().metadata).unwrap().to_metadata(&mut metadata);
    metadata
}

#[test]
fn every_missing_or_mistyped_metadata_is_named() {
    for (key, value) in needed_metadata().iter() {
        let kept = Parts::tiny().metadata.iter().filter(|(k, _)| *k != key).fold(
            Metadata::default(),
            |mut kept, (k, v)| {
                kept.set(k, v.clone());
                kept
            },
        );
        let got = Config::from_metadata(&kept).unwrap_err().to_string();
        let list_of_three = key == "image.mean" || key == "image.std";
        assert!(got == format!("metadata '{key}' is missing") || list_of_three, "{got}");
        for other in [Value::Bool(true), Value::Text("7".into()), Value::U64(7), Value::F64s(vec![1.0; 4])] {
            if std::mem::discriminant(&other) == std::mem::discriminant(value) && !list_of_three {
                continue;
            }
            let mut parts = Parts::tiny();
            parts.metadata.set(key, other.clone());
            assert_refused(&format!("{key} {other:?}"), &parts.file(), &format!("metadata '{key}' "));
        }
    }
}

#[test]
fn absurd_metadata_is_refused_with_a_reason() {
    let tiny1: [(&str, Value, &str); 39] = [
        ("general.architecture", "llama".into(), "is 'llama'; this program runs 'paligemma'"),
        ("general.generation", 3u64.into(), "is 3, not 1 or 2"),
        ("vision.hidden", 0u64.into(), "is 0, outside 1..=262144"),
        ("vision.hidden", u64::MAX.into(), "is 18446744073709551615, outside 1..=262144"),
        ("vision.hidden", 71u64.into(), "which does not divide 71"),
        ("vision.heads", 0u64.into(), "is 0, outside 1..="),
        ("vision.heads", 5u64.into(), "is 5, which does not divide 72"),
        ("vision.heads", 1000u64.into(), "metadata 'vision.heads'"),
        ("vision.layers", 0u64.into(), "is 0, outside 1..=1024"),
        ("vision.layers", 1_000_000u64.into(), "is 1000000, outside 1..=1024"),
        ("vision.image_size", 0u64.into(), "is 0, outside 1..=4096"),
        ("vision.image_size", 57u64.into(), "metadata 'vision.patch_size' is 14, which does not divide 57"),
        ("vision.image_size", 1u64.into(), "metadata 'vision.patch_size' is 14, outside 1..=1"),
        ("vision.image_size", 1_000_000u64.into(), "is 1000000, outside 1..=4096"),
        ("vision.patch_size", 0u64.into(), "is 0, outside 1..=4096"),
        ("vision.patch_size", 100u64.into(), "is 100, outside 1..=56"),
        ("vision.norm_eps", (-1e-6).into(), "is -0.000001, not a positive number"),
        ("vision.norm_eps", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.norm_eps", 0.0.into(), "is 0, not a positive number"),
        ("text.norm_eps", f64::INFINITY.into(), "is inf, not a positive number"),
        ("text.rope_theta", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.rope_theta", (-10000.0).into(), "is -10000, not a positive number"),
        ("text.query_scalar", 0.0.into(), "is 0, not a positive number"),
        ("text.attention_softcap", (-50.0).into(), "is -50, not a positive number"),
        ("text.final_softcap", f64::NAN.into(), "is NaN, not a positive number"),
        ("text.layers", 1025u64.into(), "is 1025, outside 1..=1024"),
        ("text.layers", 5u64.into(), "metadata 'text.windows' has 4 entries for 5 layers"),
        ("text.heads", 0u64.into(), "is 0, outside 1..=1024"),
        ("text.kv_heads", 0u64.into(), "is 0, outside 1..=1024"),
        ("text.kv_heads", 3u64.into(), "is 3, which does not divide"),
        ("text.head_dim", 33u64.into(), "is 33, which is odd"),
        ("text.head_dim", 1u64.into(), "is 1, outside 2..=1024"),
        ("text.vocab", (1u64 << 40).into(), "is 1099511627776, outside 1..=4194304"),
        ("text.windows", vec![16u64, 0].into(), "has 2 entries for 4 layers"),
        ("tokens.image", 2176u64.into(), "is 2176, outside 0..=2175"),
        ("tokens.bos", u64::MAX.into(), "outside 0..=2175"),
        ("tokens.eos", Vec::<u64>::new().into(), "is empty"),
        ("tokens.eos", vec![1u64, 2176].into(), "has 2176, outside 0..=2175"),
        ("tokens.eos", vec![(1u64 << 32) + 1].into(), "has 4294967297, outside 0..=2175"),
    ];
    for (key, value, says) in tiny1 {
        let mut parts = Parts::tiny();
        let what = format!("{key} {value:?}");
        parts.metadata.set(key, value);
        assert_refused(&what, &parts.file(), says);
    }
    for (key, value, says) in [
        ("image.mean", vec![0.5, 0.5], "metadata 'image.mean' does not have three numbers"),
        ("image.mean", vec![0.5, f64::NAN, 0.5], "metadata 'image.mean' is not a list of three numbers"),
        ("image.std", vec![0.5, 0.0, 0.5], "metadata 'image.std' has a zero"),
        ("image.std", vec![f64::INFINITY; 3], "metadata 'image.std' is not a list of three numbers"),
    ] {
        let mut parts = Parts::tiny();
        parts.metadata.set(key, value);
        assert_refused(key, &parts.file(), says);
    }
    let mut many = Parts::tiny();
    many.metadata.set("vision.image_size", 4096u64);
    many.metadata.set("vision.patch_size", 1u64);
    assert_refused("patches", &many.file(), "is 1, which gives 16777216 patches; 65536 are the most");
}

// Tokenizer and mask decoder

#[test]
fn broken_tokenizers_are_refused() {
    let table = Parts::tiny().tensor("tokenizer").1.clone();
    let with = |at: usize, bytes: &[u8]| {
        let mut table = table.clone();
        table[at..at + bytes.len()].copy_from_slice(bytes);
        table
    };
    for (blob, says) in [
        (vec![], "this is not a tokenizer table"),
        (vec![0xA5; 10_000], "this is not a tokenizer table"),
        (table[..100].to_vec(), "the tokenizer table has 100 bytes where it should have 256"),
        (table[..table.len() - 1].to_vec(), "the file is incomplete or damaged"),
        (with(8, &2u32.to_le_bytes()), "the tokenizer table has version 2, this program reads version 1"),
        (with(24, &[0; 4]), "the number of pieces is out of range"),
        (with(24, &[0xFF; 4]), "the number of pieces is out of range"),
        (with(32, &60u32.to_le_bytes()), "the hash is too large"),
        (with(112 + 16, &[0xFF; 8]), "a section is not where its size says"),
        (with(112 + 24, &[0xFF; 8]), "damaged"),
    ] {
        let mut parts = Parts::tiny();
        parts.replace("tokenizer", Storage::Bytes, &[blob.len()]);
        parts.tensor("tokenizer").1 = blob;
        assert_refused(says, &parts.file(), says);
    }
}

#[test]
fn a_vocabulary_smaller_than_its_tokenizer_is_refused() {
    let mut parts = Parts::tiny();
    parts.metadata.set("text.vocab", 2000u64);
    let shape = [2000, parts.tensor("text.embed").0.shape[1]];
    parts.replace("text.embed", Storage::Packed(WeightFormat::Int8), &shape);
    parts.metadata.set("tokens.image", 1999u64);
    let got = refusal("a small vocabulary", open(&parts.file()));
    assert!(
        got.contains("tensor 'tokenizer': has ") && got.contains("where the embedding has 2000 rows"),
        "{got}"
    );
}

fn with_mask_codec() -> Parts {
    let mut parts = Parts::tiny();
    for (name, shape) in MaskCodec::tensors() {
        let info = TensorInfo::new(format!("{}{name}", MaskCodec::PREFIX), Storage::F32, &shape).unwrap();
        let values = (0..info.length / 4).flat_map(|i| ((i % 13) as f32 * 0.01 - 0.06).to_le_bytes());
        parts.tensors.push((info, values.collect()));
    }
    parts
}

#[test]
fn broken_mask_decoders_are_refused_when_they_are_asked_for() {
    let whole = with_mask_codec();
    assert!(open(&whole.file()).unwrap().mask_codec().unwrap().is_some());
    assert!(open(tiny()).unwrap().mask_codec().unwrap().is_none());
    for (name, _) in MaskCodec::tensors() {
        let name = format!("{}{name}", MaskCodec::PREFIX);
        let refused = |parts: &Parts, says: &str| {
            let model = open(&parts.file()).expect("the rest of the model is sound");
            let got = model.mask_codec().expect_err("a broken mask decoder").to_string();
            assert!(got.contains(says), "{got:?} does not say {says:?}");
        };
        let mut parts = whole.clone();
        parts.remove(&name);
        refused(&parts, &format!("the model has no tensor {name}"));
        let mut parts = whole.clone();
        let mut shape = parts.tensor(&name).0.shape.clone();
        shape[0] += 1;
        parts.replace(&name, Storage::F32, &shape);
        refused(&parts, &format!("the tensor {name} has shape {shape:?}"));
    }
}

#[test]
fn mask_decoders_of_nothing_but_nan_decode() {
    let mut parts = with_mask_codec();
    for (info, data) in parts.tensors.iter_mut().filter(|(t, _)| t.name.starts_with(MaskCodec::PREFIX)) {
        *data = f32::NAN.to_le_bytes().repeat(info.length as usize / 4);
    }
    let model = open(&parts.file()).unwrap();
    let codec = model.mask_codec().unwrap().unwrap();
    let mut mask = [0.0; 64 * 64];
    codec.decode(&[255; 16], &mut MaskScratch::new(), &mut mask);
    assert!(mask.iter().all(|x| x.is_nan()));
}

// Answering with damaged weights

fn picture() -> &'static RgbImage {
    static PICTURE: OnceLock<RgbImage> = OnceLock::new();
    PICTURE.get_or_init(|| {
        decode_file(data().join("images/scene_small_40x30.png"), &ImageLimits::default()).unwrap()
    })
}

/// Asks a model whatever its weights: it must come back, with answers or with an error.
fn answer(model: &Arc<Model>) -> Result<(), Error> {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens, limits.prompt_tokens) = (2, Some(2), 6, 64);
    let mut session = Session::new(model, &limits)?;
    let mut features = session.new_features()?;
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    session.encode(picture().view(), &mut features, &options)?;
    for temperature in [0.0, 1.0] {
        options.sampling = Sampling { temperature, top_k: 50, top_p: 0.9, seed: 1 };
        let prompts = ["detect cat ; dog", "Größe <loc0012> 猫"];
        for answer in session.answer(&features, &prompts, &options, &mut |_| ControlFlow::Continue(()))? {
            assert_eq!(answer.tokens.len(), 6);
            assert!(answer.tokens.iter().all(|&t| (t as usize) < model.config().text.vocab));
        }
    }
    Ok(())
}

fn is_of_the_tokenizer(error: &Error) -> bool {
    match error {
        Error::Tokenizer(_) => true,
        Error::File { source: FormatError::Tensor { name, .. }, .. } => name == "tokenizer",
        _ => false,
    }
}

/// Random numbers by SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

const FORMATS: [(&str, WeightFormat); 4] = [
    ("tiny1", WeightFormat::Int8),
    ("tiny2", WeightFormat::Int4),
    ("tiny2", WeightFormat::F16),
    ("tiny1", WeightFormat::F32),
];

#[test]
fn models_of_random_bytes_answer_something() {
    for (name, format) in FORMATS {
        let sound = Parts::of(&bytes_of(name, format));
        for seed in 0..6 {
            let mut random = Random(seed);
            let mut parts = sound.clone();
            for (_, data) in parts.tensors.iter_mut().filter(|(t, _)| t.name != "tokenizer") {
                data.iter_mut().for_each(|b| *b = random.below(256) as u8);
            }
            let model = open(&parts.file()).expect("any weights can be opened");
            answer(&model).unwrap_or_else(|e| panic!("{name} {format} seed {seed}: {e}"));
        }
    }
}

#[test]
fn scales_and_norms_that_are_not_numbers_answer_something() {
    // As bf16, which scales are, and as the upper half of an f32, which norms, biases and plain weights are.
    let poisons: [u16; 6] = [0x7FC0, 0xFFC1, 0x7F80, 0xFF80, 0x7F7F, 0x0001];
    for (name, format) in FORMATS {
        let sound = Parts::of(&bytes_of(name, format));
        for poison in poisons {
            let poisoned = |wanted: &dyn Fn(&TensorInfo) -> bool| {
                let mut parts = sound.clone();
                for (info, data) in parts.tensors.iter_mut().filter(|(t, _)| wanted(t)) {
                    match info.storage {
                        // The first sixteen values of a stripe are the scales of its first chunk, where it has any.
                        Storage::Packed(_) => {
                            data.as_chunks_mut::<2>().0[..16].fill(poison.to_le_bytes());
                        }
                        _ => data.as_chunks_mut::<4>().0.fill((u32::from(poison) << 16).to_le_bytes()),
                    }
                }
                open(&parts.file()).expect("any weights can be opened")
            };
            let packed = |t: &TensorInfo| matches!(t.storage, Storage::Packed(_));
            let norms = |t: &TensorInfo| t.name.contains("norm");
            let plain = |t: &TensorInfo| t.storage == Storage::F32;
            let head = |t: &TensorInfo| t.name == "text.embed";
            for wanted in [&packed as &dyn Fn(&TensorInfo) -> bool, &norms, &plain, &head] {
                answer(&poisoned(wanted)).unwrap_or_else(|e| panic!("{name} {format} {poison:04x}: {e}"));
            }
        }
    }
}

#[test]
fn flipped_bits_anywhere_in_the_data_answer_something_or_say_what_is_broken() {
    for (name, format) in FORMATS {
        let sound = bytes_of(name, format);
        let tensors = Head::parse(&sound).unwrap().tensors;
        for seed in 0..12 {
            let mut random = Random(seed);
            let mut file = sound.clone();
            for t in &tensors {
                // The tokenizer in every second file, at a few places; every other tensor at more or fewer.
                let flips = match t.name.as_str() {
                    "tokenizer" => (seed % 2) as usize * 4,
                    _ => random.below(4),
                };
                for _ in 0..flips {
                    let bit = random.below(t.length as usize * 8);
                    file[t.offset as usize + bit / 8] ^= 1 << (bit % 8);
                }
            }
            match open(&file).and_then(|model| answer(&model)) {
                Ok(()) => {}
                Err(error) => assert!(is_of_the_tokenizer(&error), "{name} {format} seed {seed}: {error:?}"),
            }
        }
    }
}

#[test]
fn broken_tokenizers_that_open_answer_something_or_say_what_is_broken() {
    let sound = Parts::tiny();
    let (mut answered, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut parts = sound.clone();
        let table = &mut parts.tensor("tokenizer").1;
        // Behind the header, which has tests of its own: from a handful of bytes to most of the table.
        for _ in 0..1 << (seed % 16) {
            let at = 256 + random.below(table.len() - 256);
            table[at] = random.below(256) as u8;
        }
        match open(&parts.file()).and_then(|model| answer(&model)) {
            Ok(()) => answered += 1,
            Err(error) if is_of_the_tokenizer(&error) => refused += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
}

// Architectures at random

/// Values at which arithmetic breaks, among others.
fn wild_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            3,
            7,
            16,
            255,
            1024,
            1025,
            4096,
            1 << 18,
            1 << 22,
            1 << 32,
            1 << 63
        ]),
        Just(u64::MAX),
        0..100u64,
        any::<u64>(),
    ];
    let float = prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 1e-320, 1e-40, 1e40, 1e300, f64::NAN, f64::INFINITY, -1.0]),
        any::<f64>(),
    ];
    prop_oneof![
        4 => number.clone().prop_map(Value::U64),
        4 => float.clone().prop_map(Value::F64),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[a-z]{0,9}".prop_map(Value::Text),
        2 => prop::collection::vec(number, 0..6).prop_map(Value::U64s),
        2 => prop::collection::vec(float, 3).prop_map(Value::F64s),
    ]
}

/// An architecture with sizes anywhere in what a file may state, mostly such as fit each other.
fn wild_config() -> impl Strategy<Value = Config> {
    let size = |max: usize| prop_oneof![8 => 1..=max.min(12), 2 => 1..=max, 1 => Just(max)];
    let float = || prop::sample::select(vec![1e-320, 1e-40, 1e-6, 1.0, 1e4, 1e40, 1e300]);
    let vision = (size(256), size(1024), size(1 << 18), size(1024), size(1024), size(64), float());
    let text = (size(1 << 18), size(1 << 18), size(1024), size(8), size(1024), size(512), size(1 << 22));
    let floats = (float(), float(), float(), prop::option::of(float()), prop::option::of(float()));
    let others = (any::<bool>(), prop::option::of(size(1 << 30)));
    (vision, text, floats, others).prop_map(|(vision, text, floats, (gemma2, window))| {
        let mut config = Config::from_metadata(&Parts::tiny().metadata).unwrap();
        let (v, t) = (&mut config.vision, &mut config.text);
        let (per_head, heads, intermediate, layers, per_side, patch_size, eps) = vision;
        (v.hidden, v.heads, v.intermediate, v.layers) = (per_head * heads, heads, intermediate, layers);
        (v.image_size, v.patch_size, v.norm_eps) = (per_side * patch_size, patch_size, eps);
        let (hidden, intermediate, layers, group, kv_heads, half_head, vocab) = text;
        (t.hidden, t.intermediate, t.layers) = (hidden, intermediate, layers);
        (t.heads, t.kv_heads, t.head_dim) = (group * kv_heads, kv_heads, 2 * half_head);
        t.vocab = vocab.max(2176);
        (t.norm_eps, t.rope_theta, t.query_scalar, t.attention_softcap, t.final_softcap) = floats;
        t.generation = if gemma2 { Generation::Gemma2 } else { Generation::Gemma1 };
        t.windows = vec![window; layers];
        config
    })
}

/// A file of this architecture whose weights are zeros, which take no room on the disk; `None` if it cannot be.
fn hollow(config: &Config, format: WeightFormat) -> Option<Written> {
    let mut metadata = Metadata::default();
    config.to_metadata(&mut metadata);
    let (info, table) = Parts::tiny().tensor("tokenizer").clone();
    let mut tensors = vec![info];
    for spec in config.tensors() {
        let storage = spec.matrix.map_or(Storage::F32, |_| Storage::Packed(format));
        tensors.push(TensorInfo::new(spec.name, storage, &spec.shape)?);
    }
    let mut head = Head { metadata, tensors };
    let length = head.place();
    let written = write(&head.encode());
    let file = std::fs::OpenOptions::new().write(true).open(&written.path).unwrap();
    file.write_all_at(&table, head.tensors[0].offset).unwrap();
    (length < 1 << 42).then_some(())?;
    file.set_len(length).ok()?;
    Some(written)
}

/// Limits as a caller may state them.
fn wild_limits() -> impl Strategy<Value = Limits> {
    let odd = |max: usize| prop::sample::select(vec![0, max + 1, usize::MAX]);
    let size = |max: usize| prop_oneof![20 => 1..=max.min(64), 20 => 1..=max, 20 => Just(max), 1 => odd(max)];
    (size(1 << 10), size(1 << 20), size(1 << 20), size(65535), size(1 << 10)).prop_map(
        |(batch, prompt_tokens, new_tokens, image_side, threads)| {
            let mut limits = Limits::default();
            (limits.batch, limits.prompt_tokens, limits.new_tokens) = (batch, prompt_tokens, new_tokens);
            (limits.image_side, limits.threads) = (image_side, Some(threads));
            limits
        },
    )
}

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    (limits.prompt_tokens, limits.new_tokens, limits.image_side, limits.threads) = (64, 4, 64, Some(2));
    limits
}

/// A session of up to this many bytes is made and used.
const SESSION_BYTES: usize = 64 << 20;
/// Weights of up to this many bytes are multiplied with.
const WEIGHTS_BYTES: usize = 8 << 20;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn wild_metadata_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), wild_value()), 1..4),
    ) {
        let mut parts = Parts::tiny();
        let keys: Vec<String> = needed_metadata().iter().map(|(key, _)| key.to_owned()).collect();
        for (index, value) in changes {
            parts.metadata.set(index.get(&keys).as_str(), value);
        }
        if let Ok(model) = open(&parts.file()) {
            match answer(&model) {
                Ok(()) | Err(Error::Image(_) | Error::InvalidArgument(_) | Error::OutOfMemory { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn any_architecture_is_planned_or_refused(
        config in wild_config(),
        limits in wild_limits(),
        format in prop::sample::select(vec![WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4]),
    ) {
        let Some(file) = hollow(&config, format) else { return Ok(()) };
        let model = match (Model::open(&file.path), config.check()) {
            (Ok(model), Ok(())) => model,
            (Err(Error::File { source: FormatError::Metadata { .. }, .. }), Err(_)) => return Ok(()),
            (opened, checked) => panic!("{:?} where checking says {checked:?}", opened.err()),
        };
        for limits in [limits, small_limits()] {
            match model.plan(&limits) {
                Ok(plan) if plan.session_bytes() <= SESSION_BYTES && plan.threads <= 4 => {
                    let session = Session::new(&model, &limits).unwrap();
                    prop_assert_eq!(session.plan(), &plan);
                    if plan.weights_bytes <= WEIGHTS_BYTES && config.vision.patches() <= 64 {
                        answer(&model).unwrap();
                    }
                }
                Ok(_) | Err(Error::OutOfMemory { .. } | Error::InvalidArgument(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn sessions_beyond_all_memory_are_refused() {
    let mut limits = Limits::default();
    (limits.batch, limits.new_tokens, limits.prompt_tokens) = (1 << 10, 1 << 20, 1 << 20);
    limits.threads = Some(1);
    // More than an address space: refused before anything is asked for.
    let mut config = Config::from_metadata(&Parts::tiny().metadata).unwrap();
    let t = &mut config.text;
    (t.hidden, t.intermediate, t.layers, t.windows) = (1, 1, 1024, vec![None; 1024]);
    (t.heads, t.kv_heads, t.head_dim) = (1024, 1024, 1024);
    let Some(file) = hollow(&config, WeightFormat::Int8) else {
        eprintln!("skipped: a file of this size cannot be made here");
        return;
    };
    let model = Model::open(&file.path).unwrap();
    assert!(matches!(model.plan(&limits), Err(Error::OutOfMemory { .. })));
    assert!(matches!(Session::new(&model, &limits), Err(Error::OutOfMemory { .. })));
    // More than 128 TiB, the address space of a process: refused by the system.
    (limits.batch, limits.new_tokens) = (1 << 8, 1 << 20);
    let plan = model.plan(&limits).expect("a plan costs nothing");
    assert!(plan.session_bytes() > 1 << 47);
    let error = Session::new(&model, &limits).err().expect("no machine has that");
    assert!(matches!(error, Error::OutOfMemory { bytes } if bytes == plan.session_bytes()), "{error}");
}
