//! MaxSim of all pages of an index: exact, on all threads, in one pass over the file.
//!
//! ```text
//! score(query, page) = Σ over rows q of the query of  max over rows p of the page of  q · p
//! ```
//!
//! With vectors in f16, `q · p` is the dot product of the query's f32 with the f16 numbers as they are kept, in f32 by
//! fused multiply-adds in the order of the numbers, in chunks of 256 as `palmtop_kernels::ops::matmul_float` says. With
//! int8, each 32 numbers of the query's rows (256 of rows above 512) are first rounded to integers in -127..=127 and a
//! scale, the integers are multiplied exactly, and each chunk's sum is scaled and added in f32, chunk after chunk. Then
//! the maxima are added up in f64, in the order of the rows, and the sum is rounded to f32 once.
//!
//! So a score has the same bits with every instruction set, any number of threads, and whatever other queries and pages
//! are there.

use std::sync::atomic::{AtomicU32, Ordering};

use palmtop::session::CancelToken;
use palmtop::system::machine;
use palmtop::system::pool::ThreadPool;
use palmtop_kernels::layout::{LANES, PackedMatrix, chunk_of};
use palmtop_kernels::{DefaultFloatMode, Isa, Kernels, PANEL, PANEL_STRIPES, PanelScratch, QuantizedRows};

use crate::error::{IndexError, QueryError, Result};
use crate::index::Index;
use crate::vectors::VectorFormat;

/// Rows of all queries of a search at most.
pub const QUERY_ROWS_MAX: usize = 8192;

/// The vectors of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    dims: usize,
    values: Vec<f32>,
}

impl Query {
    /// Of rows of `dims` numbers that stand one behind the other.
    ///
    /// # Errors
    /// If these are no rows, more than [`QUERY_ROWS_MAX`], or not finite.
    pub fn new(dims: usize, values: Vec<f32>) -> Result<Self, QueryError> {
        let is_whole = dims > 0 && values.len().is_multiple_of(dims);
        if !is_whole || !(1..=QUERY_ROWS_MAX).contains(&(values.len() / dims)) {
            return Err(QueryError::Rows { values: values.len(), dims, most: QUERY_ROWS_MAX });
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(QueryError::NotFinite);
        }
        Ok(Self { dims, values })
    }

    /// How many vectors it has.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dims
    }
}

/// What a search is to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SearchOptions {
    /// Pages to give for each query at most; the best ones.
    pub top: usize,
    /// Compares the checksum of every page as it is read, and leaves damaged ones out.
    pub verify: bool,
    /// Stops the search between two pages.
    pub cancel: CancelToken,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { top: 10, verify: true, cancel: CancelToken::default() }
    }
}

/// A page that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its number in the index.
    pub page: usize,
    /// What it is worth.
    pub score: f32,
}

/// What a search has found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// For each query its best pages: those with the highest scores first, and of equal scores the one that was added
    /// first.
    pub hits: Vec<Vec<Hit>>,
    /// Pages that were left out, since their bytes are not as they were written or make no numbers; ascending.
    pub damaged: Vec<usize>,
}

/// Threads and their memory, for any number of searches.
pub struct Searcher {
    kernels: Kernels,
    pool: ThreadPool,
    scratch: Vec<Scratch>,
}

/// What a thread computes in.
#[derive(Default)]
struct Scratch {
    unpacked: Box<PanelScratch>,
    /// Products of all query rows with the rows of a panel.
    panel: Vec<[f32; PANEL]>,
    /// The largest so far of each query row, lane by lane.
    maxima: Vec<[f32; LANES]>,
}

impl Searcher {
    /// With so many threads, or as many as a session would take; with the kernels of an instruction set, or of the
    /// process's default.
    ///
    /// # Errors
    /// If the CPU has not this instruction set, or the system no more threads.
    pub fn new(threads: Option<usize>, isa: Option<Isa>) -> Result<Self> {
        let kernels = Kernels::new(isa)?;
        let threads = threads.unwrap_or_else(machine::default_threads).max(1);
        let pool = ThreadPool::new(threads)
            .map_err(|source| IndexError::Io { path: "(starting threads)".into(), source })?;
        let scratch = (0..pool.threads()).map(|_| Scratch::default()).collect();
        Ok(Self { kernels, pool, scratch })
    }

    /// The best pages of an index for each of some queries, which are compared with a page together: the file is read
    /// once.
    ///
    /// # Errors
    /// [`IndexError::Query`] for queries that do not fit the index, or are too many; [`IndexError::Cancelled`].
    pub fn search(&mut self, index: &Index, queries: &[Query], options: &SearchOptions) -> Result<Found> {
        let _mode = DefaultFloatMode::enter();
        let rows = Rows::new(&self.kernels, index, queries)?;
        let Some(rows) = rows else { return Ok(Found::default()) };
        for scratch in &mut self.scratch {
            scratch.panel.resize(rows.count, [0.0; PANEL]);
            scratch.maxima.resize(rows.count, [0.0; LANES]);
        }
        let pages = index.pages().len();
        // Bits of scores, which NaN leaves out.
        let scores: Vec<AtomicU32> =
            (0..pages * queries.len()).map(|_| AtomicU32::new(f32::NAN.to_bits())).collect();
        let kernels = self.kernels;
        index.read_through();
        for first in (0..pages).step_by(TASKS_MAX) {
            let tasks = TASKS_MAX.min(pages - first);
            self.pool.run(&mut self.scratch, tasks, |task, scratch| {
                let page = first + task;
                if options.cancel.is_cancelled() || (options.verify && !index.is_whole(page)) {
                    return;
                }
                let Some(matrix) = index.matrix(page) else { return };
                let out = &scores[page * queries.len()..][..queries.len()];
                rows.score(&kernels, &matrix, scratch, out);
            });
            if options.cancel.is_cancelled() {
                return Err(IndexError::Cancelled);
            }
        }
        let score = |page: usize, query: usize| {
            f32::from_bits(scores[page * queries.len() + query].load(Ordering::Relaxed))
        };
        let is_sound = |page: &usize| (0..queries.len()).all(|query| score(*page, query).is_finite());
        let (sound, damaged): (Vec<usize>, Vec<usize>) = (0..pages).partition(is_sound);
        let best = |query: usize| {
            let mut hits: Vec<Hit> =
                sound.iter().map(|&page| Hit { page, score: score(page, query) }).collect();
            let order = |a: &Hit, b: &Hit| b.score.total_cmp(&a.score).then(a.page.cmp(&b.page));
            if (1..hits.len()).contains(&options.top) {
                hits.select_nth_unstable_by(options.top - 1, order);
            }
            hits.truncate(options.top);
            hits.sort_unstable_by(order);
            hits
        };
        Ok(Found { hits: (0..queries.len()).map(best).collect(), damaged })
    }
}

/// Pages between two looks at whether to go on, beside those that each page takes itself.
const TASKS_MAX: usize = 1 << 16;

/// The rows of all queries, ready to be multiplied.
struct Rows {
    count: usize,
    dims: usize,
    /// Where the rows of each query end.
    ends: Vec<usize>,
    values: Vec<f32>,
    /// For int8: integers, scales and sums, chunk after chunk.
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Rows {
    /// `None` if there is nothing to look for.
    fn new(kernels: &Kernels, index: &Index, queries: &[Query]) -> Result<Option<Self>, QueryError> {
        let dims = index.kind().dims;
        if let Some(other) = queries.iter().find(|query| query.dims != dims) {
            return Err(QueryError::Dims { query: other.dims, index: dims });
        }
        let values: Vec<f32> = queries.iter().flat_map(|query| &query.values).copied().collect();
        let count = values.len() / dims;
        if count > QUERY_ROWS_MAX {
            return Err(QueryError::Rows { values: values.len(), dims, most: QUERY_ROWS_MAX });
        }
        if count == 0 {
            return Ok(None);
        }
        let mut end = 0;
        let ends = queries.iter().map(|query| {
            end += query.rows();
            end
        });
        let ends = ends.collect();
        let mut rows = Self { count, dims, ends, values, q: vec![], scales: vec![], sums: vec![] };
        if index.kind().vectors == VectorFormat::Int8 {
            rows.quantize(kernels);
        }
        Ok(Some(rows))
    }

    fn quantize(&mut self, kernels: &Kernels) {
        let chunk = chunk_of(self.dims);
        let parts = self.dims.div_ceil(chunk) * self.count;
        self.q = vec![0; parts * chunk];
        (self.scales, self.sums) = (vec![0.0; parts], vec![0; parts]);
        for (m, row) in self.values.chunks(self.dims).enumerate() {
            for (c, values) in row.chunks(chunk).enumerate() {
                let at = c * self.count + m;
                (self.scales[at], self.sums[at]) =
                    kernels.quantize_chunk(values, &mut self.q[at * chunk..(at + 1) * chunk]);
            }
        }
    }

    /// Writes the bits of a page's score for each query.
    fn score(&self, kernels: &Kernels, page: &PackedMatrix<'_>, scratch: &mut Scratch, out: &[AtomicU32]) {
        let layout = page.layout();
        let is_integer = layout.format.is_integer();
        let quantized = is_integer
            .then(|| QuantizedRows::new(&self.q, &self.scales, &self.sums, self.count, chunk_of(self.dims)));
        scratch.maxima.fill([f32::NEG_INFINITY; LANES]);
        for first in (0..layout.stripes()).step_by(PANEL_STRIPES) {
            let part = first..layout.stripes().min(first + PANEL_STRIPES);
            match &quantized {
                Some(x) => kernels.matmul_integer(
                    page,
                    part.clone(),
                    x,
                    0..self.count,
                    &mut scratch.unpacked,
                    &mut scratch.panel,
                ),
                None => kernels.matmul_float(page, part.clone(), &self.values, &mut scratch.panel),
            }
            // The last stripe is filled up with rows that are none.
            let used = PANEL.min(layout.rows - first * LANES);
            for (products, maxima) in scratch.panel.iter().zip(&mut scratch.maxima) {
                for products in products[..used].chunks(LANES) {
                    for (max, &product) in maxima.iter_mut().zip(products) {
                        *max = if product > *max { product } else { *max };
                    }
                }
            }
        }
        let mut start = 0;
        for (&end, out) in self.ends.iter().zip(out) {
            let sum: f64 = scratch.maxima[start..end].iter().map(|lanes| f64::from(largest(lanes))).sum();
            out.store((sum as f32).to_bits(), Ordering::Relaxed);
            start = end;
        }
    }
}

fn largest(lanes: &[f32; LANES]) -> f32 {
    lanes.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}
