//! GIF: the first frame on its canvas.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::error::{ImageError, from_decoder};
use super::kind::Format;
use super::limits::{Cost, DecodeOptions as Options};
use super::native::{Native, Samples};

/// The first frame. What it does not cover has the transparent colour, or else the first one, as Pillow has it.
pub(super) fn decode(bytes: &[u8], options: &Options) -> Result<Native, ImageError> {
    let truncated = || ImageError::Truncated { format: Format::Gif.name() };
    let failed = |error: DecodingError| match error {
        DecodingError::UnexpectedEof => truncated(),
        error => from_decoder(Format::Gif, &error),
    };
    let mut reading = DecodeOptions::new();
    reading.set_color_output(ColorOutput::Indexed);
    reading.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = reading.read_info(Cursor::new(bytes)).map_err(failed)?;
    let canvas = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(failed)?;
    let frame = frame.ok_or_else(truncated)?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    // A frame that reaches beyond the canvas widens it.
    let (width, height) = (canvas.0.max(left + frame_width), canvas.1.max(top + frame_height));
    let cost = Cost { width, height, native: 1, extra: 1, narrows: false, transposes: false };
    let len = cost.check(Format::Gif, &options.limits)?;

    let palette = decoder.palette().map_err(failed)?.to_vec();
    let background = transparent.unwrap_or(0);
    let mut indices = vec![background; frame_width as usize * frame_height as usize];
    let mut is_truncated = false;
    if !indices.is_empty()
        && let Err(error) = decoder.read_into_buffer(&mut indices)
    {
        let error = match failed(error) {
            // The data may also end where the file says that they do, before all pixels have come.
            ImageError::Broken { reason, .. } if reason.contains("truncated") => truncated(),
            error => error,
        };
        is_truncated = options.passes_over(error)?;
    }
    let mut native = vec![background; len];
    if frame_width > 0 {
        let rows = native.chunks_exact_mut(width as usize).skip(top as usize);
        for (row, indices) in rows.zip(indices.chunks_exact(frame_width as usize)) {
            row[left as usize..][..frame_width as usize].copy_from_slice(indices);
        }
    }
    Ok(Native { width, height, samples: Samples::Indexed(native, palette), is_truncated })
}
