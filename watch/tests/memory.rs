//! A look allocates nothing, a watcher takes what is planned for it, and a day of looks leaves no more memory taken
//! than its first hour.

#[path = "../../tests/common/counting.rs"]
mod counting;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use counting::{Asked, by_all_threads, held_bytes};
use palmtop::image::{Frame, ImageLimits, PixelFormat, decode_file};
use palmtop::{CancelToken, Limits, Model, Session};
use palmtop_watch::config::Config;
use palmtop_watch::record::Record;
use palmtop_watch::run::Prepared;
use palmtop_watch::watcher::{Camera, Exposure, Watcher};

/// Counts are over the whole process, so this test runs without the usual harness, whose threads allocate too.
fn main() {
    let model = Model::open(&demo("demo.palm")).unwrap();
    a_look_allocates_nothing(&model);
    a_day_leaves_no_memory_taken(&model);
    println!("2 passed, 0 failed");
}

fn demo(path: &str) -> std::path::PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo")).join(path)
}

fn watcher(model: &Arc<Model>, config: &str) -> Watcher {
    let config = Config::parse(&format!("[[camera]]\nsource = \"a.mjpeg\"\n{config}")).unwrap();
    let prepared = Prepared::new(model, &config, &Limits::default()).unwrap();
    let cameras: Vec<Camera> = config.cameras().unwrap().into_iter().map(|(camera, _)| camera).collect();
    let (watched, options) = (config.watched(model).unwrap(), config.options());
    let session = Session::new(model, prepared.limits()).unwrap();
    let mut limits = prepared.limits().clone();
    limits.touch_memory = false;
    let before = held_bytes();
    let watcher = Watcher::new(session, cameras, watched, options.clone(), &CancelToken::default()).unwrap();
    let taken = held_bytes() - before;
    // The session's features are in its plan; what is left is small: names, orders, latencies.
    let planned = prepared.gate_bytes(model) + model.plan(&limits).unwrap().features_bytes;
    assert!((planned..planned + SMALL).contains(&taken), "{taken} bytes are taken, {planned} are planned");
    watcher
}

/// What a watcher takes beside its plan: latencies of 4,096 looks, and some thousand bytes for each question.
const SMALL: usize = 128 << 10;

fn a_look_allocates_nothing(model: &Arc<Model>) {
    let picture = decode_file(demo("day.png"), &ImageLimits::default()).unwrap();
    for gates in ["pixels = false\nfeatures = false", "pixels = false\nfeatures = true", "pixels = true"] {
        let questions = "[[question]]\ncaption = \"en\"\n[[question]]\nocr = true\n[[question.rule]]\ncontains = \"x\"\n\
             [[question]]\nask = \"is it day?\"\nchoose = [\"yes\", \"no\"]\nat_least_every = \"1s\"";
        let mut watcher = watcher(model, &format!("[gate]\n{gates}\n{questions}"));
        let (start, mut looks) = (Instant::now(), 0);
        for number in 0..30u64 {
            let since = Duration::from_millis(500 * number);
            let exposure = Exposure { taken: start + since, ..Exposure::now(number) };
            let (answers, mut told) = (watcher.counts().answers, 0);
            let frame = Frame::from(picture.view());
            let (looked, asked) =
                by_all_threads(|| watcher.picture(0, &frame, &exposure, &mut |_| told += 1));
            looked.unwrap();
            // The first looks fill what lasts: texts of answers.
            if number >= 3 {
                assert_eq!((asked, told), (Asked::NOTHING, 0), "{gates}, picture {number}");
                looks += watcher.counts().answers - answers;
            }
        }
        assert!(looks >= 10, "{gates}: {looks}");
    }
}

/// A day of a camera that gives a picture every two seconds; something comes and goes every ten minutes.
fn a_day_leaves_no_memory_taken(model: &Arc<Model>) {
    const HOUR: u64 = 1800;
    let mut watcher =
        watcher(model, "[[question]]\ndetect = [\"bus\", \"cat\"]\n[[question]]\ncaption = \"en\"");
    let scene = |name: &str| decode_file(demo(name), &ImageLimits::default()).unwrap();
    let scenes = [scene("day.png"), scene("menu.png")];
    let start = Instant::now();
    let (mut events, mut after_an_hour) = (0u64, 0);
    let mut noisy = vec![0u8; scenes[0].data().len().max(scenes[1].data().len())];
    for number in 0..24 * HOUR {
        let scene = &scenes[(number / 300 % 2) as usize];
        let bytes = &mut noisy[..scene.data().len()];
        // The sensor's noise: another corner of the same pattern for each picture.
        let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for (out, value) in bytes.chunks_mut(8).zip(scene.data().chunks(8)) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            for (i, (out, value)) in out.iter_mut().zip(value).enumerate() {
                *out = value.saturating_add((random >> (8 * i)) as u8 & 3);
            }
        }
        let (width, height) = (scene.width(), scene.height());
        let frame = Frame::packed(PixelFormat::Rgb, width, height, 3 * width as usize, bytes).unwrap();
        let since = Duration::from_secs(2 * number);
        // The clock on the wall jumps back and forth; nothing goes by it.
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(if number % 7 == 0 { 1 } else { 1 << 31 });
        let exposure = Exposure { number, taken: start + since, wall, counts_from: Instant::now() };
        watcher
            .picture(0, &frame, &exposure, &mut |record: Record| events += u64::from(record.begins_event()))
            .unwrap();
        if number == HOUR {
            after_an_hour = held_bytes();
        }
    }
    let now = held_bytes();
    assert!(now <= after_an_hour + 4096, "{now} bytes are taken, and were {after_an_hour} after an hour");
    let counts = watcher.counts();
    // The bus comes every twenty minutes, and with it nothing else.
    assert_eq!(events, 72, "{counts}");
    assert!(counts.answers < 24 * HOUR / 20, "{counts}");
}
