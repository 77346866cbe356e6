//! How many looks a second: questions about changing pictures answered together, beside one after the other.
//!
//! ```text
//! cargo run --release -p palmtop-watch --example looks -- [MODEL] [PAIRS] [TOKENS]
//! ```
//!
//! A look answers 1, 4 or 8 questions about a picture. *Together* is what the loop does: the picture is encoded once,
//! the questions are answered in one batch, and each has its last answer as a draft. *One after the other* is what
//! `palmtop ask` does: each question encodes the picture and is answered alone. *Encoded once* is the same with one
//! encoding for all. The three take turns, picture by picture, in an order that alternates; the table has the medians
//! of PAIRS pictures (24 if absent), and the quartiles of the ratio of each picture. An answer has at most TOKENS
//! tokens (24 if absent). Without MODEL it is the demo model; `palmtop bench --synthetic NAME --keep FILE` makes larger
//! ones of random weights, whose answers go on to the limit.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::image::{Frame, ImageLimits, RgbImage, decode};
use palmtop::{CancelToken, GenerateOptions, Grammar, ImageFeatures, Limits, Model, Session};
use palmtop_watch::look::{LookReport, Looker, Question};
use palmtop_watch::source::{Capture, OpenOptions, Taken};

type Failure = Box<dyn std::error::Error>;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/");
const COUNTS: [usize; 3] = [1, 4, 8];
/// Of the film one picture in so many is used: what moves has moved.
const STEP: u64 = 10;
const DRAFT_TOKENS: usize = 8;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| format!("{DEMO}demo.palm"));
    let pairs: usize = args.next().map_or(Ok(24), |n| n.parse())?;
    let tokens: usize = args.next().map_or(Ok(24), |n| n.parse())?;
    let model = Model::open(Path::new(&path))?;
    let pictures = film()?;
    let threads = model.plan(&limits(1, tokens))?.threads;
    println!("{path}, {threads} threads, {pairs} pictures, answers of at most {tokens} tokens");
    println!(
        "| questions | together | one after the other | ratio | encoded once | ratio | tokens from drafts |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for count in COUNTS {
        let questions = questions(&model, tokens)?.into_iter().take(count).collect();
        Trial::new(&model, questions, tokens)?.run(&pictures, pairs)?;
    }
    Ok(())
}

/// What is asked: the questions of demo/street.toml, and more.
fn questions(model: &Model, tokens: usize) -> Result<Vec<Question>, Failure> {
    let yes_or_no = Grammar::choices(model, ["yes", "no"])?;
    let question = |prompt: &str, grammar: Option<&Grammar>| Question {
        name: prompt.into(),
        prompt: prompt.into(),
        grammar: grammar.cloned(),
        max_new_tokens: Some(tokens),
    };
    Ok(vec![
        question("detect car ; bus", None),
        question("answer en is there a bus?", Some(&yes_or_no)),
        question("ocr", None),
        question("caption en", None),
        question("detect dog ; cat", None),
        question("answer en how many cars are there?", None),
        question("detect house ; tree", None),
        question("answer en is there a dog?", Some(&yes_or_no)),
    ])
}

/// Pictures of the film in which something moves.
fn film() -> Result<Vec<RgbImage>, Failure> {
    let capture = Capture::start(format!("{DEMO}street.mjpeg").parse()?, OpenOptions::default())?;
    let mut pictures = Vec::new();
    loop {
        match capture.take(None, Duration::from_secs(1)) {
            Taken::End => return Ok(pictures),
            Taken::Shot(shot) if shot.number % STEP == 0 => {
                pictures.push(decode(&shot.bytes, &ImageLimits::default())?);
            }
            Taken::Shot(_) | Taken::Nothing => {}
        }
    }
}

fn limits(batch: usize, tokens: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.batch, limits.new_tokens, limits.draft_tokens) = (batch, tokens, DRAFT_TOKENS);
    limits
}

/// A number of questions, and the sessions that answer them.
struct Trial {
    looker: Looker,
    alone: Session,
    features: ImageFeatures,
    questions: Vec<(String, GenerateOptions)>,
    /// Of looks together.
    report: LookReport,
}

/// Three ways to answer all questions about a picture.
#[derive(Clone, Copy)]
enum Way {
    Together,
    OneAfterTheOther,
    EncodedOnce,
}

const WAYS: [Way; 3] = [Way::Together, Way::OneAfterTheOther, Way::EncodedOnce];

impl Trial {
    fn new(model: &Arc<Model>, questions: Vec<Question>, tokens: usize) -> Result<Self, Failure> {
        let alone = Session::new(model, &limits(1, tokens))?;
        let options = |question: &Question| {
            let mut options = GenerateOptions::default();
            (options.grammar, options.max_new_tokens) = (question.grammar.clone(), question.max_new_tokens);
            (question.prompt.clone(), options)
        };
        Ok(Self {
            features: alone.new_features()?,
            alone,
            questions: questions.iter().map(options).collect(),
            looker: Looker::new(
                Session::new(model, &limits(questions.len(), tokens))?,
                questions,
                &CancelToken::default(),
            )?,
            report: LookReport::default(),
        })
    }

    fn run(&mut self, pictures: &[RgbImage], pairs: usize) -> Result<(), Failure> {
        // Pages and caches warm up.
        for way in WAYS {
            self.look(way, &pictures[pictures.len() - 1])?;
        }
        self.report = LookReport::default();
        let mut times: [Vec<f64>; 3] = Default::default();
        for (index, picture) in pictures.iter().cycle().take(pairs.max(1)).enumerate() {
            for turn in 0..WAYS.len() {
                let at = if index % 2 == 0 { turn } else { WAYS.len() - 1 - turn };
                let begin = Instant::now();
                self.look(WAYS[at], picture)?;
                times[at].push(begin.elapsed().as_secs_f64());
            }
        }
        let rate = |times: &[f64]| 1.0 / quantile(times, 0.5);
        let ratio = |other: &[f64]| {
            let ratios: Vec<f64> =
                other.iter().zip(&times[0]).map(|(other, together)| other / together).collect();
            let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part));
            format!("{middle:.2} ({low:.2} to {high:.2})")
        };
        println!(
            "| {} | {:.2} looks/s | {:.2} looks/s | {} | {:.2} looks/s | {} | {} of {} |",
            self.questions.len(),
            rate(&times[0]),
            rate(&times[1]),
            ratio(&times[1]),
            rate(&times[2]),
            ratio(&times[2]),
            self.report.drafted,
            self.report.tokens,
        );
        Ok(())
    }

    fn look(&mut self, way: Way, picture: &RgbImage) -> palmtop::Result<()> {
        if let Way::Together = way {
            let report = self.looker.look(Frame::from(picture.view()), |_| true, None, &mut |_, _| {})?;
            self.report.tokens += report.tokens;
            self.report.drafted += report.drafted;
            return Ok(());
        }
        for (index, (prompt, options)) in self.questions.iter().enumerate() {
            if index == 0 || matches!(way, Way::OneAfterTheOther) {
                self.alone.encode(picture.view(), &mut self.features, options)?;
            }
            let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
            self.alone.answer(&self.features, &[prompt], options, go_on)?;
        }
        Ok(())
    }
}

/// The value below which this part of them is.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
