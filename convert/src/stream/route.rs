//! What becomes of every byte of the weight files: which rows of which tensor it is part of, and which tensors of the
//! target are made of them.

use std::collections::BTreeMap;

use palmtop::format::{Head, TensorInfo};
use palmtop::model::tensors::{Making, TensorSpec};
use palmtop_kernels::layout::LANES;

use crate::adapter::Merger;
use crate::checkpoint::Checkpoint;
use crate::write::Matrix;
use crate::{ConvertError, Formats};

/// A piece has about so many bytes, and at least [`STRIPES_MIN`] stripes.
const PIECE_BYTES: u64 = 2 << 20;
/// So that several threads have something to do with wide matrices.
const STRIPES_MIN: usize = 4;
/// Tensors that are put together from whole ones are not larger: norms, biases and tables of positions, and matrices
/// whose parts do not begin with a stripe.
const GATHERED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a weight file that are handled at once.
#[derive(Clone, Debug)]
pub struct Piece {
    pub start: u64,
    pub end: u64,
    /// None for a header, and for what no tensor of the target is made of.
    pub rows: Option<Rows>,
}

/// Rows of a tensor of the checkpoint.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Of [`Routes::incoming`].
    pub incoming: usize,
    pub first: usize,
    pub count: usize,
}

/// A tensor of the checkpoint that something is made of.
#[derive(Debug)]
pub struct Incoming {
    /// Its classic name.
    pub name: String,
    /// Of a row.
    pub values: usize,
    pub users: Vec<User>,
}

/// A part of a tensor of the target.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Of the target's tensors of the model, in their order.
    pub target: usize,
    pub part: usize,
}

/// A tensor of the target.
pub struct Target<'a> {
    pub spec: &'a TensorSpec,
    pub entry: TensorInfo,
    /// The matrix, if stripes are made as rows come; otherwise all parts must be there.
    pub matrix: Option<Matrix<'a>>,
    /// The first stripe of each part.
    first: Vec<usize>,
}

impl Target<'_> {
    /// The stripe that sixteen rows of a part become, of which these are the `group`th.
    pub fn stripe(&self, part: usize, group: usize) -> usize {
        match self.spec.source.making {
            Making::Stripes => 2 * group + part,
            _ => self.first[part] + group,
        }
    }
}

/// The whole plan.
pub struct Routes<'a> {
    pub targets: Vec<Target<'a>>,
    pub incoming: Vec<Incoming>,
    /// For each weight file, all of its bytes in order.
    pub pieces: Vec<Vec<Piece>>,
}

impl<'a> Routes<'a> {
    /// For a target with this table; `first_entry` is the place of the model's first tensor in it, and `lengths` are
    /// the bytes of the weight files.
    pub fn new(
        specs: &'a [TensorSpec],
        formats: &Formats,
        head: &Head,
        first_entry: usize,
        merger: &Merger,
        checkpoint: &Checkpoint,
        lengths: &[u64],
    ) -> Result<Self, ConvertError> {
        let mut incoming = BTreeMap::<&str, Vec<User>>::new();
        let mut targets = Vec::new();
        for (target, (spec, entry)) in specs.iter().zip(&head.tensors[first_entry..]).enumerate() {
            for (part, source) in spec.source.parts.iter().enumerate() {
                incoming.entry(merger.origin(&source.name)).or_default().push(User { target, part });
            }
            let (first, is_striped) = stripes_of_parts(spec);
            let matrix = Matrix::new(spec, formats, entry).filter(|_| is_striped);
            targets.push(Target { spec, entry: entry.clone(), matrix, first });
        }
        let mut by_place = BTreeMap::new();
        let mut out = Self { targets, incoming: Vec::new(), pieces: Vec::new() };
        for (name, users) in incoming {
            let tensor = checkpoint.tensor(name).expect("the checkpoint's table has been checked");
            let gathered = users.iter().any(|user| out.targets[user.target].matrix.is_none());
            let rows = if gathered { 1 } else { tensor.shape[0] };
            let bytes = (tensor.end - tensor.start) as u64;
            if gathered && bytes > GATHERED_BYTES_MAX {
                let what = format!("putting '{}' together, whose sizes are unusual,", tensor.name);
                return Err(ConvertError::NeedsWhole { what });
            }
            by_place.insert((tensor.shard, tensor.start as u64), (out.incoming.len(), rows, bytes));
            out.incoming.push(Incoming { name: name.to_owned(), values: tensor.len() / rows, users });
        }
        for (shard, &length) in lengths.iter().enumerate() {
            let mut pieces = Vec::new();
            let mut at = 0;
            for (&(_, start), &(incoming, rows, bytes)) in by_place.range((shard, 0)..(shard + 1, 0)) {
                skip(&mut pieces, at, start);
                at = start + bytes;
                let row_bytes = bytes / rows as u64;
                let step = (PIECE_BYTES / row_bytes) as usize / LANES * LANES;
                let step = if rows == 1 { 1 } else { step.max(STRIPES_MIN * LANES) };
                for first in (0..rows).step_by(step) {
                    let count = step.min(rows - first);
                    let begin = start + first as u64 * row_bytes;
                    pieces.push(Piece {
                        start: begin,
                        end: begin + count as u64 * row_bytes,
                        rows: Some(Rows { incoming, first, count }),
                    });
                }
            }
            skip(&mut pieces, at, length);
            out.pieces.push(pieces);
        }
        Ok(out)
    }

    /// Stripes that a piece becomes of a matrix of the target, in the order of its rows.
    pub fn stripes(&self, user: User, rows: &Rows) -> impl Iterator<Item = usize> + Clone {
        let target = &self.targets[user.target];
        let first = rows.first / LANES;
        (first..first + self.rows(user, rows).div_ceil(LANES))
            .map(move |group| target.stripe(user.part, group))
    }

    /// How many rows a user sees in a piece: one that comes whole is cut into its rows again.
    fn rows(&self, user: User, rows: &Rows) -> usize {
        let part = &self.targets[user.target].spec.source.parts[user.part];
        let values = self.incoming[rows.incoming].values;
        rows.count * values / (part.shape.iter().product::<usize>() / part.shape[0])
    }
}

/// Pieces that are only hashed.
fn skip(pieces: &mut Vec<Piece>, mut start: u64, end: u64) {
    while start < end {
        let to = end.min(start + PIECE_BYTES);
        pieces.push(Piece { start, end: to, rows: None });
        start = to;
    }
}

/// The first stripe of each part of a matrix, and whether every stripe is made of one part alone.
fn stripes_of_parts(spec: &TensorSpec) -> (Vec<usize>, bool) {
    let (mut first, mut row, mut is_striped) = (Vec::new(), 0, true);
    for part in &spec.source.parts {
        is_striped &= row % LANES == 0;
        first.push(row / LANES);
        row += part.shape[0];
    }
    if spec.source.making == Making::Stripes {
        let rows = spec.source.parts[0].shape[0].next_multiple_of(LANES);
        is_striped = spec.shape[0] == 2 * rows;
    }
    (first, is_striped)
}
