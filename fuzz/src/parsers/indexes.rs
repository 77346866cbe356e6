//! Indexes of pages.

use std::cell::RefCell;

use palmtop_retrieval::search::{Query, SearchOptions, Searcher};
use palmtop_retrieval::{Index, NewPage, Writer};

use super::models::Aligned;
use super::{in_folder, write};

/// A whole index. What a liar gets right anyway is made right: magic, version and checksums. It is searched, written to
/// and compacted, and what is whole of it is kept.
pub fn index(bytes: &[u8]) {
    let mut file = Aligned::of(bytes);
    palmtop_retrieval::format::make_checksums_right(file.bytes_mut());
    let opened = Index::from_memory(file.clone());
    let mut pages = None;
    if let Ok(index) = opened {
        let damaged = index.verify(|_| {});
        search(&index, damaged.len());
        let values: usize = (0..index.pages().len()).map(|page| index.vectors(page).len()).sum();
        assert_eq!(values as u64, index.rows() * index.kind().dims as u64);
        pages = Some((index.pages().len(), damaged.len(), index.kind().dims));
    }
    in_folder(|folder| {
        let path = write(folder, "pages.index", file.as_ref());
        if let Some((count, damaged, dims)) = pages {
            let mut writer = Writer::open(&path).expect("an index that was read");
            assert_eq!(writer.pages().len(), count);
            let done = writer.compact().expect("room for it");
            assert_eq!((done.lost.len(), writer.pages().len()), (damaged, count - damaged));
            let (name, rows) = ("a page that is new", vec![0.5; dims]);
            writer.put(&NewPage { name, size: (1, 1), content: [0; 16], rows: &rows }).expect("a page");
            writer.commit().expect("room for it");
            let count = writer.pages().len();
            drop(writer);
            let index = Index::open(&path).expect("an index that was written");
            assert!(index.pages().iter().any(|page| &*page.name == name));
            assert!(index.pages().len() == count && index.verify(|_| {}).is_empty());
            write(folder, "pages.index", file.as_ref());
        }
        if let Ok((writer, _)) = Writer::salvage(&path) {
            let count = writer.pages().len();
            drop(writer);
            let index = Index::open(&path).expect("an index that was written");
            assert!(index.pages().len() == count && index.verify(|_| {}).is_empty());
        }
    });
}

/// Every page is found, or is one whose bytes or numbers are wrong.
fn search(index: &Index, damaged: usize) {
    thread_local! {
        static SEARCHER: RefCell<Option<Searcher>> = const { RefCell::new(None) };
    }
    let dims = index.kind().dims;
    let query = Query::new(dims, (0..2 * dims).map(|i| (i % 7) as f32 - 3.0).collect()).expect("a query");
    SEARCHER.with_borrow_mut(|searcher| {
        let searcher = searcher.get_or_insert_with(|| Searcher::new(Some(1), None).expect("a thread"));
        let mut options = SearchOptions::default();
        options.top = usize::MAX;
        let found = searcher.search(index, &[query], &options).expect("a search");
        assert_eq!(found.hits[0].len() + found.damaged.len(), index.pages().len());
        assert!(found.damaged.len() >= damaged && found.hits[0].iter().all(|hit| hit.score.is_finite()));
    });
}
