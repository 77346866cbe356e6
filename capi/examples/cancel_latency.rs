//! How long a call goes on after it was cancelled, in units of one layer's time:
//!
//! ```sh
//! cargo run --release -p palmtop-capi --example cancel_latency -- model.palm 200
//! ```
//!
//! Without a model, one of random weights is made that is small but has the proportions of the real ones: its head has
//! the weights of five layers. The cancellation comes at a random moment of each phase, the same ones every time.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use palmtop::image::RgbImage;
use palmtop::{CancelToken, Error, GenerateOptions, Limits, Model, Session, StopReason};
use palmtop_convert::synthetic::{Synthetic, preset};

const NEW_TOKENS: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next();
    let rounds = arguments.next().map_or(200, |n| n.parse().expect("a number of rounds"));
    let model = match path {
        Some(path) => Model::open(path.as_ref()).expect("a model"),
        None => random_model(),
    };
    let config = model.config();
    let (text, vision_layers) = (&config.text, config.vision.layers);
    let layer = text.qkv() + text.heads * text.head_dim + 3 * text.intermediate;
    // What a token reads, in layers.
    let token_layers = text.layers as f64 + text.vocab as f64 / layer as f64;

    let mut limits = Limits::default();
    limits.new_tokens = NEW_TOKENS;
    let mut session = Session::new(&model, &limits).expect("a session");
    let mut features = session.new_features().expect("memory");
    let picture = RgbImage::new(640, 480, (0..640 * 480 * 3).map(|i| (i * 7) as u8).collect()).unwrap();
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;

    // Undisturbed, for the time of a layer.
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..5 {
        session.encode(picture.view(), &mut features, &options).unwrap();
        session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Continue(())).unwrap();
        let taken = session.timings();
        let each = [taken.encode, taken.prefill, taken.decode];
        times.iter_mut().zip(each).for_each(|(times, taken)| times.push(taken));
    }
    let [encode, prefill, decode] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    let steps = session.timings().decode_steps as f64;
    println!("{} threads, {}", session.plan().threads, session.isa());
    println!("{:<10}{:>12}{:>12}{:>10}{:>10}{:>10}", "phase", "whole ms", "layer ms", "p50", "p99", "most");
    let phases = [
        ("encode", encode, encode.as_secs_f64() / vision_layers as f64),
        ("prefill", prefill, prefill.as_secs_f64() / text.layers as f64),
        ("decode", decode, decode.as_secs_f64() / steps / token_layers),
    ];
    for (phase, whole, layer) in phases {
        let mut latencies = Vec::new();
        let mut random = 1u64;
        for _ in 0..rounds {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let wait = whole.mul_f64((random >> 40) as f64 / (1u64 << 24) as f64);
            let (button, armed) = Button::new(options.cancel.clone(), wait);
            let stopped = match phase {
                "encode" => {
                    armed.send(Instant::now()).unwrap();
                    matches!(session.encode(picture.view(), &mut features, &options), Err(Error::Cancelled))
                }
                "prefill" => {
                    armed.send(Instant::now()).unwrap();
                    let answered =
                        session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Break(()));
                    answered.is_ok_and(|answers| answers[0].prompt_tokens == 0)
                }
                _ => {
                    let mut armed = Some(armed);
                    let answered = session.answer(&features, &["caption en"], &options, &mut |_| {
                        // The first token ends the prefill.
                        if let Some(armed) = armed.take() {
                            armed.send(Instant::now()).unwrap();
                        }
                        ControlFlow::Continue(())
                    });
                    answered.is_ok_and(|answers| answers[0].stop == StopReason::Cancelled)
                }
            };
            let returned = Instant::now();
            let pressed = button.pressed();
            options.cancel.reset();
            // One that came too late says nothing.
            if stopped && returned > pressed {
                latencies.push((returned - pressed).as_secs_f64() / layer);
            }
            if phase == "encode" {
                session.encode(picture.view(), &mut features, &options).unwrap();
            }
        }
        latencies.sort_by(f64::total_cmp);
        assert!(!latencies.is_empty(), "no cancellation was in time");
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        let (whole, layer) = (whole.as_secs_f64() * 1e3, layer * 1e3);
        println!("{phase:<10}{whole:>12.2}{layer:>12.3}{:>10.2}{:>10.2}{:>10.2}", at(0.5), at(0.99), at(1.0));
    }
    println!("(p50, p99, most: from cancel to return, in layers' times of the phase; {rounds} rounds each)");
}

/// A thread that cancels some time after it was armed.
struct Button(std::thread::JoinHandle<Instant>);

impl Button {
    fn new(cancel: CancelToken, wait: Duration) -> (Self, mpsc::Sender<Instant>) {
        let (armed, when) = mpsc::channel::<Instant>();
        let thread = std::thread::spawn(move || {
            let start = when.recv().unwrap();
            std::thread::sleep((start + wait).saturating_duration_since(Instant::now()));
            let pressed = Instant::now();
            cancel.cancel();
            pressed
        });
        (Self(thread), armed)
    }

    fn pressed(self) -> Instant {
        self.0.join().unwrap()
    }
}

fn random_model() -> Arc<Model> {
    let mut config = preset("paligemma-3b-224").unwrap();
    config.vision.layers = 6;
    let text = &mut config.text;
    (text.hidden, text.intermediate, text.heads, text.layers, text.vocab) = (1024, 8192, 4, 6, 131_072);
    text.windows.truncate(6);
    (config.tokens.image, config.tokens.pad) = (257_152 % 131_072, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.palm");
    let tokenizer = include_bytes!("../../demo/tokenizer/tokenizer.json");
    let table = palmtop_convert::tokenizer::json::parse(tokenizer).unwrap().to_table().unwrap();
    eprintln!("making random weights");
    palmtop_convert::convert_source(
        &Synthetic::new(config.clone(), 1),
        &config,
        table,
        &path,
        &Default::default(),
        &(),
    )
    .unwrap();
    Model::open(&path).unwrap()
}
