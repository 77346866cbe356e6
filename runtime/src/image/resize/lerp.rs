//! Bilinear resizing without antialias, to the bits of TensorFlow's `resize_bilinear` with half-pixel centers.
//!
//! Every output pixel lies between four pixels of the source and is interpolated in f32, first along rows, then between
//! them; `tensorflow/core/kernels/image/resize_bilinear_op.cc` has the order of operations. What is left is cut to a
//! byte, as `tf.cast` does.

/// Where an output pixel lies between two of the source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Between {
    pub lower: u32,
    pub upper: u32,
    /// Share of the upper one.
    pub share: f32,
}

impl Between {
    /// Output pixel `index` of an axis.
    pub fn new(index: u32, side_in: u32, side_out: u32) -> Self {
        let scale = side_in as f32 / side_out as f32;
        let at = (index as f32 + 0.5) * scale - 0.5;
        let below = at.floor();
        let last = side_in - 1;
        Self {
            lower: (below.max(0.0) as u32).min(last),
            upper: (at.ceil().max(0.0) as u32).min(last),
            share: at - below,
        }
    }
}

/// One row of the output: `columns` of it, between the rows `top` and `bottom` of the source.
pub(super) fn row<const CHANNELS: usize>(
    columns: &[Between],
    top: &[u8],
    bottom: &[u8],
    share: f32,
    out: &mut [u8],
) {
    for (pixel, between) in out.chunks_exact_mut(CHANNELS).zip(columns) {
        let (lower, upper) = (between.lower as usize * CHANNELS, between.upper as usize * CHANNELS);
        for (c, byte) in pixel.iter_mut().enumerate() {
            let along = |row: &[u8]| {
                let (a, b) = (f32::from(row[lower + c]), f32::from(row[upper + c]));
                a + (b - a) * between.share
            };
            let (top, bottom) = (along(top), along(bottom));
            // A cast cuts what is behind the point.
            *byte = (top + (bottom - top) * share) as u8;
        }
    }
}
