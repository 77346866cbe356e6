//! Many clients against a server for a while, some of whom go away, are slow, or send too much or what is broken:
//!
//! ```sh
//! cargo run --release -p palmtop-serve --example load -- demo/demo.palm 64 300
//! ```
//!
//! File, clients, seconds, and tokens of an answer (24 if absent). Each client knows the right answer to what it asks.
//! It prints what was answered and how fast, and what the process, server and clients together, had at the start and
//! at the end. The exit code is 1 if an answer was lost, wrong or another's.

#[path = "../tests/common/load.rs"]
mod load;
#[path = "common/start.rs"]
mod start;

use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, numbers @ ..] = &arguments[..] else {
        eprintln!("usage: load FILE [CLIENTS] [SECONDS] [TOKENS]");
        return ExitCode::from(2);
    };
    let number =
        |at: usize, default: usize| numbers.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (clients, seconds, new_tokens) = (number(0, 64), number(1, 60), number(2, 24));
    let model = palmtop::Model::open(file.as_ref()).expect("a model file");
    let pictures: Vec<Vec<u8>> = (0..8).map(load::picture).collect();
    println!("the right answers to {} requests are found …", pictures.len() * load::PROMPTS.len());
    let known = load::known(&model, &pictures, new_tokens);
    let mut options = start::options(8, new_tokens);
    options.connections.connections_max = 2 * clients;
    let body_bytes_max = options.app.body_bytes_max;
    let server = start::server(&model, options);
    let (start, before) = (Instant::now(), load::process());
    let time = Duration::from_secs(seconds as u64);
    let report = load::run(server.addresses()[0], &known, clients, time, new_tokens, body_bytes_max);
    let took = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(2));
    let after = load::process();
    println!(
        "{clients} clients, {took:.0} s: {} answers, {:.1} a second, half within {:.3} s, 99 of 100 within {:.3} s",
        report.latencies.len(),
        report.latencies.len() as f64 / took,
        report.percentile(50.0).as_secs_f64(),
        report.percentile(99.0).as_secs_f64(),
    );
    println!("{} sent away, {} odd ones, {} wrong", report.refused, report.odd, report.wrong.len());
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    for (when, (bytes, threads, files)) in [("at the start", before), ("at the end", after)] {
        println!("{when}: {:.1} MB in memory, {threads} threads, {files} files", megabytes(bytes));
    }
    report.wrong.iter().take(5).for_each(|why| println!("WRONG: {why}"));
    let pending = server.app().engine.pending();
    println!("{pending} requests pending");
    server.end();
    if report.wrong.is_empty() && pending == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
