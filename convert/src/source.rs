//! Where weights come from, and how the tensors of a `.palm` file are put together from a checkpoint's.

use palmtop::model::config::Config;
use palmtop::model::tensors::{Making, Source};
use palmtop_kernels::layout::LANES;

use crate::ConvertError;

/// Gives the weights of a model by the classic names and shapes of the hub's checkpoints.
pub trait WeightSource: Sync {
    /// Reads `out.len()` values of a tensor in row-major order, beginning at value `start`.
    ///
    /// Only tensors of [`needed`] are asked for, and only values that they have.
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError>;
}

/// Classic names and shapes of all tensors that a checkpoint of this architecture has.
pub fn needed(config: &Config) -> Vec<(String, Vec<usize>)> {
    let parts = config.tensors().into_iter().flat_map(|spec| spec.source.parts);
    parts.map(|part| (part.name, part.shape)).collect()
}

/// Puts one tensor of a `.palm` file together.
pub(crate) struct Assembly<'a>(pub &'a Source);

impl Assembly<'_> {
    /// Reads a tensor that is not a matrix, or a matrix as it lies in the checkpoint.
    pub fn read_all(&self, source: &dyn WeightSource) -> Result<Vec<f32>, ConvertError> {
        let mut out = Vec::new();
        for part in &self.0.parts {
            let from = out.len();
            out.resize(from + part.shape.iter().product::<usize>(), 0.0);
            source.read(&part.name, 0, &mut out[from..])?;
        }
        if self.0.making == Making::OnePlus {
            out.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(out)
    }

    /// Reads row `row` of a matrix.
    pub fn read_row(
        &self,
        source: &dyn WeightSource,
        row: usize,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let (part, row) = match self.0.making {
            Making::Stripes => ((row / LANES) % 2, row / (2 * LANES) * LANES + row % LANES),
            _ => {
                let (mut part, mut row) = (0, row);
                while row >= self.0.parts[part].shape[0] {
                    row -= self.0.parts[part].shape[0];
                    part += 1;
                }
                (part, row)
            }
        };
        let part = &self.0.parts[part];
        if row >= part.shape[0] {
            out.fill(0.0);
            return Ok(());
        }
        source.read(&part.name, row * out.len(), out)
    }
}
