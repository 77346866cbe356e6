//! Every instruction set of this CPU gives the same bits: of answers, and of all values on the way to them.

use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, Grammar, KvFormat, Limits, Model, Session};
use palmtop_kernels::Isa;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::no_instruction_set;
use palmtop_tests::{RANDOM, bits, converted, data, trace, uniform};

const PROMPTS: [&str; 2] = ["caption en", "answer en where is the red car?"];

#[test]
fn instruction_sets_do_not_change_a_bit() {
    for (name, format, kv) in [
        ("tiny1", WeightFormat::Int8, KvFormat::Auto),
        ("tiny2", WeightFormat::Int4, KvFormat::Auto),
        ("tiny2", WeightFormat::F32, KvFormat::Auto),
        ("tiny2", WeightFormat::Int8, KvFormat::Int8),
        (RANDOM[0], WeightFormat::Int4, KvFormat::Auto),
        (RANDOM[1], WeightFormat::Int8, KvFormat::Int8),
    ] {
        let model = converted(name, uniform(format)).open();
        let want = lines(&model, kv, Isa::Scalar);
        assert!(want.len() > 10, "{want:?}");
        for isa in Isa::ALL.into_iter().filter(|&isa| isa != Isa::Scalar) {
            if isa.is_available() {
                assert_eq!(lines(&model, kv, isa), want, "{name} {format} {kv:?} {isa}");
            } else {
                no_instruction_set(isa);
            }
        }
    }
}

/// A line for every answer, and one for every value on the way, of which rounding to integers might hide a difference
/// from the answer.
fn lines(model: &Arc<Model>, kv: KvFormat, isa: Isa) -> Vec<String> {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens) = (2, Some(2), 24);
    (limits.kv, limits.isa) = (kv, Some(isa));
    let mut session = Session::new(model, &limits).expect("a small session");
    let mut features = session.new_features().expect("memory for features");
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    let scene = decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default());
    session.encode(scene.expect("a readable picture").view(), &mut features, &options).expect("encoding");
    let mut lines = Vec::new();
    let among = Grammar::tokens(model, (0..2000).step_by(37)).expect("a set of tokens");
    for grammar in [None, Some(among)] {
        options.grammar = grammar;
        let answers = session.answer(&features, &PROMPTS, &options, &mut |_| ControlFlow::Continue(()));
        lines.extend(answers.expect("answering").iter().map(bits));
    }
    let image = data().join("images/noise_97x61.png");
    for (key, tensor) in trace(&mut session, &image, PROMPTS[1], 3) {
        let mut hasher = DefaultHasher::new();
        tensor.values.iter().for_each(|value| hasher.write_u64(value.to_bits()));
        lines.push(format!("{key} {:x}", hasher.finish()));
    }
    lines
}
