//! Weights that bitsandbytes quantized, read as the f32 that they stand for.
//!
//! **4 bits** (nf4, fp4): two values a byte, the first in the high half, over all rows in one line. `absmax` has a
//! scale for each block of them, `quant_map` the sixteen values that half a byte stands for. The scales may be in 8
//! bits themselves, with a table (`nested_quant_map`), a scale for each block of scales (`nested_absmax`) and an
//! offset:
//!
//! ```text
//! w[i] = quant_map[q[i]] · scale[i / blocksize]
//! scale[b] = absmax[b],  or  nested_quant_map[absmax[b]] · nested_absmax[b / nested_blocksize] + nested_offset
//! ```
//!
//! Sizes and offset stand in `quant_state.bitsandbytes__nf4`, which is JSON as bytes. The bytes of values may be called
//! another type, such as bf16.
//!
//! **8 bits** (LLM.int8): a byte with a sign for each value, and `SCB`, 127 times the scale of each row:
//! `w = q · SCB / 127`.
//!
//! Everything is computed in f32, in bitsandbytes' order, so to its bits; but not rounded to the type that it computes
//! in.

use std::collections::HashMap;

use safetensors::Dtype;
use serde::Deserialize;

use super::Stored;
use super::shards::{Shards, Tensor};
use crate::ConvertError;

/// One over 127, as bitsandbytes has it.
const PER_127: f32 = 7.874_015_718_698_502e-3_f64 as f32;
const STATES: [&str; 2] = [".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"];
/// What belongs to a weight of 4 bits, beside its state.
const FOUR_BIT: [&str; 4] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
const SCALES: &str = ".SCB";
const FORMAT: &str = ".weight_format";
/// A state is some two hundred bytes.
const STATE_BYTES_MAX: usize = 4096;

/// A matrix that bitsandbytes quantized.
pub(super) struct Quantized {
    /// The shape of what it stands for.
    pub shape: Vec<usize>,
    weight: Tensor,
    kind: Kind,
}

enum Kind {
    FourBit {
        /// What half a byte stands for.
        values: [f32; 16],
        block: usize,
        absmax: Tensor,
        nested: Option<Nested>,
    },
    EightBit {
        scales: Tensor,
    },
}

/// How scales that are 8 bits themselves are read.
struct Nested {
    values: Vec<f32>,
    block: usize,
    absmax: Tensor,
    offset: f32,
}

#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    #[serde(default)]
    nested_blocksize: Option<usize>,
    #[serde(default)]
    nested_offset: Option<f64>,
}

/// True if a tensor of one of these names belongs to a weight that bitsandbytes quantized.
pub(super) fn is_there<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|name| STATES.iter().any(|state| name.ends_with(state)) || name.ends_with(SCALES))
}

/// The matrices among tensors (by classic names) that bitsandbytes quantized, by the names of their weights. What
/// belongs to them is taken out of the table; the weights stay in it.
///
/// # Errors
/// If something that belongs to such a weight is missing, damaged or of another size.
pub(super) fn find(
    shards: &Shards,
    tensors: &mut HashMap<String, Stored>,
) -> Result<HashMap<String, Quantized>, ConvertError> {
    let mut found = HashMap::new();
    let state_of = |name: &str| {
        let at = STATES.iter().find_map(|state| name.strip_suffix(state))?;
        Some((at.to_owned(), name.to_owned()))
    };
    let mut four_bit: Vec<_> = tensors.keys().filter_map(|name| state_of(name)).collect();
    four_bit.sort();
    for (name, state) in four_bit {
        let state = tensors.remove(&state).expect("it was listed").tensor;
        let mut parts =
            FOUR_BIT.map(|part| tensors.remove(&format!("{name}{part}")).map(|stored| stored.tensor));
        let part = |index: usize, parts: &mut [Option<Tensor>; 4]| {
            let part = parts[index].take();
            part.ok_or_else(|| wrong(shards, &state, format!("'{name}{}' is missing", FOUR_BIT[index])))
        };
        let (absmax, map) = (part(0, &mut parts)?, part(1, &mut parts)?);
        let weight = tensors.get(&name).map(|stored| stored.tensor.clone());
        let weight = weight.ok_or_else(|| wrong(shards, &state, format!("'{name}' is missing")))?;
        let nested = match parts {
            [_, _, Some(absmax), Some(map)] => Some((absmax, map)),
            _ => None,
        };
        found.insert(name, four_bits(shards, &state, weight, absmax, &map, nested)?);
    }
    let mut eight_bit: Vec<_> =
        tensors.keys().filter_map(|name| name.strip_suffix(SCALES)).map(str::to_owned).collect();
    eight_bit.sort();
    for module in eight_bit {
        let scales = tensors.remove(&format!("{module}{SCALES}")).expect("it was listed").tensor;
        let format = tensors.remove(&format!("{module}{FORMAT}")).map(|stored| stored.tensor);
        let name = format!("{module}.weight");
        let weight = tensors.get(&name).map(|stored| stored.tensor.clone());
        let weight = weight.ok_or_else(|| wrong(shards, &scales, format!("'{name}' is missing")))?;
        found.insert(name, eight_bits(shards, weight, scales, format)?);
    }
    // Bytes in one column are what is left if the state was not saved.
    let without = |s: &&Stored| matches!(s.tensor.dtype, Dtype::U8) && matches!(s.tensor.shape[..], [_, 1]);
    let read = |name: &String| found.contains_key(name);
    match tensors.iter().find(|(name, stored)| without(stored) && !read(name)) {
        None => Ok(found),
        Some((_, stored)) => Err(wrong(
            shards,
            &stored.tensor,
            "has 4 bits a weight, and the state that it takes to read them is not in the file".into(),
        )),
    }
}

fn wrong(shards: &Shards, tensor: &Tensor, what: String) -> ConvertError {
    ConvertError::Quantized { path: shards.path_of(tensor).to_owned(), name: tensor.name.clone(), what }
}

fn four_bits(
    shards: &Shards,
    state_tensor: &Tensor,
    weight: Tensor,
    absmax: Tensor,
    map: &Tensor,
    nested: Option<(Tensor, Tensor)>,
) -> Result<Quantized, ConvertError> {
    let wrong = |tensor: &Tensor, what: &str| wrong(shards, tensor, what.to_owned());
    let text = shards.bytes(state_tensor);
    let state: State = match text.len() <= STATE_BYTES_MAX {
        true => serde_json::from_slice(text)
            .map_err(|_| wrong(state_tensor, "is damaged: it is not the JSON that bitsandbytes writes"))?,
        false => return Err(wrong(state_tensor, "is too long to be bitsandbytes' state")),
    };
    if !state_tensor.name.ends_with(&state.quant_type) || state.quant_type.is_empty() {
        return Err(wrong(state_tensor, &format!("says that it is '{}'", state.quant_type.escape_debug())));
    }
    let count = state.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let count = count.filter(|&n| n > 0 && state.blocksize > 0);
    let count = count.ok_or_else(|| wrong(state_tensor, "has sizes that cannot be"))?;
    // Another type for the bytes may round their number up.
    let bytes = shards.bytes(&weight).len();
    if !(count.div_ceil(2)..count.div_ceil(2) + 8).contains(&bytes) {
        return Err(wrong(&weight, &format!("has {bytes} bytes for {count} values of 4 bits")));
    }
    let blocks = count.div_ceil(state.blocksize);
    let sized = |tensor: &Tensor, len: usize, is_byte: bool| {
        let fits = tensor.len() == len && if is_byte { tensor.dtype == Dtype::U8 } else { tensor.is_float() };
        let kind = if is_byte { "bytes" } else { "floats" };
        let what = || format!("is {:?} of {:?}, and should be {len} {kind}", tensor.shape, tensor.dtype);
        if fits { Ok(()) } else { Err(wrong(tensor, &what())) }
    };
    sized(&absmax, blocks, nested.is_some())?;
    sized(map, 16, false)?;
    let mut values = [0.0; 16];
    shards.read(map, 0, &mut values)?;
    let nested = match nested {
        None => None,
        Some((absmax, map)) => {
            let block = state.nested_blocksize.filter(|&n| n > 0);
            let offset = state.nested_offset.map(|o| o as f32).filter(|o| o.is_finite());
            let (Some(block), Some(offset)) = (block, offset) else {
                return Err(wrong(state_tensor, "has no nested_blocksize or nested_offset"));
            };
            sized(&absmax, blocks.div_ceil(block), false)?;
            sized(&map, 256, false)?;
            let mut values = vec![0.0; 256];
            shards.read(&map, 0, &mut values)?;
            Some(Nested { values, block, absmax, offset })
        }
    };
    let kind = Kind::FourBit { values, block: state.blocksize, absmax, nested };
    Ok(Quantized { shape: state.shape, weight, kind })
}

fn eight_bits(
    shards: &Shards,
    weight: Tensor,
    scales: Tensor,
    format: Option<Tensor>,
) -> Result<Quantized, ConvertError> {
    if weight.dtype != Dtype::I8 || weight.shape.len() != 2 {
        let what =
            format!("is {:?} of {:?}, and has bitsandbytes' scales for 8 bits", weight.shape, weight.dtype);
        return Err(wrong(shards, &weight, what));
    }
    if scales.len() != weight.shape[0] || !scales.is_float() {
        let what =
            format!("is {:?} of {:?}, and there are {} rows", scales.shape, scales.dtype, weight.shape[0]);
        return Err(wrong(shards, &scales, what));
    }
    // 0 is rows one after the other; the others are the layouts of matrix units.
    if let Some(format) = format.filter(|f| shards.bytes(f).iter().any(|&b| b != 0)) {
        let what = "says that its weight lies in the order of a GPU's matrix unit";
        return Err(wrong(shards, &format, what.into()));
    }
    Ok(Quantized { shape: weight.shape.clone(), weight, kind: Kind::EightBit { scales } })
}

impl Quantized {
    /// How it is quantized, as notes have it.
    pub fn bits(&self) -> usize {
        match self.kind {
            Kind::FourBit { .. } => 4,
            Kind::EightBit { .. } => 8,
        }
    }

    /// Reads `out.len()` values in row-major order, beginning at value `start`; all must be finite.
    pub fn read(&self, shards: &Shards, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let bytes = shards.bytes(&self.weight);
        match &self.kind {
            Kind::FourBit { values, block, absmax, nested } => {
                let mut at = start;
                let end = start + out.len();
                while at < end {
                    let index = at / block;
                    let n = (block - at % block).min(end - at);
                    let scale = scale(shards, absmax, nested.as_ref(), index)?;
                    for (o, i) in out[at - start..][..n].iter_mut().zip(at..) {
                        let pair = bytes[i / 2];
                        *o = values[usize::from(if i % 2 == 0 { pair >> 4 } else { pair & 15 })] * scale;
                    }
                    at += n;
                }
            }
            Kind::EightBit { scales } => {
                let cols = self.shape[1];
                let (mut at, end) = (start, start + out.len());
                while at < end {
                    let n = (cols - at % cols).min(end - at);
                    let mut scale = [0.0];
                    shards.read(scales, at / cols, &mut scale)?;
                    for (o, &byte) in out[at - start..][..n].iter_mut().zip(&bytes[at..]) {
                        *o = f32::from(byte.cast_signed()) * scale[0] * PER_127;
                    }
                    at += n;
                }
            }
        }
        shards.check_finite(&self.weight, start, out)
    }
}

/// The scale of a block.
fn scale(
    shards: &Shards,
    absmax: &Tensor,
    nested: Option<&Nested>,
    index: usize,
) -> Result<f32, ConvertError> {
    let mut scale = [0.0];
    match nested {
        None => shards.read(absmax, index, &mut scale)?,
        Some(nested) => {
            shards.read(&nested.absmax, index / nested.block, &mut scale)?;
            let code = shards.bytes(absmax)[index];
            scale[0] = nested.values[usize::from(code)] * scale[0] + nested.offset;
        }
    }
    Ok(scale[0])
}
