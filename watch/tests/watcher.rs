//! The loop's core on the demo model: when it asks, what it believes, and which events it tells.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use palmtop::image::{Frame, ImageLimits, RgbImage, decode_file};
use palmtop::{CancelToken, Limits, Model};
use palmtop_watch::command::Command;
use palmtop_watch::config::Config;
use palmtop_watch::record::{EventRecord, Phase, Record};
use palmtop_watch::run::Prepared;
use palmtop_watch::watcher::{Camera, Exposure, Watcher};

fn demo(path: &str) -> std::path::PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo")).join(path)
}

fn picture(name: &str) -> RgbImage {
    decode_file(demo(name), &ImageLimits::default()).unwrap()
}

/// A watcher and the clock of its pictures, ten a second.
struct Scene {
    watcher: Watcher,
    start: Instant,
    number: u64,
}

impl Scene {
    fn new(config: &str) -> Self {
        Self::with(config, |_| {})
    }

    fn with(config: &str, change: impl Fn(&mut Config)) -> Self {
        let mut config = Config::parse(config).unwrap();
        change(&mut config);
        let model: Arc<Model> = Model::open(&demo("demo.palm")).unwrap();
        let prepared = Prepared::new(&model, &config, &Limits::default()).unwrap();
        let cameras: Vec<Camera> = config.cameras().unwrap().into_iter().map(|(camera, _)| camera).collect();
        let session = palmtop::Session::new(&model, prepared.limits()).unwrap();
        let watched = config.watched(&model).unwrap();
        let watcher =
            Watcher::new(session, cameras, watched, config.options(), &CancelToken::default()).unwrap();
        Self { watcher, start: Instant::now(), number: 0 }
    }

    fn now(&self) -> Exposure {
        let since = Duration::from_millis(100 * self.number);
        Exposure {
            number: self.number,
            taken: self.start + since,
            wall: SystemTime::UNIX_EPOCH + since,
            counts_from: Instant::now(),
        }
    }

    fn see(&mut self, camera: usize, image: &RgbImage) -> Vec<Record> {
        let mut records = Vec::new();
        let exposure = self.now();
        self.watcher
            .picture(camera, &Frame::from(image.view()), &exposure, &mut |record| records.push(record))
            .unwrap();
        self.number += 1;
        records
    }

    /// The same picture so many times.
    fn see_for(&mut self, pictures: usize, image: &RgbImage) -> Vec<Record> {
        (0..pictures).flat_map(|_| self.see(0, image)).collect()
    }
}

fn events(records: &[Record]) -> Vec<&EventRecord> {
    let event = |record: &'_ Record| match record {
        Record::Event(_) => true,
        Record::Answer(_) | Record::Camera(_) => false,
    };
    let of = |record| match record {
        Record::Event(event) => event,
        _ => unreachable!("filtered"),
    };
    records.iter().filter(|r| event(r)).map(of).collect()
}

fn answers(records: &[Record]) -> Vec<(String, String)> {
    let of = |record: &Record| match record {
        Record::Answer(answer) => Some((answer.question.to_string(), answer.text.clone())),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

const CAMERA: &str = "[[camera]]\nname = \"a\"\nsource = \"a.mjpeg\"\n";

#[test]
fn a_still_scene_is_asked_about_once() {
    let mut scene = Scene::new(&format!("{CAMERA}[[question]]\nname = \"bus\"\ndetect = \"bus\""));
    let day = picture("day.png");
    let records = scene.see_for(60, &day);
    let events = events(&records);
    assert_eq!(events.len(), 1, "{records:?}");
    assert_eq!((events[0].phase, events[0].label.as_deref()), (Phase::Begin, Some("bus")));
    assert_eq!((events[0].track, &*events[0].rule, &*events[0].camera), (Some(1), "bus", "a"));
    let counts = scene.watcher.counts();
    // The gate learns from the first pictures, and what they show is news only once.
    assert_eq!((counts.pictures, counts.events), (60, 1));
    assert!(counts.answers <= 3, "{counts}");
    assert!(counts.still > 50, "{counts}");
}

#[test]
fn an_event_ends_when_its_object_has_gone_and_another_has_another_id() {
    let mut scene = Scene::new(&format!("{CAMERA}[[question]]\ndetect = \"bus\""));
    let (day, menu) = (picture("day.png"), picture("menu.png"));
    let mut records = scene.see_for(20, &day);
    records.extend(scene.see_for(20, &menu));
    records.extend(scene.see_for(20, &day));
    let exposure = scene.now();
    scene.watcher.end(&exposure, &mut |record| records.push(record));
    let got: Vec<(Phase, String, Option<u64>)> =
        events(&records).iter().map(|e| (e.phase, e.id.clone(), e.track)).collect();
    let phases: Vec<Phase> = got.iter().map(|e| e.0).collect();
    assert_eq!(phases, [Phase::Begin, Phase::End, Phase::Begin, Phase::End]);
    assert_eq!((&got[0].1, &got[2].1), (&got[1].1, &got[3].1), "both ends have the id of their beginning");
    assert_ne!(got[0].1, got[2].1);
    assert_ne!(got[0].2, got[2].2);
    let lasted: Vec<Option<Duration>> = events(&records).iter().map(|e| e.lasted).collect();
    assert_eq!((lasted[0], lasted[2]), (None, None));
    // Seen in the first picture of both, and missed in three looks.
    assert_eq!(lasted[1], Some(Duration::from_millis(2200)));
    assert_eq!(lasted[3], Some(Duration::from_millis(2000)));
}

#[test]
fn answers_are_those_of_each_prompt_alone_and_told_when_they_change() {
    let config = format!(
        "{CAMERA}[[question]]\nname = \"what\"\ncaption = \"en\"\n[[question]]\nname = \"text\"\nocr = true\n\
         [[question]]\nname = \"panda\"\nask = \"is there a panda?\"\nchoose = [\"yes\", \"no\"]\nfor = \"2 of 3\""
    );
    let mut scene = Scene::new(&config);
    let model = Model::open(&demo("demo.palm")).unwrap();
    let mut session = palmtop::Session::new(&model, &Limits::default()).unwrap();
    let mut features = session.new_features().unwrap();
    let mut alone = |image: &RgbImage, prompt: &str| {
        let options = palmtop::GenerateOptions::default();
        session.encode(image.view(), &mut features, &options).unwrap();
        let go_on = &mut |_: palmtop::Piece<'_>| std::ops::ControlFlow::Continue(());
        session.answer(&features, &[prompt], &options, go_on).unwrap()[0].text.clone()
    };
    for name in ["day.png", "menu.png", "scene.png"] {
        let image = picture(name);
        let records = scene.see_for(10, &image);
        let got = answers(&records);
        for (question, prompt) in [("what", "caption en"), ("text", "ocr")] {
            let of_question: Vec<&String> = got.iter().filter(|a| a.0 == question).map(|a| &a.1).collect();
            assert_eq!(of_question, [&alone(&image, prompt)], "{name}: {prompt}");
        }
        let panda = got.iter().filter(|a| a.0 == "panda").count();
        assert!(panda <= 1, "{got:?}");
    }
}

#[test]
fn questions_are_asked_when_due_and_when_told_to() {
    let config = format!(
        "{CAMERA}[[camera]]\nname = \"b\"\nsource = \"b.mjpeg\"\n[gate]\npixels = false\nfeatures = false\n\
         [[question]]\nname = \"slow\"\nocr = true\nevery = \"1s\"\ncamera = \"a\"\n\
         [[question]]\nname = \"fast\"\ncaption = \"en\"\ncamera = \"b\""
    );
    let mut scene = Scene::new(&config);
    let menu = picture("menu.png");
    let mut asked = |scene: &mut Scene, camera| {
        let before = scene.watcher.counts().answers;
        scene.see(camera, &menu);
        scene.watcher.counts().answers - before
    };
    let slow: Vec<u64> = (0..21).map(|_| asked(&mut scene, 0)).collect();
    let places: Vec<usize> = (0..21).filter(|&i| slow[i] == 1).collect();
    assert_eq!(places, [0, 10, 20]);
    // Without a gate every picture may have changed.
    assert_eq!((0..3).map(|_| asked(&mut scene, 1)).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(asked(&mut scene, 0), 0);
    let ask = |question: Option<&str>| Command::Ask { question: question.map(str::to_owned), camera: None };
    scene.watcher.command(&ask(Some("slow"))).unwrap();
    assert_eq!(asked(&mut scene, 0), 1);
    let error = scene.watcher.command(&ask(Some("none"))).unwrap_err().to_string();
    assert!(error.contains("slow, fast"), "{error}");
    scene.watcher.command(&Command::Pause).unwrap();
    assert_eq!((asked(&mut scene, 0), asked(&mut scene, 1)), (0, 0));
    scene.watcher.command(&Command::Resume).unwrap();
    assert_eq!(asked(&mut scene, 1), 1);
    // Another prompt is asked at once.
    let prompt = |prompt: &str| Command::Prompt { question: "slow".into(), prompt: prompt.into() };
    scene.watcher.command(&prompt("caption en")).unwrap();
    assert_eq!(asked(&mut scene, 0), 1);
    let error = scene.watcher.command(&prompt(&"x ".repeat(5000))).unwrap_err().to_string();
    assert!(error.contains("there is room for 256"), "{error}");
}

#[test]
fn what_must_be_asked_now_and_then_is_asked_of_a_still_scene() {
    let mut scene = Scene::new(&format!("{CAMERA}[[question]]\nocr = true\nat_least_every = \"2s\""));
    let menu = picture("menu.png");
    scene.see_for(30, &menu);
    let before = scene.watcher.counts().answers;
    scene.see_for(40, &menu);
    assert_eq!(scene.watcher.counts().answers - before, 2);
}

#[test]
fn only_what_changes_in_its_zone_makes_a_question_due() {
    let config = format!(
        "{CAMERA}[[question]]\nname = \"left\"\nocr = true\nzone = [[0.0, 0.0], [0.4, 0.0], [0.4, 1.0], [0.0, 1.0]]\n\
         [[question]]\nname = \"right\"\ncaption = \"en\"\nzone = [[0.6, 0.0], [1.0, 0.0], [1.0, 1.0], [0.6, 1.0]]"
    );
    let mut scene = Scene::with(&config, |config| config.gate.features = Some(false));
    let day = picture("day.png");
    let mut other = day.clone();
    let (width, height) = (other.width() as usize, other.height() as usize);
    for y in height / 4..height * 3 / 4 {
        for x in width * 7 / 10..width * 9 / 10 {
            other.data_mut()[3 * (y * width + x)..][..3].copy_from_slice(&[(x * 7) as u8, (y * 5) as u8, 0]);
        }
    }
    scene.see_for(20, &day);
    let records = {
        let mut all = Vec::new();
        let before = scene.watcher.counts().answers;
        all.extend(scene.see(0, &other));
        assert_eq!(scene.watcher.counts().answers - before, 1);
        all
    };
    assert!(answers(&records).iter().all(|(question, _)| question == "right"), "{records:?}");
}

#[test]
fn a_budget_that_is_over_makes_questions_late() {
    let mut scene =
        Scene::with(&format!("{CAMERA}[[question]]\nocr = true\n[[question]]\ncaption = \"en\""), |config| {
            config.budget = Some("1ms".parse().unwrap());
        });
    let menu = picture("menu.png");
    let exposure = Exposure { counts_from: Instant::now() - Duration::from_secs(1), ..scene.now() };
    let view = Frame::from(menu.view());
    scene.watcher.picture(0, &view, &exposure, &mut |record| panic!("{record:?} comes too late")).unwrap();
    assert_eq!((scene.watcher.counts().late, scene.watcher.counts().answers), (2, 0));
}

#[test]
fn counts_of_a_film_without_gates_are_those_of_every_picture() {
    let off = |config: &mut Config| (config.gate.pixels, config.gate.features) = (Some(false), Some(false));
    let mut scene = Scene::with(&format!("{CAMERA}[[question]]\ndetect = \"bus\""), off);
    scene.see_for(7, &picture("day.png"));
    let counts = scene.watcher.counts();
    assert_eq!((counts.pictures, counts.encoded, counts.answers, counts.not_looked), (7, 7, 7, 0));
    assert_eq!(counts.latencies.count(), 7);
    // The last answer is the draft, and right.
    assert!(counts.drafted > 0 && counts.drafted < counts.tokens, "{counts}");
}
