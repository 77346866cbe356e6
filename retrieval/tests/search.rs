//! MaxSim is what its definition says, with the same bits whatever computes it.

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use common::{Random, index_of, kind, put_all};
use palmtop_kernels::layout::chunk_of;
use palmtop_kernels::{Isa, Kernels};
use palmtop_retrieval::error::QueryError;
use palmtop_retrieval::search::{Found, Hit, QUERY_ROWS_MAX, Query, SearchOptions, Searcher};
use palmtop_retrieval::{Index, IndexError, VectorFormat, Writer};

fn all(index: &Index, queries: &[Query], searcher: &mut Searcher) -> Found {
    let mut options = SearchOptions::default();
    options.top = usize::MAX;
    searcher.search(index, queries, &options).unwrap()
}

/// MaxSim in f64 over the numbers that the index keeps.
fn maxsim(query: &[f64], page: &[f32], dims: usize) -> f64 {
    let dot = |q: &[f64], p: &[f32]| q.iter().zip(p).map(|(q, p)| q * f64::from(*p)).sum::<f64>();
    let best = |q: &[f64]| page.chunks(dims).map(|p| dot(q, p)).fold(f64::NEG_INFINITY, f64::max);
    query.chunks(dims).map(best).sum()
}

/// What rows of a query count as: for int8 each chunk is rounded to 255 steps that reach to its largest number.
fn as_searched(query: &[f32], dims: usize, format: VectorFormat) -> Vec<f64> {
    if format == VectorFormat::F16 {
        return query.iter().map(|&x| f64::from(x)).collect();
    }
    let round = |chunk: &[f32]| {
        let max = chunk.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (scale, inverse) = (max / 127.0, 127.0 / max);
        chunk
            .iter()
            .map(|x| f64::from(scale) * f64::from((x * inverse).round_ties_even()))
            .collect::<Vec<_>>()
    };
    query.chunks(dims).flat_map(|row| row.chunks(chunk_of(dims)).flat_map(round)).collect()
}

/// Rows of pages on both sides of stripes and panels, and widths on both sides of chunks.
const SHAPES: [(usize, &[usize]); 5] = [
    (128, &[1, 15, 16, 17, 63, 64, 65, 129, 1030]),
    (1, &[1, 40]),
    (37, &[5, 33, 100]),
    (96, &[64, 31]),
    (520, &[3, 70]),
];
const QUERY_ROWS: [usize; 4] = [1, 5, 6, 23];

#[test]
fn scores_are_maxsim_and_have_the_same_bits_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(2);
    for format in VectorFormat::ALL {
        for (dims, rows) in SHAPES {
            let path = folder.path().join(format!("{format}-{dims}"));
            let pages: Vec<Vec<f32>> = rows.iter().map(|&rows| random.units(rows, dims)).collect();
            let index = index_of(&path, &kind(dims, format), &pages);
            let queries: Vec<Query> =
                QUERY_ROWS.map(|rows| Query::new(dims, random.units(rows, dims)).unwrap()).into();
            let want = all(&index, &queries, &mut Searcher::new(Some(1), Some(Isa::Scalar)).unwrap());
            assert!(want.damaged.is_empty());
            for hits in &want.hits {
                assert!(hits.len() == pages.len() && hits.is_sorted_by(|a, b| a.score >= b.score));
            }
            for isa in Isa::ALL {
                if Kernels::try_new(isa).is_none() {
                    skip::no_instruction_set(isa);
                    continue;
                }
                for threads in [1, 2, 5] {
                    let mut searcher = Searcher::new(Some(threads), Some(isa)).unwrap();
                    let got = all(&index, &queries, &mut searcher);
                    assert_eq!(got, want, "{isa}, {threads} threads, {format}, {dims}");
                    // One alone, without checksums, with a searcher that has searched before.
                    let mut options = SearchOptions::default();
                    (options.top, options.verify) = (usize::MAX, false);
                    for (n, query) in queries.iter().enumerate() {
                        let alone = searcher.search(&index, std::slice::from_ref(query), &options).unwrap();
                        assert_eq!(alone.hits[0], want.hits[n], "{isa}, query {n} alone");
                    }
                }
            }
        }
    }
}

#[test]
fn scores_are_those_of_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(4);
    for format in VectorFormat::ALL {
        for (dims, rows) in SHAPES {
            let path = folder.path().join(format!("{format}-{dims}"));
            let pages: Vec<Vec<f32>> = rows.iter().map(|&rows| random.units(rows, dims)).collect();
            let index = index_of(&path, &kind(dims, format), &pages);
            for rows in QUERY_ROWS {
                let values = random.units(rows, dims);
                let exact = as_searched(&values, dims, format);
                let query = Query::new(dims, values).unwrap();
                let found = all(&index, &[query], &mut Searcher::new(Some(2), None).unwrap());
                for hit in &found.hits[0] {
                    let want = maxsim(&exact, &index.vectors(hit.page), dims);
                    let error = (f64::from(hit.score) - want).abs();
                    assert!(error < 2e-6 * rows as f64, "{format} {dims}: {} for {want}", hit.score);
                }
            }
        }
    }
}

#[test]
fn rows_that_fill_a_stripe_up_are_none() {
    let folder = tempfile::tempdir().unwrap();
    for format in VectorFormat::ALL {
        let path = folder.path().join(format.name());
        // Every product is negative: a row of zeros would be better than any.
        let index = index_of(&path, &kind(4, format), &[vec![-1.0; 4], vec![-1.0; 17 * 4]]);
        let query = Query::new(4, vec![1.0; 8]).unwrap();
        let found = all(&index, &[query], &mut Searcher::new(Some(1), None).unwrap());
        for hit in &found.hits[0] {
            assert!((hit.score + 8.0).abs() < 0.1, "{format}: {}", hit.score);
        }
    }
}

#[test]
fn the_best_come_first_and_of_equal_ones_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let kind = kind(2, VectorFormat::F16);
    let mut writer = Writer::create(&path, &kind).unwrap();
    // Scores by the first number: 0.5, 1, 0.5, 0.25, 1, 0.5.
    let pages: Vec<Vec<f32>> = [0.5, 1.0, 0.5, 0.25, 1.0, 0.5].map(|x: f32| vec![x, 0.0]).into();
    put_all(&mut writer, &pages);
    let index = Index::open(&path).unwrap();
    let query = Query::new(2, vec![1.0, 0.0]).unwrap();
    let mut searcher = Searcher::new(Some(3), None).unwrap();
    let order = [1, 4, 0, 2, 5, 3];
    for top in [0, 1, 2, 3, 4, 5, 6, 7, usize::MAX] {
        let mut options = SearchOptions::default();
        options.top = top;
        let found = searcher.search(&index, std::slice::from_ref(&query), &options).unwrap();
        let pages: Vec<usize> = found.hits[0].iter().map(|hit| hit.page).collect();
        assert_eq!(pages, order[..top.min(6)], "top {top}");
    }
    // One that is put anew is the last.
    writer.put(&common::page("1", &[1.0, 0.0])).unwrap();
    writer.commit().unwrap();
    let found = all(&Index::open(&path).unwrap(), &[query], &mut searcher);
    assert_eq!(found.hits[0][..2], [Hit { page: 3, score: 1.0 }, Hit { page: 5, score: 1.0 }]);
}

#[test]
fn what_is_no_query_is_refused() {
    for (dims, values) in
        [(4, vec![]), (4, vec![0.0; 6]), (0, vec![0.0; 4]), (1, vec![0.0; QUERY_ROWS_MAX + 1])]
    {
        assert!(matches!(Query::new(dims, values), Err(QueryError::Rows { .. })));
    }
    assert_eq!(Query::new(1, vec![f32::NAN]), Err(QueryError::NotFinite));
    let folder = tempfile::tempdir().unwrap();
    let index = index_of(&folder.path().join("index"), &kind(4, VectorFormat::Int8), &[vec![1.0; 4]]);
    let mut searcher = Searcher::new(Some(1), None).unwrap();
    let mut search = |queries: &[Query]| searcher.search(&index, queries, &SearchOptions::default());
    let narrow = Query::new(3, vec![1.0; 3]).unwrap();
    assert!(matches!(search(&[narrow]), Err(IndexError::Query(QueryError::Dims { query: 3, index: 4 }))));
    let half = Query::new(4, vec![1.0; 4 * (QUERY_ROWS_MAX / 2 + 1)]).unwrap();
    assert!(matches!(search(&[half.clone(), half]), Err(IndexError::Query(QueryError::Rows { .. }))));
    assert_eq!(search(&[]).unwrap(), Found::default());
}

#[test]
fn a_search_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let index = index_of(&folder.path().join("index"), &kind(4, VectorFormat::Int8), &[vec![1.0; 4]]);
    let query = [Query::new(4, vec![1.0; 4]).unwrap()];
    let options = SearchOptions::default();
    let mut searcher = Searcher::new(Some(2), None).unwrap();
    options.cancel.cancel();
    assert!(matches!(searcher.search(&index, &query, &options), Err(IndexError::Cancelled)));
    options.cancel.reset();
    assert_eq!(searcher.search(&index, &query, &options).unwrap().hits[0].len(), 1);
}

#[test]
fn damaged_pages_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let pages: Vec<Vec<f32>> = (0..4).map(|n| Random(n).units(20, 16)).collect();
    drop(index_of(&path, &kind(16, VectorFormat::F16), &pages));
    let mut file = std::fs::read(&path).unwrap();
    let record = (file.len() - 12288) / 4;
    // An exponent of ones is no number: that is seen without a checksum, too.
    let at = 12288 + 2 * record + 128;
    file[at..at + 2].copy_from_slice(&0x7C00u16.to_le_bytes());
    std::fs::write(&path, file).unwrap();
    let index = Index::open(&path).unwrap();
    let query = [Query::new(16, vec![1.0; 16]).unwrap()];
    let mut searcher = Searcher::new(Some(2), None).unwrap();
    for verify in [true, false] {
        let mut options = SearchOptions::default();
        options.verify = verify;
        let found = searcher.search(&index, &query, &options).unwrap();
        assert_eq!((found.damaged, found.hits[0].len()), (vec![2], 3));
    }
}
