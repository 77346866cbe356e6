//! Sequences that begin, go on and end side by side: drafts, several pictures in a prompt, stops of each its own. None
//! of it changes a bit of what a sequence answers alone.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::{
    Answer, Error, GenerateOptions, Grammar, ImageFeatures, KvFormat, Limits, Model, Piece, Request,
    Sampling, Session, StopReason, UsageError,
};
use palmtop_convert::Recipe;
use palmtop_kernels::layout::WeightFormat;
use palmtop_kernels::{Isa, Kernels};
use palmtop_tests::drafts::{Draft, drafts};
use palmtop_tests::{converted, data, uniform};

const NEW_TOKENS: usize = 24;

fn picture(name: &str) -> RgbImage {
    decode_file(data().join("images").join(name), &ImageLimits::default()).expect("a readable picture")
}

fn limits(batch: usize, draft_tokens: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens) = (batch, Some(2), NEW_TOKENS);
    (limits.pictures, limits.draft_tokens) = (3, draft_tokens);
    limits
}

fn endless() -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    options
}

fn goes_on(_: Piece<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn encoded(session: &mut Session, names: &[&str]) -> Vec<ImageFeatures> {
    let encode = |name: &&str| {
        let mut features = session.new_features().expect("memory");
        session.encode(picture(name).view(), &mut features, &GenerateOptions::default()).expect("encoding");
        features
    };
    names.iter().map(encode).collect()
}

/// All of an answer that must not change.
fn bits(answer: &Answer) -> (Vec<u32>, Vec<u32>, String, StopReason) {
    let probabilities = answer.probabilities.iter().chain(&answer.end_probability);
    (answer.tokens.clone(), probabilities.map(|p| p.to_bits()).collect(), answer.text.clone(), answer.stop)
}

/// A grammar in which much is certain: before a choice, between two, and behind the last.
fn winding(model: &Model) -> Grammar {
    Grammar::sequences(
        model,
        [
            [300, 301, 302, 303, 304, 305, 306, 307, 308, 309].as_slice(),
            &[300, 301, 302, 310, 311, 312, 313],
            &[300, 301, 302, 310, 311, 312, 314, 315, 316],
            &[300, 301, 302, 310, 311, 312],
        ],
    )
    .expect("a grammar")
}

fn sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|&isa| Kernels::new(Some(isa)).is_ok())
}

/// Tokens of a draft that are accepted at least, in an answer that goes on to its limit.
fn acceptable(draft: &Draft, answer: &[u32], draft_tokens: usize) -> usize {
    // Where two tokens follow each other twice, a draft may go on at the wrong place.
    let mut pairs: Vec<_> = answer.windows(2).collect();
    pairs.sort();
    let is_plain = pairs.windows(2).all(|two| two[0] != two[1]);
    if is_plain && draft.name == "every second token wrong" {
        // Each pass finds one right and one wrong.
        return NEW_TOKENS / 2 - 2;
    }
    let (mut given, mut accepted) = (0, 0);
    while given < draft.right {
        let right = draft_tokens.min(draft.right - given).min(NEW_TOKENS - given - 1);
        accepted += right;
        given += right + 1;
    }
    if is_plain && draft.name == "wrong in the middle" {
        // Three tokens behind the wrong one are checked, and then all that are left.
        let few = draft_tokens.min(3);
        accepted += few + draft_tokens.min(NEW_TOKENS - given - few - 2);
    }
    accepted
}

#[test]
fn any_draft_gives_the_bits_of_no_draft() {
    // So many rows that they attend to each other in integers, with the draft's first tokens behind them.
    let long = "cat ".repeat(250);
    for (name, format, kv, prompt) in [
        ("tiny1", WeightFormat::Int8, KvFormat::Auto, "caption en"),
        ("tiny1", WeightFormat::Int8, KvFormat::Auto, &long),
        ("tiny2", WeightFormat::Int4, KvFormat::Int8, "caption en"),
        ("tiny2", WeightFormat::F32, KvFormat::Auto, "caption en"),
    ] {
        let model = converted(name, uniform(format)).open();
        let (vocab, eos) = (model.config().text.vocab as u32, model.config().tokens.eos[0]);
        let mut ways = [endless(), GenerateOptions::default(), endless(), endless()];
        ways[2].sampling = Sampling { temperature: 1.5, top_k: 50, top_p: 0.95, seed: 7 };
        ways[3].grammar = Some(winding(&model));
        let mut want: Option<Vec<_>> = None;
        for isa in sets() {
            let mut plain = limits(1, 0);
            (plain.isa, plain.kv) = (Some(isa), kv);
            let mut session = Session::new(&model, &plain).expect("a small session");
            let features = encoded(&mut session, &["scene_640x361.png"]);
            let alone: Vec<Answer> = ways
                .iter()
                .map(|way| {
                    session.answer(&features[0], &[prompt], way, &mut goes_on).expect("an answer")[0].clone()
                })
                .collect();
            let of_isa: Vec<_> = alone.iter().map(bits).collect();
            assert_eq!(want.get_or_insert_with(|| of_isa.clone()), &of_isa, "{name} {format} {isa}");
            // All drafts with the best set; with the others, some of them.
            let best = Kernels::new(None).expect("kernels").isa() == isa;
            for draft_tokens in if best { &[1, 5, NEW_TOKENS][..] } else { &[5] } {
                let (draft_tokens, every) = (*draft_tokens, if best { 1 } else { 4 });
                let mut with_drafts = plain.clone();
                with_drafts.draft_tokens = draft_tokens;
                let mut session = Session::new(&model, &with_drafts).expect("a small session");
                for (way, alone) in ways.iter().zip(&alone) {
                    for draft in drafts(&alone.tokens, eos, vocab).into_iter().step_by(every) {
                        let request = Request { pictures: &[&features[0]], prompt, draft: &draft.tokens };
                        let got = session.answer_requests(&[request], way, &mut goes_on).expect("an answer");
                        let what = format!("{name} {format} {isa}, {draft_tokens} at once: {}", draft.name);
                        assert_eq!(bits(&got[0]), bits(alone), "{what}");
                        let accepted = got[0].accepted_draft_tokens;
                        let passes = session.timings().decode_steps;
                        if way.grammar.is_none() && !way.stop_at_eos {
                            // The first token is the prefill's, and each pass gives one that no draft had to know.
                            assert_eq!(1 + passes + accepted, alone.tokens.len(), "{what}");
                            assert!(
                                accepted >= acceptable(&draft, &alone.tokens, draft_tokens),
                                "{what}: {accepted} accepted"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The demo's model says twelve tokens of its scene. Where little has changed, the last answer is the next one's draft,
/// and right: the prefill and each pass give all draft tokens and one more, and the end is a token too.
#[test]
fn the_caption_of_a_still_scene_takes_one_pass() {
    let demo = data().join("../../demo");
    let model = Model::open(&demo.join("demo.palm")).expect("the demo's model");
    let scene = decode_file(demo.join("scene.png"), &ImageLimits::default()).expect("the demo's picture");
    let (width, height) = (scene.width(), scene.height());
    // A lamp that flickers, as far as pixels go.
    let later = scene.data().iter().map(|&x| x.saturating_add(2)).collect();
    let later = RgbImage::new(width, height, later).expect("a picture of the same size");
    for (draft_tokens, passes) in [(0, 12), (4, 2), (8, 1), (12, 0)] {
        let mut session = Session::new(&model, &limits(1, draft_tokens)).expect("a small session");
        let mut features = session.new_features().expect("memory");
        let mut draft = Vec::new();
        for (picture, passes) in [(&scene, 12), (&scene, passes), (&later, passes)] {
            session.encode(picture.view(), &mut features, &GenerateOptions::default()).expect("encoding");
            let request = Request { pictures: &[&features], prompt: "caption en", draft: &draft };
            let options = GenerateOptions::default();
            let answer = &session.answer_requests(&[request], &options, &mut goes_on).expect("an answer")[0];
            assert_eq!((answer.tokens.len(), answer.stop), (12, StopReason::EndOfSequence));
            assert!(draft.is_empty() || draft == answer.tokens, "{}", answer.text);
            draft.clone_from(&answer.tokens);
            assert_eq!(session.timings().decode_steps, passes, "{draft_tokens} draft tokens");
        }
    }
}

/// What a grammar leaves no choice of takes no pass of its own, and changes nothing.
#[test]
fn certain_tokens_are_computed_together() {
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let mut session = Session::new(&model, &limits(1, 0)).expect("a small session");
    let features = encoded(&mut session, &["scene_640x361.png"]);
    let mut options = GenerateOptions::default();
    options.grammar = Some(winding(&model));
    let answer =
        session.answer(&features[0], &["caption en"], &options, &mut goes_on).expect("an answer")[0].clone();
    // Three certain tokens, then a choice; on the longer ways three more, and another.
    let passes = session.timings().decode_steps;
    assert_eq!(passes, if answer.tokens[3] == 303 { 1 } else { 2 }, "{:?}", answer.tokens);
    // The model's own probabilities among what may follow, by teacher forcing.
    let mut rows = Vec::new();
    session
        .force(&[&features[0]], "caption en", &answer.tokens, &options, &mut |_, logits| {
            rows.push(logits.to_vec())
        })
        .expect("teacher forcing");
    let choice = |row: &[f32], tokens: &[u32], chosen: u32| {
        let exp = |token: u32| f64::from(row[token as usize]).exp();
        exp(chosen) / tokens.iter().map(|&token| exp(token)).sum::<f64>()
    };
    for (i, (&token, &p)) in answer.tokens.iter().zip(&answer.probabilities).enumerate() {
        let want = if i == 3 { choice(&rows[3], &[303, 310], token) } else { 1.0 };
        if i <= 5 {
            assert!((f64::from(p) - want).abs() < 1e-5, "token {i}: {p}, not {want}");
        }
    }
}

/// Sequences about different pictures, of different lengths and ways, that join and leave while others run.
#[test]
fn sequences_that_join_and_leave_answer_as_alone() {
    for (name, format) in
        [("tiny1", WeightFormat::Int8), ("tiny2", WeightFormat::Int4), ("tiny2", WeightFormat::F16)]
    {
        let model = converted(name, uniform(format)).open();
        let names = ["scene_640x361.png", "noise_97x61.png", "gradient_400x300.png"];
        let mut sampled = endless();
        sampled.sampling = Sampling { temperature: 0.9, top_k: 0, top_p: 0.9, seed: 3 };
        let mut short = endless();
        short.max_new_tokens = Some(5);
        let mut chosen = GenerateOptions::default();
        chosen.grammar = Some(winding(&model));
        let asked: [(&[usize], &str, &GenerateOptions); 6] = [
            (&[0], "caption en", &endless()),
            (&[1, 2], "answer en what changes?", &sampled),
            (&[2], "ocr", &short),
            (&[2, 1, 0], "describe en", &chosen),
            (&[1], "detect cat ; dog", &endless()),
            (&[0, 0], "caption en", &endless()),
        ];
        let mut alone = Session::new(&model, &limits(1, 0)).expect("a small session");
        let features = encoded(&mut alone, &names);
        let pictures = |which: &[usize]| which.iter().map(|&i| &features[i]).collect::<Vec<_>>();
        let want: Vec<_> = asked
            .iter()
            .map(|(which, prompt, options)| {
                let request = Request { pictures: &pictures(which), prompt, draft: &[] };
                bits(&alone.answer_requests(&[request], options, &mut goes_on).expect("an answer")[0])
            })
            .collect();
        assert_ne!(want[0].1, want[5].1, "a second picture changes something");

        let mut session = Session::new(&model, &limits(3, 2)).expect("a small session");
        let (mut waiting, mut running) = ((0..asked.len()).collect::<Vec<_>>(), Vec::new());
        let mut done = 0;
        for round in 0.. {
            // One joins in every other round, if there is room.
            if round % 2 == 0 && session.free_sequences() > 0 && !waiting.is_empty() {
                let which = waiting.remove(0);
                let (of, prompt, options) = asked[which];
                let request = Request {
                    pictures: &pictures(of),
                    prompt,
                    draft: &want[which].0[..3.min(want[which].0.len())],
                };
                running
                    .push((which, session.begin(&request, options, &mut goes_on).expect("a free sequence")));
            }
            session.step(&mut goes_on).expect("a step");
            running.retain(|&(which, id)| {
                if session.is_running(id).expect("a sequence") {
                    return true;
                }
                assert_eq!(
                    bits(session.sequence(id).expect("a sequence")),
                    want[which],
                    "{name} {format} {which}"
                );
                session.end(id).expect("a sequence");
                assert!(matches!(session.sequence(id), Err(Error::Usage(UsageError::NoSuchSequence))));
                done += 1;
                false
            });
            if done == asked.len() {
                break;
            }
            assert!(round < 500, "sequences end");
        }
    }
}

/// A stop in the prefill of a later prompt leaves what earlier ones have answered.
#[test]
fn a_stop_in_a_later_prefill_keeps_earlier_answers() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut session = Session::new(&model, &limits(3, 0)).expect("a small session");
    let features = encoded(&mut session, &["scene_640x361.png"]);
    let prompts = ["caption en", "ocr", "describe en"];
    let want =
        bits(&session.answer(&features[0], &prompts[..1], &endless(), &mut goes_on).expect("an answer")[0]);

    // The first token of the first prompt comes before the second is read.
    let options = endless();
    let mut last_pieces = Vec::new();
    let answers = session
        .answer(&features[0], &prompts, &options, &mut |piece| {
            options.cancel.cancel();
            last_pieces.extend(piece.token.is_none().then_some(piece.prompt));
            ControlFlow::Continue(())
        })
        .expect("what there is");
    assert_eq!(answers.iter().map(|a| a.stop).collect::<Vec<_>>(), [StopReason::Cancelled; 3]);
    assert_eq!((answers[0].tokens.len(), answers[0].tokens[0]), (1, want.0[0]));
    assert!(answers[0].prompt_tokens > 0);
    assert!(answers[1..].iter().all(|a| a.prompt_tokens == 0 && a.tokens.is_empty()));
    assert_eq!(last_pieces, [0], "only what has begun has a last piece");

    // What comes behind does not begin, though the token is reset as soon as the first hears of its end.
    let options = endless();
    let answers = session
        .answer(&features[0], &prompts, &options, &mut |piece| {
            if piece.token.is_some() {
                options.cancel.cancel()
            } else {
                options.cancel.reset()
            }
            ControlFlow::Continue(())
        })
        .expect("what there is");
    assert_eq!(answers.iter().map(|a| a.stop).collect::<Vec<_>>(), [StopReason::Cancelled; 3]);
    assert!(answers[1..].iter().all(|a| a.prompt_tokens == 0));

    // One that has ended before is not marked: its own callback stopped it.
    let options = endless();
    let answers = session
        .answer(&features[0], &prompts[..2], &options, &mut |_| {
            options.cancel.cancel();
            ControlFlow::Break(())
        })
        .expect("what there is");
    assert_eq!((answers[0].stop, answers[1].stop), (StopReason::Callback, StopReason::Cancelled));

    // A deadline that passes then is told as one, though it is a long time ago when the call returns.
    let mut late = endless();
    late.deadline = Some(Instant::now() + Duration::from_millis(300));
    let mut slow = |_: Piece<'_>| {
        while late.deadline.is_some_and(|deadline| Instant::now() < deadline) {}
        ControlFlow::Continue(())
    };
    let answers = session.answer(&features[0], &prompts, &late.clone(), &mut slow).expect("what there is");
    assert_eq!(answers.iter().map(|a| a.stop).collect::<Vec<_>>(), [StopReason::DeadlinePassed; 3]);
    assert_eq!(answers[0].tokens.len(), 1);
    // And the session goes on as if nothing had been.
    let again = session.answer(&features[0], &prompts[..1], &endless(), &mut goes_on).expect("an answer");
    assert_eq!(bits(&again[0]), want);
}

/// A callback that wants to stop at the last piece, when nothing is left to be stopped, does not change the reason.
#[test]
fn the_reason_is_the_one_that_was_there_first() {
    let model = converted("tiny1", Recipe::default()).open();
    let mut session = Session::new(&model, &limits(1, 0)).expect("a small session");
    let features = encoded(&mut session, &["scene_640x361.png"]);
    let options = endless();
    let stop_of = |session: &mut Session,
                   options: &GenerateOptions,
                   hear: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>| {
        session.answer(&features[0], &["ocr"], options, hear).expect("an answer")[0].stop
    };
    let mut break_at_last = |piece: Piece<'_>| match piece.token {
        Some(_) => {
            options.cancel.cancel();
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    };
    assert_eq!(stop_of(&mut session, &options, &mut break_at_last), StopReason::Cancelled);
    options.cancel.reset();
    // Reset in the last piece: told all the same.
    let mut reset_at_last = |piece: Piece<'_>| {
        if piece.token.is_some() {
            options.cancel.cancel()
        } else {
            options.cancel.reset()
        }
        ControlFlow::Continue(())
    };
    assert_eq!(stop_of(&mut session, &options, &mut reset_at_last), StopReason::Cancelled);
    let mut at_limit = endless();
    at_limit.max_new_tokens = Some(2);
    let mut break_at_last = |piece: Piece<'_>| match piece.token {
        Some(_) => ControlFlow::Continue(()),
        None => ControlFlow::Break(()),
    };
    assert_eq!(stop_of(&mut session, &at_limit, &mut break_at_last), StopReason::TokenLimit);
}

/// Each sequence of a batch has its own stop; the others go on.
#[test]
fn sequences_stop_each_for_itself() {
    let model = converted("tiny2", Recipe::default()).open();
    let mut session = Session::new(&model, &limits(2, 0)).expect("a small session");
    let features = encoded(&mut session, &["scene_640x361.png"]);
    let request = Request { pictures: &[&features[0]], prompt: "caption en", draft: &[] };
    let want = bits(&session.answer_requests(&[request], &endless(), &mut goes_on).expect("an answer")[0]);
    let stopped = endless();
    let first = session.begin(&request, &stopped, &mut goes_on).expect("a sequence");
    let second = session.begin(&request, &endless(), &mut goes_on).expect("a sequence");
    assert!(matches!(
        session.begin(&request, &endless(), &mut goes_on),
        Err(Error::Usage(UsageError::NoFreeSequence { batch: 2 }))
    ));
    let refused = session.answer(&features[0], &["ocr"], &endless(), &mut goes_on).map(|_| ());
    assert!(matches!(refused, Err(Error::Usage(UsageError::StillRunning { running: 2 }))));
    assert_eq!(session.step(&mut goes_on).expect("a step"), 2);
    stopped.cancel.cancel();
    assert_eq!(session.step(&mut goes_on).expect("a step"), 1);
    let answer = session.sequence(first).expect("a sequence");
    assert_eq!((answer.stop, &answer.tokens[..]), (StopReason::Cancelled, &want.0[..2]));
    while session.step(&mut goes_on).expect("a step") > 0 {}
    assert_eq!(bits(session.sequence(second).expect("a sequence")), want);
    session.end(first).expect("a sequence");
    let mut other = Session::new(&model, &limits(2, 0)).expect("a small session");
    let of_other = other.begin(&request, &endless(), &mut goes_on).expect("a sequence");
    assert!(matches!(session.sequence(of_other), Err(Error::Usage(UsageError::NoSuchSequence))));
    assert!(matches!(other.end(second), Err(Error::Usage(UsageError::NoSuchSequence))));
    session.end(second).expect("a sequence");
    assert!(matches!(session.end(second), Err(Error::Usage(UsageError::NoSuchSequence))));
}

#[test]
fn what_belongs_to_another_model_is_refused() {
    // The same sizes, other weights; and the same file, opened twice.
    let [a, b] = ["tiny1", "tiny1-f16"].map(|name| converted(name, uniform(WeightFormat::Int8)));
    let (model, same, other): (Arc<Model>, _, _) = (a.open(), a.open(), b.open());
    let mut session = Session::new(&model, &limits(1, 0)).expect("a small session");
    let ask = |session: &mut Session, features: &ImageFeatures, options: &GenerateOptions| {
        session.answer(features, &["ocr"], options, &mut goes_on).map(|answers| answers[0].clone())
    };
    let mut of_other = Session::new(&other, &limits(1, 0)).expect("a small session");
    let features = encoded(&mut of_other, &["scene_640x361.png"]);
    let refused = ask(&mut session, &features[0], &endless());
    assert!(matches!(refused, Err(Error::Usage(UsageError::FeaturesOfAnotherModel))), "{refused:?}");
    let mut features = features;
    let refused = session.encode(picture("scene_640x361.png").view(), &mut features[0], &endless());
    assert!(matches!(refused, Err(Error::Usage(UsageError::FeaturesOfAnotherModel))), "{refused:?}");
    assert!(
        ask(&mut of_other, &features[0], &endless()).is_ok(),
        "a refusal leaves the features as they were"
    );

    let mut of_same = Session::new(&same, &limits(1, 0)).expect("a small session");
    let features = encoded(&mut of_same, &["scene_640x361.png"]);
    let mut options = endless();
    options.grammar = Some(winding(&same));
    assert!(ask(&mut session, &features[0], &options).is_ok());
    options.grammar = Some(winding(&other));
    let refused = ask(&mut session, &features[0], &options);
    assert!(matches!(refused, Err(Error::Grammar(palmtop::GrammarError::OtherModel))), "{refused:?}");
    let none: [&ImageFeatures; 0] = [];
    let request = Request { pictures: &none, prompt: "ocr", draft: &[] };
    let refused = session.begin(&request, &endless(), &mut goes_on).map(|_| ());
    assert!(matches!(refused, Err(Error::Usage(UsageError::Pictures { pictures: 0, most: 3 }))));
}
