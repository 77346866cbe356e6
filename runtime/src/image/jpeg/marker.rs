//! The markers that divide a file, and the segments behind them.

use crate::image::bytes::be16;

pub(super) const APP0: u8 = 0xe0;
pub(super) const APP1: u8 = 0xe1;
pub(super) const APP14: u8 = 0xee;
pub(super) const COMMENT: u8 = 0xfe;
pub(super) const END_OF_IMAGE: u8 = 0xd9;
pub(super) const HUFFMAN_TABLES: u8 = 0xc4;
pub(super) const QUANTIZATION_TABLES: u8 = 0xdb;
pub(super) const RESTART_INTERVAL: u8 = 0xdd;
pub(super) const START_OF_SCAN: u8 = 0xda;

/// Start of frame; 0xc4, 0xc8 and 0xcc are tables and an extension.
pub(super) fn is_frame(code: u8) -> bool {
    matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc)
}

/// A marker and where it is.
#[derive(Debug)]
pub(super) struct Marker {
    pub(super) code: u8,
    /// Where its 0xff is.
    pub(super) at: usize,
}

impl Marker {
    /// The next marker from `at` on: 0xff and neither stuffing (0), nor filling (0xff), nor one without a segment.
    pub(super) fn next(bytes: &[u8], mut at: usize) -> Option<Self> {
        loop {
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            match *bytes.get(at + 1)? {
                0xff => at += 1,
                0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
                code => return Some(Self { code, at }),
            }
        }
    }

    /// Where its segment ends, if that is within the file.
    pub(super) fn end(&self, bytes: &[u8]) -> Option<usize> {
        if self.code == END_OF_IMAGE {
            return Some(self.at + 2);
        }
        let end = self.at + 2 + usize::from(be16(bytes, self.at + 2)?.max(2));
        (end <= bytes.len()).then_some(end)
    }

    /// What its segment holds, without its length.
    pub(super) fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.at + 4..self.end(bytes)?)
    }
}
