//! Mapped safetensors files: tensors by their names in the files, read as f32.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::error::ConvertError;
use crate::files::{open_regular, stand_in};

/// The files, each of which is called a shard.
///
/// They must not be changed while they are open: they are read through the operating system's mapping.
/// A copy shares the mappings.
#[derive(Clone, Default)]
pub(crate) struct Shards(Vec<Shard>);

#[derive(Clone)]
struct Shard {
    path: PathBuf,
    map: Arc<Mmap>,
}

/// A tensor of one of the files.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// The name in the file.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    shard: usize,
    /// Bytes of the shard.
    start: usize,
    end: usize,
}

impl Tensor {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if [`Shards::read`] reads its type.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

impl Shards {
    /// Maps one more file, and lists its tensors.
    pub fn add(&mut self, path: PathBuf) -> Result<Vec<Tensor>, ConvertError> {
        let file = open_regular(&path)?;
        // SAFETY: the mapping is read-only and lives as long as this struct. If another process shortens
        // the file the system ends this one, as stated above; changed bytes give wrong numbers, and no
        // length or offset is read from the mapping after the header has been checked.
        let map = unsafe { Mmap::map(&file) }.map_err(ConvertError::io(&path))?;
        let wrong = |what| ConvertError::Safetensors { path: path.clone(), what };
        let (header_bytes, header) = SafeTensors::read_metadata(&map).map_err(|error| {
            wrong(stand_in(&map).map_or_else(|| describe(&error, map.len()), |what| format!("is {what}")))
        })?;
        let shard = self.0.len();
        let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            // The header's reader has checked that offsets lie in the file and fit shape and type.
            let at = header_bytes + std::mem::size_of::<u64>();
            Tensor {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                shard,
                start: at + start,
                end: at + end,
            }
        };
        let tensors = header.tensors().into_iter().map(tensor).collect();
        self.0.push(Shard { path, map: Arc::new(map) });
        Ok(tensors)
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|s| &*s.path)
    }

    /// The file that a tensor is in.
    pub fn path_of(&self, tensor: &Tensor) -> &Path {
        &self.0[tensor.shard].path
    }

    /// A tensor's bytes, in row-major order and little-endian.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.0[tensor.shard].map[tensor.start..tensor.end]
    }

    /// Reads `out.len()` values of a tensor of floats, beginning at value `start`; all must be finite.
    pub fn read(&self, tensor: &Tensor, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let size = if tensor.dtype == Dtype::F32 { 4 } else { 2 };
        let data = &self.bytes(tensor)[start * size..][..out.len() * size];
        match tensor.dtype {
            Dtype::F32 => {
                for (o, b) in out.iter_mut().zip(data.chunks_exact(4)) {
                    *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Dtype::BF16 => {
                for (o, b) in out.iter_mut().zip(data.chunks_exact(2)) {
                    *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            Dtype::F16 => {
                let mut block = [f16::ZERO; 256];
                for (o, b) in out.chunks_mut(256).zip(data.chunks(512)) {
                    for (h, b) in block.iter_mut().zip(b.chunks_exact(2)) {
                        *h = f16::from_le_bytes([b[0], b[1]]);
                    }
                    block[..o.len()].convert_to_f32_slice(o);
                }
            }
            other => unreachable!("a tensor of {other:?} has been refused"),
        }
        self.check_finite(tensor, start, out)
    }

    /// An error if one of the values, which begin at value `start` of the tensor, is NaN or infinite.
    pub fn check_finite(&self, tensor: &Tensor, start: usize, values: &[f32]) -> Result<(), ConvertError> {
        const EXPONENT: u32 = 0x7f80_0000;
        if !values.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT)) {
            return Ok(());
        }
        let at = values.iter().position(|v| !v.is_finite()).expect("one of them is not finite");
        Err(ConvertError::NotFinite {
            path: self.path_of(tensor).to_owned(),
            name: tensor.name.clone(),
            index: start + at,
            value: values[at],
        })
    }
}

fn describe(error: &safetensors::SafeTensorError, bytes: usize) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall | E::InvalidHeaderLength => {
            format!("is cut short or not a safetensors file ({bytes} bytes); download it again")
        }
        E::MetadataIncompleteBuffer => {
            format!("its length of {bytes} bytes is not the length that its header states; download it again")
        }
        E::HeaderTooLarge => "is not a safetensors file: its header would be larger than 100 MB".to_owned(),
        other => format!("is not a safetensors file: {other}"),
    }
}
