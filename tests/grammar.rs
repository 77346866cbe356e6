//! What grammars promise: answers that they allow, chosen as the model would choose among them, with the bits of the
//! full head; refusals that say what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::session::TracedValues;
use palmtop::tokenizer::EncodeScratch;
use palmtop::{
    Answer, Error, GenerateOptions, Grammar, GrammarError, Limits, Model, Sampling, Session, StopReason,
};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{Options, Recipe, convert_source, tokenizer};
use palmtop_kernels::Kernels;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};

const PROMPTS: [&str; 3] = ["caption en", "answer en where is the red car?", "detect cat ; dog"];
/// Some begin others, some have beginnings in common, one is of `<loc>` tokens.
const CHOICES: [&str; 9] = [
    "yes",
    "no",
    "no idea",
    "no idea at all",
    "unknown",
    "a red car",
    "a red cat",
    "Größe 猫 😀",
    "<loc0012><loc0100><loc1000><loc0007> car",
];
const NEW_TOKENS: usize = 64;

fn scene() -> RgbImage {
    decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).expect("a readable picture")
}

fn limits(batch: usize, threads: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens) = (batch, Some(threads), NEW_TOKENS);
    limits
}

fn following(grammar: &Grammar) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.grammar = Some(grammar.clone());
    options
}

/// A session that has looked at the scene.
struct Seen {
    session: Session,
    features: palmtop::ImageFeatures,
}

impl Seen {
    fn new(model: &Arc<Model>, limits: &Limits) -> Self {
        let mut session = Session::new(model, limits).expect("a small session");
        let mut features = session.new_features().expect("memory for features");
        session.encode(scene().view(), &mut features, &GenerateOptions::default()).expect("encoding");
        Self { session, features }
    }

    fn ask(&mut self, prompts: &[&str], options: &GenerateOptions) -> &[Answer] {
        self.try_ask(prompts, options).expect("answering")
    }

    fn try_ask(&mut self, prompts: &[&str], options: &GenerateOptions) -> palmtop::Result<&[Answer]> {
        self.session.answer(&self.features, prompts, options, &mut |_| ControlFlow::Continue(()))
    }
}

fn refused<T>(result: Result<T, GrammarError>) -> GrammarError {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

fn refused_answer(result: palmtop::Result<&[Answer]>) -> GrammarError {
    match result {
        Err(Error::Grammar(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn tokens_of(model: &Model, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    model.tokenizer().encode(text, &mut EncodeScratch::with_capacity(4096), &mut tokens).unwrap();
    tokens
}

fn bits(answer: &Answer) -> Vec<u32> {
    answer.probabilities.iter().chain(&answer.end_probability).map(|p| p.to_bits()).collect()
}

fn assert_same(got: &[Answer], want: &[Answer], what: &str) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert_eq!((&g.tokens, bits(g)), (&w.tokens, bits(w)), "{what}");
        assert_eq!((&g.text, g.stop), (&w.text, w.stop), "{what}");
    }
}

/// All logits of all steps of the likeliest answer, and its tokens.
fn traced(model: &Arc<Model>, prompt: &str) -> (Vec<Vec<f32>>, Vec<u32>) {
    let mut session = Session::new(model, &limits(1, 2)).expect("a small session");
    let (mut logits, mut tokens) = (Vec::new(), Vec::new());
    session
        .trace(&[scene().view()], prompt, NEW_TOKENS, &mut |value| match (value.name, value.values) {
            ("gen.logits", TracedValues::F32(v)) => {
                logits = v.chunks(value.shape[1]).map(<[f32]>::to_vec).collect();
            }
            ("gen.tokens", TracedValues::I64(v)) => tokens = v.iter().map(|&t| t as u32).collect(),
            _ => {}
        })
        .expect("tracing");
    (logits, tokens)
}

/// The likeliest of some tokens and its probability among them, as it follows from a full row of logits.
fn likeliest(logits: &[f32], allowed: &BTreeSet<u32>) -> (u32, u32) {
    let kernels = Kernels::select().unwrap();
    let some: Vec<f32> = allowed.iter().map(|&t| logits[t as usize]).collect();
    let max = some.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let token = *allowed.iter().find(|&&t| logits[t as usize] == max).unwrap();
    (token, ((kernels.sum_exp(&[max], max) / kernels.sum_exp(&some, max)) as f32).to_bits())
}

#[test]
fn allowed_tokens_have_the_logits_of_the_full_head() {
    for (name, format) in [
        ("tiny1", WeightFormat::F32),
        ("tiny1", WeightFormat::Int4),
        ("tiny2", WeightFormat::F16),
        ("tiny2", WeightFormat::Int8),
    ] {
        let model = converted(name, uniform(format)).open();
        let (logits, path) = traced(&model, PROMPTS[0]);
        let vocab = model.config().text.vocab as u32;
        let mut seen = Seen::new(&model, &limits(1, 2));
        // The first token among sets without the likeliest of all; the smallest set first, so that no logit is left over.
        let first = path[0];
        for step in [700, 97, 16, 3, 1] {
            let allowed: BTreeSet<u32> = (0..vocab).step_by(step).filter(|&t| t != first).collect();
            let mut options = following(&Grammar::exactly(&model, allowed.iter().copied()).unwrap());
            options.max_new_tokens = Some(1);
            options.stop_at_eos = false;
            let answer = &seen.ask(&PROMPTS[..1], &options)[0];
            let (token, probability) = likeliest(&logits[0], &allowed);
            assert_eq!(
                (&answer.tokens[..], bits(answer)),
                (&[token][..], vec![probability]),
                "{name} {format}"
            );
        }
        // Every token among sets that have the likeliest ones of all, so that the answer is the same.
        for others in [0, 40] {
            let others = (0..others).map(|i| (i * 61 + 5) % vocab);
            let allowed: BTreeSet<u32> = path.iter().copied().chain(others).collect();
            let mut options = following(&Grammar::exactly(&model, allowed.iter().copied()).unwrap());
            options.stop_at_eos = false;
            let answer = &seen.ask(&PROMPTS[..1], &options)[0];
            assert_eq!(answer.tokens, path);
            let want: Vec<u32> = logits.iter().map(|row| likeliest(row, &allowed).1).collect();
            assert_eq!(bits(answer), want, "{name} {format}");
        }
    }
}

#[test]
fn a_set_of_all_tokens_changes_nothing() {
    let model = converted("tiny2", Recipe::default()).open();
    let mut seen = Seen::new(&model, &limits(1, 2));
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    let mut with = following(&Grammar::tokens(&model, 0..model.config().text.vocab as u32).unwrap());
    with.stop_at_eos = false;
    for sampling in [Sampling::default(), Sampling { temperature: 1.0, top_k: 50, top_p: 0.9, seed: 3 }] {
        (options.sampling, with.sampling) = (sampling, sampling);
        let want = seen.ask(&PROMPTS[..1], &options).to_vec();
        assert_same(seen.ask(&PROMPTS[..1], &with), &want, "all tokens");
    }
}

#[test]
fn sets_are_kept_to_and_end_as_they_say() {
    let model = converted("tiny1", Recipe::default()).open();
    let eos = model.config().tokens.eos[0];
    let allowed = [700, 15, 16, 700, 1999];
    let mut seen = Seen::new(&model, &limits(3, 2));
    let (mut ended, mut drawn) = (0, BTreeSet::new());
    for seed in 0..20 {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let mut options = following(&Grammar::tokens(&model, allowed).unwrap());
        options.sampling = sampling;
        for answer in seen.ask(&PROMPTS, &options) {
            ended += usize::from(answer.stop == StopReason::EndOfSequence);
            drawn.extend(answer.tokens.iter().copied());
        }
        let mut options = following(&Grammar::exactly(&model, allowed).unwrap());
        options.sampling = sampling;
        for answer in seen.ask(&PROMPTS, &options) {
            assert_eq!((answer.tokens.len(), answer.stop), (NEW_TOKENS, StopReason::TokenLimit));
            drawn.extend(answer.tokens.iter().copied());
        }
    }
    assert_eq!(drawn, BTreeSet::from(allowed));
    assert!(ended > 0, "end-of-sequence is allowed unless it is excluded");

    // Named by hand it ends answers too, and alone it ends them at once.
    let options = following(&Grammar::exactly(&model, [eos]).unwrap());
    let answer = &seen.ask(&PROMPTS[..1], &options)[0];
    assert_eq!((answer.tokens.len(), answer.stop), (0, StopReason::EndOfSequence));
    assert_eq!((answer.end_probability, answer.likelihood()), (Some(1.0), 1.0));
    // One token and nothing else.
    let options = following(&Grammar::exactly(&model, [700]).unwrap());
    assert_eq!(seen.ask(&PROMPTS[..1], &options)[0].tokens, [700; NEW_TOKENS]);
}

#[test]
fn grammars_give_the_same_bits_alone_in_batches_and_on_any_number_of_threads() {
    for (name, format) in [("tiny1", WeightFormat::Int4), ("tiny2", WeightFormat::F32)] {
        let model = converted(name, uniform(format)).open();
        let grammars = [
            Grammar::tokens(&model, (0..2000).step_by(37)).unwrap(),
            Grammar::choices(&model, CHOICES).unwrap(),
        ];
        for grammar in &grammars {
            for temperature in [0.0, 2.0] {
                let mut options = following(grammar);
                options.sampling = Sampling { temperature, seed: 11, ..Sampling::default() };
                let mut one = Seen::new(&model, &limits(1, 1));
                let want: Vec<Answer> =
                    PROMPTS.iter().map(|prompt| one.ask(&[prompt], &options)[0].clone()).collect();
                for threads in [1, 3] {
                    let mut together = Seen::new(&model, &limits(3, threads));
                    assert_same(together.ask(&PROMPTS, &options), &want, &format!("{name} {format}"));
                }
            }
        }
    }
}

#[test]
fn choices_are_answered_with_one_of_them() {
    for (name, format) in [("tiny1", WeightFormat::Int8), ("tiny2", WeightFormat::F32)] {
        let model = converted(name, uniform(format)).open();
        let mut seen = Seen::new(&model, &limits(3, 2));
        let all = Grammar::choices(&model, CHOICES).unwrap();
        assert_eq!(all.tokens_max(), CHOICES.iter().map(|c| tokens_of(&model, c).len()).max());
        let mut likelihoods = [const { BTreeMap::new() }; PROMPTS.len()];
        for seed in 0..400 {
            // Whether end-of-sequence ends answers is not theirs to say.
            let mut options = following(&all);
            options.stop_at_eos = seed % 2 == 0;
            if seed > 0 {
                options.sampling = Sampling { temperature: 20.0, seed, ..Sampling::default() };
            }
            for (answer, likelihoods) in seen.ask(&PROMPTS, &options).iter().zip(&mut likelihoods) {
                let choice = CHOICES.iter().find(|&&c| c == answer.text).expect("one of the choices");
                assert_eq!(answer.tokens, tokens_of(&model, choice));
                assert_eq!(answer.stop, StopReason::EndOfSequence);
                assert_eq!(answer.token_ends.last(), Some(&answer.text.len()));
                // Only where another choice goes on is the end a decision.
                assert_eq!(answer.end_probability.is_some(), ["no", "no idea"].contains(choice));
                let likelihood = answer.likelihood();
                assert_eq!(*likelihoods.entry(*choice).or_insert(likelihood), likelihood);
            }
        }
        for likelihoods in likelihoods {
            assert_eq!(likelihoods.len(), CHOICES.len(), "every choice is drawn some time");
            let sum: f32 = likelihoods.values().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{likelihoods:?} add up to {sum}");
        }
    }
}

/// A detection or segmentation that a model wrote without a grammar, and one with it.
fn with_and_without(seen: &mut Seen, prompt: &str, grammar: &Grammar) -> (Answer, Answer) {
    let free = seen.ask(&[prompt], &GenerateOptions::default())[0].clone();
    (free, seen.ask(&[prompt], &following(grammar))[0].clone())
}

#[test]
fn detections_are_those_of_the_model_with_its_scores() {
    let model = Model::open(&data().join("../../demo/demo.palm")).unwrap();
    let mut limits = limits(1, 2);
    limits.draft_tokens = 8;
    let mut seen = Seen::new(&model, &limits);
    let picture = decode_file(data().join("../../demo/day.png"), &ImageLimits::default()).unwrap();
    seen.session.encode(picture.view(), &mut seen.features, &GenerateOptions::default()).unwrap();
    let mut objects = 0;
    for (prompt, labels, masks) in [
        ("detect bus", vec!["bus"], false),
        ("detect panda ; bus ; traffic light", vec!["panda", "bus", "traffic light"], false),
        ("detect cat ; dog", vec!["cat", "dog"], false),
        ("segment bus", vec!["bus"], true),
        ("segment bus ; panda", vec!["bus", "panda"], true),
    ] {
        let grammar = Grammar::detections(&model, &labels, masks).unwrap();
        assert_eq!(grammar.tokens_max(), None);
        let (free, bound) = with_and_without(&mut seen, prompt, &grammar);
        let read =
            |answer: &Answer| model.read_answer(answer, (640, 480), &Default::default()).unwrap().objects;
        let (want, got) = (read(&free), read(&bound));
        let scores = |objects: &[palmtop::tasks::Detection]| -> Vec<Option<u32>> {
            objects.iter().map(|object| object.score.map(f32::to_bits)).collect()
        };
        assert_eq!(bound.stop, StopReason::EndOfSequence);
        assert!(got.iter().all(|o| o.score.is_some_and(|s| s < 1.0)), "{prompt}: {:?}", scores(&got));
        // The small model forgets a location now and then.
        let is_whole = free.text.matches("<loc").count() == 4 * want.len();
        if is_whole {
            assert_eq!(bound.text, free.text, "{prompt}");
            assert_eq!(bound.tokens, free.tokens, "{prompt}");
            assert_eq!(scores(&got), scores(&want), "{prompt}");
            objects += got.len();
        } else {
            assert!(!got.is_empty(), "{prompt}: {}", free.text);
        }
        // The same with the answer as its own draft.
        let request = palmtop::Request { pictures: &[&seen.features], prompt, draft: &free.tokens };
        let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        let id = seen.session.begin(&request, &following(&grammar), go_on).unwrap();
        while seen.session.is_running(id).unwrap() {
            seen.session.step(go_on).unwrap();
        }
        assert_same(&[seen.session.sequence(id).unwrap().clone()], &[bound], prompt);
        seen.session.end(id).unwrap();
    }
    assert!(objects >= 4, "{objects}");
}

#[test]
fn detections_have_their_form_whatever_the_model_would_write() {
    // A model of random weights writes anything but objects.
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let mut seen = Seen::new(&model, &limits(3, 2));
    let labels = ["cat", "cat food", "dog"];
    let (mut many, mut ended) = (0, 0);
    for seed in 0..60 {
        let masks = seed % 2 == 0;
        let mut options = following(&Grammar::detections(&model, labels, masks).unwrap());
        options.sampling = Sampling { temperature: 8.0, seed, ..Sampling::default() };
        for answer in seen.ask(&PROMPTS, &options) {
            let read = model.read_answer(answer, (100, 100), &Default::default()).unwrap();
            ended += usize::from(answer.stop == StopReason::EndOfSequence);
            many += usize::from(read.objects.len() > 1);
            let whole = read.objects.len() - usize::from(read.cut_short && !read.objects.is_empty());
            for object in &read.objects[..whole] {
                assert!(labels.contains(&object.label.as_str()), "{:?}", answer.text);
                assert_eq!(object.mask_codes.is_some(), masks, "{:?}", answer.text);
                assert!(object.score.is_some());
            }
            if !read.cut_short {
                let separators = answer.text.matches(';').count();
                assert_eq!(separators, read.objects.len().saturating_sub(1), "{:?}", answer.text);
            }
        }
    }
    assert!(many > 10 && ended > 10, "{many} of several objects, {ended} that ended");
}

#[test]
fn labels_that_are_none_are_refused() {
    let model = converted("tiny1", Recipe::default()).open();
    let detections = |labels: &[&str]| refused(Grammar::detections(&model, labels, false));
    assert_eq!(detections(&[]), GrammarError::NoChoices);
    assert_eq!(detections(&["cat", "  "]), GrammarError::EmptyChoice { choice: 2 });
    assert!(matches!(detections(&["<loc0001>"]), GrammarError::ControlToken { choice: 1, .. }));
    assert!(matches!(detections(&[&"x".repeat(5000)]), GrammarError::ChoiceTooLong { .. }));
}

#[test]
fn the_likeliest_choice_is_taken_token_by_token() {
    let model = converted("tiny1", uniform(WeightFormat::F32)).open();
    let (logits, _) = traced(&model, PROMPTS[0]);
    let sequences: Vec<[u32; 3]> = (0..300).map(|i| [300 + i % 7 * 101, 20 + i, 1500 + i]).collect();
    let firsts = sequences.iter().map(|s| s[0]).collect();
    let mut seen = Seen::new(&model, &limits(1, 2));
    let answer = &seen.ask(&PROMPTS[..1], &following(&Grammar::sequences(&model, &sequences).unwrap()))[0];
    let (token, probability) = likeliest(&logits[0], &firsts);
    assert_eq!((answer.tokens[0], answer.probabilities[0].to_bits()), (token, probability));
    assert!(sequences.iter().any(|s| s[..] == answer.tokens));
    // The second token settles the third.
    assert!(answer.probabilities[1] < 1.0);
    assert_eq!(answer.probabilities[2], 1.0);
    assert_eq!(seen.session.timings().decode_steps, 1);
}

#[test]
fn what_is_certain_is_not_computed() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut seen = Seen::new(&model, &limits(1, 2));
    let mut steps = |choices: &[&[u32]]| {
        let answer =
            seen.ask(&PROMPTS[..1], &following(&Grammar::sequences(&model, choices).unwrap()))[0].clone();
        let likelihood = answer.likelihood();
        (answer.tokens, likelihood, seen.session.timings().decode_steps)
    };
    // The first token decides: the rest is free.
    let (tokens, _, decoded) = steps(&[&[50, 51, 52, 53], &[60, 61, 62]]);
    assert!(tokens == [50, 51, 52, 53] || tokens == [60, 61, 62]);
    assert_eq!(decoded, 0);
    assert_eq!(steps(&[&[50, 51, 52, 53]]), (vec![50, 51, 52, 53], 1.0, 0));
    // Before a decision, tokens are computed together, and without the head but for the last.
    let (tokens, likelihood, decoded) = steps(&[&[50, 51, 52, 53], &[50, 51, 52, 54]]);
    assert_eq!((tokens.len(), decoded), (4, 1));
    assert!(likelihood < 1.0);
    // A token fed without the head leaves what one fed with it leaves.
    let forced = Grammar::sequences(&model, [[50, 51, 53], [50, 51, 54]]).unwrap();
    let mut options = following(&forced);
    let a = seen.ask(&PROMPTS[..1], &options)[0].clone();
    options.grammar = Some(
        Grammar::sequences(&model, [[50, 51, 53], [50, 51, 54], [50, 2000, 9], [900, 901, 902]]).unwrap(),
    );
    options.sampling = Sampling { temperature: 50.0, seed: 0, ..Sampling::default() };
    let b = (0..200)
        .find_map(|seed| {
            options.sampling.seed = seed;
            let b = &seen.ask(&PROMPTS[..1], &options)[0];
            (b.tokens == a.tokens).then(|| b.clone())
        })
        .expect("it is drawn some time");
    assert_eq!(a.probabilities[2].to_bits(), b.probabilities[2].to_bits());
    assert!(a.probabilities[0] == 1.0 && b.probabilities[0] < 1.0);
}

#[test]
fn broken_off_choices_are_marked() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut seen = Seen::new(&model, &limits(1, 1));
    let options = following(&Grammar::sequences(&model, [[50, 51, 52, 53]]).unwrap());
    let mut heard = 0;
    let answers = seen
        .session
        .answer(&seen.features, &PROMPTS[..1], &options, &mut |piece| {
            heard += usize::from(piece.token.is_some());
            if heard == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .expect("an answer so far");
    assert_eq!((&answers[0].tokens[..], answers[0].stop), (&[50, 51][..], StopReason::Callback));
}

#[test]
fn a_session_forgets_the_grammar_of_the_call_before() {
    let model = converted("tiny2", Recipe::default()).open();
    let fresh = Seen::new(&model, &limits(1, 2)).ask(&PROMPTS[..1], &GenerateOptions::default()).to_vec();
    let mut used = Seen::new(&model, &limits(1, 2));
    let choices = following(&Grammar::choices(&model, CHOICES).unwrap());
    let chosen = used.ask(&PROMPTS[..1], &choices).to_vec();
    assert_same(used.ask(&PROMPTS[..1], &GenerateOptions::default()), &fresh, "after choices");
    assert_same(used.ask(&PROMPTS[..1], &choices), &chosen, "choices again");
}

#[test]
fn sets_that_are_none_are_refused() {
    let model = converted("tiny1", Recipe::default()).open();
    let vocab = model.config().text.vocab;
    for refusal in [Grammar::tokens(&model, []), Grammar::exactly(&model, [])].map(refused) {
        assert_eq!(refusal, GrammarError::NoTokens);
        assert!(refusal.to_string().contains("name at least one"));
    }
    for token in [vocab as u32, u32::MAX] {
        let refusal = refused(Grammar::tokens(&model, [5, token, 6]));
        assert_eq!(refusal, GrammarError::NoSuchToken { token, vocab });
        assert_eq!(
            refusal.to_string(),
            format!("there is no token {token}: the model's tokens are 0 to 2175")
        );
        assert_eq!(
            refused(Grammar::sequences(&model, [[5, token]])),
            GrammarError::NoSuchToken { token, vocab }
        );
    }
    assert!(Grammar::tokens(&model, [vocab as u32 - 1]).is_ok());
}

#[test]
fn choices_that_are_none_are_refused() {
    let model = converted("tiny1", Recipe::default()).open();
    assert_eq!(refused(Grammar::choices::<&str>(&model, [])), GrammarError::NoChoices);
    assert_eq!(refused(Grammar::choices(&model, ["yes", ""])), GrammarError::EmptyChoice { choice: 2 });
    assert_eq!(refused(Grammar::sequences(&model, [[]; 1])), GrammarError::EmptyChoice { choice: 1 });
    for control in ["<eos>", "<bos>", "<pad>", "<image>", "<unk>"] {
        let token = tokens_of(&model, control)[0];
        let refusal = refused(Grammar::choices(&model, ["yes", "no", &format!("a{control}b")]));
        assert_eq!(refusal, GrammarError::ControlToken { choice: 3, token }, "{control}");
    }
    let refusal = refused(Grammar::choices(&model, ["yes", "n\u{2581}o"]));
    let says = "choice 2, \"n▁o\", would be answered as \"n o\": the vocabulary spells it no other way";
    assert_eq!(refusal.to_string(), says);
    let (bytes, bytes_max) = (4097, 4096);
    let refusal = refused(Grammar::choices(&model, [" ".repeat(bytes)]));
    assert_eq!(refusal, GrammarError::ChoiceTooLong { choice: 1, bytes, bytes_max });
    let tokens_max = 1 << 20;
    let endless = std::iter::repeat([700u32; 999]);
    assert_eq!(refused(Grammar::sequences(&model, endless)), GrammarError::TooManyTokens { tokens_max });
}

#[test]
fn duplicates_count_once() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut seen = Seen::new(&model, &limits(1, 1));
    let once = following(&Grammar::choices(&model, ["yes", "no", "no idea"]).unwrap());
    let want = seen.ask(&PROMPTS[..1], &once).to_vec();
    let twice =
        following(&Grammar::choices(&model, ["no idea", "no", "yes", "no idea", "no", "no"]).unwrap());
    assert_same(seen.ask(&PROMPTS[..1], &twice), &want, "duplicates");
}

#[test]
fn choices_that_an_answer_has_no_room_for_are_refused() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut seen = Seen::new(&model, &limits(1, 1));
    let longest = following(&Grammar::sequences(&model, [vec![9], vec![700; NEW_TOKENS]]).unwrap());
    assert_eq!(seen.ask(&PROMPTS[..1], &longest)[0].stop, StopReason::EndOfSequence);
    let mut short = longest.clone();
    short.max_new_tokens = Some(NEW_TOKENS - 1);
    let refusal = refused_answer(seen.try_ask(&PROMPTS[..1], &short));
    assert_eq!(refusal, GrammarError::LongerThanAnswers { tokens: NEW_TOKENS, tokens_max: NEW_TOKENS - 1 });
    assert!(refusal.to_string().ends_with("shorten it, or allow more new tokens"));
    let longer = following(&Grammar::sequences(&model, [[700; NEW_TOKENS + 1]]).unwrap());
    refused_answer(seen.try_ask(&PROMPTS[..1], &longer));
    let longest_text = following(&Grammar::choices(&model, ["ab ".repeat(1365)]).unwrap());
    refused_answer(seen.try_ask(&PROMPTS[..1], &longest_text));
}

#[test]
fn a_grammar_of_another_vocabulary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wider.palm");
    let mut config = preset("tiny").unwrap();
    config.text.vocab = 2176 + 16;
    let table = tokenizer::build_table(&data().join("tokenizer")).unwrap();
    convert_source(&Synthetic::new(config.clone(), 1), &config, table, &path, &Options::default(), &())
        .unwrap();
    let (wider, model) = (Model::open(&path).unwrap(), converted("tiny1", Recipe::default()).open());
    let mut seen = Seen::new(&model, &limits(1, 1));
    let foreign = following(&Grammar::tokens(&wider, [2180]).unwrap());
    let refusal = refused_answer(seen.try_ask(&PROMPTS[..1], &foreign));
    assert_eq!(refusal, GrammarError::OtherModel);
}

#[test]
fn ten_thousand_choices_are_as_good_as_three() {
    let model = converted("tiny1", Recipe::default()).open();
    let texts: Vec<String> = (0..10_000).map(|i| format!("car {i} of {}", i * 7919 % 10_007)).collect();
    let mut options = following(&Grammar::choices(&model, &texts).unwrap());
    let mut seen = Seen::new(&model, &limits(3, 2));
    for seed in 0..20 {
        options.sampling = Sampling { temperature: seed as f32, seed, ..Sampling::default() };
        for answer in seen.ask(&PROMPTS, &options) {
            assert!(texts.contains(&answer.text), "{:?}", answer.text);
            assert_eq!(answer.stop, StopReason::EndOfSequence);
        }
    }
}
