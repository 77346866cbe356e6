//! Prefixes computed for others: keys, values and rows are those of transformers, whatever runs beside them.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{
    Error, GenerateOptions, ImageFeatures, Isa, Limits, Model, Prefix, PrefixLimits, PrefixText, Request,
    Session, UsageError,
};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::no_instruction_set;
use palmtop_tests::{RANDOM, converted, cosine, data, relative_error, tensors, uniform};

fn limits(threads: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.pictures, limits.image_side, limits.threads) = (3, 700, Some(threads));
    (limits.prompt_tokens, limits.new_tokens) = (40, 12);
    limits
}

/// The same without answers.
fn rows_only(threads: usize) -> Limits {
    let mut limits = limits(threads);
    limits.new_tokens = 0;
    limits
}

fn room(model: &Model, pictures: usize) -> Prefix {
    let mut limits = PrefixLimits::default();
    (limits.pictures, limits.tokens) = (pictures, 40);
    model.new_prefix(&limits).unwrap()
}

fn features(session: &mut Session, picture: &str) -> ImageFeatures {
    let picture = decode_file(data().join("images").join(picture), &ImageLimits::default()).unwrap();
    let mut features = session.new_features().unwrap();
    session.encode(picture.view(), &mut features, &GenerateOptions::default()).unwrap();
    features
}

const SCENE: &str = "scene_640x361.png";
const NOISE: &str = "noise_97x61.png";

/// A case of `data/prefix`.
struct Case {
    path: PathBuf,
    checkpoint: String,
    pictures: Vec<Option<String>>,
    about: serde_json::Value,
}

fn cases() -> Vec<Case> {
    let entries = std::fs::read_dir(data().join("prefix")).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    paths.sort();
    let case = |path: PathBuf| {
        let about: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let pictures = about["pictures"].as_array().unwrap().iter();
        Case {
            path,
            checkpoint: about["checkpoint"].as_str().unwrap().to_owned(),
            pictures: pictures.map(|p| p.as_str().map(str::to_owned)).collect(),
            about,
        }
    };
    paths.into_iter().map(case).collect()
}

impl Case {
    fn compute(&self, session: &mut Session) -> Prefix {
        let encoded: Vec<Option<ImageFeatures>> =
            self.pictures.iter().map(|p| p.as_ref().map(|p| features(session, p))).collect();
        let pictures: Vec<Option<&ImageFeatures>> = encoded.iter().map(Option::as_ref).collect();
        let tokens: Vec<u32> = match self.about["tokens"].as_array() {
            Some(tokens) => tokens.iter().map(|t| t.as_u64().unwrap() as u32).collect(),
            None => Vec::new(),
        };
        let text = match (self.about["prompt"].as_str(), self.about["open"].as_str()) {
            (Some(text), _) => PrefixText::Prompt(text),
            (_, Some(text)) => PrefixText::Open(text),
            _ => PrefixText::Tokens(&tokens),
        };
        let mut out = room(session.model(), 3);
        session.prefix(&pictures, text, &GenerateOptions::default(), &mut out).unwrap();
        out
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// Of rows, those that are there; the others are zeros.
fn there(values: &[f32], mask: &[bool]) -> Vec<f64> {
    let width = values.len() / mask.len();
    let rows = values.chunks(width).zip(mask);
    assert!(rows.clone().all(|(row, is_there)| *is_there || row.iter().all(|&x| x == 0.0)));
    rows.filter(|(_, is_there)| **is_there).flat_map(|(row, _)| wide(row)).collect()
}

#[test]
fn keys_values_and_rows_are_those_of_transformers() {
    let cases = cases();
    assert!(cases.len() >= 5);
    for case in cases {
        let name = case.path.file_stem().unwrap().to_string_lossy().into_owned();
        let model = converted(&case.checkpoint, uniform(WeightFormat::F32)).open();
        let mut session = Session::new(&model, &limits(2)).unwrap();
        let (got, want) = (case.compute(&mut session), tensors(&case.path.with_extension("safetensors")));
        let [layers, rows, kv_heads, head_dim] = got.shape();
        let mask: Vec<f64> = got.mask().iter().map(|&m| f64::from(u8::from(m))).collect();
        let positions: Vec<f64> = got.positions().iter().map(|&p| p.into()).collect();
        assert_eq!(
            (mask, positions),
            (want["mask"].values.clone(), want["positions"].values.clone()),
            "{name}"
        );
        assert_eq!(got.next_position(), got.mask().iter().filter(|m| **m).count());
        for layer in [0, layers - 1] {
            for (what, values) in [("keys", got.keys()), ("values", got.values())] {
                let of_layer = &values[layer * rows * kv_heads * head_dim..][..rows * kv_heads * head_dim];
                let want = &want[&format!("{what}.{layer}")];
                assert_eq!(want.shape, [got.next_position(), kv_heads, head_dim]);
                let error = relative_error(&there(of_layer, got.mask()), &want.values);
                assert!(error < 1e-4, "{name}: {what} of layer {layer} are off by {error:.1e}");
            }
        }
        assert_eq!(got.hidden_shape(), [rows, model.config().text.hidden]);
        let error = relative_error(&there(got.hidden(), got.mask()), &want["hidden"].values);
        assert!(error < 1e-4, "{name}: rows are off by {error:.1e}");
    }
}

/// All numbers of a prefix, to the bit.
fn numbers(prefix: &Prefix) -> Vec<u32> {
    [prefix.keys(), prefix.values(), prefix.hidden()].concat().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn threads_instruction_sets_and_sessions_do_not_change_a_bit() {
    for name in ["tiny1", "tiny2"].into_iter().chain(RANDOM) {
        for format in [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4] {
            let model = converted(name, uniform(format)).open();
            let run = |limits: &Limits| {
                let mut session = Session::new(&model, limits).unwrap();
                let (scene, noise) = (features(&mut session, SCENE), features(&mut session, NOISE));
                let mut out = room(&model, 3);
                let pictures = [Some(&scene), None, Some(&noise)];
                let options = GenerateOptions::default();
                session.prefix(&pictures, PrefixText::Prompt("fold it"), &options, &mut out).unwrap();
                numbers(&out)
            };
            let want = run(&limits(1));
            for threads in [2, 3] {
                assert!(run(&limits(threads)) == want, "{name} {format}, {threads} threads");
            }
            assert!(run(&rows_only(2)) == want, "{name} {format}, without answers");
            for isa in Isa::ALL {
                match isa.is_available() {
                    true => {
                        let mut limits = limits(2);
                        limits.isa = Some(isa);
                        assert!(run(&limits) == want, "{name} {format} {isa}");
                    }
                    false => no_instruction_set(isa),
                }
            }
        }
    }
}

/// A missing picture is as if it were not there; what is not kept changes nothing; and room that has been used before
/// is as good as new.
#[test]
fn missing_pictures_and_what_is_kept_change_no_other_number() {
    for (name, format) in [("tiny1", WeightFormat::F32), (RANDOM[1], WeightFormat::Int8)] {
        let model = converted(name, uniform(format)).open();
        let mut session = Session::new(&model, &rows_only(2)).unwrap();
        let (scene, noise) = (features(&mut session, SCENE), features(&mut session, NOISE));
        let options = GenerateOptions::default();
        let text = PrefixText::Open("Action: ");
        let mut run = |pictures: &[Option<&ImageFeatures>], out: &mut Prefix| {
            session.prefix(pictures, text, &options, out).unwrap();
        };
        let (mut both, mut gap) = (room(&model, 2), room(&model, 3));
        run(&[Some(&scene), Some(&noise)], &mut both);
        run(&[Some(&noise), Some(&noise), Some(&scene)], &mut gap);
        run(&[Some(&scene), None, Some(&noise)], &mut gap);
        let [layers, rows, kv_heads, head_dim] = gap.shape();
        assert_eq!(rows, both.rows() + model.config().image_rows());
        let of_row = kv_heads * head_dim;
        for layer in 0..layers {
            for (gap_values, both_values) in [(gap.keys(), both.keys()), (gap.values(), both.values())] {
                let of_gap = &gap_values[layer * rows * of_row..][..rows * of_row];
                let of_both = &both_values[layer * both.rows() * of_row..][..both.rows() * of_row];
                assert_eq!(there(of_gap, gap.mask()), wide(of_both), "{name}, layer {layer}");
            }
        }
        assert_eq!(there(gap.hidden(), gap.mask()), wide(both.hidden()), "{name}");
        for (keys_values, hidden) in [(true, false), (false, true)] {
            let mut limits = PrefixLimits::default();
            (limits.pictures, limits.tokens) = (2, 40);
            (limits.keys_values, limits.hidden) = (keys_values, hidden);
            let mut part = model.new_prefix(&limits).unwrap();
            run(&[Some(&scene), Some(&noise)], &mut part);
            assert!(part.keys() == if keys_values { both.keys() } else { &[] }, "{name}");
            assert!(part.values() == if keys_values { both.values() } else { &[] }, "{name}");
            assert!(part.hidden() == if hidden { both.hidden() } else { &[] }, "{name}");
            assert!(model.plan_prefix(&limits).unwrap() < model.plan_prefix(both.limits()).unwrap());
        }
    }
}

#[test]
fn more_memory_than_there_is_is_refused_before_any_is_taken() {
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let mut limits = PrefixLimits::default();
    // Rows of some terabytes, which could be addressed, and of more than can.
    for tokens in [1 << 32, usize::MAX / 8] {
        limits.tokens = tokens;
        let refused = model.new_prefix(&limits).err();
        assert!(matches!(refused, Some(Error::OutOfMemory { .. })), "{tokens}: {refused:?}");
    }
}

#[test]
fn formats_of_few_bits_are_near() {
    let prefix = |format| {
        let model = converted("tiny1", uniform(format)).open();
        let mut session = Session::new(&model, &rows_only(2)).unwrap();
        let scene = features(&mut session, SCENE);
        let mut out = room(&model, 1);
        let options = GenerateOptions::default();
        session.prefix(&[Some(&scene)], PrefixText::Prompt("caption en"), &options, &mut out).unwrap();
        [out.keys(), out.values(), out.hidden()].map(wide)
    };
    let want = prefix(WeightFormat::F32);
    for (format, least) in
        [(WeightFormat::F16, 0.9999), (WeightFormat::Int8, 0.99), (WeightFormat::Int4, 0.9)]
    {
        for (got, want) in prefix(format).iter().zip(&want) {
            assert!(cosine(got, want) > least, "{format}: {}", cosine(got, want));
        }
    }
}

/// The tokens of an answer, and what a prefix that is computed after so many of its steps has.
fn answer_with_a_prefix_after(model: &Arc<Model>, steps: usize) -> (Vec<u32>, Vec<u32>) {
    let mut limits = limits(2);
    limits.batch = 2;
    let mut session = Session::new(model, &limits).unwrap();
    let (scene, noise) = (features(&mut session, SCENE), features(&mut session, NOISE));
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    let request = Request { pictures: &[&scene], prompt: "caption en", draft: &[] };
    let id = session.begin(&request, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let (mut out, mut steps) = (room(model, 2), Some(steps));
    while session.is_running(id).unwrap() {
        match steps {
            Some(0) => {
                let text = PrefixText::Prompt("fold it");
                session.prefix(&[None, Some(&noise)], text, &options, &mut out).unwrap();
                steps = None;
            }
            left => steps = left.map(|n| n - 1),
        }
        session.step(&mut |_| ControlFlow::Continue(())).unwrap();
    }
    (session.sequence(id).unwrap().tokens.clone(), numbers(&out))
}

#[test]
fn a_prefix_between_the_steps_of_an_answer_leaves_it_as_it_is() {
    for format in [WeightFormat::F32, WeightFormat::Int8] {
        let model = converted("tiny2", uniform(format)).open();
        let (undisturbed, nothing) = answer_with_a_prefix_after(&model, usize::MAX);
        assert!(nothing.is_empty() && undisturbed.len() == 12);
        let (_, want) = answer_with_a_prefix_after(&model, 0);
        assert!(!want.is_empty());
        for steps in [0, 1, 5] {
            assert!(
                answer_with_a_prefix_after(&model, steps) == (undisturbed.clone(), want.clone()),
                "{format}"
            );
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_leaves_no_rows() {
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let other = converted("tiny2", uniform(WeightFormat::Int8)).open();
    let mut session = Session::new(&model, &limits(1)).unwrap();
    let scene = features(&mut session, SCENE);
    let empty = session.new_features().unwrap();
    let of_other = features(&mut Session::new(&other, &limits(1)).unwrap(), SCENE);
    let options = GenerateOptions::default();
    let mut out = room(&model, 2);
    let prompt = PrefixText::Prompt("caption en");
    let long = "a b c d e f g h ".repeat(20);
    let vocab = model.config().text.vocab as u32;
    let image = model.config().tokens.image;
    for (pictures, text, says) in [
        (&[None, None, None, None][..], prompt, "4 pictures in a prompt, but the session takes 1 to 3"),
        (
            &[Some(&scene), None, None],
            PrefixText::Tokens(&[2; 30]),
            "a prefix of 78 rows, where there is room for 1 to 72",
        ),
        (&[None, Some(&empty)], prompt, "no picture has been encoded"),
        (&[None, Some(&of_other)], prompt, "made for another model"),
        (&[None, None], PrefixText::Tokens(&[]), "a picture that is there, or a token"),
        (&[], PrefixText::Tokens(&[]), "a prefix of 0 rows"),
        (&[Some(&scene)], PrefixText::Tokens(&[2, vocab]), &format!("token {vocab} was given")),
        (&[Some(&scene)], PrefixText::Tokens(&[2, image]), "contains the image token"),
        (&[Some(&scene)], PrefixText::Open("a <image> b"), "contains the image token"),
        (&[Some(&scene)], PrefixText::Prompt(&long), "more than this session's 40"),
        (&[Some(&scene)], PrefixText::Tokens(&[2; 41]), "more than this session's 40"),
    ] {
        session.prefix(&[Some(&scene)], prompt, &options, &mut out).unwrap();
        let error = session.prefix(pictures, text, &options, &mut out).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        assert_eq!((out.rows(), out.keys().len(), out.hidden().len(), out.next_position()), (0, 0, 0, 0));
    }
    let error = session.prefix(&[], prompt, &options, &mut room(&other, 1)).unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::PrefixOfAnotherModel)));
    // Pictures alone, and a text alone, are prefixes.
    session.prefix(&[Some(&scene)], PrefixText::Tokens(&[]), &options, &mut out).unwrap();
    assert_eq!(out.rows(), model.config().image_rows());
    session.prefix(&[], prompt, &options, &mut out).unwrap();
    assert!(out.rows() > 1 && out.mask().iter().all(|&m| m));

    for (cancelled, late) in [(true, false), (false, true)] {
        let mut options = GenerateOptions::default();
        if cancelled {
            options.cancel.cancel();
        }
        options.deadline = late.then(Instant::now);
        let error = session.prefix(&[Some(&scene)], prompt, &options, &mut out).unwrap_err();
        assert!(matches!(error, Error::Cancelled | Error::DeadlinePassed) && out.rows() == 0);
    }
    // All sequences are taken.
    let request = Request { pictures: &[&scene], prompt: "caption en", draft: &[] };
    let id = session.begin(&request, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let error = session.prefix(&[Some(&scene)], prompt, &options, &mut out).unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::NoFreeSequence { batch: 1 })));
    session.end(id).unwrap();
    session.prefix(&[Some(&scene)], prompt, &options, &mut out).unwrap();
}

#[test]
fn a_session_without_answers_takes_less_and_gives_none() {
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let (with, without) = (model.plan(&limits(1)).unwrap(), model.plan(&rows_only(1)).unwrap());
    let layers = model.config().text.layers;
    assert!(without.session_bytes() < with.session_bytes());
    assert!(without.kv_bytes * layers <= with.kv_bytes, "{without:?} {with:?}");
    let mut session = Session::new(&model, &rows_only(1)).unwrap();
    let scene = features(&mut session, SCENE);
    let options = GenerateOptions::default();
    let refused = |result: palmtop::Result<()>| {
        assert!(matches!(result, Err(Error::Usage(UsageError::NoAnswers))), "{result:?}");
    };
    let heard = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
    refused(session.answer(&scene, &["caption en"], &options, heard).map(|_| ()));
    refused(session.force(&[&scene], "caption en", &[], &options, &mut |_, _| {}));
    let request = Request { pictures: &[&scene], prompt: "caption en", draft: &[] };
    refused(session.begin(&request, &options, heard).map(|_| ()));
}
