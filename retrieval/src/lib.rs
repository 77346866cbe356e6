//! Pages found by questions: an index of multi-vector documents in one file, and exact late interaction over it.
//!
//! A model for retrieval gives a page some thousand vectors and a question some twenty. What a page is worth for a
//! question is MaxSim: for each vector of the question the largest dot product with any vector of the page, added up.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`format`](mod@format) | the bytes of an index file, which `docs/index-format.md` describes |
//! | [`vectors`] | rows of f32 packed as f16 or int8, in the layout that the kernels multiply |
//! | [`index`] | a mapped index: its pages, read-only |
//! | [`writer`] | adds, replaces and removes pages; one writer at a time, beside any number of readers |
//! | [`search`] | MaxSim of all pages, on all threads; the best ones |
//! | [`fingerprint`](mod@fingerprint) | which model's vectors these are |
//!
//! ```no_run
//! use palmtop_retrieval::search::{Query, SearchOptions, Searcher};
//! use palmtop_retrieval::{Index, Kind, ModelId, NewPage, VectorFormat, Writer};
//!
//! # fn vectors_of(_: &str) -> Vec<f32> { vec![1.0; 1030 * 128] }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = ModelId { fingerprint: 0x1234, name: "vidore/colpali-v1.3-hf".into() };
//! let mut writer = Writer::create("pages.index".as_ref(), &Kind { dims: 128, vectors: VectorFormat::F16, model })?;
//! let rows = vectors_of("page-1.png");
//! writer.put(&NewPage { name: "page-1.png", size: (1240, 1754), content: [0; 16], rows: &rows })?;
//! writer.commit()?;
//!
//! let index = Index::open("pages.index".as_ref())?;
//! let query = Query::new(128, vectors_of("how much was paid?"))?;
//! let found = Searcher::new(None, None)?.search(&index, &[query], &SearchOptions::default())?;
//! for hit in &found.hits[0] {
//!     println!("{:.3} {}", hit.score, index.page(hit.page).name);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(target_endian = "big")]
compile_error!("index files are little-endian and used in place");

mod directory;
pub mod error;
pub mod fingerprint;
pub mod format;
pub mod index;
mod page;
pub mod search;
pub mod vectors;
pub mod writer;

pub use error::{Defect, IndexError, Result};
pub use fingerprint::fingerprint;
pub use format::{Kind, ModelId};
pub use index::Index;
pub use page::{NewPage, Page, content_hash};
pub use vectors::VectorFormat;
pub use writer::Writer;
