//! Whenever a writer dies, the index has what was committed before; and damage is found.

mod common;

use std::path::Path;

use common::{Aligned, Random, contents, contents_of, kind, page, put_all};
use palmtop_retrieval::format::{ALIGN, HEADER_BYTES, RECORDS_START, SLOT_BYTES, SLOTS};
use palmtop_retrieval::{Defect, Index, IndexError, VectorFormat, Writer};

const DIMS: usize = 4;

type Contents = Vec<(String, Vec<f32>)>;

/// The file and what it has after each of some commits: pages are added, replaced and removed.
fn history(path: &Path) -> Vec<(Vec<u8>, Contents)> {
    let mut random = Random(3);
    let mut writer = Writer::create(path, &kind(DIMS, VectorFormat::F16)).unwrap();
    let mut states = Vec::new();
    for step in 0..7 {
        let rows = random.units(1 + step * 7, DIMS);
        match step {
            0 => {}
            1 | 2 | 4 => writer.put(&page(&format!("page {step}"), &rows)).unwrap(),
            3 => writer.put(&page("page 1", &rows)).unwrap(),
            5 => assert!(writer.remove("page 2").unwrap()),
            _ => {
                writer.put(&page("page 2", &rows)).unwrap();
                writer.put(&page("page 6", &rows)).unwrap();
            }
        }
        writer.commit().unwrap();
        states.push((std::fs::read(path).unwrap(), contents(&Index::open(path).unwrap())));
    }
    let names: Vec<&str> = states.last().unwrap().1.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["page 1", "page 4", "page 2", "page 6"]);
    states
}

/// What the disk may hold when a writer dies between two commits: first the record comes, byte by byte or not at all
/// where the file is already longer, and then the slot.
#[test]
fn a_writer_that_dies_at_any_byte_leaves_the_last_commit() {
    let folder = tempfile::tempdir().unwrap();
    let states = history(&folder.path().join("index"));
    for pair in states.windows(2) {
        let [(before, had), (after, has)] = pair else { unreachable!() };
        for end in before.len()..=after.len() {
            let mut file = [&before[..], &after[before.len()..end]].concat();
            assert_eq!(contents_of(&file).unwrap(), *had, "{end} bytes");
            // Its length is known, and its bytes are not yet there, or are those of another file.
            for fill in [0, 0xA5] {
                file.resize(after.len(), fill);
                assert_eq!(contents_of(&file).unwrap(), *had, "{end} bytes");
                file.truncate(end);
            }
        }
        let slot = SLOTS.into_iter().find(|&at| before[at as usize..][..8] != after[at as usize..][..8]);
        let Some(slot) = slot.map(|at| at as usize) else { panic!("a commit writes a slot") };
        for written in 0..=SLOT_BYTES {
            let mut file = after.clone();
            file[slot..slot + SLOT_BYTES].copy_from_slice(&before[slot..slot + SLOT_BYTES]);
            file[slot..slot + written].copy_from_slice(&after[slot..slot + written]);
            // The records are all there, whatever of the slot is.
            let found = contents_of(&file).unwrap();
            assert!(found == *has || (found == *had && written == 0), "{written} bytes of a slot");
        }
        assert_eq!(contents_of(after).unwrap(), *has);
    }
}

#[test]
fn what_a_dead_writer_has_left_is_removed_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let states = history(&path);
    let (before, had) = &states[2];
    let after = &states[3].0;
    for end in (before.len()..after.len()).step_by(37).chain([after.len()]) {
        std::fs::write(&path, [&before[..], &after[before.len()..end]].concat()).unwrap();
        let mut writer = Writer::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before.len() as u64);
        writer.put(&page("new", &[1.0; DIMS])).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let index = Index::open(&path).unwrap();
        assert!(index.verify(|_| {}).is_empty());
        let found = contents(&index);
        assert_eq!(found[..had.len()], had[..]);
        assert_eq!(found[had.len()..], [("new".to_owned(), vec![1.0; DIMS])]);
    }
}

#[test]
fn what_was_not_committed_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut writer = Writer::create(&path, &kind(DIMS, VectorFormat::Int8)).unwrap();
    put_all(&mut writer, &[vec![1.0; DIMS]]);
    writer.put(&page("more", &[0.5; DIMS])).unwrap();
    assert!(writer.find("more").is_some() && writer.remove("0").unwrap() && writer.find("0").is_none());
    drop(writer);
    let writer = Writer::open(&path).unwrap();
    assert!(writer.find("more").is_none() && writer.find("0").is_some());
    assert_eq!(Index::open(&path).unwrap().pages().len(), 1);
}

#[test]
fn a_cut_file_is_told_and_all_that_is_whole_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut writer = Writer::create(&path, &kind(DIMS, VectorFormat::F16)).unwrap();
    let mut random = Random(5);
    let mut ends = Vec::new();
    for n in 0..4 {
        writer.put(&page(&n.to_string(), &random.units(3 + 20 * n, DIMS))).unwrap();
        writer.commit().unwrap();
        ends.push(std::fs::metadata(&path).unwrap().len() as usize);
    }
    drop(writer);
    let whole = std::fs::read(&path).unwrap();
    let all = contents_of(&whole).unwrap();
    for cut in (0..whole.len()).filter(|cut| cut % 61 == 0 || *cut >= RECORDS_START as usize) {
        let error = contents_of(&whole[..cut]).unwrap_err();
        let IndexError::Bytes(defect) = error else { panic!("{error}") };
        match cut {
            0..8 => assert_eq!(defect, Defect::Magic),
            _ if cut >= RECORDS_START as usize => {
                assert_eq!(defect, Defect::Cut { committed: whole.len() as u64, found: cut as u64 });
            }
            _ => {}
        }
        if cut % 64 > 1 && cut % 97 != 0 {
            continue;
        }
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(Writer::open(&path), Err(IndexError::File { .. })));
        if cut < HEADER_BYTES {
            assert!(Writer::salvage(&path).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), whole[..cut], "what cannot be read stays");
            continue;
        }
        let (mut writer, done) = Writer::salvage(&path).unwrap();
        let count = ends.iter().filter(|&&end| end <= cut).count();
        assert!(done.lost.is_empty() && done.bytes_before == cut as u64);
        writer.put(&page("more", &[0.25; DIMS])).unwrap();
        writer.commit().unwrap();
        let found = contents(&Index::open(&path).unwrap());
        assert_eq!(found[..count], all[..count], "cut at {cut}");
        assert_eq!(found.len(), count + 1);
    }
}

/// A wrong bit anywhere is an error, a damaged page, or in a byte that does not count.
#[test]
fn a_damaged_byte_is_found_or_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let states = history(&folder.path().join("index"));
    let (whole, had) = states.last().unwrap();
    let (mut refused, mut damaged, mut harmless) = (0, 0, 0);
    for at in (0..whole.len()).filter(|at| *at < HEADER_BYTES || *at >= 4000) {
        let mut file = whole.clone();
        file[at] ^= 1 << (at % 8);
        match Index::from_memory(Aligned::of(&file)) {
            Err(IndexError::Bytes(_)) => refused += 1,
            Err(other) => panic!("{other}"),
            Ok(index) => {
                let found = index.verify(|_| {});
                if found.is_empty() {
                    assert_eq!(contents(&index), *had, "byte {at}");
                    harmless += 1;
                } else {
                    assert_eq!(found.len(), 1);
                    damaged += 1;
                }
            }
        }
    }
    assert!(refused > 300 && damaged > 300 && harmless > 300, "{refused} {damaged} {harmless}");
}

#[test]
fn a_torn_slot_is_mended_by_the_next_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let states = history(&path);
    let (whole, had) = states.last().unwrap();
    for slot in SLOTS {
        let mut torn = whole.clone();
        torn[slot as usize + 20] ^= 1;
        // Something that was not finished is behind it.
        torn.extend_from_slice(&whole[RECORDS_START as usize..][..100]);
        std::fs::write(&path, &torn).unwrap();
        drop(Writer::open(&path).unwrap());
        let mended = std::fs::read(&path).unwrap();
        assert_eq!((mended.len(), contents_of(&mended).unwrap()), (whole.len(), had.clone()));
        // If it was the last one, the other slot may now be lost.
        let mut other = mended.clone();
        let last = slot as usize;
        if mended[last..last + SLOT_BYTES] != torn[last..last + SLOT_BYTES] {
            let older = SLOTS.into_iter().find(|&at| at != slot).unwrap() as usize;
            other[older] ^= 1;
            assert_eq!(contents_of(&other).unwrap(), *had);
        }
    }
}

#[test]
fn damaged_pages_are_lost_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let pages: Vec<Vec<f32>> = (0..5).map(|n| Random(n).units(20, DIMS)).collect();
    put_all(&mut Writer::create(&path, &kind(DIMS, VectorFormat::F16)).unwrap(), &pages);
    let whole = std::fs::read(&path).unwrap();
    let record = (whole.len() - RECORDS_START as usize) / 5;
    assert!(record.is_multiple_of(ALIGN as usize));
    let all = contents_of(&whole).unwrap();
    let start = |page: usize| RECORDS_START as usize + page * record;

    // Vectors: the page is known and left out.
    let mut wrong = whole.clone();
    wrong[start(3) - 1 - 64] ^= 0x80;
    std::fs::write(&path, &wrong).unwrap();
    let mut writer = Writer::open(&path).unwrap();
    let done = writer.compact().unwrap();
    assert_eq!((&done.lost[..], done.unreadable), (&["2".to_owned()][..], 0));
    drop(writer);
    let kept = |without: &[usize]| -> Contents {
        all.iter().enumerate().filter(|(n, _)| !without.contains(n)).map(|(_, page)| page.clone()).collect()
    };
    assert_eq!(contents(&Index::open(&path).unwrap()), kept(&[2]));

    // Heads: the index does not open, and the pages behind are found again.
    wrong[start(1) + 9] ^= 1;
    std::fs::write(&path, &wrong).unwrap();
    let error = Index::open(&path).err().unwrap();
    let IndexError::File { source: Defect::Damaged { offset, .. }, .. } = error else { panic!("{error}") };
    assert_eq!(offset, start(1) as u64);
    let (writer, done) = Writer::salvage(&path).unwrap();
    assert_eq!((&done.lost[..], done.unreadable), (&["2".to_owned()][..], 1));
    drop(writer);
    assert_eq!(contents(&Index::open(&path).unwrap()), kept(&[1, 2]));

    // Both slots: what is whole is found without them.
    let mut wrong = whole.clone();
    for at in SLOTS {
        wrong[at as usize] ^= 0xFF;
    }
    std::fs::write(&path, &wrong).unwrap();
    assert!(Index::open(&path).is_err());
    Writer::salvage(&path).unwrap();
    assert_eq!(contents(&Index::open(&path).unwrap()), all);
}
