//! Normalising against the processor's `pixel_values`.

use super::super::{ImageError, Normaliser, RgbView};
use super::{generated, vectors};

/// `rescale_factor` of the checkpoints' preprocessor_config.json.
const RESCALE: f64 = 0.00392156862745098;

#[test]
fn planes_equal_the_processor_bit_for_bit() {
    let normaliser = Normaliser::new([0.5; 3], [0.5; 3], RESCALE).unwrap();
    for vector in vectors() {
        let rgb = RgbView::packed(vector.side, vector.side, &vector.resized).unwrap();
        let mut out = vec![f32::NAN; vector.pixel_values.len()];
        normaliser.planes(rgb, &mut out).unwrap();
        let same = out.iter().zip(&vector.pixel_values).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{}", vector.name);
    }
}

#[test]
fn patches_are_the_planes_in_the_order_of_convolution_weights() {
    let normaliser = Normaliser::new([0.48, 0.46, 0.41], [0.27, 0.26, 0.28], RESCALE).unwrap();
    let (width, height, patch) = (35u32, 21u32, 7u32);
    let image = generated(width, height, 9);
    let mut planes = vec![0.0; (3 * width * height) as usize];
    normaliser.planes(image.view(), &mut planes).unwrap();
    let mut patches = vec![0.0; planes.len()];
    normaliser.patches(image.view(), patch, &mut patches).unwrap();
    for (i, &value) in patches.iter().enumerate() {
        let i = i as u32;
        let (index, within) = (i / (3 * patch * patch), i % (3 * patch * patch));
        let (c, ky, kx) = (within / (patch * patch), within / patch % patch, within % patch);
        let (y, x) = (index / (width / patch) * patch + ky, index % (width / patch) * patch + kx);
        assert_eq!(value, planes[((c * height + y) * width + x) as usize], "element {i}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (mean, std, rescale) in [(0.5, 0.0, RESCALE), (f32::NAN, 0.5, RESCALE), (0.5, 0.5, f64::INFINITY)] {
        assert!(matches!(Normaliser::new([mean; 3], [std; 3], rescale), Err(ImageError::Layout(_))));
    }
    let normaliser = Normaliser::new([0.5; 3], [0.5; 3], RESCALE).unwrap();
    let image = generated(6, 4, 1);
    let mut out = [0.0; 73];
    assert!(normaliser.planes(image.view(), &mut out).is_err());
    assert!(normaliser.planes(image.view(), &mut out[..72]).is_ok());
    assert!(normaliser.patches(image.view(), 2, &mut out[..71]).is_err());
    assert!(normaliser.patches(image.view(), 2, &mut out[..72]).is_ok());
    for patch in [0, 3, 4, 6] {
        assert!(normaliser.patches(image.view(), patch, &mut out[..72]).is_err(), "patch of {patch}");
    }
}
