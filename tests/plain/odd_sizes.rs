//! palmtop against the plain pass on models of odd sizes, and that nothing about such models panics: in every format of
//! weights, of keys and values, traced, answering and calibrating.

use std::ops::ControlFlow;
use std::path::Path;

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::session::Request;
use palmtop::{
    GenerateOptions, ImageFeatures, KvFormat, Limits, Model, Piece, PrefixLimits, PrefixText, Session,
};
use palmtop_convert::synthetic::Synthetic;
use palmtop_convert::{Calibration, Checkpoint, Options, Recipe, WeightSource, convert, read_config};
use palmtop_convert::{convert_source, tokenizer};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::drafts::drafts;
use palmtop_tests::odd::{Odd, odd_grid, odd_models, write_checkpoint};
use palmtop_tests::{bits, data, relative_error, trace, uniform};
use serde_json::json;

use crate::forward::Plain;
use crate::{Worst, ids};

const PROMPT: &str = "answer en what is it?";
const TOKENS: usize = 3;
/// Of the drafts, only every so many are tried with each model, format and kind of keys and values: others each time.
const DRAFTS_EVERY: usize = 10;

fn scene() -> std::path::PathBuf {
    data().join("images/scene_640x361.png")
}

fn picture() -> RgbImage {
    decode_file(scene(), &ImageLimits::default()).expect("a readable picture")
}

fn session(model: &Path, kv: KvFormat) -> Session {
    let mut limits = Limits::default();
    (limits.batch, limits.prompt_tokens, limits.new_tokens) = (2, 24, TOKENS);
    (limits.image_side, limits.kv, limits.threads) = (700, kv, Some(2));
    (limits.pictures, limits.draft_tokens) = (2, 2);
    Session::new(&Model::open(model).expect("a model"), &limits).expect("a small session")
}

/// Compares every value of a trace of an f32 model, and its tokens, with those of the plain pass.
fn compare(odd: &Odd, weights: &dyn WeightSource, model: &Path, worst: &mut Worst) {
    let values = trace(&mut session(model, KvFormat::Auto), &scene(), PROMPT, TOKENS);
    let pixels = values["pixel_values"].values.iter().map(|&v| v as f32).collect();
    let prompt = ids(&values, "input_ids");
    let (answer, plain) = Plain::new(&odd.config, weights).answer(&[pixels], &prompt, TOKENS);
    assert_eq!(ids(&values, "gen.tokens"), answer, "{}", odd.name);
    let error =
        relative_error(&prefix(&mut session(model, KvFormat::Auto)), &values["text.final_norm"].values);
    assert!(error < 1e-4, "{}: the rows of a prefix are off by {error:.1e}", odd.name);
    let others = ["pixel_values", "input_ids", "gen.tokens"];
    assert_eq!(plain.len() + others.len(), values.len(), "{}: {:?}", odd.name, values.keys());
    for (name, value) in values.iter().filter(|(name, _)| !others.contains(&name.as_str())) {
        worst.compare(&odd.name, name, &plain, value, 1e-4);
    }
}

/// The rows of a picture that is there, of one that is not, and of the prompt.
fn prefix(session: &mut Session) -> Vec<f64> {
    let (mut features, options) = (session.new_features().expect("memory"), GenerateOptions::default());
    session.encode(picture().view(), &mut features, &options).expect("features");
    let mut room = PrefixLimits::default();
    (room.pictures, room.tokens) = (2, 24);
    let mut out = session.model().new_prefix(&room).expect("memory");
    let pictures = [Some(&features), None];
    session.prefix(&pictures, PrefixText::Prompt(PROMPT), &options, &mut out).expect("a prefix");
    assert!(out.keys().iter().chain(out.values()).all(|x| x.is_finite()));
    let rows = out.hidden().chunks(out.hidden_shape()[1]).zip(out.mask());
    rows.filter(|(_, is_there)| **is_there).flat_map(|(row, _)| row).map(|&x| x.into()).collect()
}

/// Traces the model and answers with it, in batches, by drafts and about two pictures, with keys and values in all
/// formats. `turn` says which of the drafts are tried.
fn run(odd: &Odd, model: &Path, turn: usize) {
    for (k, kv) in [KvFormat::Auto, KvFormat::F32, KvFormat::F16, KvFormat::Int8].into_iter().enumerate() {
        let mut session = session(model, kv);
        let values = trace(&mut session, &scene(), PROMPT, TOKENS);
        for (name, value) in &values {
            assert!(value.values.iter().all(|v| v.is_finite()), "{}, {kv:?}: {name}", odd.name);
        }
        assert!(prefix(&mut session).iter().all(|v| v.is_finite()), "{}, {kv:?}", odd.name);
        let (mut features, mut options) =
            (session.new_features().expect("memory"), GenerateOptions::default());
        options.stop_at_eos = false;
        session.encode(picture().view(), &mut features, &options).expect("features");
        let mut answer = |pictures: &[&ImageFeatures], prompts: &[&str], draft: &[u32]| {
            let requests: Vec<_> = prompts.iter().map(|prompt| Request { pictures, prompt, draft }).collect();
            let go_on = &mut |_: Piece<'_>| ControlFlow::Continue(());
            session.answer_requests(&requests, &options, go_on).expect("answers").to_vec()
        };
        let answers = answer(&[&features], &[PROMPT, "caption en"], &[]);
        let tokens: Vec<usize> = answers[0].tokens.iter().map(|&token| token as usize).collect();
        // What is traced and answered, alone and in a batch, is the same.
        assert_eq!(tokens, ids(&values, "gen.tokens"), "{}, {kv:?}", odd.name);
        let (eos, vocab) = (odd.config.tokens.eos[0], odd.config.text.vocab as u32);
        let drafts = drafts(&answers[0].tokens, eos, vocab);
        for draft in drafts.iter().skip((turn + k) % DRAFTS_EVERY).step_by(DRAFTS_EVERY) {
            let drafted = answer(&[&features], &[PROMPT, "caption en"], &draft.tokens);
            for (have, want) in drafted.iter().zip(&answers) {
                assert_eq!(bits(have), bits(want), "{}, {kv:?}, a draft that is {}", odd.name, draft.name);
            }
        }
        let of_two = answer(&[&features, &features], &[PROMPT], &[]);
        let rows = odd.config.image_rows();
        assert_eq!(of_two[0].prompt_tokens, answers[0].prompt_tokens + rows, "{}, {kv:?}", odd.name);
        assert_eq!(of_two[0].tokens.len(), TOKENS, "{}, {kv:?}", odd.name);
    }
}

#[test]
fn models_of_odd_sizes_compute_what_the_plain_pass_computes() {
    let mut worst = Worst::default();
    for odd in odd_models() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        write_checkpoint(&odd.config, 1, folder.path());
        let mut config = read_config(folder.path()).expect("a readable configuration");
        // Only the weights tell.
        config.text.own_head = odd.config.text.own_head;
        assert_eq!(config, odd.config, "{}", odd.name);
        let model = folder.path().join("model.palm");
        let options = Options { recipe: uniform(WeightFormat::F32), ..Options::default() };
        convert(folder.path(), &model, &options, &()).expect("a legal model");
        let weights = Checkpoint::open(folder.path()).expect("a readable checkpoint");
        compare(&odd, &weights, &model, &mut worst);
    }
    println!("{} values, the farthest off by {:.1e}: {}", worst.values, worst.error, worst.name);
}

#[test]
fn models_of_odd_sizes_run_in_every_format() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let examples = folder.path().join("examples.jsonl");
    let example = json!({"image": scene(), "prompt": PROMPT, "expected": "a car"});
    std::fs::write(&examples, example.to_string()).expect("writing examples");
    let mut turns = 0..;
    let mut run = |odd: &Odd, model: &Path| run(odd, model, turns.next().expect("no end"));
    for odd in odd_models() {
        let checkpoint = folder.path().join("checkpoint");
        write_checkpoint(&odd.config, 2, &checkpoint);
        let model = folder.path().join("model.palm");
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
            let mut options = Options { recipe: Recipe::preset(format), ..Options::default() };
            convert(&checkpoint, &model, &options, &()).expect("a legal model");
            run(&odd, &model);
            if format == WeightFormat::Int4 {
                options.calibration = Some(Calibration { examples: examples.clone(), auto: None });
                convert(&checkpoint, &model, &options, &()).expect("a legal model");
                run(&odd, &model);
            }
        }
    }
}

#[test]
fn a_grid_of_sizes_computes_what_the_plain_pass_computes() {
    let table = tokenizer::build_table(&data().join("tokenizer")).expect("a readable tokenizer");
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (mut worst, grid) = (Worst::default(), odd_grid());
    for (seed, odd) in grid.iter().enumerate() {
        let weights = Synthetic::new(odd.config.clone(), seed as u64);
        let model = folder.path().join("model.palm");
        let options = Options { recipe: uniform(WeightFormat::F32), ..Options::default() };
        convert_source(&weights, &odd.config, table.clone(), &model, &options, &()).expect("a legal model");
        compare(odd, &weights, &model, &mut worst);
    }
    println!(
        "{} models, {} values, the farthest off by {:.1e}: {}",
        grid.len(),
        worst.values,
        worst.error,
        worst.name
    );
}
