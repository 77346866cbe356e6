//! Run-length encoding of masks as in COCO.

/// A mask of a whole picture as COCO's run lengths: pixels in column-major order, runs of 0 and 1 in turn, the first
/// of them of 0 (and of length zero if the first pixel is 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rle {
    /// Columns of the picture.
    pub width: u32,
    /// Rows of the picture.
    pub height: u32,
    /// The lengths of the runs; they sum to `width * height`.
    pub counts: Vec<u32>,
}

impl Rle {
    /// The string that pycocotools writes for the counts (`rleToString` of its maskApi.c), as in the `counts` of
    /// COCO's JSON.
    ///
    /// Every count after the third is stored as the difference to the one two before, in groups of 5 bits from the
    /// lowest on, bit 6 marking that more follow, each group plus 48 a character.
    pub fn compressed(&self) -> String {
        let mut text = String::with_capacity(self.counts.len() * 2);
        for (index, &count) in self.counts.iter().enumerate() {
            let base = if index > 2 { i64::from(self.counts[index - 2]) } else { 0 };
            let mut value = i64::from(count) - base;
            loop {
                let group = (value & 0x1f) as u8;
                value >>= 5;
                let is_last = value == if group & 0x10 != 0 { -1 } else { 0 };
                text.push(char::from(48 + (group | if is_last { 0 } else { 0x20 })));
                if is_last {
                    break;
                }
            }
        }
        text
    }
}

/// Collects runs of bits.
pub(super) struct RunCollector {
    counts: Vec<u32>,
    length: u32,
    bit: bool,
}

impl RunCollector {
    pub fn new() -> Self {
        Self { counts: Vec::new(), length: 0, bit: false }
    }

    /// Appends `length` times `bit`. All lengths together must not exceed `u32::MAX`.
    pub fn push(&mut self, bit: bool, length: u32) {
        if bit != self.bit && length > 0 {
            self.counts.push(self.length);
            (self.length, self.bit) = (0, bit);
        }
        self.length += length;
    }

    pub fn finish(mut self) -> Vec<u32> {
        self.counts.push(self.length);
        self.counts
    }
}
