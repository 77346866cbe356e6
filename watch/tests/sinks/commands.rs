use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop_watch::period::Period;
use palmtop_watch::record::{CameraStatus, Phase, Record};
use palmtop_watch::sink::command::{Command, CommandOptions};
use palmtop_watch::sink::end::End;
use palmtop_watch::sink::interest::{Kinds, Picture};
use palmtop_watch::sink::{Message, Sink, Versioned};

use crate::given::{LONG, answer, camera, error, event, message, objects, picture, until};

/// The shell runs this with the arguments as `$1` and so on.
fn shell(script: &str, arguments: &[&str]) -> CommandOptions {
    let run = ["sh", "-c", script, "sh"].iter().chain(arguments).map(|&word| word.to_owned()).collect();
    CommandOptions { run, ..CommandOptions::default() }
}

fn an_event() -> Message {
    message(Record::Event(event("someone", "id-1", Phase::Begin)))
}

/// What the script wrote to `$1`.
fn written(script: &str, record: Record) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut sink = Command::new(shell(script, &[out.to_str().unwrap()])).unwrap();
    sink.send(&message(record)).unwrap();
    std::fs::read_to_string(out).unwrap()
}

#[test]
fn a_program_gets_the_record_and_its_variables() {
    let record = Record::Event(event("someone", "id-1", Phase::End));
    let want = serde_json::to_string(&Versioned::from(&record)).unwrap() + "\n";
    assert!(
        want.starts_with(r#"{"version":1,"record":"event","id":"id-1","phase":"end","rule":"someone""#),
        "{want}"
    );
    assert_eq!(written("cat > $1", record.clone()), want);
    let script = "env | grep ^PALMTOP_[CPQRT] | sort > $1";
    assert_eq!(
        written(script, record),
        "PALMTOP_CAMERA=front\nPALMTOP_PHASE=end\nPALMTOP_QUESTION=person\nPALMTOP_RECORD=event\nPALMTOP_RULE=someone\n\
         PALMTOP_TEXT=yes\n"
    );
    let camera = Record::Camera(camera("yard", CameraStatus::Black));
    assert_eq!(written(script, camera), "PALMTOP_CAMERA=yard\nPALMTOP_RECORD=camera\n");
}

#[test]
fn texts_of_every_kind_pass() {
    let text = |text: &str| Record::Answer(answer("front", "scene", text));
    let script = "printf %s \"$PALMTOP_TEXT\" > $1";
    assert_eq!(written(script, text("a\nb $(c) \"d\" ; rm *")), "a\nb $(c) \"d\" ; rm *");
    assert_eq!(written(script, text("a\0b")), "a\u{fffd}b");
    // Longer than a variable of Linux may be; cut between two characters.
    let long = "ü".repeat(200_000) + "x";
    assert_eq!(written(script, text(&long)), "ü".repeat(16 << 10));
    let json = written("cat > $1", text(&long));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["text"], long);
}

#[test]
fn a_program_that_reads_nothing_gets_along() {
    let long = Record::Answer(answer("front", "scene", &"x".repeat(1 << 20)));
    let mut sink = Command::new(shell("exec < /dev/null; exit 0", &[])).unwrap();
    sink.send(&message(long)).unwrap();
}

#[test]
fn the_picture_is_a_file_while_the_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, name) = (dir.path().join("copy"), dir.path().join("name"));
    let script = "cp \"$PALMTOP_SNAPSHOT\" $1; printf %s \"$PALMTOP_SNAPSHOT\" > $2";
    let mut options = shell(script, &[copy.to_str().unwrap(), name.to_str().unwrap()]);
    options.picture = Picture::Annotated;
    let mut sink = Command::new(options).unwrap();
    let record = Record::Event(event("someone", "id-1", Phase::Begin));
    assert!(sink.interest().in_picture(&record));
    let snapshot = picture(objects(&["cat"]));
    sink.send(&Message { record, picture: Some(Arc::clone(&snapshot)) }).unwrap();
    assert_eq!(std::fs::read(copy).unwrap(), snapshot.annotated_jpeg().unwrap());
    assert_ne!(snapshot.annotated_jpeg().unwrap(), snapshot.jpeg().unwrap());
    let name = std::fs::read_to_string(name).unwrap();
    assert!(name.ends_with(".jpg") && !Path::new(&name).exists(), "{name}");
    // Without a picture there is no variable, whatever the environment has.
    let mut sink = Command::new(shell("test -z \"${PALMTOP_SNAPSHOT+set}\"", &[])).unwrap();
    assert!(!sink.interest().in_picture(&an_event().record));
    sink.send(&an_event()).unwrap();
}

#[test]
fn failures_say_what_failed() {
    let mut sink = Command::new(shell("exit 3", &[])).unwrap();
    assert_eq!(error(&mut sink, &an_event()), "'sh' failed: exit status: 3");
    let run = vec!["/no/such/program".into()];
    let mut sink = Command::new(CommandOptions { run, ..CommandOptions::default() }).unwrap();
    let text = error(&mut sink, &an_event());
    assert!(text.starts_with("'/no/such/program' cannot be started: No such file"), "{text}");
    for run in [vec![], vec![String::new()], vec!["a\0b".into()]] {
        assert!(Command::new(CommandOptions { run, ..CommandOptions::default() }).is_err());
    }
}

fn is_running(pid: &str) -> bool {
    // A process that nobody waits for is a zombie until its new parent does.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn after_the_time_limit_it_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = "(trap '' TERM INT; sh -c 'echo $$ >> $0; sleep 600' $1 & sleep 600) & echo $! >> $1; trap '' TERM; wait";
    let mut options = shell(script, &[pids.to_str().unwrap()]);
    options.time_limit = Period(Duration::from_millis(1500));
    let mut sink = Command::new(options).unwrap();
    assert_eq!(error(&mut sink, &an_event()), "'sh' was killed after its time limit of 1500ms");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        until("a grandchild is gone", || !is_running(pid));
    }
}

#[test]
fn the_end_of_the_watch_ends_the_program() {
    let mut sink = Command::new(shell("sleep 600", &[])).unwrap();
    let end = Arc::new(End::new());
    sink.attach(Arc::clone(&end));
    end.set(Instant::now() + Duration::from_millis(10));
    let begun = Instant::now();
    assert_eq!(error(&mut sink, &an_event()), "'sh' was killed, since the watch ends");
    assert!(begun.elapsed() < LONG);
}

#[test]
fn options_are_a_table() {
    let table = "run = [\"notify-send\", \"palmtop\"]\nrecords = [\"events\", \"cameras\"]\npicture = \"plain\"\ntime_limit = \"5s\"";
    let options: CommandOptions = toml::from_str(table).unwrap();
    assert_eq!(options.run, ["notify-send", "palmtop"]);
    assert_eq!(options.records, Kinds::EVENTS.and(Kinds::CAMERAS));
    assert_eq!((options.picture, options.time_limit), (Picture::Plain, Period(Duration::from_secs(5))));
    for wrong in ["shell = true", "records = [\"all\"]", "picture = \"big\"", "time_limit = 5"] {
        assert!(toml::from_str::<CommandOptions>(wrong).is_err(), "{wrong}");
    }
}
