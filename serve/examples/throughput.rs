//! What it saves to answer requests together:
//!
//! ```sh
//! cargo run --release -p palmtop-serve --example throughput -- model.palm 64
//! ```
//!
//! 1, 4 and 16 clients ask at once, each about a picture of its own; then one client asks the same, one request after
//! the other. Answers are cut at so many tokens; with random weights hardly one ends sooner, and it is said if some do.
//! The ratio is that of the times. Rounds alternate, and the smallest and the largest ratio are printed beside the
//! median. No features are kept, so each picture is encoded each time.

#[path = "../tests/common/load.rs"]
mod load;
#[path = "common/start.rs"]
mod start;

use std::process::ExitCode;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const CLIENTS: [usize; 3] = [1, 4, 16];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, tokens, rounds @ ..] = &arguments[..] else {
        eprintln!("usage: throughput FILE TOKENS [ROUNDS]");
        return ExitCode::from(2);
    };
    let tokens: usize = tokens.parse().expect("a number of tokens");
    let rounds = rounds.first().map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let model = palmtop::Model::open(file.as_ref()).expect("a model file");
    let server = start::server(&model, start::options(16, tokens));
    let url = format!("http://{}/v1/looks?prompt=caption+en&max_new_tokens={tokens}", server.addresses()[0]);
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(3600))).build().new_agent();
    let ask = |picture: &[u8]| {
        let mut answer = agent.post(&url).send(picture).expect("an answer");
        let answer = answer.body_mut().read_to_string().expect("a body");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["answers"][0]["tokens"].as_array().map_or(0, Vec::len)
    };
    // Whatever is done once is done here.
    let mut shortest = ask(&load::picture(0));
    println!("clients  at once, tokens/s  one at a time, tokens/s  ratio (smallest to largest)");
    let mut number = 1;
    for clients in CLIENTS {
        let mut all = Vec::new();
        for round in 0..rounds {
            let pictures: Vec<Vec<u8>> = (0..clients).map(|n| load::picture(number + n as u64)).collect();
            number += clients as u64;
            let mut times = [0.0; 2];
            for which in [round % 2, (round + 1) % 2] {
                let start = Instant::now();
                let counts: Vec<usize> = match which {
                    0 => std::thread::scope(|scope| {
                        let threads: Vec<_> = pictures.iter().map(|p| scope.spawn(|| ask(p))).collect();
                        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
                    }),
                    _ => pictures.iter().map(|picture| ask(picture)).collect(),
                };
                times[which] = start.elapsed().as_secs_f64();
                shortest = shortest.min(counts.into_iter().min().unwrap_or(0));
                // Not the last picture of this order is the first of the next.
                ask(&load::picture(u64::MAX));
            }
            all.push((times[1] / times[0], times));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, [at_once, alone]) = all[all.len() / 2];
        let a_second = |time: f64| (clients * tokens) as f64 / time;
        println!(
            "{clients:7}  {:17.2}  {:23.2}  {ratio:.2} ({:.2} to {:.2})",
            a_second(at_once),
            a_second(alone),
            all[0].0,
            all[all.len() - 1].0,
        );
    }
    if shortest < tokens {
        println!("NOTE: an answer ended after {shortest} tokens; take a model that does not end by itself");
    }
    server.end();
    ExitCode::SUCCESS
}
