//! What goes through the decoder in one pass.

use std::ops::Range;

use super::features::ImageFeatures;

/// Rows of one sequence that follow each other, and which keys they see.
///
/// A pass may have several spans of one sequence, if later ones begin where earlier ones end: all keys of a layer are
/// there before the first row looks. So blocks that see themselves in full, between rows that see only what came
/// before, are spans of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Whose keys and values.
    pub sequence: usize,
    /// Position of the first row; later rows follow it.
    pub position: usize,
    /// Pictures, of [`Batch::pictures`], that it begins with: the rows of each, nothing between them.
    pub pictures: usize,
    /// Tokens, of [`Batch::tokens`], whose rows come then.
    pub tokens: usize,
    pub sees: Sees,
    /// The last so many rows go through the LM head.
    pub logits: usize,
}

/// Which keys the rows of a span see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// Every row sees all of the span, and what lies before it within its layer's window.
    Whole,
    /// A row sees itself and what lies before it, within its layer's window.
    Causal,
}

/// The spans of a pass, and what their rows are made of, in the spans' order.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub spans: &'a [Span],
    pub pictures: Pictures<'a>,
    pub tokens: &'a [u32],
    /// The rotary angle of position 0, in steps: 1 as in transformers, 0 as where PaliGemma was first defined. Only
    /// differences of positions matter to what a pass computes, but keys that are given show which it is.
    pub first_angle: usize,
}

/// Pictures in a row.
#[derive(Clone, Copy)]
pub(crate) enum Pictures<'a> {
    All(&'a [&'a ImageFeatures]),
    /// Those that are there.
    Present(&'a [Option<&'a ImageFeatures>]),
}

impl<'a> Pictures<'a> {
    /// No pictures.
    pub const NONE: Self = Self::All(&[]);

    pub fn iter(self) -> impl Iterator<Item = &'a ImageFeatures> {
        let (all, present) = match self {
            Self::All(all) => (all, &[][..]),
            Self::Present(present) => (&[][..], present),
        };
        all.iter().copied().chain(present.iter().copied().flatten())
    }
}

impl Span {
    pub fn rows(&self, image_rows: usize) -> usize {
        self.pictures * image_rows + self.tokens
    }

    /// The keys that row `row` of `rows` sees in a layer with this window.
    pub fn keys(&self, row: usize, rows: usize, window: Option<usize>) -> Range<usize> {
        let own_end = self.position + row + 1;
        let first = window.map_or(0, |window| own_end.saturating_sub(window));
        match self.sees {
            Sees::Whole => first.min(self.position)..self.position + rows,
            Sees::Causal => first..own_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks as transformers makes them: `(window and causal) or same block`.
    #[test]
    fn rows_see_what_the_definition_says() {
        for (position, rows) in [(0, 5), (7, 4), (20, 1)] {
            for sees in [Sees::Whole, Sees::Causal] {
                let span = Span { sequence: 0, position, pictures: 0, tokens: rows, sees, logits: 0 };
                for window in [None, Some(1), Some(3), Some(6), Some(100)] {
                    for row in 0..rows {
                        let me = position + row;
                        let sees_key = |key: usize| {
                            let causal = key <= me && window.is_none_or(|window| me - key < window);
                            let block = sees == Sees::Whole && (position..position + rows).contains(&key);
                            causal || block
                        };
                        let want: Vec<_> = (0..position + rows).filter(|&key| sees_key(key)).collect();
                        let got: Vec<_> = span.keys(row, rows, window).collect();
                        assert_eq!(got, want, "{span:?} {window:?} row {row}");
                    }
                }
            }
        }
    }
}
