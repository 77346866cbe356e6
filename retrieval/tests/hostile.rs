//! Files that lie, with checksums that are right: refused with what is wrong, and never more than that.

mod common;

use common::{Aligned, Random, contents_of, kind, page};
use palmtop_retrieval::format::{HEADER_BYTES, RECORDS_START, SLOTS, make_checksums_right};
use palmtop_retrieval::search::{Query, SearchOptions, Searcher};
use palmtop_retrieval::{Defect, Index, IndexError, VectorFormat, Writer};

const DIMS: usize = 8;
const RECORD: usize = RECORDS_START as usize;

/// Three pages, of which one is replaced and one removed.
fn whole(format: VectorFormat) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut writer = Writer::create(&path, &kind(DIMS, format)).unwrap();
    for (name, rows) in [("first", 20), ("second", 1), ("first", 5), ("third", 16)] {
        writer.put(&page(name, &Random(rows).units(rows as usize, DIMS))).unwrap();
    }
    writer.remove("second").unwrap();
    writer.commit().unwrap();
    drop(writer);
    std::fs::read(path).unwrap()
}

fn refusal(file: &[u8]) -> String {
    let mut file = file.to_vec();
    make_checksums_right(&mut file);
    match Index::from_memory(Aligned::of(&file)) {
        Err(IndexError::Bytes(defect)) => defect.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => "nothing".into(),
    }
}

#[test]
fn every_lie_is_named() {
    let mut whole = whole(VectorFormat::F16);
    assert_eq!(refusal(&whole), "nothing");
    let slot = SLOTS[0] as usize;
    // Where the last commit is none, there is no other.
    whole[SLOTS[1] as usize..][..64].fill(0);
    let records = u64::from_le_bytes(whole[slot + 16..slot + 24].try_into().unwrap());
    assert_eq!(records, 5, "all in one commit");
    let lies: [(usize, &[u8], &str); 21] = [
        (12, &0u32.to_le_bytes(), "at byte 12: no such vectors"),
        (12, &4097u32.to_le_bytes(), "at byte 12: no such vectors"),
        (12, &9u32.to_le_bytes(), "length does not fit"),
        (16, &16u32.to_le_bytes(), "at byte 16: the format of vectors is unknown"),
        (20, &193u32.to_le_bytes(), "the model's name is too long"),
        (20, &u32::MAX.to_le_bytes(), "the model's name is too long"),
        (40, &[0xFF], "the model's name is not UTF-8"),
        (32, &[1], "bytes are not zero that must be"),
        (slot + 8, &u64::MAX.to_le_bytes(), "neither commit is whole"),
        (slot + 8, &(whole.len() as u64 + 64).to_le_bytes(), "it is cut off"),
        (slot + 8, &(whole.len() as u64 - 64).to_le_bytes(), "ends behind the end"),
        (slot + 8, &64u64.to_le_bytes(), "neither commit is whole"),
        (slot + 16, &4u64.to_le_bytes(), "not as many records as were committed"),
        (slot, &u64::MAX.to_le_bytes(), "neither commit is whole"),
        (RECORD, b"PEGA", "a record is of an unknown kind"),
        (RECORD + 4, &0u32.to_le_bytes(), "no record begins here"),
        (RECORD + 4, &4097u32.to_le_bytes(), "no record begins here"),
        (RECORD + 8, &0u64.to_le_bytes(), "length does not fit"),
        (RECORD + 8, &u64::MAX.to_le_bytes(), "length does not fit"),
        (RECORD + 24, &0u32.to_le_bytes(), "no such number of rows"),
        (RECORD + 24, &u32::MAX.to_le_bytes(), "no such number of rows"),
    ];
    for (at, bytes, says) in lies {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let said = refusal(&file);
        assert!(said.contains(says), "{at}: {said}");
    }
    let mut file = whole.clone();
    file[RECORD + 64] = 0xFF;
    assert!(refusal(&file).contains("a page's name is not UTF-8"));
    // A version that is to come is named, whatever else it has.
    let mut file = whole.clone();
    file[8] = 9;
    let error = contents_of(&file).unwrap_err();
    assert!(matches!(error, IndexError::Bytes(Defect::Version { found: 9 })), "{error}");
    let shifted = [&[0; 1][..], &whole].concat();
    let owner = Aligned::of(&shifted);
    struct From1(Aligned);
    impl AsRef<[u8]> for From1 {
        fn as_ref(&self) -> &[u8] {
            &self.0.as_ref()[1..]
        }
    }
    assert!(matches!(Index::from_memory(From1(owner)), Err(IndexError::Bytes(Defect::Alignment))));
}

/// Whatever is written over, and wherever it ends: an error, or an index that can be searched.
#[test]
fn any_bytes_can_be_opened_and_searched() {
    let mut searcher = Searcher::new(Some(1), None).unwrap();
    let query = [Query::new(DIMS, Random(1).units(3, DIMS)).unwrap()];
    let mut random = Random(77);
    let wholes = VectorFormat::ALL.map(whole);
    let mut opened = 0;
    for round in 0..6000 {
        let mut file = wholes[round % 2].clone();
        for _ in 0..1 + random.below(4) {
            let at = match random.below(4) {
                0 => random.below(HEADER_BYTES),
                1 => SLOTS[random.below(2)] as usize + random.below(64),
                _ => RECORD + random.below(file.len() - RECORD),
            };
            file[at] = match random.below(3) {
                0 => 0xFF,
                1 => random.bits() as u8,
                _ => file[at] ^ 1 << random.below(8),
            };
        }
        if random.below(10) == 0 {
            file.truncate(random.below(file.len()));
        }
        make_checksums_right(&mut file);
        let Ok(index) = Index::from_memory(Aligned::of(&file)) else { continue };
        opened += 1;
        if index.kind().dims == DIMS {
            let mut options = SearchOptions::default();
            options.verify = random.below(2) == 0;
            let found = searcher.search(&index, &query, &options).unwrap();
            assert_eq!(found.hits[0].len() + found.damaged.len(), index.pages().len());
        }
    }
    assert!(opened > 1000, "{opened}");
}
