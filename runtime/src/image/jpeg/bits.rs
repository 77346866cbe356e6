//! The bits of a scan: codes and values are passed over, and none is taken for there that is not.

use super::huffman::Table;

/// Coefficients of a block.
pub(super) const COEFFICIENTS: usize = 64;

/// Why the walk over a scan ends before the scan does.
pub(super) enum Stop {
    Cut,
    Damaged,
}

/// The bits of a scan, between its markers.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, the first one highest; zeros behind them.
    window: u64,
    /// How many bits there are in the window.
    count: u32,
    /// Whether a marker or the end of the file was met.
    has_ended: bool,
}

impl<'a> Bits<'a> {
    /// From `at` on.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, window: 0, count: 0, has_ended: false }
    }

    /// A code and a value behind it have at most this many bits.
    const STEP_MAX: u32 = 32;

    #[inline]
    fn fill(&mut self) {
        if self.count < Self::STEP_MAX && !self.has_ended {
            self.fill_up();
        }
    }

    fn fill_up(&mut self) {
        if let Some(&next) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(next);
            // A byte of ones would be a zero byte of the complement.
            let has_ff = (!word).wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 != 0;
            if !has_ff {
                let taken = (64 - self.count) / 8;
                let kept = word & !u64::MAX.checked_shr(8 * taken).unwrap_or(0);
                self.window |= kept >> self.count;
                self.count += 8 * taken;
                self.at += taken as usize;
                return;
            }
        }
        while self.count <= 56 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (None | Some(0xff), _) => {
                    self.has_ended = true;
                    return;
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.window |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Takes bits that a [`fill`](Self::fill) has made sure of, if there are so many.
    #[inline]
    fn consume(&mut self, bits: u32) -> Result<(), Stop> {
        if bits > self.count {
            return Err(Stop::Cut);
        }
        self.window <<= bits;
        self.count -= bits;
        Ok(())
    }

    #[inline]
    pub(super) fn code(&mut self, table: &Table) -> Result<u8, Stop> {
        self.fill();
        let code = table.find((self.window >> 48) as u32);
        if code.bits == 0 {
            // Behind the end there are zeros, which may make a code that is none.
            return Err(if self.count < 16 { Stop::Cut } else { Stop::Damaged });
        }
        self.consume(code.bits)?;
        Ok(code.symbol)
    }

    #[inline]
    pub(super) fn skip(&mut self, bits: u32) -> Result<(), Stop> {
        self.fill();
        self.consume(bits)
    }

    pub(super) fn skip_many(&mut self, mut bits: usize) -> Result<(), Stop> {
        while bits > 0 {
            let some = bits.min(Self::STEP_MAX as usize);
            self.skip(some as u32)?;
            bits -= some;
        }
        Ok(())
    }

    /// The value of at most 16 bits.
    pub(super) fn take(&mut self, bits: u32) -> Result<u32, Stop> {
        self.fill();
        let value = (self.window >> 48) as u32 >> (16 - bits);
        self.consume(bits)?;
        Ok(value)
    }

    /// The constant part of a block.
    #[inline]
    pub(super) fn constant(&mut self, table: &Table) -> Result<(), Stop> {
        match self.code(table)? {
            bits @ 0..=16 => self.skip(bits.into()),
            _ => Err(Stop::Damaged),
        }
    }

    /// The other coefficients of a block.
    #[inline]
    pub(super) fn others(&mut self, table: &Table) -> Result<(), Stop> {
        let mut at = 1;
        while at < COEFFICIENTS {
            let symbol = self.code(table)?;
            let (zeros, value_bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if value_bits == 0 && zeros < 15 {
                break;
            }
            // These bits were there when the code was read, if they are there at all.
            self.consume(value_bits)?;
            at += zeros + 1;
        }
        Ok(())
    }

    /// The next marker from here on and where it is. Data before it that no block needs are passed over.
    pub(super) fn next_marker(&self) -> Option<(usize, u8)> {
        let mut at = self.at;
        loop {
            at += self.bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            match *self.bytes.get(at + 1)? {
                0xff => at += 1,
                0 => at += 2,
                code => return Some((at, code)),
            }
        }
    }

    /// Goes on behind the restart marker of this number, which must be the next one.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Stop> {
        match self.next_marker() {
            Some((at, code)) if code == 0xd0 + number => {
                *self = Self::new(self.bytes, at + 2);
                Ok(())
            }
            _ => Err(Stop::Cut),
        }
    }
}
