use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use palmtop::tasks::{BoxRounding, Mask};
use palmtop_watch::period::Period;
use palmtop_watch::record::{CameraStatus, Phase, Record};
use palmtop_watch::sink::interest::{Kind, Picture};
use palmtop_watch::sink::snapshots::{SnapshotOptions, Snapshots};
use palmtop_watch::sink::{Message, Sink};

use crate::given::{answer, at, camera, error, event, objects, picture};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn options(folder: &Path) -> SnapshotOptions {
    SnapshotOptions::new(folder, [Kind::Events])
}

/// The beginning of event `n`, a second after the one before.
fn begin(n: u64) -> Message {
    let mut event = event("someone", &format!("id{n}"), Phase::Begin);
    event.at = at(n * 1000);
    Message { record: Record::Event(event), picture: Some(picture(objects(&["cat"]))) }
}

#[test]
fn snapshots_are_named_by_time_camera_rule_and_event() {
    let dir = tempfile::tempdir().unwrap();
    // The folder is made.
    let folder = dir.path().join("a/b");
    let mut sink = Snapshots::new(options(&folder)).unwrap();
    let message = begin(0);
    assert!(sink.interest().in_picture(&message.record));
    sink.send(&message).unwrap();
    let name = "palmtop-20261129T093000125Z-front-someone-id0-begin.jpg";
    assert_eq!(names(&folder), [name]);
    let snapshot = message.picture.unwrap();
    assert_eq!(fs::read(folder.join(name)).unwrap(), snapshot.annotated_jpeg().unwrap());

    let mut options = options(dir.path());
    options.picture = Picture::Plain;
    let mut sink = Snapshots::new(options).unwrap();
    let mut odd = answer("../front door", "who/what?", "x");
    odd.changed = false;
    sink.send(&Message { record: Record::Answer(odd), picture: Some(snapshot.clone()) }).unwrap();
    let name = "palmtop-20261129T093000125Z-___front_door-who_what_-p7.jpg";
    assert_eq!(names(dir.path()), ["a", name]);
    assert_eq!(fs::read(dir.path().join(name)).unwrap(), snapshot.jpeg().unwrap());
    // What has no picture leaves no file.
    sink.send(&crate::given::message(Record::Event(event("someone", "x", Phase::End)))).unwrap();
    sink.send(&crate::given::message(Record::Camera(camera("front", CameraStatus::Black)))).unwrap();
    assert_eq!(names(dir.path()).len(), 2);
}

#[test]
fn masks_are_written_beside() {
    let dir = tempfile::tempdir().unwrap();
    let mut objects = objects(&["cat", "dog", "bird"]);
    for (number, object) in objects.iter_mut().enumerate() {
        if number != 1 {
            let logits = [1.0; 4096];
            let mask =
                Mask::paste(&logits, object.detection.locations, 64, 48, BoxRounding::Nearest).unwrap();
            object.detection.mask = Some(mask);
        }
    }
    let record = Record::Event(event("cats", "id", Phase::End));
    let message = Message { record, picture: Some(picture(objects)) };
    let mut options = SnapshotOptions { masks: true, ..options(dir.path()) };
    Snapshots::new(options.clone()).unwrap().send(&message).unwrap();
    let stem = "palmtop-20261129T093000125Z-front-cats-id-end";
    let masks = ["-mask0.png", "-mask2.png"].map(|end| format!("{stem}{end}"));
    assert_eq!(names(dir.path()), [masks[0].clone(), masks[1].clone(), format!("{stem}.jpg")]);
    assert!(fs::read(dir.path().join(&masks[0])).unwrap().starts_with(b"\x89PNG"));
    // Only masks.
    options.folder = dir.path().join("masks");
    options.picture = Picture::None;
    Snapshots::new(options.clone()).unwrap().send(&message).unwrap();
    assert_eq!(names(&options.folder), masks);
    options.masks = false;
    assert!(Snapshots::new(options).is_err());
}

#[test]
fn the_oldest_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let limited = SnapshotOptions { max_files: 3, ..options(dir.path()) };
    let mut sink = Snapshots::new(limited.clone()).unwrap();
    let of = |n: u64| format!("palmtop-20261129T0930{n:02}125Z-front-someone-id{n}-begin.jpg");
    for n in 0..5 {
        sink.send(&begin(n)).unwrap();
    }
    assert_eq!(names(dir.path()), [of(2), of(3), of(4)]);
    // Those of an earlier run count; one that is gone is not missed.
    fs::remove_file(dir.path().join(of(2))).unwrap();
    let mut sink = Snapshots::new(limited).unwrap();
    fs::remove_file(dir.path().join(of(3))).unwrap();
    for n in 5..7 {
        sink.send(&begin(n)).unwrap();
    }
    assert_eq!(names(dir.path()), [of(4), of(5), of(6)]);
}

#[test]
fn bytes_and_age_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let message = begin(0);
    let bytes = message.picture.as_ref().unwrap().annotated_jpeg().unwrap().len();
    // Files of an earlier run: as large as all that is allowed.
    let old = |second: u32| format!("palmtop-20200101T0000{second:02}000Z-front-someone-x-end.jpg");
    for second in 0..4 {
        fs::write(dir.path().join(old(second)), vec![0; 250_000]).unwrap();
    }
    let limited = SnapshotOptions { max_megabytes: 1, ..options(dir.path()) };
    let mut sink = Snapshots::new(limited.clone()).unwrap();
    assert!(bytes < 250_000);
    sink.send(&message).unwrap();
    let new = "palmtop-20261129T093000125Z-front-someone-id0-begin.jpg".to_owned();
    assert_eq!(names(dir.path()), [old(1), old(2), old(3), new.clone()]);
    // What is older than a week goes with the next one, though there is room.
    let limited =
        SnapshotOptions { max_age: Some(Period(Duration::from_secs(7 * 86400))), ..options(dir.path()) };
    let mut sink = Snapshots::new(limited).unwrap();
    let mut now = begin(0);
    let wall = std::time::SystemTime::now();
    if let Record::Event(event) = &mut now.record {
        event.at.wall = wall;
    }
    sink.send(&now).unwrap();
    let left = names(dir.path());
    assert!(left.iter().all(|name| !name.starts_with("palmtop-2020")), "{left:?}");
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = [
        "holiday.jpg",
        "palmtop-20200101T000000000Z-front.jpg",
        "palmtop-20200101T000000000Z-front-someone-x.jpg.bak",
        "palmtop-2020-front-someone-x.jpg",
        "palmtop-20200101T000000000Z-front-someone-x.png.part.old",
        "xpalmtop-20200101T000000000Z-front-someone-x.jpg",
    ];
    for name in foreign {
        fs::write(dir.path().join(name), [0; 100]).unwrap();
    }
    // A folder of such a name is not ours either, nor is a link.
    fs::create_dir(dir.path().join("palmtop-20200101T000000000Z-front-someone-f.jpg")).unwrap();
    let link = dir.path().join("palmtop-20200101T000000000Z-front-someone-l.jpg");
    std::os::unix::fs::symlink(dir.path().join("holiday.jpg"), &link).unwrap();
    let limited = SnapshotOptions {
        max_files: 1,
        max_age: Some(Period(Duration::from_secs(1))),
        ..options(dir.path())
    };
    let mut sink = Snapshots::new(limited).unwrap();
    for n in 0..3 {
        sink.send(&begin(n)).unwrap();
    }
    let left = names(dir.path());
    assert_eq!(left.len(), foreign.len() + 2 + 1, "{left:?}");
    assert!(foreign.iter().all(|name| left.contains(&(*name).to_owned())), "{left:?}");
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Snapshots::new(options(&file)).is_err());
    assert!(Snapshots::new(options(Path::new(""))).is_err());
    for wrong in ["folder = \"x\"\nmax_age = 7", "folder = \"x\"\nsize = 1"] {
        assert!(toml::from_str::<SnapshotOptions>(wrong).is_err(), "{wrong}");
    }
    // Deleted while it runs.
    let folder = dir.path().join("gone");
    let mut sink = Snapshots::new(options(&folder)).unwrap();
    fs::remove_dir(&folder).unwrap();
    let text = error(&mut sink, &begin(0));
    assert!(text.contains("gone/palmtop-") && text.contains("No such file"), "{text}");
}

const CHILD: &str = "PALMTOP_TEST_FULL_DISK";

/// A disk that fills in the middle of a file, without a disk to fill: this test runs itself again as a process whose
/// files may have 512 bytes at most, so that writing fails as it does on a full disk.
#[test]
fn a_full_disk_leaves_no_half_file() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let mut sink = Snapshots::new(options(Path::new(&folder))).unwrap();
        let message = begin(0);
        assert!(message.picture.as_ref().unwrap().annotated_jpeg().unwrap().len() > 512);
        let text = error(&mut sink, &message);
        assert!(text.contains("palmtop-2026") && text.contains("too large"), "{text}");
        assert!(names(Path::new(&folder)).is_empty());
        // A later one finds its place.
        let mut masks = objects(&["cat"]);
        masks[0].detection.mask =
            Some(Mask::paste(&[1.0; 4096], [0, 0, 512, 512], 64, 48, BoxRounding::Nearest).unwrap());
        let only_masks =
            SnapshotOptions { picture: Picture::None, masks: true, ..options(Path::new(&folder)) };
        let small = Message { picture: Some(picture(masks)), ..begin(1) };
        Snapshots::new(only_masks).unwrap().send(&small).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // One block of 512 bytes; without the signal, which would end the process.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact snapshots::a_full_disk_leaves_no_half_file";
    let mut child = Command::new("sh");
    child.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(CHILD, dir.path());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(names(dir.path()), ["palmtop-20261129T093001125Z-front-someone-id1-begin-mask0.png"]);
}

#[test]
fn what_a_dead_run_left_half_written_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("palmtop-20200101T000000000Z-front-someone-x.jpg.part");
    let fresh = dir.path().join("palmtop-20200101T000000001Z-front-someone-x.jpg.part");
    for path in [&half, &fresh] {
        fs::write(path, "half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&half).unwrap().set_modified(long_ago).unwrap();
    Snapshots::new(options(dir.path())).unwrap();
    // The other may be of a run that is writing it.
    assert!(!half.exists() && fresh.exists());
}
