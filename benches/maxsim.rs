//! How fast an index is searched, beside what the machine can read: `cargo bench -p palmtop-benches --bench maxsim`.
//!
//! The index has as many pages as take a gigabyte in f16, so that no cache holds it: what `palmtop find` reads once it
//! is in memory. Names are `FORMAT/ROWS/THREADS`, ROWS those of the question, with `unchecked` where checksums are not
//! compared. The line below each result gives bytes a second as a share of what as many threads can read, by the
//! median of the samples, and the time of ten thousand pages of ColPali.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use palmtop::system::machine::{self, MachineLimits};
use palmtop_kernels::Kernels;
use palmtop_retrieval::search::{Query, SearchOptions, Searcher};
use palmtop_retrieval::{Index, Kind, ModelId, NewPage, VectorFormat, Writer};

/// Vectors of a page at 448 pixels, and numbers of a vector.
const PAGE_ROWS: usize = 1030;
const DIMS: usize = 128;
/// Pages of the index.
const PAGES: usize = 4000;
/// A short question, and a long one.
const QUERY_ROWS: [usize; 2] = [20, 60];
const SAMPLES: usize = 10;

/// Numbers of no pattern, about as large as those of vectors of length 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut random = seed | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ((random >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.3
    };
    (0..n).map(|_| next()).collect()
}

fn maxsim(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let kernels = Kernels::select().expect("an instruction set of this CPU");
    let most = machine::default_threads();
    let threads = if most > 1 { vec![1, most] } else { vec![1] };
    let mut group = c.benchmark_group("maxsim");
    for format in VectorFormat::ALL {
        let path = folder.path().join(format.name());
        let kind = Kind { dims: DIMS, vectors: format, model: ModelId::default() };
        let mut writer = Writer::create(&path, &kind).expect("room for it");
        let rows = numbers(PAGE_ROWS * DIMS, 1);
        for page in 0..PAGES {
            let name = &page.to_string();
            writer.put(&NewPage { name, size: (1, 1), content: [0; 16], rows: &rows }).expect("room for it");
        }
        writer.commit().expect("room for it");
        let index = Index::open(&path).expect("an index that was written");
        // Into memory, once.
        assert!(index.verify(|_| {}).is_empty());
        let bytes = PAGES * format.bytes(PAGE_ROWS, DIMS);
        for &threads in &threads {
            let limits = MachineLimits::measure(&kernels, threads).expect("memory to measure");
            let mut searcher = Searcher::new(Some(threads), None).expect("threads");
            for (rows, verify) in
                QUERY_ROWS.map(|rows| (rows, true)).into_iter().chain([(QUERY_ROWS[0], false)])
            {
                let query = [Query::new(DIMS, numbers(rows * DIMS, 2)).expect("rows")];
                let mut options = SearchOptions::default();
                options.verify = verify;
                group.throughput(Throughput::Bytes(bytes as u64));
                let samples = RefCell::new(Vec::new());
                let unchecked = if verify { "" } else { " unchecked" };
                let id = BenchmarkId::new(format.name(), format!("{rows}/{threads}{unchecked}"));
                group.bench_function(id, |b| {
                    b.iter_custom(|times| {
                        let start = Instant::now();
                        for _ in 0..times {
                            searcher.search(&index, &query, &options).expect("a search");
                        }
                        let time = start.elapsed();
                        samples.borrow_mut().push(time.as_secs_f64() / times as f64);
                        time
                    });
                });
                let mut samples = samples.into_inner();
                samples.sort_by(f64::total_cmp);
                if let Some(&seconds) = samples.get(samples.len() / 2) {
                    println!(
                        "{:24}{:.2} GB/s, {:.0} % of what {} can read; {:.0} ms for 10,000 pages",
                        "",
                        1e-9 * bytes as f64 / seconds,
                        100.0 * bytes as f64 / seconds / limits.read_bytes_per_s,
                        if threads == 1 { "a thread".to_owned() } else { format!("{threads} threads") },
                        1e3 * seconds * 1e4 / PAGES as f64
                    );
                }
            }
        }
        drop(index);
        std::fs::remove_file(&path).expect("our file");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2))
        .nresamples(2000);
    targets = maxsim
}
criterion_main!(benches);
