//! The film of the street is told as it is (demo/street.json), at a small part of the cost of asking about every
//! picture. The rules of scoring are those of demo/score_events.py.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::palmtop;
use serde_json::Value;

/// Seconds that an event may be told late, behind the time at which its change was done.
const TOLERANCE: f64 = 2.0;
const SLACK: f64 = 1e-3;

/// An event that was told: where it begins, and ends, in seconds.
struct Told {
    rule: String,
    label: Option<String>,
    begin: f64,
    end: Option<f64>,
}

fn told(records: &[Value], last: f64) -> Vec<Told> {
    let (mut order, mut all) = (Vec::new(), BTreeMap::new());
    for record in records.iter().filter(|record| record["record"] == "event") {
        let second = record["since_start_ms"].as_f64().unwrap() / 1e3;
        let id = record["id"].as_str().unwrap().to_owned();
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        if record["phase"] == "begin" {
            order.push(id.clone());
            let told = Told { rule: text("rule").unwrap(), label: text("label"), begin: second, end: None };
            assert!(all.insert(id, told).is_none(), "two events have one id");
        } else if second < last - SLACK {
            all.get_mut(&id).expect("an end has a beginning").end = Some(second);
        }
    }
    order.iter().map(|id| all.remove(id).unwrap()).collect()
}

fn in_time(second: f64, span: &Value) -> bool {
    let at = |i: usize| span[i].as_f64().unwrap();
    (at(0) - SLACK..=at(1) + TOLERANCE + SLACK).contains(&second)
}

#[test]
fn the_events_of_the_street_are_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let truth: Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("demo/street.json")).unwrap()).unwrap();
    let number = |key: &str| truth["film"][key].as_f64().unwrap();
    let args = ["watch", "--config", "demo/street.toml", "--json"];
    let ran: common::Ran = palmtop(args).current_dir(&root).output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let told = told(&ran.json(), (number("pictures") - 1.0) / number("rate"));

    let true_events = truth["events"].as_array().unwrap();
    let (mut right, mut taken) = (0, vec![false; true_events.len()]);
    for event in &told {
        let is_it = |(i, e): &(usize, &Value)| {
            !taken[*i]
                && e["rule"] == event.rule
                && (e["label"].is_null() || e["label"].as_str() == event.label.as_deref())
                && in_time(event.begin, &e["begin"])
        };
        let Some((i, e)) = true_events.iter().enumerate().find(is_it) else { continue };
        taken[i] = true;
        right += 1;
        right += usize::from(event.end.is_some_and(|end| !e["end"].is_null() && in_time(end, &e["end"])));
    }
    let turns = |ends: usize, all: usize| (ends + all) as f64;
    let told_turns = turns(told.iter().filter(|e| e.end.is_some()).count(), told.len());
    let true_turns = turns(true_events.iter().filter(|e| !e["end"].is_null()).count(), true_events.len());
    let (precision, recall) = (right as f64 / told_turns, right as f64 / true_turns);
    assert!(precision >= 0.98 && recall >= 0.98, "precision {precision}, recall {recall}\n{}", ran.stdout);

    // Five questions about every picture would be so many runs of the decoder.
    let (answers, _) = ran.stderr.split_once(" answers (").expect("counts are noted");
    let answers: f64 = answers.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(answers <= 0.1 * 5.0 * number("pictures"), "{answers} runs of the decoder");
    assert!(answers >= true_turns, "{answers} runs of the decoder");
}
