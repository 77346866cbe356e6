//! Files that are none, are cut, have flipped bits, or lie in their heads.

use std::os::unix::fs::FileExt;
use std::path::Path;

use palmtop::Model;
use palmtop::format::{FormatError, Head, PalmFile, Storage, TensorInfo, checksum};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::skipped;

use crate::parts::*;

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
        skipped("a file that may not be read", "this user may read any file");
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
        (|h| h.tensors[2].offset = 0, "offset 0 overlaps the data before it"),
        (|h| h.tensors[2].offset = h.tensors[1].offset, "overlaps the data before it"),
        (|h| h.tensors.swap(2, 3), "overlaps the data before it"),
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
    assert_refused(
        "a name twice",
        &twice,
        "tensor 'vision.layer.0.norm1.weight': appears twice in the table",
    );
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
        (44, 0, "there are extra bytes after the tensor table"),
        (48, u32::MAX, "more bytes are needed"),
    ] {
        let mut file = tiny().to_vec();
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let sum = checksum(&file[40..head_bytes]);
        file[32..40].copy_from_slice(&sum.to_le_bytes());
        let got = refusal(says, open(&file));
        assert!(got.contains(says) || got.contains("tensor"), "{got:?} does not say {says:?}");
    }
}
