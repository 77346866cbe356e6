//! Answering with damaged weights: wrong answers, but answers.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use palmtop::format::{FormatError, Head, Storage, TensorInfo};
use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::{Error, GenerateOptions, Limits, Model, Sampling, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::data;

use crate::parts::*;

// Answering with damaged weights

fn picture() -> &'static RgbImage {
    static PICTURE: OnceLock<RgbImage> = OnceLock::new();
    PICTURE.get_or_init(|| {
        decode_file(data().join("images/scene_small_40x30.png"), &ImageLimits::default()).unwrap()
    })
}

/// Asks a model whatever its weights: it must come back, with answers or with an error.
pub fn answer(model: &Arc<Model>) -> Result<(), Error> {
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
