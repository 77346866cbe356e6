//! Pages are added, replaced, removed; files are compacted; what cannot be kept is refused.

mod common;

use common::{Random, contents, index_of, kind, page, put_all};
use palmtop_retrieval::error::PageError;
use palmtop_retrieval::format::{DIMS_MAX, NAME_BYTES_MAX, RECORDS_START};
use palmtop_retrieval::{Index, IndexError, VectorFormat, Writer};

const DIMS: usize = 8;

#[test]
fn an_index_has_what_was_put_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for format in VectorFormat::ALL {
        let _ = std::fs::remove_file(&path);
        let kind = kind(DIMS, format);
        let mut writer = Writer::create(&path, &kind).unwrap();
        let mut new = page("a page\u{1b}[2J", &[0.5; 2 * DIMS]);
        (new.size, new.content) = ((7, 9), [3; 16]);
        writer.put(&new).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let index = Index::open(&path).unwrap();
        assert_eq!(*index.kind(), kind);
        let page = index.page(0);
        assert_eq!(
            (&*page.name, page.size, page.content, page.rows),
            ("a page\u{1b}[2J", (7, 9), [3; 16], 2)
        );
        assert_eq!(index.rows(), 2);
        for value in index.vectors(0) {
            assert!((value - 0.5).abs() < 0.002, "{format}: {value}");
        }
        assert_eq!((index.pages().len(), index.unused_bytes()), (1, 0));
    }
}

#[test]
fn pages_are_replaced_and_removed_and_their_room_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut random = Random(1);
    let pages: Vec<Vec<f32>> = (0..10).map(|_| random.units(40, DIMS)).collect();
    let before = index_of(&path, &kind(DIMS, VectorFormat::F16), &pages);
    let had = contents(&before);
    let mut writer = Writer::open(&path).unwrap();
    writer.put(&page("3", &[0.5; DIMS])).unwrap();
    assert!(writer.remove("7").unwrap());
    assert!(!writer.remove("7").unwrap() && !writer.remove("77").unwrap());
    writer.commit().unwrap();
    let names = |index: &Index| index.pages().iter().map(|p| p.name.to_string()).collect::<Vec<_>>().concat();
    let after = Index::open(&path).unwrap();
    assert_eq!(names(&after), "012456893");
    assert!(after.unused_bytes() > 0);
    let has = contents(&after);

    // What was put and not committed is lost by compacting, which is said.
    writer.put(&page("lost", &[0.5; DIMS])).unwrap();
    let done = writer.compact().unwrap();
    assert!(done.lost.is_empty() && done.unreadable == 0);
    assert!(done.bytes_after < done.bytes_before);
    assert!(writer.find("lost").is_none());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), done.bytes_after);
    assert_eq!(writer.used_and_unused_bytes(), (done.bytes_after - RECORDS_START, 0));
    let compacted = Index::open(&path).unwrap();
    assert_eq!((contents(&compacted), compacted.unused_bytes()), (has.clone(), 0));
    assert!(compacted.verify(|_| {}).is_empty());
    // Readers keep what they have opened.
    assert_eq!((contents(&before), contents(&after)), (had, has.clone()));

    // The writer goes on with the new file, and is still the only one.
    assert!(matches!(Writer::open(&path), Err(IndexError::Busy { .. })));
    writer.put(&page("more", &[0.25; DIMS])).unwrap();
    writer.commit().unwrap();
    let more = contents(&Index::open(&path).unwrap());
    assert_eq!((more.len(), &more[..has.len()]), (has.len() + 1, &has[..]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn one_writes_and_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut writer = Writer::create(&path, &kind(DIMS, VectorFormat::Int8)).unwrap();
    let empty = Index::open(&path).unwrap();
    for n in 0..50 {
        assert!(matches!(Writer::open(&path), Err(IndexError::Busy { .. })));
        assert!(matches!(Writer::salvage(&path), Err(IndexError::Busy { .. })));
        assert_eq!(Index::open(&path).unwrap().pages().len(), n);
        writer.put(&page(&n.to_string(), &[0.1; DIMS])).unwrap();
        assert_eq!(Index::open(&path).unwrap().pages().len(), n);
        writer.commit().unwrap();
    }
    assert!(empty.pages().is_empty());
    drop(writer);
    assert_eq!(Writer::open(&path).unwrap().pages().len(), 50);
}

#[test]
fn what_cannot_be_kept_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for dims in [0, DIMS_MAX + 1] {
        let refused = Writer::create(&path, &kind(dims, VectorFormat::F16));
        assert!(matches!(refused, Err(IndexError::Dims { .. })));
        assert!(!path.exists());
    }
    let kind = kind(DIMS, VectorFormat::F16);
    let mut writer = Writer::create(&path, &kind).unwrap();
    put_all(&mut writer, &[vec![1.0; DIMS]]);
    let before = std::fs::read(&path).unwrap();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for name in ["", &long] {
        let error = writer.put(&page(name, &[0.0; DIMS])).unwrap_err();
        assert!(matches!(error, IndexError::Page(PageError::Name { .. })), "{error}");
    }
    for rows in [&[][..], &[0.0; DIMS + 1], &[f32::NAN; DIMS], &[f32::INFINITY; DIMS]] {
        assert!(matches!(writer.put(&page("a", rows)), Err(IndexError::Page(_))));
    }
    writer.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    writer.put(&page(&long[1..], &[0.0; DIMS])).unwrap();
    assert!(matches!(Writer::create(&path, &kind), Err(IndexError::Exists { .. })));
    let missing = folder.path().join("none/index");
    assert!(matches!(Writer::create(&missing, &kind), Err(IndexError::Io { .. })));
    for not_one in [folder.path(), &missing] {
        assert!(matches!(Index::open(not_one), Err(IndexError::Io { .. })));
        assert!(matches!(Writer::open(not_one), Err(IndexError::Io { .. })));
        assert!(!Index::is_one(not_one));
    }
    assert!(Index::is_one(&path));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}
