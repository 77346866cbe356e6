//! Clients of all kinds at once: no answer is lost or crossed, and nothing is left behind.

mod common;
#[path = "common/load.rs"]
mod load;

use std::time::{Duration, Instant};

use common::{LONG, Running, demo, model, options};

const NEW_TOKENS: usize = 24;

#[test]
fn no_answer_is_lost_or_crossed_and_nothing_is_left_behind() {
    let mut options = options();
    options.engine.waiting_max = 8;
    options.app.body_bytes_max = 1_000_000;
    options.app.bodies_bytes = 4 << 20;
    let pictures: Vec<Vec<u8>> = (0..5).map(load::picture).chain([demo("scene.png")]).collect();
    let known = load::known(&model(), &pictures, NEW_TOKENS);
    let running = Running::start(options);
    let (clients, time) = (16, Duration::from_secs(4));
    let ask = || load::run(running.address, &known, clients, time, NEW_TOKENS, 1_000_000);
    // What the server keeps for good, such as threads, is there after the first round.
    let warm = ask();
    let settled = |before: Option<(usize, usize)>| {
        let until = Instant::now() + LONG;
        loop {
            let (_, threads, files) = load::process();
            let is_free = running.server().app().engine.pending() == 0;
            let is_settled = before.is_none_or(|before| threads <= before.0 && files <= before.1);
            if is_free && is_settled {
                return (threads, files);
            }
            assert!(
                Instant::now() < until,
                "{threads} threads, {files} files; before {before:?}, free: {is_free}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    settled(None);
    std::thread::sleep(Duration::from_millis(500));
    let before = settled(None);
    let second = ask();
    settled(Some(before));
    for report in [warm, second] {
        assert!(report.wrong.is_empty(), "{:#?}", &report.wrong[..report.wrong.len().min(5)]);
        assert!(report.latencies.len() > 20 && report.odd > 5);
    }
    let counts = running.server().app().engine.counts().clone();
    assert_eq!((counts.waiting.get(), counts.running.get()), (0, 0));
}
