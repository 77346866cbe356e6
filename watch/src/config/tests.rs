use std::time::Duration;

use super::*;
use crate::event::Condition;
use crate::setup::Reading;

const WHOLE: &str = r#"
model = "mix.palm"
budget = "400ms"
every = "2s"

[[camera]]
name = "door"
source = "rtsp://me:secret@cam/s"
ignore = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.2]]

[[camera]]
source = "/dev/video0?size=640x480"

[zone]
porch = [[0.2, 0.5], [0.8, 0.5], [0.8, 1.0], [0.2, 1.0]]

[gate]
features = false
pixel_threshold = 6.5

[[question]]
name = "people"
camera = "door"
detect = ["person", "dog"]
zone = "porch"
for = "2 of 3"
at_least_every = "1m"

[[question.rule]]
name = "somebody"
appears = true
label = "person"
until = "5"
cooldown = "5m"
hours = "22:00-06:00"

[[question.rule]]
name = "crowd"
at_least = 3

[[question.rule]]
name = "at the porch"
enters = "porch"

[[question]]
ask = "is the door open?"
choose = ["yes", "no"]

[[question.rule]]
is = "Yes"
for = "3"
"#;

fn question(config: &Config, index: usize) -> question::Planned {
    config.questions[index].plan(config).unwrap()
}

#[test]
fn a_whole_file_is_read() {
    let config = Config::parse(WHOLE).unwrap();
    assert_eq!(config.model.as_deref(), Some(Path::new("mix.palm")));
    let cameras = config.cameras().unwrap();
    let names: Vec<&str> = cameras.iter().map(|(camera, _)| &*camera.name).collect();
    assert_eq!(names, ["door", "video0"]);
    assert_eq!(cameras[0].0.zones.ignore.len(), 1);
    assert_eq!(cameras[1].1.size, Some((640, 480)));
    let options = config.options();
    assert_eq!(options.budget, Some(Duration::from_millis(400)));
    assert!(options.features.is_none());
    assert_eq!(options.pixels.unwrap().threshold, 6.5);

    let model =
        palmtop::Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/demo.palm"))).unwrap();
    let watched = config.watched(&model).unwrap();
    // The second question is asked of both cameras.
    let asked: Vec<(usize, &str)> = watched.iter().map(|w| (w.camera, w.question.prompt.as_str())).collect();
    assert_eq!(
        asked,
        [(0, "detect person ; dog"), (0, "answer en is the door open?"), (1, "answer en is the door open?")]
    );
    let people = &watched[0];
    assert_eq!(
        (people.every, people.at_least_every),
        (Duration::from_secs(2), Some(Duration::from_secs(60)))
    );
    assert_eq!((people.reading.clone(), people.needed.to_string().as_str()), (Reading::Objects, "2 of 3"));
    assert_eq!(people.zones.include.len(), 1);
    let [somebody, crowd, porch] = &people.rules[..] else { panic!("three rules") };
    assert!(matches!(&somebody.condition, Condition::Appears(o) if o.label.as_deref() == Some("person")));
    assert_eq!((somebody.needed.to_string(), somebody.until.to_string()), ("2 of 3".into(), "5 of 5".into()));
    assert_eq!(somebody.cooldown, Duration::from_secs(300));
    assert_eq!(somebody.hours.unwrap().to_string(), "22:00-06:00");
    assert!(matches!(crowd.condition, Condition::Count { at_least: 3, at_most: usize::MAX, .. }));
    assert!(matches!(&porch.condition, Condition::Appears(o) if o.zone.is_some()));
    assert_eq!(watched[1].reading, Reading::Choice(vec!["yes".into(), "no".into()]));
    assert!(watched[1].question.grammar.is_some());
}

#[test]
fn objects_without_rules_appear() {
    let config = Config::parse("[[camera]]\nsource = \"a.mjpeg\"\n[[question]]\ndetect = \"cat\"").unwrap();
    let planned = question(&config, 0);
    assert_eq!(planned.name, "detect cat");
    let model =
        palmtop::Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/demo.palm"))).unwrap();
    let rules = &config.watched(&model).unwrap()[0].rules;
    assert!(matches!(&rules[..], [rule] if matches!(rule.condition, Condition::Appears(_))));
    assert_eq!(rules[0].until.to_string(), "3 of 3");
}

#[test]
fn what_makes_no_sense_says_where_and_what_would() {
    let camera = "[[camera]]\nname = \"a\"\nsource = \"x.mjpeg\"\n";
    for (text, says) in [
        ("", "there is no source"),
        (camera, "there is no question"),
        ("[[camera]]\nsource = 5", "line 2"),
        ("[[camera]]\nsource = \"x\"\nspeed = 3", "speed"),
        ("[[camera]]\nsource = \"ftp://x\"\n[[question]]\nocr = true", "source 'ftp://x'"),
        (
            "[[camera]]\nsource = \"x\"\n[[camera]]\nsource = \"x\"\n[[question]]\nocr = true",
            "two cameras of the name 'x'",
        ),
        ("Q[[question]]\nname = \"q\"", "question 'q': it has exactly one of"),
        ("Q[[question]]\nocr = true\ncaption = \"en\"", "not caption and ocr"),
        ("Q[[question]]\ncaption = \"english\"", "is not a language code"),
        ("Q[[question]]\ndetect = \"a;b\"", "contains ';'"),
        ("Q[[question]]\nocr = true\ncamera = \"b\"", "there is no camera 'b'; there are: a"),
        ("Q[[question]]\nocr = true\nzone = \"porch\"", "there is no zone 'porch'"),
        ("Q[[question]]\nocr = true\nzone = [[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]]", "outside of the picture"),
        ("Q[[question]]\nocr = true\nevery = \"soon\"", "is no length of time"),
        ("Q[[question]]\nocr = true\nfor = \"5 of 3\"", "no number of looks"),
        ("Q[[question]]\nocr = true\nchoose = \"yes\"", "'choose' goes with"),
        ("Q[[question]]\nocr = true\n[[question]]\nocr = true", "two questions of the name 'ocr'"),
        ("Q[[question]]\nocr = true\n[[question.rule]]\nappears = true", "use detect or segment"),
        ("Q[[question]]\nocr = true\n[[question.rule]]\nmatches = \"(\"", "regex parse error"),
        ("Q[[question]]\nocr = true\n[[question.rule]]\nis = \"a\"\ncontains = \"b\"", "exactly one of is"),
        ("Q[[question]]\nocr = true\n[[question.rule]]\nis = \"a\"\nhours = \"8-9\"", "no hours of the day"),
        (
            "Q[[question]]\ndetect = \"cat\"\n[[question.rule]]\nappears = true\nlabel = \"dog\"",
            "not ask for 'dog'",
        ),
        (
            "Q[[question]]\nask = \"x\"\nchoose = [\"yes\"]\n[[question.rule]]\nis = \"no\"",
            "none of the choices",
        ),
        ("Q[gate]\ncells = -1\n[[question]]\nocr = true", "line"),
        ("Qfoo = 1", "foo"),
    ] {
        let text = text.replacen('Q', camera, 1);
        let error = Config::parse(&text).map(|_| ()).expect_err(&text).to_string();
        assert!(error.contains(says), "{text}\nsays: {error}");
    }
}

#[test]
fn pictures_that_are_given_need_no_source() {
    let question = "[[question]]\ndetect = \"dog\"\n";
    let names = |text: &str| -> Vec<String> {
        let config = Config::parse_questions(text).unwrap();
        config.named_cameras().unwrap().iter().map(|camera| camera.name.to_string()).collect()
    };
    assert_eq!(names(question), ["camera"]);
    let of_door = "[[question]]\ncamera = \"door\"\nocr = true\n";
    assert_eq!(
        names(&format!("{of_door}[[camera]]\nname = \"door\"\n[[camera]]\nsource = \"b.mjpeg\"")),
        ["door", "b"]
    );
    for (text, error) in [
        (
            question.to_owned() + "[[camera]]\nzone = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]",
            "neither a name nor a source",
        ),
        (question.to_owned() + "[[camera]]\nname = \"a\"\n[[camera]]\nname = \"a\"", "two cameras"),
        (of_door.to_owned(), "there is no camera 'door'; there are: camera"),
        (question.to_owned() + "[[camera]]\nsource = \"ftp://x\"", "'ftp://' is no kind of source"),
        ("budget = \"1s\"".to_owned(), "there is no question"),
        ("batch = 0\n".to_owned() + question, "batch is a number from 1 to 1024"),
    ] {
        let said = Config::parse_questions(&text).unwrap_err().to_string();
        assert!(said.contains(error), "{text}: {said}");
        // And a loop that captures wants sources.
        assert!(Config::parse(&text).is_err(), "{text}");
    }
    let unsaid = Config::parse(&format!("{question}[[camera]]\nname = \"a\"")).unwrap_err().to_string();
    assert!(unsaid.contains("the address of a source is empty"), "{unsaid}");
}

#[test]
fn receivers_of_the_same_file_do_not_disturb_a_loop_that_is_given_its_pictures() {
    let text = "[[question]]\nocr = true\n[mqtt]\nbroker = \"mqtt://home\"\n[[webhook]]\nurl = \"https://a.example/\"\n";
    let config = Config::parse_questions(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.questions.len(), 1);
}

/// The blocks of TOML in a page.
fn toml_of(page: &str) -> Vec<String> {
    let blocks = page.split("\n```toml\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap_or("").to_owned()).collect()
}

#[test]
#[cfg(feature = "sinks")]
fn examples_of_the_pages_can_be_read() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut read = 0;
    for entry in std::fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for block in toml_of(&std::fs::read_to_string(&path).unwrap()) {
            let config = Config::of_toml(&block).unwrap_or_else(|error| panic!("{path:?}: {error}\n{block}"));
            // Some show a part only.
            if !config.cameras.is_empty() && !config.questions.is_empty() {
                config.check().unwrap_or_else(|error| panic!("{path:?}: {error}\n{block}"));
            }
            read += 1;
        }
    }
    assert!(read >= 8, "{read}");
}
