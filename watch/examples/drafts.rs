//! What the last answer is worth as a draft of the next one: tokens, passes and time on the demo's film.
//!
//! ```text
//! cargo run --release -p palmtop-watch --example drafts -- [MODEL] [STEP]
//! ```
//!
//! One picture in STEP (7 if absent, as demo/street.toml has it) of demo/street.mjpeg is asked each question, with
//! drafts of several lengths in turns; all must answer alike. *As before* are those answers that are the last one
//! again: a still scene. Passes are those behind the prefill, which gives the first token; time is that of these passes.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use palmtop::image::{DecodeOptions, RgbImage};
use palmtop::{GenerateOptions, Limits, Model, Request, Session};
use palmtop_watch::film::Film;
use palmtop_watch::source::{Address, OpenOptions};

type Failure = Box<dyn std::error::Error>;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/");
const PROMPTS: [&str; 4] = ["caption en", "detect car ; bus", "detect house ; tree", "ocr"];
/// Tokens of a draft that are checked in one pass.
const DRAFTS: [usize; 4] = [0, 4, 8, 16];
const NEW_TOKENS: usize = 32;

/// What answers took together.
#[derive(Clone, Copy, Default)]
struct Sum {
    answers: usize,
    tokens: usize,
    accepted: usize,
    passes: usize,
    passes_max: usize,
    time: Duration,
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| format!("{DEMO}demo.palm"));
    let step: u64 = args.next().map_or(Ok(7), |n| n.parse())?;
    let model = Model::open(Path::new(&path))?;
    let pictures = film(step)?;
    let mut sessions = Vec::new();
    for draft_tokens in DRAFTS {
        let mut limits = Limits::default();
        (limits.new_tokens, limits.draft_tokens, limits.image_side) = (NEW_TOKENS, draft_tokens, 1024);
        sessions.push(Session::new(&model, &limits)?);
    }
    let (mut features, options) = (sessions[0].new_features()?, GenerateOptions::default());
    // Of each question and length: answers as before, and others.
    let mut sums = [[[Sum::default(); 2]; DRAFTS.len()]; PROMPTS.len()];
    let mut last = vec![Vec::new(); PROMPTS.len()];
    for picture in &pictures {
        sessions[0].encode(picture.view(), &mut features, &options)?;
        for ((prompt, last), sums) in PROMPTS.iter().zip(&mut last).zip(&mut sums) {
            let mut answered: Option<Vec<u32>> = None;
            for (session, sums) in sessions.iter_mut().zip(sums) {
                let request = Request { pictures: &[&features], prompt, draft: last };
                let hear = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
                let answer = &session.answer_requests(&[request], &options, hear)?[0];
                let (tokens, accepted) = (answer.tokens.clone(), answer.accepted_draft_tokens);
                let (passes, time) = (session.timings().decode_steps, session.timings().decode);
                assert!(
                    answered.get_or_insert_with(|| tokens.clone()) == &tokens,
                    "a draft changed an answer"
                );
                let sum = &mut sums[usize::from(tokens != *last)];
                sum.answers += 1;
                sum.tokens += tokens.len();
                sum.accepted += accepted;
                sum.passes += passes;
                sum.passes_max = sum.passes_max.max(passes);
                sum.time += time;
            }
            *last = answered.unwrap_or_default();
        }
    }
    println!("{path}, {} threads, {} pictures", sessions[0].plan().threads, pictures.len());
    println!(
        "| question | draft | answers | tokens | from drafts | passes an answer | most | time an answer |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (prompt, sums) in PROMPTS.iter().zip(&sums) {
        for (which, what) in ["as before", "others"].iter().enumerate() {
            for (draft_tokens, sums) in DRAFTS.iter().zip(sums) {
                row(&format!("`{prompt}`, {what}"), *draft_tokens, &sums[which]);
            }
        }
    }
    Ok(())
}

fn row(what: &str, draft_tokens: usize, sum: &Sum) {
    if sum.answers == 0 {
        return;
    }
    let each = |n: f64| n / sum.answers as f64;
    println!(
        "| {what} | {draft_tokens} | {} | {:.1} | {:.0} % | {:.2} | {} | {:.2} ms |",
        sum.answers,
        each(sum.tokens as f64),
        100.0 * sum.accepted as f64 / sum.tokens.max(1) as f64,
        each(sum.passes as f64),
        sum.passes_max,
        each(1e3 * sum.time.as_secs_f64()),
    );
}

/// One in so many pictures of the film.
fn film(step: u64) -> Result<Vec<RgbImage>, Failure> {
    let address: Address = format!("{DEMO}street.mjpeg").parse()?;
    let mut film = Film::open(&address, &OpenOptions::default(), &DecodeOptions::default())?;
    let mut pictures = Vec::new();
    for number in (0..).step_by(step as usize) {
        let Some(frame) = film.frame(number, &mut || true)? else { break };
        pictures.push(frame.image);
    }
    Ok(pictures)
}
