//! One picture, one prompt and some tokens on one thread, stage by stage: what `arm.py` runs in emulation and counts.
//!
//! ```text
//! stages make FILE WEIGHTS   writes a PaliGemma 3B of random weights with few layers, of full width
//! stages run FILE            looks and answers
//! ```
//!
//! A line of standard output ends a stage; the last one says how many rows the prefill had. Every call has a deadline
//! that never comes, so that the engine reads the clock between layers: the counter sees both in the system calls.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use palmtop::image::RgbImage;
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{Options, convert_source, tokenizer};

type Failure = Box<dyn std::error::Error>;

/// A small vocabulary: no stage that is counted depends on it.
const TOKENIZER: &[u8] = include_bytes!("../../demo/tokenizer/tokenizer.json");
const VISION_LAYERS: usize = 1;
/// One that all rows go through, and the last one, which ends early for rows without logits.
const TEXT_LAYERS: usize = 2;
/// The first token, and two that are decoded.
const TOKENS: usize = 3;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", file, weights] => make(Path::new(file), weights),
        ["run", file] => run(Path::new(file)),
        _ => Err("usage: stages make FILE WEIGHTS | stages run FILE".into()),
    }
}

fn make(file: &Path, weights: &str) -> Result<(), Failure> {
    let mut config = preset("paligemma-3b-224").expect("a preset");
    config.vision.layers = VISION_LAYERS;
    config.text.layers = TEXT_LAYERS;
    config.text.windows.truncate(TEXT_LAYERS);
    let options = Options { recipe: weights.parse()?, ..Options::default() };
    let table = tokenizer::json::parse(TOKENIZER)?.to_table()?;
    convert_source(&Synthetic::new(config.clone(), 2026), &config, table, file, &options, &())?;
    Ok(())
}

fn run(file: &Path) -> Result<(), Failure> {
    let model = Model::open(file)?;
    let mut limits = Limits::default();
    (limits.new_tokens, limits.threads) = (TOKENS, Some(1));
    let mut session = Session::new(&model, &limits)?;
    let mut features = session.new_features()?;
    // As a camera gives it, so that it is resized.
    let (width, height) = (640, 480);
    let pixels = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
    let picture = RgbImage::new(width, height, pixels)?;
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    options.deadline = Some(Instant::now() + Duration::from_secs(1_000_000));
    ends(&format!("begin {}", session.isa()));
    session.encode(picture.view(), &mut features, &options)?;
    ends("encode");
    let mut tokens = 0;
    let answers = session.answer(&features, &["caption en"], &options, &mut |piece| {
        if piece.token.is_some() {
            ends(if tokens == 0 { "prefill" } else { "token" });
            tokens += 1;
        }
        ControlFlow::Continue(())
    })?;
    ends(&format!("rows {}", answers[0].prompt_tokens));
    Ok(())
}

/// Says that a stage ends here.
fn ends(stage: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{stage}").and_then(|()| out.flush()).expect("standard output");
}
