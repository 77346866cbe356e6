//! What a pass gives of its rows.

use super::head::HeadPart;

/// What a pass gives of its rows, beside keys and values for passes to come.
pub(crate) enum Wanted<'a> {
    /// Logits of the last rows of each span, as far as they are selected: [`Engine::logits`](super::Engine::logits) has
    /// them, span by span. Logits that are not selected are left as they were.
    Logits(&'a HeadPart),
    /// Every row as it comes out of the decoder, and what is made of it on the way.
    Rows(RowsOut<'a>),
    /// Every row through the retrieval head and divided by its length, `[rows, dim]`; a row of zeros stays one.
    Vectors(&'a mut [f32]),
}

/// Where rows go, in f32 as they were computed.
pub(crate) struct RowsOut<'a> {
    /// For each row of the pass, in order, the row that it is in what is given.
    pub places: &'a [u32],
    /// Rows in what is given. Those that no row of the pass becomes are left as they were.
    pub rows: usize,
    /// Behind the last norm, `[rows, width]`; empty if they are not wanted.
    pub hidden: &'a mut [f32],
    /// Keys of each layer as its attention sees them, `[layers, rows, kv_heads, head_dim]`; empty if they are not
    /// wanted.
    pub keys: &'a mut [f32],
    /// Values likewise.
    pub values: &'a mut [f32],
}

impl RowsOut<'_> {
    /// Copies the keys and values of a layer from rows of queries, keys and values, `stride` numbers each; `width`
    /// numbers of keys, and as many of values behind them, end each row.
    pub fn give_keys_values(&mut self, layer: usize, qkv: &[f32], stride: usize, width: usize) {
        if self.keys.is_empty() {
            return;
        }
        for (row, &place) in qkv.chunks_exact(stride).zip(self.places) {
            let (keys, values) = row[stride - 2 * width..].split_at(width);
            let at = (layer * self.rows + place as usize) * width;
            self.keys[at..at + width].copy_from_slice(keys);
            self.values[at..at + width].copy_from_slice(values);
        }
    }
}

impl Wanted<'_> {
    /// True if nothing is wanted of a row behind its last keys and values.
    pub fn ends_with_keys(&self) -> bool {
        matches!(self, Self::Rows(out) if out.hidden.is_empty())
    }
}
