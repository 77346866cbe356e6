//! Text to ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Tokenizer;
use super::{TokenizerError, format};
use crate::error::Result;
use crate::system::memory::Reserve;

/// Memory for [`Tokenizer::encode`], made once for texts up to a length.
#[derive(Debug)]
pub struct EncodeScratch {
    text_bytes_max: usize,
    normalized: String,
    merger: Merger,
}

impl EncodeScratch {
    /// Memory for texts of up to `text_bytes_max` bytes: 55 bytes for each of them.
    pub fn with_capacity(text_bytes_max: usize) -> Self {
        let taken = Self::reserved(&mut Reserve::taking(false), text_bytes_max);
        taken.unwrap_or_else(|_| panic!("no memory to encode texts of {text_bytes_max} bytes"))
    }

    /// The same memory, from a reserve.
    pub(crate) fn reserved(reserve: &mut Reserve, text_bytes_max: usize) -> Result<Self> {
        // Positions in the normalised text are u32.
        let text_bytes_max = text_bytes_max.min(u32::MAX as usize / format::BLANK.len_utf8());
        Ok(Self {
            text_bytes_max,
            normalized: reserve.text(text_bytes_max.saturating_mul(format::BLANK.len_utf8()))?,
            merger: Merger {
                symbols: reserve.list(text_bytes_max)?,
                candidates: BinaryHeap::from(reserve.list(text_bytes_max.saturating_mul(2))?),
            },
        })
    }

    /// The longest text that it has room for.
    pub fn text_bytes_max(&self) -> usize {
        self.text_bytes_max
    }
}

impl Tokenizer<'_> {
    /// Appends the ids of a text, without any that the text does not spell (no `<bos>`, no `<eos>`).
    ///
    /// Added tokens that the text spells, `<bos>`, `<image>` and `<loc0012>` among them, become their ids. A text
    /// gives at most one id a byte: nothing is allocated if `out` has room for that many. The time is
    /// O(n log n), whatever the text.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] beyond the limit of `scratch`; `out` is then as it was.
    pub fn encode(
        &self,
        text: &str,
        scratch: &mut EncodeScratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let (bytes, bytes_max) = (text.len(), scratch.text_bytes_max);
        if bytes > bytes_max {
            return Err(TokenizerError::TextTooLong { bytes, bytes_max });
        }
        let (mut done, mut from) = (0, 0);
        while let Some(found) = self.next_added_raw(text, from) {
            let taken = self.taken(found, text, done);
            self.encode_between(text.get(done..taken.start).unwrap_or_default(), scratch, out);
            out.extend((!taken.is_empty()).then_some(found.id));
            (done, from) = (taken.end, found.end);
        }
        self.encode_between(&text[done..], scratch, out);
        Ok(())
    }

    /// Encodes a stretch of raw text that holds no added token of the raw kind.
    fn encode_between(&self, text: &str, scratch: &mut EncodeScratch, out: &mut Vec<u32>) {
        let EncodeScratch { normalized, merger, .. } = scratch;
        normalized.clear();
        normalized.extend(text.chars().map(|c| if c == ' ' { format::BLANK } else { c }));
        let (mut done, mut from) = (0, 0);
        while let Some(found) = self.next_added_normalized(normalized, from) {
            let taken = self.taken(found, normalized, done);
            merger.encode(self, normalized.get(done..taken.start).unwrap_or_default(), out);
            out.extend((!taken.is_empty()).then_some(found.id));
            (done, from) = (taken.end, found.end);
        }
        merger.encode(self, &normalized[done..], out);
    }
}

/// Byte-pair encoding of one stretch of normalised text.
#[derive(Debug)]
struct Merger {
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Reverse<Candidate>>,
}

/// A piece of the text, in a doubly linked list in the order of the ids it gives.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    start: u32,
    /// Zero once it has become part of the symbol on its left, and for symbols that never merge.
    bytes: u32,
    prev: u32,
    next: u32,
}

/// Two neighbours that make a piece. The order of the fields is the order of merging: lowest rank, then leftmost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    id: u32,
    bytes: u32,
}

const END: u32 = u32::MAX;

impl Merger {
    fn encode(&mut self, tokenizer: &Tokenizer<'_>, text: &str, out: &mut Vec<u32>) {
        self.split(tokenizer, text);
        self.merge(tokenizer, text.as_bytes());
        let mut at = if self.symbols.is_empty() { END } else { 0 };
        while let Some(symbol) = self.symbols.get(at as usize) {
            out.push(symbol.id);
            at = symbol.next;
        }
    }

    /// One symbol a character; byte pieces, or the unknown token, for a character without a piece.
    fn split(&mut self, tokenizer: &Tokenizer<'_>, text: &str) {
        self.symbols.clear();
        let unk_id = tokenizer.unk_id().unwrap_or(0);
        // Hugging Face keeps an unknown token back until the next character that has a piece, past byte pieces.
        let mut unknown = false;
        for (start, c) in text.char_indices() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            if let Some(id) = tokenizer.find(bytes) {
                if std::mem::take(&mut unknown) {
                    self.push(unk_id, start, 0);
                }
                self.push(id, start, bytes.len());
            } else if bytes.iter().all(|&byte| tokenizer.byte_id(byte).is_some()) {
                for &byte in bytes {
                    self.push(tokenizer.byte_id(byte).unwrap_or(unk_id), start, 0);
                }
            } else {
                if unknown && !tokenizer.layout.fuse_unk {
                    self.push(unk_id, start, 0);
                }
                unknown = true;
            }
        }
        if unknown {
            self.push(unk_id, text.len(), 0);
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = END;
        }
    }

    fn push(&mut self, id: u32, start: usize, bytes: usize) {
        let index = self.symbols.len() as u32;
        self.symbols.push(Symbol {
            id,
            start: start as u32,
            bytes: bytes as u32,
            prev: index.wrapping_sub(1),
            next: index + 1,
        });
    }

    fn merge(&mut self, tokenizer: &Tokenizer<'_>, text: &[u8]) {
        self.candidates.clear();
        for left in 0..self.symbols.len() as u32 {
            self.consider(tokenizer, text, left);
        }
        while let Some(Reverse(candidate)) = self.candidates.pop() {
            let Some(&left) = self.symbols.get(candidate.left as usize) else { continue };
            let Some(&right) = self.symbols.get(left.next as usize) else { continue };
            // Symbols only grow to the right, so the same total length means that neither has changed.
            if left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != candidate.bytes {
                continue;
            }
            self.symbols[left.next as usize].bytes = 0;
            let merged = &mut self.symbols[candidate.left as usize];
            merged.id = candidate.id;
            merged.bytes = candidate.bytes;
            merged.next = right.next;
            if let Some(next) = self.symbols.get_mut(right.next as usize) {
                next.prev = candidate.left;
            }
            self.consider(tokenizer, text, left.prev);
            self.consider(tokenizer, text, candidate.left);
        }
    }

    /// Queues the merge of a symbol with its right neighbour, if the vocabulary has it.
    fn consider(&mut self, tokenizer: &Tokenizer<'_>, text: &[u8], left_index: u32) {
        let candidate = || {
            let left = self.symbols.get(left_index as usize)?;
            let right = self.symbols.get(left.next as usize)?;
            if left.bytes == 0 || right.bytes == 0 {
                return None;
            }
            let bytes = left.bytes + right.bytes;
            let start = left.start as usize;
            let id = tokenizer.find(text.get(start..start + bytes as usize)?)?;
            let rank = tokenizer.merge_rank(id, left.bytes as usize)?;
            Some(Candidate { rank, left: left_index, id, bytes })
        };
        if let Some(candidate) = candidate() {
            self.candidates.push(Reverse(candidate));
        }
    }
}
