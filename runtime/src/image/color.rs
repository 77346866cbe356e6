//! Colours of other models to RGB, as Pillow and libjpeg convert them: without a profile, and to the bit.

/// CMYK to RGB: `(255 − k) · (255 − c) / 255`, rounded as Pillow rounds.
pub(super) fn from_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - i32::from(k);
    [c, m, y].map(|ink| {
        let product = i32::from(ink) * light + 128;
        (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// Adobe's YCCK to CMYK. Luma and chroma are of inverted inks, and the ink k is inverted too.
pub(super) fn cmyk_from_ycck([y, cb, cr, k]: [u8; 4]) -> [u8; 4] {
    let [c, m, y] = from_ycbcr([y, cb, cr]);
    [c, m, y, 255 - k]
}

/// YCbCr in the full range to RGB, as libjpeg does it.
pub(super) fn from_ycbcr(pixel: [u8; 3]) -> [u8; 3] {
    convert_ycbcr(pixel, 22554)
}

/// The same as libtiff does it, which has another fraction in one of the factors.
pub(super) fn from_ycbcr_as_libtiff(pixel: [u8; 3]) -> [u8; 3] {
    convert_ycbcr(pixel, 22553)
}

fn convert_ycbcr([y, cb, cr]: [u8; 3], green_of_cb: i32) -> [u8; 3] {
    /// Fraction bits of the factors, and one half.
    const BITS: i32 = 16;
    const HALF: i32 = 1 << (BITS - 1);
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91881 * cr + HALF) >> BITS);
    let green = y + ((-green_of_cb * cb - 46802 * cr + HALF) >> BITS);
    let blue = y + ((116130 * cb + HALF) >> BITS);
    [red, green, blue].map(|light| light.clamp(0, 255) as u8)
}

/// The same as Pillow does it, where no library does: with factors of 6 fraction bits times chroma, rounded by
/// adding a half and cutting off.
pub(super) fn from_ycbcr_as_pillow([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const BITS: i32 = 6;
    let part = |factor: f64, chroma: u8| {
        (factor * (f64::from(chroma) - 128.0) * f64::from(1 << BITS) + 0.5).trunc() as i32
    };
    let y = i32::from(y);
    [
        y + (part(1.402, cr) >> BITS),
        y + ((part(-0.34414, cb) + part(-0.71414, cr)) >> BITS),
        y + (part(1.772, cb) >> BITS),
    ]
    .map(|light| light.clamp(0, 255) as u8)
}

/// A colour that was multiplied by its alpha, divided again.
pub(super) fn from_premultiplied([r, g, b, alpha]: [u8; 4]) -> [u8; 3] {
    match alpha {
        0 | 255 => [r, g, b],
        _ => [r, g, b].map(|light| (255 * u32::from(light) / u32::from(alpha)).min(255) as u8),
    }
}
