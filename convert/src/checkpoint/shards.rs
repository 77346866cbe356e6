//! Safetensors files: tensors by their names in the files, read as f32. Files are mapped; of those that are elsewhere
//! only the headers are known, and values are read from bytes as they come.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::error::ConvertError;
use crate::files::{open_regular, stand_in};

/// Before a header stands its length.
pub(crate) const LENGTH_BYTES: usize = std::mem::size_of::<u64>();
/// No header is longer; as for safetensors' own reader.
pub(crate) const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The files, each of which is called a shard.
///
/// They must not be changed while they are open: they are read through the operating system's mapping.
/// A copy shares the mappings.
#[derive(Clone, Default)]
pub(crate) struct Shards(Vec<Shard>);

#[derive(Clone)]
struct Shard {
    path: PathBuf,
    /// None for a file that is elsewhere.
    map: Option<Arc<Mmap>>,
}

/// A tensor of one of the files.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// The name in the file.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The file, in the order in which they were added.
    pub shard: usize,
    /// Bytes of the shard.
    pub start: usize,
    pub end: usize,
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

    /// Bytes of a value of a tensor of floats.
    fn value_bytes(&self) -> usize {
        if self.dtype == Dtype::F32 { 4 } else { 2 }
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
        Ok(self.push(path, Some(Arc::new(map)), header_bytes, &header))
    }

    /// Adds a file of `bytes` bytes that is elsewhere, by the JSON of its header, and lists its tensors. `path` is what
    /// it is called in errors.
    pub fn add_elsewhere(
        &mut self,
        path: PathBuf,
        header: &[u8],
        bytes: u64,
    ) -> Result<Vec<Tensor>, ConvertError> {
        let wrong = |what| ConvertError::Safetensors { path: path.clone(), what };
        let metadata: Metadata = serde_json::from_slice(header)
            .map_err(|e| wrong(format!("is not a safetensors file: its header cannot be read: {e}")))?;
        let states = (header.len() + LENGTH_BYTES).checked_add(metadata.data_len());
        if states.map(|n| n as u64) != Some(bytes) {
            return Err(wrong(format!(
                "its length of {bytes} bytes is not the length that its header states"
            )));
        }
        Ok(self.push(path, None, header.len(), &metadata))
    }

    fn push(
        &mut self,
        path: PathBuf,
        map: Option<Arc<Mmap>>,
        header_bytes: usize,
        header: &Metadata,
    ) -> Vec<Tensor> {
        let shard = self.0.len();
        let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            // The header's reader has checked that offsets lie in the file and fit shape and type.
            let at = header_bytes + LENGTH_BYTES;
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
        self.0.push(Shard { path, map });
        tensors
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|s| &*s.path)
    }

    /// The file that a tensor is in.
    pub fn path_of(&self, tensor: &Tensor) -> &Path {
        &self.0[tensor.shard].path
    }

    /// A tensor's bytes, in row-major order and little-endian; its file must be mapped.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        let map = self.0[tensor.shard].map.as_ref();
        &map.expect("bytes of a file that is elsewhere come as they do")[tensor.start..tensor.end]
    }

    /// Reads `out.len()` values of a tensor of floats, beginning at value `start`; all must be finite.
    pub fn read(&self, tensor: &Tensor, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        self.read_from(tensor, self.bytes(tensor), start, start, out)
    }

    /// The same from bytes that begin `at` values into the part of the tensor that is at hand.
    pub fn read_from(
        &self,
        tensor: &Tensor,
        bytes: &[u8],
        at: usize,
        start: usize,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let size = tensor.value_bytes();
        let data = &bytes[at * size..][..out.len() * size];
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
