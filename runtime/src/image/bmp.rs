//! BMP: the colours of pictures with 16 bits a pixel, which decoders widen differently.

use super::bytes::{le16, le32};

/// Bits of red, green and blue, if a pixel has 16 and each of them 5 or 6.
fn narrow_colors(bytes: &[u8]) -> Option<[u32; 3]> {
    const MASKS: u32 = 3;
    let header_bytes = le32(bytes, 14)?;
    if header_bytes < 40 || le16(bytes, 28)? != 16 {
        return None;
    }
    let bits = match le32(bytes, 30)? {
        0 => [5; 3],
        MASKS => [54, 58, 62].map(|at| le32(bytes, at).map_or(0, u32::count_ones)),
        _ => return None,
    };
    bits.iter().all(|bits| matches!(bits, 5 | 6)).then_some(bits)
}

/// Widens colours as Pillow does, which cuts fractions off: `v · 255 / 31`. In `rgb` they were rounded.
pub(super) fn widen_as_pillow(bytes: &[u8], rgb: &mut [u8]) {
    let Some(bits) = narrow_colors(bytes) else { return };
    let tables = bits.map(|bits| {
        let most = (1u32 << bits) - 1;
        std::array::from_fn::<u8, 256, _>(|rounded| {
            let narrow = (rounded as u32 * most + 127) / 255;
            (narrow * 255 / most) as u8
        })
    });
    for pixel in rgb.as_chunks_mut::<3>().0 {
        for (light, table) in pixel.iter_mut().zip(&tables) {
            *light = table[usize::from(*light)];
        }
    }
}
