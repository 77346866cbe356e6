//! The mask decoder of `vae-oid.npz`, without the channels that are always zero.

use std::path::Path;

use palmtop::tasks::{MaskAxis, MaskCodec, MaskTensor, MaskTensorSpec};

use crate::npz::{NpyArray, Npz};
use crate::write::Verbatim;
use crate::{ConvertError, files};

/// `vae-oid.npz` has about 20 MB.
const BYTES_MAX: u64 = 256 << 20;

/// Nothing is left out where a weight is larger: zero times a value that has overflowed is not zero. Up to here none
/// does before the transposed convolutions, the first layer multiplying by at most 512 * 100, others by 9 * 128 * 100
/// or 128 * 100; and behind those the ReLU makes zero even of NaN.
const WEIGHT_MAX: f32 = 100.0;

/// The mask decoder's tensors; the encoder beside them is not needed for answers.
pub(crate) fn read(path: &Path) -> Result<Vec<Verbatim>, ConvertError> {
    let wrong = |what: String| ConvertError::MaskCodec { path: path.to_owned(), what };
    let bytes = files::read_regular(path, BYTES_MAX)?;
    let file = Npz::parse(&bytes).map_err(|e| wrong(e.to_string()))?;
    let specs = MaskCodec::tensors();
    let mut arrays = Vec::new();
    for MaskTensorSpec { name, .. } in &specs {
        let array = file.read_f32(name).map_err(|e| wrong(e.to_string()))?;
        if let Some(index) = array.data.iter().position(|v| !v.is_finite()) {
            return Err(wrong(format!("array '{name}' holds {} at index {index}", array.data[index])));
        }
        arrays.push(array);
    }
    codec(&specs, &arrays).map_err(|e| wrong(e.to_string()))?;
    leave_out_zeros(&specs, &mut arrays);
    let tensor = |(spec, array): (MaskTensorSpec, NpyArray)| Verbatim::F32 {
        name: format!("{}{}", MaskCodec::PREFIX, spec.name),
        shape: array.shape,
        values: array.data,
    };
    Ok(specs.into_iter().zip(arrays).map(tensor).collect())
}

/// The decoder that the arrays make; says which has a shape that does not fit.
fn codec<'a>(
    specs: &[MaskTensorSpec],
    arrays: &'a [NpyArray],
) -> Result<MaskCodec<'a>, impl std::error::Error> {
    MaskCodec::new(|name| {
        let name = name.strip_prefix(MaskCodec::PREFIX)?;
        let NpyArray { shape, data } = &arrays[specs.iter().position(|spec| spec.name == name)?];
        Some(MaskTensor { shape: shape.clone(), data })
    })
}

/// Leaves out every channel for which all weights and biases that make it are zero, and the weights that take it. What
/// is decoded stays the same to the bit: such a channel is zero for all codes, and to leave zeros out of a sum changes
/// at most the sign of a zero. That sign shows in the result only if the last bias is -0, and then nothing is left out.
fn leave_out_zeros(specs: &[MaskTensorSpec], arrays: &mut [NpyArray]) {
    let negative_zero = |array: &NpyArray| array.data[0].to_bits() == (-0.0f32).to_bits();
    let small = arrays.iter().flat_map(|array| &array.data).all(|weight| weight.abs() <= WEIGHT_MAX);
    if !small || arrays.last().is_some_and(negative_zero) {
        return;
    }
    let mut used: [Vec<bool>; MaskCodec::STAGES] = Default::default();
    for (spec, array) in specs.iter().zip(&*arrays) {
        for (axis, what) in spec.axes.iter().enumerate() {
            let &MaskAxis::Makes(stage) = what else { continue };
            let channels = array.shape[axis];
            let used = &mut used[stage];
            used.resize(channels, false);
            for (index, values) in rows(array, axis).enumerate() {
                used[index % channels] |= values.iter().any(|&value| value != 0.0);
            }
        }
    }
    for used in used.iter_mut().filter(|used| !used.contains(&true)) {
        used[0] = true;
    }
    for (spec, array) in specs.iter().zip(arrays) {
        for (axis, stage) in
            spec.axes.iter().enumerate().filter_map(|(axis, what)| Some((axis, what.stage()?)))
        {
            let used = &used[stage];
            let kept = rows(array, axis).enumerate().filter(|(index, _)| used[index % used.len()]);
            array.data = kept.flat_map(|(_, values)| values).copied().collect();
            array.shape[axis] = used.iter().filter(|&&used| used).count();
        }
    }
}

/// The values in rows of one index of `axis` each, and of those before it.
fn rows(array: &NpyArray, axis: usize) -> std::slice::ChunksExact<'_, f32> {
    array.data.chunks_exact(array.shape[axis + 1..].iter().product())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use palmtop::tasks::{MASK_SIDE, MaskScratch};

    use super::*;

    type Decoder = (Vec<MaskTensorSpec>, Vec<NpyArray>);

    const RANDOM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/vectors/seg/vae-random.npz");

    fn random() -> Decoder {
        let file = fs::read(RANDOM).unwrap();
        let npz = Npz::parse(&file).unwrap();
        let specs = MaskCodec::tensors();
        let arrays = specs.iter().map(|spec| npz.read_f32(&spec.name).unwrap()).collect();
        (specs, arrays)
    }

    /// Makes zero what makes the channels of `stage` for which `dead` says so; half of the zeros are negative.
    fn kill((specs, arrays): &mut Decoder, stage: usize, dead: impl Fn(usize) -> bool) {
        for (spec, array) in specs.iter().zip(arrays) {
            let Some(axis) = spec.axes.iter().position(|&axis| axis == MaskAxis::Makes(stage)) else {
                continue;
            };
            let inner: usize = array.shape[axis + 1..].iter().product();
            for (index, values) in array.data.chunks_exact_mut(inner).enumerate() {
                if dead(index % array.shape[axis]) {
                    values.fill(if index % 2 == 0 { 0.0 } else { -0.0 });
                }
            }
        }
    }

    fn array<'a>((specs, arrays): &'a mut Decoder, name: &str) -> &'a mut NpyArray {
        &mut arrays[specs.iter().position(|spec| spec.name == name).unwrap()]
    }

    fn trimmed((specs, arrays): &Decoder) -> Decoder {
        let mut arrays = arrays.clone();
        leave_out_zeros(specs, &mut arrays);
        (specs.clone(), arrays)
    }

    /// The bits of masks of many codes.
    fn decoded((specs, arrays): &Decoder) -> Vec<u32> {
        let codec = codec(specs, arrays).unwrap();
        let mut scratch = MaskScratch::new();
        let mut mask = [f32::NAN; MASK_SIDE * MASK_SIDE];
        let mut bits = Vec::new();
        for seed in 0..24u32 {
            let code = |i: usize| ((seed * 16 + i as u32).wrapping_mul(2654435761) >> 25) as u8;
            codec.decode(&std::array::from_fn(code), &mut scratch, &mut mask);
            bits.extend(mask.iter().map(|value| value.to_bits()));
        }
        bits
    }

    #[test]
    fn without_channels_of_zeros_the_same_bits_are_decoded() {
        let mut whole = random();
        // Of every stage other channels, the first and the last of some.
        for stage in 0..MaskCodec::STAGES {
            kill(&mut whole, stage, |channel| channel % 7 != stage % 7);
        }
        let small = trimmed(&whole);
        let left = [74, 19, 18, 18, 18, 18, 18, 10, 5, 2];
        for (spec, array) in small.0.iter().zip(&small.1) {
            for (axis, size) in spec.axes.iter().zip(&array.shape) {
                assert_eq!(axis.stage().map_or(*size, |stage| left[stage]), *size, "{}", spec.name);
            }
        }
        let bits = decoded(&whole);
        assert!(bits.iter().any(|mask| *mask != bits[0]));
        assert_eq!(decoded(&small), bits);
        assert_eq!(trimmed(&small).1, small.1);
    }

    #[test]
    fn a_channel_that_one_layer_makes_stays() {
        for name in ["decoder.0.bias", "decoder.2.net.4.bias", "decoder.3.net.4.weight"] {
            let mut whole = random();
            kill(&mut whole, 1, |channel| channel >= 3);
            let makes = array(&mut whole, name);
            let inner = makes.data.len() / 128;
            makes.data[100 * inner] = 0.5;
            let mut small = trimmed(&whole);
            assert_eq!(array(&mut small, "decoder.4.weight").shape, [4, 128, 4, 4], "{name}");
            assert_eq!(decoded(&small), decoded(&whole), "{name}");
        }
    }

    #[test]
    fn a_stage_of_nothing_but_zeros_keeps_a_channel() {
        let mut whole = random();
        for stage in 0..MaskCodec::STAGES {
            kill(&mut whole, stage, |_| true);
        }
        let small = trimmed(&whole);
        for (spec, array) in small.0.iter().zip(&small.1) {
            assert!(
                spec.axes.iter().zip(&array.shape).all(|(axis, size)| axis.stage().is_none() || *size == 1)
            );
        }
        assert_eq!(decoded(&small), decoded(&whole));
    }

    #[test]
    fn other_decoders_stay_as_they_are() {
        let whole = random();
        assert_eq!(trimmed(&whole).1, whole.1);
        // These have channels of zeros, but to leave them out could be seen.
        for (name, value) in [
            ("decoder.4.weight", f32::INFINITY),
            ("decoder.4.weight", f32::NAN),
            ("decoder.2.net.0.weight", -101.0),
            ("decoder.12.bias", -0.0),
        ] {
            let mut whole = random();
            kill(&mut whole, 8, |channel| channel > 3);
            assert_ne!(trimmed(&whole).1, whole.1);
            array(&mut whole, name).data[0] = value;
            // Not by value, since a NaN differs from itself.
            let shapes =
                |decoder: Decoder| decoder.1.into_iter().map(|array| array.shape).collect::<Vec<_>>();
            assert_eq!(shapes(trimmed(&whole)), shapes(whole), "{name} {value}");
        }
    }

    #[test]
    fn files_are_read_without_their_zeros() {
        let shapes = |path: &Path| {
            let shape = |tensor| match tensor {
                Verbatim::F32 { shape, .. } => shape,
                Verbatim::Bytes { .. } => panic!("these are weights"),
            };
            read(path).unwrap().into_iter().map(shape).collect::<Vec<_>>()
        };
        let most: Vec<_> = MaskCodec::tensors().iter().map(MaskTensorSpec::shape_max).collect();
        assert_eq!(shapes(Path::new(RANDOM)), most);

        // The last twelve columns of the codebook become zero in the file itself, and its checksum right.
        let mut file = fs::read(RANDOM).unwrap();
        let (values, name) = (random().1[0].data.clone(), b"_vq_vae._embedding.npy");
        let values: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let data = file.windows(values.len()).position(|bytes| bytes == values).unwrap();
        let rows = file[data..][..values.len()].chunks_exact_mut(512 * 4);
        rows.for_each(|row| row[500 * 4..].fill(0));
        let start = file[..data].windows(6).rposition(|bytes| bytes == b"\x93NUMPY").unwrap();
        let checksum = crc32fast::hash(&file[start..data + values.len()]);
        let directory = file.windows(name.len()).rposition(|bytes| bytes == name).unwrap();
        file[directory - 30..][..4].copy_from_slice(&checksum.to_le_bytes());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("narrow.npz");
        fs::write(&path, file).unwrap();
        let narrow = shapes(&path);
        assert_eq!(narrow[..2], [vec![128, 500], vec![128, 500, 1, 1]]);
        assert_eq!(narrow[2..], most[2..]);
    }
}
