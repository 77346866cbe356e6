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

#[test]
fn every_tensor_is_checked() {
    let whole = weights();
    let tensors = MaskCodec::tensors();
    assert_eq!(tensors.len(), 25);
    for (name, shape) in &tensors {
        let full_name = format!("mask_codec.{name}");
        let mut damaged = whole.clone();
        damaged.remove(name);
        let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
        assert_eq!(error, MaskCodecError::Missing { name: full_name.clone() });

        let mut found = shape.clone();
        found.push(1);
        damaged.insert(name.clone(), (found.clone(), whole[name].1.clone()));
        let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
        assert_eq!(error, MaskCodecError::Shape { name: full_name.clone(), expected: shape.clone(), found });

        let short = whole[name].1[1..].to_vec();
        damaged.insert(name.clone(), (shape.clone(), short));
        let error = MaskCodec::new(lookup(&damaged)).unwrap_err();
        assert!(matches!(error, MaskCodecError::Shape { .. }));
    }
}
