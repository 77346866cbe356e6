//! What rounding vectors to f16 and int8 does to scores and ranks, on vectors like those of a model: of length 1, in
//! clusters, with questions that are near to a few vectors of one page. `docs/retrieval.md` states what is found here.

mod common;

use common::{Random, index_of, kind, normalized};
use palmtop_retrieval::VectorFormat;
use palmtop_retrieval::search::{Query, SearchOptions, Searcher};

const DIMS: usize = 128;
const PAGES: usize = 200;
const PAGE_ROWS: usize = 128;
const QUERIES: usize = 100;
const QUERY_ROWS: usize = 20;
const CLUSTERS: usize = 60;

/// `a + noise · unit`, of length 1.
fn near(random: &mut Random, a: &[f32], noise: f32) -> Vec<f32> {
    let other = random.unit(DIMS);
    normalized(a.iter().zip(other).map(|(a, b)| a + noise * b).collect())
}

fn maxsim(query: &[f32], page: &[f32]) -> f64 {
    let dot = |q: &[f32], p: &[f32]| q.iter().zip(p).map(|(q, p)| f64::from(*q) * f64::from(*p)).sum::<f64>();
    let best = |q: &[f32]| page.chunks(DIMS).map(|p| dot(q, p)).fold(f64::NEG_INFINITY, f64::max);
    query.chunks(DIMS).map(best).sum()
}

#[test]
fn rounding_moves_scores_little_and_ranks_hardly() {
    let mut random = Random(11);
    let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| random.unit(DIMS)).collect();
    let pages: Vec<Vec<f32>> = (0..PAGES)
        .map(|_| {
            // A page is about a few things.
            let about: Vec<usize> = (0..8).map(|_| random.below(CLUSTERS)).collect();
            let row = |random: &mut Random| {
                let centre = about[random.below(about.len())];
                near(random, &centres[centre], 0.7)
            };
            (0..PAGE_ROWS).flat_map(|_| row(&mut random)).collect()
        })
        .collect();
    let queries: Vec<Vec<f32>> = (0..QUERIES)
        .map(|n| {
            let page = &pages[n * PAGES / QUERIES];
            let row = |random: &mut Random| {
                let at = random.below(PAGE_ROWS) * DIMS;
                near(random, &page[at..at + DIMS], 1.0)
            };
            (0..QUERY_ROWS).flat_map(|_| row(&mut random)).collect()
        })
        .collect();
    let exact: Vec<Vec<f64>> =
        queries.iter().map(|query| pages.iter().map(|page| maxsim(query, page)).collect()).collect();
    let ranked = |scores: &[f64]| {
        let mut order: Vec<usize> = (0..PAGES).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order
    };
    let folder = tempfile::tempdir().unwrap();
    for (format, error_most, firsts_least, tens_least) in
        [(VectorFormat::F16, 5e-4, 100, 0.999), (VectorFormat::Int8, 2e-2, 100, 0.99)]
    {
        let index = index_of(&folder.path().join(format.name()), &kind(DIMS, format), &pages);
        let given: Vec<Query> =
            queries.iter().map(|query| Query::new(DIMS, query.clone()).unwrap()).collect();
        let mut options = SearchOptions::default();
        options.top = PAGES;
        let found = Searcher::new(None, None).unwrap().search(&index, &given, &options).unwrap();
        let (mut largest, mut squares, mut firsts, mut tens) = (0.0f64, 0.0, 0, 0);
        let (mut spread, mut pairs) = (0.0, 0);
        for (hits, exact) in found.hits.iter().zip(&exact) {
            let mean = exact.iter().sum::<f64>() / PAGES as f64;
            for hit in hits {
                let error = f64::from(hit.score) - exact[hit.page];
                largest = largest.max(error.abs());
                squares += error * error;
                spread += (exact[hit.page] - mean).powi(2);
                pairs += 1;
            }
            let order = ranked(exact);
            firsts += usize::from(hits[0].page == order[0]);
            tens += hits[..10].iter().filter(|hit| order[..10].contains(&hit.page)).count();
        }
        let tens = tens as f64 / (10 * QUERIES) as f64;
        let (rms, spread) = ((squares / pairs as f64).sqrt(), (spread / pairs as f64).sqrt());
        println!(
            "{format}: error {rms:.2e} (largest {largest:.2e}) of scores that spread by {spread:.2}; the same first page for \
             {firsts} of {QUERIES}, {:.1} % of the first ten",
            100.0 * tens
        );
        assert!(largest < error_most, "{format}: {largest}");
        assert!(firsts >= firsts_least && tens >= tens_least, "{format}: {firsts} {tens}");
    }
}
