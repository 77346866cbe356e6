//! Looks answer what each question alone is answered, with drafts, in any batch, and within their time.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use palmtop::image::{Frame, ImageLimits, RgbImage, decode_file};
use palmtop::{CancelToken, Error, GenerateOptions, Grammar, Limits, Model, Session};
use palmtop_watch::look::{self, Latencies, LookReport, Looker, Question};

fn demo(path: &str) -> std::path::PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo")).join(path)
}

fn model() -> Arc<Model> {
    Model::open(&demo("demo.palm")).unwrap()
}

fn pictures() -> Vec<RgbImage> {
    ["day.png", "menu.png", "scene.png", "day.png"]
        .map(|p| decode_file(demo(p), &ImageLimits::default()).unwrap())
        .into()
}

fn limits(batch: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.batch, limits.new_tokens, limits.draft_tokens) = (batch, 24, 4);
    limits
}

fn questions(model: &Model) -> Vec<Question> {
    let question = |name: &str, prompt: &str, grammar| Question {
        name: name.into(),
        prompt: prompt.into(),
        grammar,
        max_new_tokens: None,
    };
    let choices = Grammar::choices(model, ["yes", "no"]).unwrap();
    vec![
        question("caption", "caption en", None),
        question("bus", "detect bus", None),
        question("yes", "answer en is there a panda?", Some(choices)),
        question("text", "ocr", None),
        question("panda", "detect panda", None),
    ]
}

/// Tokens of all answers to a question about each picture, asked alone.
fn alone(model: &Arc<Model>, question: &Question, pictures: &[RgbImage]) -> Vec<Vec<u32>> {
    let mut session = Session::new(model, &limits(1)).unwrap();
    let mut features = session.new_features().unwrap();
    let mut options = GenerateOptions::default();
    options.grammar = question.grammar.clone();
    let mut one = |picture: &RgbImage| {
        session.encode(picture.view(), &mut features, &options).unwrap();
        let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        session.answer(&features, &[&question.prompt], &options, go_on).unwrap()[0].tokens.clone()
    };
    pictures.iter().map(&mut one).collect()
}

#[test]
fn answers_are_those_of_each_question_alone() {
    let (model, pictures) = (model(), pictures());
    let questions = questions(&model);
    let want: Vec<_> = questions.iter().map(|q| alone(&model, q, &pictures)).collect();
    for batch in [1, 2, 5] {
        let session = Session::new(&model, &limits(batch)).unwrap();
        let mut looker = Looker::new(session, questions.clone(), &CancelToken::default()).unwrap();
        let mut drafted = 0;
        for (p, picture) in pictures.iter().enumerate() {
            for round in 0..2 {
                let mut heard = vec![false; questions.len()];
                let report = looker
                    .look(Frame::from(picture.view()), |_| true, None, &mut |q, answer| {
                        assert_eq!(
                            answer.tokens, want[q][p],
                            "batch {batch}, picture {p}, round {round}, question {q}"
                        );
                        heard[q] = true;
                    })
                    .unwrap();
                assert_eq!((report.answered, report.late), (questions.len(), 0));
                assert!(heard.iter().all(|&h| h));
                // The same picture again: drafts are right to their last token.
                if round == 1 {
                    drafted += report.drafted;
                }
            }
        }
        assert!(drafted > 20, "{drafted}");
    }
}

/// Counts turns, and that no two of them overlap.
struct Turns(Arc<AtomicUsize>, AtomicBool);

impl look::Turns for Turns {
    fn take(&self, compute: &mut dyn FnMut()) {
        assert!(!self.1.swap(true, Ordering::SeqCst), "a turn within a turn");
        compute();
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.store(false, Ordering::SeqCst);
    }
}

#[test]
fn every_pass_takes_a_turn_and_answers_are_the_same() {
    let (model, pictures) = (model(), pictures());
    let questions = questions(&model);
    let turns = Arc::new(AtomicUsize::new(0));
    let session = Session::new(&model, &limits(2)).unwrap();
    let mut looker = Looker::new(session, questions.clone(), &CancelToken::default()).unwrap();
    looker.take_turns(Box::new(Turns(turns.clone(), AtomicBool::new(false))));
    let frame = Frame::from(pictures[0].view());
    assert!(looker.encode(frame, None).unwrap());
    assert_eq!(turns.load(Ordering::SeqCst), 1, "the encoder");
    let first = alone(&model, &questions[2], &pictures)[0].clone();
    looker.answer(|q| q == 2, None, &mut |_, answer| assert_eq!(answer.tokens, first)).unwrap();
    let one = turns.load(Ordering::SeqCst);
    // A prefill, and a step for what the choice leaves open.
    assert!((2..=2 + first.len()).contains(&one), "{one}");
    looker.answer(|_| true, None, &mut |_, _| {}).unwrap();
    assert!(turns.load(Ordering::SeqCst) >= one + questions.len(), "a prefill for each");
}

#[test]
fn only_what_is_due_is_asked() {
    let model = model();
    let session = Session::new(&model, &limits(2)).unwrap();
    let mut looker = Looker::new(session, questions(&model), &CancelToken::default()).unwrap();
    let picture = &pictures()[0];
    let mut heard = Vec::new();
    looker.look(Frame::from(picture.view()), |q| q == 1 || q == 3, None, &mut |q, _| heard.push(q)).unwrap();
    heard.sort_unstable();
    assert_eq!(heard, [1, 3]);
    let nothing =
        looker.look(Frame::from(picture.view()), |_| false, None, &mut |_, _| panic!("nothing is due"));
    assert_eq!(nothing.unwrap(), LookReport::default());
}

#[test]
fn what_had_no_time_comes_first_next_time() {
    let model = model();
    let session = Session::new(&model, &limits(1)).unwrap();
    let mut looker = Looker::new(session, questions(&model), &CancelToken::default()).unwrap();
    let picture = &pictures()[0];
    let past = Some(Instant::now());
    let report =
        looker.look(Frame::from(picture.view()), |q| q > 2, past, &mut |_, _| panic!("too late")).unwrap();
    assert_eq!((report.answered, report.late), (0, 2));
    let mut heard = Vec::new();
    let report = looker.look(Frame::from(picture.view()), |_| true, None, &mut |q, _| heard.push(q)).unwrap();
    assert_eq!((report.answered, report.late), (5, 0));
    assert_eq!(heard, [3, 4, 0, 1, 2]);
}

#[test]
fn a_cancelled_look_leaves_room_for_the_next() {
    let model = model();
    let cancel = CancelToken::default();
    let session = Session::new(&model, &limits(3)).unwrap();
    let mut looker = Looker::new(session, questions(&model), &cancel).unwrap();
    let picture = &pictures()[0];
    cancel.cancel();
    let result = looker.look(Frame::from(picture.view()), |_| true, None, &mut |_, _| panic!("cancelled"));
    assert!(matches!(result, Err(Error::Cancelled)));
    cancel.reset();
    let report = looker.look(Frame::from(picture.view()), |_| true, None, &mut |_, _| {}).unwrap();
    assert_eq!(report.answered, 5);
}

#[test]
fn percentiles_are_those_of_the_last_looks() {
    let mut latencies = Latencies::new();
    assert_eq!(latencies.percentile(50.0), None);
    (1..=100).for_each(|n| latencies.add(Duration::from_millis(n)));
    for (percent, millis) in [(0.0, 1), (50.0, 50), (99.0, 99), (100.0, 100)] {
        assert_eq!(latencies.percentile(percent), Some(Duration::from_millis(millis)));
    }
    (0..10_000).for_each(|_| latencies.add(Duration::from_millis(7)));
    assert_eq!(latencies.percentile(99.9), Some(Duration::from_millis(7)));
    assert_eq!((latencies.count(), latencies.most()), (10_100, Duration::from_millis(100)));
}
