//! What a session promises: the same bits whatever the threads, the batch and the instruction set; a fixed memory;
//! clear refusals.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::session::{Traced, TracedValues};
use palmtop::{Answer, Error, GenerateOptions, KvFormat, Limits, Model, Sampling, Session, StopReason};
use palmtop_convert::Recipe;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{RANDOM, converted, data, uniform};

const PROMPTS: [&str; 5] = [
    "caption en",
    "answer en where is the red car?",
    "detect cat ; dog ; traffic light",
    "ocr",
    "describe en",
];

fn scene() -> RgbImage {
    decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).expect("a readable picture")
}

fn limits(batch: usize, threads: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens) = (batch, Some(threads), 24);
    limits
}

/// Answers to groups of prompts.
fn answers(
    model: &Arc<Model>,
    limits: &Limits,
    groups: &[&[&str]],
    options: &GenerateOptions,
) -> Vec<Answer> {
    let mut session = Session::new(model, limits).expect("a small session");
    let mut features = session.new_features().expect("memory for features");
    session.encode(scene().view(), &mut features, options).expect("encoding");
    let mut out = Vec::new();
    for group in groups {
        let answers = session.answer(&features, group, options, &mut |_| ControlFlow::Continue(()));
        out.extend_from_slice(answers.expect("answering"));
    }
    out
}

fn endless() -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    options
}

fn assert_same(got: &[Answer], want: &[Answer], what: &str) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert_eq!(g.tokens, w.tokens, "{what}");
        let bits = |a: &Answer| a.probabilities.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(g), bits(w), "{what}");
        assert_eq!(g.text, w.text, "{what}");
    }
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    for name in ["tiny1", "tiny2"].into_iter().chain(RANDOM) {
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
            let model = converted(name, uniform(format)).open();
            let alone: Vec<&[&str]> = PROMPTS.iter().map(std::slice::from_ref).collect();
            let want = answers(&model, &limits(1, 1), &alone, &endless());
            assert!(want.iter().all(|a| a.tokens.len() == 24));
            for threads in [2, 3] {
                let got = answers(&model, &limits(1, threads), &alone, &endless());
                assert_same(&got, &want, &format!("{name} {format}, {threads} threads"));
            }
            let got = answers(&model, &limits(5, 2), &[&PROMPTS], &endless());
            assert_same(&got, &want, &format!("{name} {format}, a batch of five"));
            let got = answers(&model, &limits(3, 2), &[&PROMPTS[..2], &PROMPTS[2..]], &endless());
            assert_same(&got, &want, &format!("{name} {format}, batches of two and three"));
        }
    }
}

#[test]
fn threads_and_batches_do_not_change_a_bit_over_8_bit_keys_and_values() {
    let kept = |mut limits: Limits| {
        limits.kv = KvFormat::Int8;
        limits
    };
    for (name, format) in
        [("tiny1", WeightFormat::Int4), ("tiny2", WeightFormat::Int8), ("tiny2", WeightFormat::F32)]
    {
        let model = converted(name, uniform(format)).open();
        let alone: Vec<&[&str]> = PROMPTS.iter().map(std::slice::from_ref).collect();
        let want = answers(&model, &kept(limits(1, 1)), &alone, &endless());
        let got = answers(&model, &kept(limits(1, 3)), &alone, &endless());
        assert_same(&got, &want, &format!("{name} {format}, 3 threads"));
        let got = answers(&model, &kept(limits(5, 2)), &[&PROMPTS], &endless());
        assert_same(&got, &want, &format!("{name} {format}, a batch of five"));
        let wide = answers(&model, &limits(1, 1), &alone, &endless());
        let probabilities = |answers: &[Answer]| answers[0].probabilities.clone();
        assert_ne!(probabilities(&wide), probabilities(&want), "{name} {format}: 8 bits change nothing");
    }
}

/// A session that has room for one prompt and its answer alone, and one that has room for more.
#[test]
fn answers_may_fill_the_arena_to_its_end() {
    for (name, format) in
        [("tiny1", WeightFormat::Int8), ("tiny2", WeightFormat::Int4), ("tiny2", WeightFormat::F32)]
    {
        let model = converted(name, uniform(format)).open();
        let patches = model.config().vision.patches();
        for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Int8] {
            let mut wide = limits(3, 2);
            wide.kv = kv;
            let want = answers(&model, &wide, &[&PROMPTS[1..2]], &endless());
            let mut tight = limits(1, 2);
            (tight.kv, tight.prompt_tokens) = (kv, want[0].prompt_tokens - patches);
            // To a multiple of 16, so that nothing is rounded up: the last token alone, which needs no key, is not
            // kept.
            tight.new_tokens = (want[0].prompt_tokens + 12).next_multiple_of(16) - want[0].prompt_tokens;
            wide.new_tokens = tight.new_tokens;
            let want = answers(&model, &wide, &[&PROMPTS[1..2]], &endless());
            let got = answers(&model, &tight, &[&PROMPTS[1..2]], &endless());
            assert_same(&got, &want, &format!("{name} {format} {kv:?}"));
        }
    }
}

/// The bits of the logits of a prompt's last token.
fn prefill_logits(model: &Arc<Model>, kv: KvFormat, prompt: &str) -> Vec<u32> {
    let mut limits = limits(1, 2);
    (limits.kv, limits.prompt_tokens) = (kv, 400);
    let mut session = Session::new(model, &limits).expect("a small session");
    let mut logits = vec![];
    let mut sink = |t: Traced<'_>| {
        if let ("logits.prefill", TracedValues::F32(x)) = (t.name, t.values) {
            logits = x.iter().map(|x| x.to_bits()).collect();
        }
    };
    session.trace(&[scene().view()], prompt, 1, &mut sink).expect("a trace");
    logits
}

/// A long prefix attends in integers of its own, whatever its keys and values are then kept as.
#[test]
fn a_long_prefix_attends_before_its_keys_and_values_are_rounded() {
    for name in ["tiny1", "tiny2"] {
        let model = converted(name, uniform(WeightFormat::Int8)).open();
        let long = "where is the red car? ".repeat(60);
        let want = prefill_logits(&model, KvFormat::F16, &long);
        assert!(!want.is_empty());
        assert_eq!(prefill_logits(&model, KvFormat::Int8, &long), want, "{name}");
        // A short one attends in floats, to what is kept.
        let [wide, narrow] = [KvFormat::F16, KvFormat::Int8].map(|kv| prefill_logits(&model, kv, "ocr"));
        assert_ne!(wide, narrow, "{name}");
    }
}

#[test]
fn the_plan_counts_keys_values_and_scales() {
    for name in ["tiny1", "tiny2"] {
        let model = converted(name, uniform(WeightFormat::Int8)).open();
        let (t, patches) = (&model.config().text, model.config().vision.patches());
        let mut limits = limits(3, 2);
        // Room for the next multiple of 16 positions.
        (limits.prompt_tokens, limits.new_tokens) = (33, 48);
        let vectors = 2 * 3 * t.layers * t.kv_heads * (patches + 33 + 48).next_multiple_of(16);
        for (kv, bytes) in [
            (KvFormat::F32, 4 * t.head_dim),
            (KvFormat::F16, 2 * t.head_dim),
            (KvFormat::Int8, t.head_dim + 4),
        ] {
            limits.kv = kv;
            assert_eq!(model.plan(&limits).expect("a plan").kv_bytes, vectors * bytes, "{name} {kv:?}");
            // What a token reads are the prefix's.
            let of_prefix = |n| model.work(n, kv).token_bytes;
            let vectors = (2 * 100 * t.layers * t.kv_heads) as u64;
            assert_eq!(of_prefix(170) - of_prefix(70), vectors * bytes as u64, "{name} {kv:?}");
        }
    }
}

#[test]
fn sampling_is_repeatable_alone_and_in_a_batch() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut options = endless();
    options.sampling = Sampling { temperature: 1.0, top_k: 50, top_p: 0.9, seed: 3 };
    let alone: Vec<&[&str]> = PROMPTS.iter().map(std::slice::from_ref).collect();
    let want = answers(&model, &limits(1, 1), &alone, &options);
    assert_same(&answers(&model, &limits(5, 2), &[&PROMPTS], &options), &want, "sampled");
    options.sampling.seed = 4;
    assert_ne!(answers(&model, &limits(1, 1), &alone, &options)[0].tokens, want[0].tokens);
}

#[test]
fn a_session_forgets_what_it_answered_before() {
    let model = converted("tiny2", Recipe::default()).open();
    let fresh = answers(&model, &limits(1, 2), &[&PROMPTS[..1]], &endless());
    let used = answers(&model, &limits(1, 2), &[&PROMPTS[2..3], &PROMPTS[1..2], &PROMPTS[..1]], &endless());
    assert_same(&used[2..], &fresh, "after other prompts");
}

#[test]
fn limits_are_refused_with_what_to_do() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut small = limits(1, 1);
    small.prompt_tokens = 8;
    let mut session = Session::new(&model, &small).expect("a small session");
    let mut features = session.new_features().expect("memory");
    let options = GenerateOptions::default();
    let ask = |session: &mut Session, features: &_, prompts: &[&str], options: &GenerateOptions| match session
        .answer(features, prompts, options, &mut |_| ControlFlow::Continue(()))
    {
        Ok(_) => panic!("{prompts:?} was accepted"),
        Err(e) => e.to_string(),
    };
    assert_eq!(
        ask(&mut session, &features, &["ocr"], &options),
        "no picture has been encoded into these image features"
    );
    session.encode(scene().view(), &mut features, &options).expect("encoding");
    for (prompts, text) in [
        (vec!["the cat and the dog and the car and the tree"], "more than this session's 8: shorten it"),
        (vec!["ocr", "ocr"], "2 prompts at once, but the session takes 1 to 1"),
        (vec![], "0 prompts at once"),
        (vec!["what <image> is"], "contains the image token"),
    ] {
        let got = ask(&mut session, &features, &prompts, &options);
        assert!(got.contains(text), "{got:?} does not say {text:?}");
    }
    let long = "x".repeat(1 << 20);
    let got = ask(&mut session, &features, &[&long], &options);
    assert!(got.contains("1048576 bytes, more than this session's 8 prompt tokens can hold"), "{got}");
    let mut options = GenerateOptions::default();
    options.max_new_tokens = Some(25);
    let got = ask(&mut session, &features, &["ocr"], &options);
    assert_eq!(got, "25 new tokens, but the session takes 1 to 24");
    for (change, text) in [
        ((|l: &mut Limits| l.batch = 0) as fn(&mut Limits), "the batch is 0"),
        (|l| l.prompt_tokens = usize::MAX, "the limit of prompt tokens is"),
        (|l| l.threads = Some(0), "the number of threads is 0"),
        (|l| l.image_side = 1 << 20, "the longest image side is 1048576"),
    ] {
        let mut bad = limits(1, 1);
        change(&mut bad);
        let got = Session::new(&model, &bad).err().expect("a refusal").to_string();
        assert!(got.starts_with(text), "{got:?} does not say {text:?}");
    }
    // A picture's token at the start of a prompt is the picture itself, as in transformers.
    session
        .answer(&features, &["<image>ocr"], &GenerateOptions::default(), &mut |_| ControlFlow::Continue(()))
        .unwrap();
}

#[test]
fn calls_stop_when_asked() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut session = Session::new(&model, &limits(2, 2)).expect("a small session");
    let mut features = session.new_features().expect("memory");
    let options = endless();
    session.encode(scene().view(), &mut features, &options).expect("encoding");

    let cancelled = endless();
    cancelled.cancel.cancel();
    let error = session.encode(scene().view(), &mut features, &cancelled).err();
    assert!(matches!(error, Some(Error::Cancelled)));
    assert!(!features.is_encoded(), "half-made features are not used");
    session.encode(scene().view(), &mut features, &options).expect("encoding");
    let answers = session.answer(&features, &["ocr"], &cancelled, &mut |_| ControlFlow::Continue(()));
    let answer = &answers.expect("an empty answer")[0];
    assert_eq!((answer.prompt_tokens, answer.tokens.len(), answer.stop), (0, 0, StopReason::Cancelled));

    let mut late = endless();
    late.deadline = Some(Instant::now() - Duration::from_millis(1));
    assert!(matches!(session.encode(scene().view(), &mut features, &late), Err(Error::DeadlinePassed)));
    session.encode(scene().view(), &mut features, &options).expect("encoding");
    let answers = session.answer(&features, &["ocr"], &late, &mut |_| ControlFlow::Continue(()));
    let answer = &answers.expect("an empty answer")[0];
    assert_eq!((answer.prompt_tokens, answer.tokens.len(), answer.stop), (0, 0, StopReason::DeadlinePassed));

    // Cancelled after five tokens: the answer so far is there.
    let during = endless();
    let mut heard = 0;
    let answers = session.answer(&features, &["ocr"], &during, &mut |piece| {
        heard += usize::from(piece.token.is_some());
        if heard == 5 {
            during.cancel.cancel();
        }
        ControlFlow::Continue(())
    });
    let answer = &answers.expect("an answer so far")[0];
    assert_eq!((answer.tokens.len(), answer.stop), (5, StopReason::Cancelled));

    // One of two prompts is broken off by its listener; the other goes on.
    let answers = session
        .answer(&features, &["ocr", "caption en"], &options, &mut |piece| {
            if piece.prompt == 0 && piece.token.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .expect("answering");
    assert_eq!((answers[0].tokens.len(), answers[0].stop), (1, StopReason::Callback));
    assert_eq!((answers[1].tokens.len(), answers[1].stop), (24, StopReason::TokenLimit));
}
