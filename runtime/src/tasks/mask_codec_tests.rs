use std::collections::HashMap;

use super::*;
use crate::tasks::test_npz;

fn weights() -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    test_npz::read("vae-random.npz")
        .into_iter()
        .map(|(name, array)| (name, (array.shape.clone(), array.f32s())))
        .collect()
}

fn lookup<'a>(
    weights: &'a HashMap<String, (Vec<usize>, Vec<f32>)>,
) -> impl FnMut(&str) -> Option<MaskTensor<'a>> {
    |name| {
        let (shape, data) = weights.get(name.strip_prefix(MaskCodec::PREFIX)?)?;
        Some(MaskTensor { shape: shape.clone(), data })
    }
}

fn reference_codes(expect: &HashMap<String, test_npz::TestArray>) -> [u8; 16] {
    let codes: Vec<u8> = expect["codes"].i64s().into_iter().map(|code| code as u8).collect();
    codes.try_into().unwrap()
}

#[test]
fn decodes_as_the_reference_does() {
    let weights = weights();
    let codec = MaskCodec::new(lookup(&weights)).unwrap();
    let expect = test_npz::read("vae-random-expect.npz");
    let mut out = [f32::NAN; MASK_SIDE * MASK_SIDE];
    let mut scratch = MaskScratch::new();
    codec.decode(&reference_codes(&expect), &mut scratch, &mut out);

    let expected = expect["mask64"].f32s();
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let error = out.iter().zip(&expected).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error < 2e-6 * largest, "error {error} of {largest}");
    // The arithmetic is the same on every machine, so the bits are too.
    let hash = out.iter().fold(0u32, |hash, value| (hash ^ value.to_bits()).wrapping_mul(0x0100_0193));
    assert_eq!(hash, 997905576);
}

#[test]
fn results_do_not_depend_on_what_the_scratch_held() {
    let weights = weights();
    let codec = MaskCodec::new(lookup(&weights)).unwrap();
    let mut scratch = MaskScratch::new();
    let codes: [u8; 16] = std::array::from_fn(|index| index as u8 * 8);
    let mut first = [0.0; MASK_SIDE * MASK_SIDE];
    codec.decode(&codes, &mut scratch, &mut first);

    let (mut other, mut second) = ([0.0; MASK_SIDE * MASK_SIDE], [0.0; MASK_SIDE * MASK_SIDE]);
    codec.decode(&[127; 16], &mut scratch, &mut other);
    assert_ne!(first, other);
    codec.decode(&codes, &mut scratch, &mut second);
    assert_eq!(first.map(f32::to_bits), second.map(f32::to_bits));

    for plane in &mut scratch.planes {
        plane.fill(f32::NAN);
    }
    codec.decode(&codes, &mut scratch, &mut second);
    assert_eq!(first.map(f32::to_bits), second.map(f32::to_bits));
}

#[test]
fn scratch_allocates_what_it_says() {
    let scratch = MaskScratch::new();
    let planes: usize = scratch.planes.iter().map(|plane| size_of_val(&**plane)).sum();
    assert_eq!(planes + size_of_val(&*scratch.sums), MaskScratch::bytes());
}

/// A decoder with so many channels at each stage.
fn narrow(channels: [usize; MaskCodec::STAGES]) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let tensor = |spec: MaskTensorSpec| {
        let shape = spec.axes.iter().zip(spec.shape_max());
        let shape: Vec<usize> =
            shape.map(|(axis, most)| axis.stage().map_or(most, |s| channels[s])).collect();
        let values =
            (0..shape.iter().product()).map(|index: usize| ((index * 37) % 101) as f32 * 0.002 - 0.09);
        (spec.name, (shape, values.collect()))
    };
    MaskCodec::tensors().into_iter().map(tensor).collect()
}

#[test]
fn every_tensor_is_checked() {
    let whole = weights();
    let tensors = MaskCodec::tensors();
    assert_eq!(tensors.len(), 25);
    for spec in &tensors {
        let (name, shape) = (&spec.name, spec.shape_max());
        let full_name = format!("mask_codec.{name}");
        let mut damaged = whole.clone();
        damaged.remove(name);
        let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
        assert_eq!(error, MaskCodecError::Missing { name: full_name.clone() });

        let mut longer = shape.clone();
        longer.push(1);
        for found in [longer, shape[1..].to_vec(), vec![]] {
            damaged.insert(name.clone(), (found.clone(), whole[name].1.clone()));
            let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
            assert!(
                matches!(&error, MaskCodecError::Shape { name, found: f, .. } if (name, f) == (&full_name, &found)),
                "{error}"
            );
        }

        let short = whole[name].1[1..].to_vec();
        damaged.insert(name.clone(), (shape.clone(), short));
        let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
        assert!(matches!(error, MaskCodecError::Shape { .. }));
    }
}

#[test]
fn each_stage_may_be_narrower() {
    let mut scratch = MaskScratch::new();
    for channels in [[1; MaskCodec::STAGES], [31, 7, 2, 3, 5, 1, 11, 4, 6, 2], CHANNELS_MAX] {
        let weights = narrow(channels);
        let codec = MaskCodec::new(lookup(&weights)).unwrap();
        let mut out = [f32::NAN; MASK_SIDE * MASK_SIDE];
        codec.decode(&std::array::from_fn(|index| index as u8 * 8), &mut scratch, &mut out);
        assert!(out.iter().all(|value| value.is_finite()), "{channels:?}");
    }
    for stage in 0..MaskCodec::STAGES {
        for wrong in [0, CHANNELS_MAX[stage] + 1] {
            let mut channels = [2; MaskCodec::STAGES];
            channels[stage] = wrong;
            let weights = narrow(channels);
            let error = MaskCodec::new(lookup(&weights)).unwrap_err().to_string();
            assert!(error.contains(&format!("1 to {}", CHANNELS_MAX[stage])), "{error}");
        }
    }
}

#[test]
fn all_tensors_of_a_stage_must_agree() {
    let channels = [31, 7, 2, 3, 5, 1, 11, 4, 6, 2];
    for spec in MaskCodec::tensors() {
        for (axis, what) in spec.axes.iter().enumerate() {
            for change in [1, -1] {
                let mut weights = narrow(channels);
                let (shape, data) = weights.get_mut(&spec.name).unwrap();
                shape[axis] = shape[axis].checked_add_signed(change).unwrap();
                *data = vec![0.0; shape.iter().product()];
                let error = MaskCodec::new(lookup(&weights)).unwrap_err();
                let MaskCodecError::Shape { name, expected, found } = &error else { panic!("{error}") };
                // The first tensor of a stage is believed; it is the next one that does not fit.
                if what.stage().is_none() {
                    assert_eq!(*name, format!("mask_codec.{}", spec.name));
                }
                assert!(
                    found.iter().zip(expected).any(|(size, possible)| !possible.contains(size)),
                    "{error}"
                );
            }
        }
    }
    let mut weights = narrow(channels);
    weights.insert("decoder.4.weight".to_owned(), (vec![8, 11, 4, 4], vec![0.0; 8 * 11 * 16]));
    assert_eq!(
        MaskCodec::new(lookup(&weights)).unwrap_err().to_string(),
        "the tensor mask_codec.decoder.4.weight has shape [8, 11, 4, 4], the mask decoder needs [7, 1 to 128, 4, 4]"
    );
}
