//! Added tokens: which of them stands at a place in a text, the leftmost first and then the longest.

use std::ops::Range;

use super::format;
use super::table::{Tokenizer, u32_at};

/// The bytes with which any of a list of added tokens begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FirstBytes([u64; 4]);

impl FirstBytes {
    /// The first bytes of the pieces in a list of ids.
    pub(super) fn of(tokenizer: &Tokenizer<'_>, ids: &[u8]) -> Self {
        let mut set = Self::default();
        for index in 0..ids.len() / 4 {
            if let Some(&byte) = added_text(tokenizer, ids, index).first() {
                set.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
            }
        }
        set
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 != 0
    }
}

/// An added token in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub id: u32,
    pub start: usize,
    pub end: usize,
}

impl<'a> Tokenizer<'a> {
    /// Ids of the added tokens that are looked for in the raw text, sorted by text.
    pub(super) fn added_raw(&self) -> &'a [u8] {
        self.added.get(..4 * self.layout.added_raw_count).unwrap_or_default()
    }

    /// Ids of the added tokens that are looked for in the normalised text, sorted by text.
    pub(super) fn added_normalized(&self) -> &'a [u8] {
        self.added.get(4 * self.layout.added_raw_count..).unwrap_or_default()
    }

    /// The next added token of the raw text at or after `from`.
    pub(super) fn next_added_raw(&self, text: &str, from: usize) -> Option<Match> {
        self.next_added(self.added_raw(), &self.layout.first_bytes_raw, text, from)
    }

    /// The next added token of the normalised text at or after `from`.
    pub(super) fn next_added_normalized(&self, text: &str, from: usize) -> Option<Match> {
        self.next_added(self.added_normalized(), &self.layout.first_bytes_normalized, text, from)
    }

    /// What an added token takes of a text from `done` on: itself, and white space at its sides if it strips that.
    ///
    /// As in Hugging Face's tokenizers, white space behind a token is taken even if it is an added token of its own.
    /// That then counts all the same, and the text goes on behind it, unless it strips on its left too: nothing is left
    /// of it then.
    pub(super) fn taken(&self, found: Match, text: &str, done: usize) -> Range<usize> {
        let flags = self.piece_flags(found.id);
        let (mut start, mut end) = (found.start, found.end);
        if flags & format::PIECE_STRIPS_LEFT != 0 {
            start = text[..start].trim_end().len().max(done);
        }
        if flags & format::PIECE_STRIPS_RIGHT != 0 {
            end = text.len() - text[end..].trim_start().len();
        }
        start..end
    }

    fn next_added(&self, ids: &[u8], first: &FirstBytes, text: &str, from: usize) -> Option<Match> {
        let bytes = text.as_bytes();
        let mut start = from;
        loop {
            start += bytes.get(start..)?.iter().position(|&byte| first.contains(byte))?;
            if text.is_char_boundary(start)
                && let Some((id, length)) = self.longest_added(ids, &text[start..])
            {
                return Some(Match { id, start, end: start + length });
            }
            start += 1;
        }
    }

    /// The longest token of the sorted list with which the text begins, and its length.
    ///
    /// The list is narrowed byte by byte to the tokens that begin as the text does.
    fn longest_added(&self, ids: &[u8], text: &str) -> Option<(u32, usize)> {
        let mut longest = None;
        let (mut low, mut high) = (0, ids.len() / 4);
        for (depth, &byte) in text.as_bytes().iter().take(format::ADDED_BYTES_MAX).enumerate() {
            let at_depth = |index: usize| added_text(self, ids, index).get(depth).copied();
            low = partition_point(low, high, |index| at_depth(index) < Some(byte));
            high = partition_point(low, high, |index| at_depth(index) <= Some(byte));
            if low >= high {
                break;
            }
            // Among the tokens that begin with these bytes, one that ends here sorts first.
            if added_text(self, ids, low).len() == depth + 1 && text.is_char_boundary(depth + 1) {
                longest = u32_at(ids, low).map(|id| (id, depth + 1));
            }
        }
        longest
    }
}

fn added_text<'a>(tokenizer: &Tokenizer<'a>, ids: &[u8], index: usize) -> &'a [u8] {
    u32_at(ids, index).and_then(|id| tokenizer.piece_bytes(id)).unwrap_or_default()
}

/// The first index of `low..high` for which `before` does not hold.
fn partition_point(mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
