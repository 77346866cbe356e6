//! Writers that are killed, and disks that are full: what a writer has told to be committed is there.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{Random, kind, page};
use palmtop_retrieval::{Index, IndexError, VectorFormat, Writer};

const DIMS: usize = 64;
const PATH: &str = "PALMTOP_TEST_INDEX";

/// Not a test of its own: the process that the others start. It puts page after page and tells each that is committed;
/// if one cannot be written, it tells that too, tries once more, and ends.
#[test]
#[ignore = "is run by another test"]
fn a_writer_that_goes_on() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let mut writer = Writer::open(Path::new(&path)).unwrap();
    let mut random = Random(9);
    println!();
    for n in 0.. {
        // Now and then what is there is replaced, and all is compacted.
        let name = format!("page {}", n % 700);
        let rows = random.units(1 + random.0 as usize % 90, DIMS);
        let put = |writer: &mut Writer| {
            writer.put(&page(&name, &rows))?;
            writer.commit()
        };
        if let Err(error) = put(&mut writer) {
            println!("failed {error:?}");
            println!("again {:?}", put(&mut writer).is_err());
            return;
        }
        println!("committed {name}");
        if n % 50 == 49 && std::env::var_os("PALMTOP_TEST_COMPACT").is_some() {
            writer.compact().unwrap();
        }
    }
}

fn start(command: &mut Command, path: &Path) -> (Child, BufReader<ChildStdout>) {
    command.env(PATH, path).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

const ARGUMENTS: [&str; 4] = ["a_writer_that_goes_on", "--exact", "--ignored", "--nocapture"];

fn committed(line: &str) -> Option<String> {
    line.trim_end().strip_prefix("committed ").map(str::to_owned)
}

#[test]
fn a_killed_writer_leaves_all_that_it_has_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    drop(Writer::create(&path, &kind(DIMS, VectorFormat::F16)).unwrap());
    let mut names = std::collections::BTreeSet::new();
    for round in 0..12 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(ARGUMENTS);
        if round % 3 == 2 {
            command.env("PALMTOP_TEST_COMPACT", "1");
        }
        let (mut child, mut stdout) = start(&mut command, &path);
        let mut told = 0;
        let mut line = String::new();
        while told < 20 + round * 11 {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the writer ended early");
            let Some(name) = committed(&line) else { continue };
            names.insert(name);
            told += 1;
            // It is being written meanwhile, and opens with what was told.
            if told % 7 == 0 {
                let index = Index::open(&path).unwrap();
                assert!(index.pages().len() >= names.len());
                assert!(matches!(Writer::open(&path), Err(IndexError::Busy { .. })));
            }
        }
        // As kill -9 does it: in the middle of whatever comes next.
        child.kill().unwrap();
        child.wait().unwrap();
        while stdout.read_line(&mut line).unwrap() > 0 {
            names.extend(line.lines().filter_map(committed));
            line.clear();
        }
        let index = Index::open(&path).unwrap();
        assert!(index.verify(|_| {}).is_empty());
        let found: std::collections::BTreeSet<String> =
            index.pages().iter().map(|page| page.name.to_string()).collect();
        // The last one may have been committed and not told.
        assert!(found.is_superset(&names) && found.len() <= names.len() + 1, "round {round}");
        names = found;
    }
}

/// A limit on the length of files is the same to a writer as a full disk: writing stops in the middle of a record.
#[test]
fn a_full_disk_ends_writing_and_leaves_all_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for blocks in [100, 333, 334, 335] {
        let _ = std::fs::remove_file(&path);
        drop(Writer::create(&path, &kind(DIMS, VectorFormat::Int8)).unwrap());
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("sh");
        // Without the trap the system would end the process instead of refusing.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program).args(ARGUMENTS);
        let (mut child, stdout) = start(&mut command, &path);
        let lines: Vec<String> = stdout.lines().map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success());
        let names: Vec<String> = lines.iter().filter_map(|line| committed(line)).collect();
        assert!(lines.iter().any(|line| line.starts_with("failed Io")), "{lines:?}");
        assert!(lines.iter().any(|line| line == "again true"), "{lines:?}");
        let index = Index::open(&path).unwrap();
        let found: Vec<String> = index.pages().iter().map(|page| page.name.to_string()).collect();
        assert!(names.len() > 3 && found == names, "{found:?} for {names:?}");
        assert!(index.verify(|_| {}).is_empty());
        // Nothing half done takes room.
        assert_eq!(index.unused_bytes(), 0);
        let mut writer = Writer::open(&path).unwrap();
        writer.put(&page("now there is room", &[0.1; DIMS])).unwrap();
        writer.commit().unwrap();
    }
}
