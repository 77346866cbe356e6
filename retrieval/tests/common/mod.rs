//! Pages of numbers without a pattern, and indexes of them.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::path::Path;

use palmtop_retrieval::{Index, Kind, ModelId, NewPage, VectorFormat, Writer};

/// A small generator of test values.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ (self.0 >> 33);
        x.wrapping_mul(0xff51afd7ed558ccd) >> 16
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Roughly normal.
    pub fn f32(&mut self) -> f32 {
        (0..6).map(|_| (self.bits() & 0xFFFF) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.4
    }

    /// A vector of length 1.
    pub fn unit(&mut self, dims: usize) -> Vec<f32> {
        let values: Vec<f32> = (0..dims).map(|_| self.f32()).collect();
        normalized(values)
    }

    /// So many of them, one behind the other.
    pub fn units(&mut self, rows: usize, dims: usize) -> Vec<f32> {
        (0..rows).flat_map(|_| self.unit(dims)).collect()
    }
}

pub fn normalized(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    values.iter_mut().for_each(|x| *x /= length);
    values
}

pub fn kind(dims: usize, vectors: VectorFormat) -> Kind {
    Kind { dims, vectors, model: ModelId { fingerprint: 7, name: "a model".into() } }
}

/// Puts pages of these rows, named by their numbers.
pub fn put_all(writer: &mut Writer, pages: &[Vec<f32>]) {
    for (n, rows) in pages.iter().enumerate() {
        writer.put(&page(&n.to_string(), rows)).unwrap();
    }
    writer.commit().unwrap();
}

pub fn page<'a>(name: &'a str, rows: &'a [f32]) -> NewPage<'a> {
    NewPage { name, size: (640, 480), content: [1; 16], rows }
}

/// An index of such pages.
pub fn index_of(path: &Path, kind: &Kind, pages: &[Vec<f32>]) -> Index {
    put_all(&mut Writer::create(path, kind).unwrap(), pages);
    Index::open(path).unwrap()
}

/// Bytes that begin at a multiple of 64.
pub struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Aligned {
    pub fn of(bytes: &[u8]) -> Self {
        let line = |part: &[u8]| {
            let mut line = Line([0; 64]);
            line.0[..part.len()].copy_from_slice(part);
            line
        };
        Self { lines: bytes.chunks(64).map(line).collect(), length: bytes.len() }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: lines are plain bytes without padding, and there are at least `length` of them, as `of` made them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

/// Names and vectors of all pages.
pub fn contents(index: &Index) -> Vec<(String, Vec<f32>)> {
    let pages = index.pages().iter().enumerate();
    pages.map(|(n, page)| (page.name.to_string(), index.vectors(n))).collect()
}

/// The same, of a file in memory.
pub fn contents_of(bytes: &[u8]) -> palmtop_retrieval::Result<Vec<(String, Vec<f32>)>> {
    Ok(contents(&Index::from_memory(Aligned::of(bytes))?))
}
