//! A model is the same from a path, from a part of an open file, and from memory.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{Error, GenerateOptions, Limits, Model, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};

/// Bytes that begin at a multiple of 64, and others that do not.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(file: &[u8], beside: usize) -> Self {
        let mut bytes = vec![0; file.len() + 128];
        let start = bytes.as_ptr().align_offset(64) + beside;
        bytes[start..start + file.len()].copy_from_slice(file);
        bytes.truncate(start + file.len());
        Self { bytes, start }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

fn answer(model: &Arc<Model>) -> Vec<u32> {
    let picture = decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).unwrap();
    let mut limits = Limits::default();
    limits.new_tokens = 6;
    let mut session = Session::new(model, &limits).unwrap();
    let (mut features, options) = (model.new_features().unwrap(), GenerateOptions::default());
    session.encode(picture.view(), &mut features, &options).unwrap();
    assert_eq!(features.picture_size(), (640, 361));
    let answers = session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Continue(()));
    answers.unwrap()[0].tokens.clone()
}

#[test]
fn a_model_is_the_same_wherever_it_lies() {
    let converted = converted("tiny1", uniform(WeightFormat::Int8));
    let bytes = std::fs::read(&converted.path).unwrap();
    let expected = answer(&converted.open());
    assert!(!expected.is_empty());
    assert_eq!(answer(&Model::from_memory(Memory::new(&bytes, 0)).unwrap()), expected);
    assert!(Model::from_memory(Memory::new(&bytes, 32)).is_err());
    assert_eq!(answer(&Model::read(&converted.path).unwrap()), expected);

    let mut package = tempfile::tempfile().unwrap();
    for (offset, behind) in [(0, 0), (64, 10), (4096, 0), (4160, 1), (1, 0), (4100, 7)] {
        package.set_len(0).unwrap();
        package.seek(SeekFrom::Start(offset)).unwrap();
        package.write_all(&bytes).unwrap();
        package.write_all(&vec![7; behind]).unwrap();
        package.seek(SeekFrom::Start(3)).unwrap();
        let open = |length| Model::open_part(&package, offset, length);
        assert_eq!(answer(&open(Some(bytes.len() as u64)).unwrap()), expected, "at {offset}");
        if behind == 0 {
            assert_eq!(answer(&open(None).unwrap()), expected, "at {offset}");
        }
        assert_eq!((&package).stream_position().unwrap(), 3, "the caller's position stays");
        assert!(matches!(open(Some(bytes.len() as u64 - 1)), Err(Error::Format(_))), "cut, at {offset}");
        let too_long = open(Some((bytes.len() + behind) as u64 + 1));
        assert!(matches!(too_long, Err(Error::Usage(_))), "at {offset}");
    }
    assert!(matches!(Model::open_part(&package, u64::MAX, None), Err(Error::Usage(_))));
    assert!(matches!(Model::open_part(&package, u64::MAX, Some(u64::MAX)), Err(Error::Usage(_))));
    assert!(matches!(Model::open_part(&package, 0, Some(0)), Err(Error::Format(_))));
    let end = package.metadata().unwrap().len();
    assert!(matches!(Model::open_part(&package, end, None), Err(Error::Format(_))));
    let folder = File::open(data()).unwrap();
    assert!(matches!(Model::open_part(&folder, 0, None), Err(Error::Io { .. })));
}

/// What was read needs its file no more, whatever is done to it; and what is mapped can tell.
#[test]
fn a_model_that_was_read_does_not_depend_on_its_file() {
    let converted = converted("tiny1", uniform(WeightFormat::Int8));
    let whole = std::fs::read(&converted.path).unwrap();
    let read = Model::read(&converted.path).unwrap();
    let expected = answer(&read);
    for spoilt in [&[][..], &whole[..whole.len() / 2], &vec![0x55; whole.len()]] {
        std::fs::write(&converted.path, spoilt).unwrap();
        assert_eq!(answer(&read), expected);
        read.check_unchanged().unwrap();
        assert!(matches!(Model::read(&converted.path), Err(Error::File { .. })));
    }
    std::fs::write(&converted.path, &whole).unwrap();
    let mapped = converted.open();
    mapped.preload();
    assert_eq!(answer(&mapped), expected);
    mapped.check_unchanged().unwrap();
    // One byte more, behind all that is mapped.
    std::fs::write(&converted.path, [&whole[..], b"!"].concat()).unwrap();
    assert!(matches!(mapped.check_unchanged(), Err(Error::FileChanged { path }) if path == converted.path));
}
