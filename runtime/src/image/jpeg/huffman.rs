//! Huffman tables: those of a file, and the standard's own, which webcams leave out of their frames.

use super::marker::HUFFMAN_TABLES;

/// Codes up to this many bits are found in one step.
const FAST_BITS: u32 = 9;
/// Codes have at most this many bits.
const CODE_BITS_MAX: usize = 16;

/// A code's length and what it stands for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Code {
    /// 0 if there is no such code.
    pub(super) bits: u32,
    pub(super) symbol: u8,
}

/// How codes are told apart.
#[derive(Clone, Debug)]
pub(super) struct Table {
    fast: [Code; 1 << FAST_BITS],
    /// Behind the last code of each length, shifted to 16 bits.
    end: [u32; CODE_BITS_MAX + 1],
    /// What to add to a code of each length to have its symbol's place.
    shift: [i32; CODE_BITS_MAX + 1],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length, 1 to 16 bits, and their symbols. `None` if they are no code.
    fn new(counts: &[u8; CODE_BITS_MAX], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: [Code::default(); 1 << FAST_BITS],
            end: [0; CODE_BITS_MAX + 1],
            shift: [0; CODE_BITS_MAX + 1],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for (bits, &count) in (1..).zip(counts) {
            table.shift[bits as usize] = place as i32 - code as i32;
            for _ in 0..count {
                if code >> bits != 0 {
                    return None;
                }
                let symbol = *symbols.get(place)?;
                if bits <= FAST_BITS {
                    let from = (code << (FAST_BITS - bits)) as usize;
                    table.fast[from..from + (1 << (FAST_BITS - bits))].fill(Code { bits, symbol });
                }
                (code, place) = (code + 1, place + 1);
            }
            table.end[bits as usize] = code << (CODE_BITS_MAX as u32 - bits);
            code <<= 1;
        }
        Some(table)
    }

    /// The code that 16 bits begin with.
    #[inline]
    pub(super) fn find(&self, bits: u32) -> Code {
        let code = self.fast[(bits >> (CODE_BITS_MAX as u32 - FAST_BITS)) as usize];
        if code.bits != 0 { code } else { self.find_long(bits) }
    }

    #[cold]
    fn find_long(&self, bits: u32) -> Code {
        for len in FAST_BITS as usize + 1..=CODE_BITS_MAX {
            if bits < self.end[len] {
                let place = (bits >> (CODE_BITS_MAX - len)) as i32 + self.shift[len];
                let symbol = usize::try_from(place).ok().and_then(|place| self.symbols.get(place));
                return symbol.map_or(Code::default(), |&symbol| Code { bits: len as u32, symbol });
            }
        }
        Code::default()
    }
}

/// The tables of a file so far, four of each class.
#[derive(Debug, Default)]
pub(super) struct Tables {
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
    /// Whether a scan named a table that the file had not defined, so that the standard's stood in.
    pub(super) lacked: bool,
}

impl Tables {
    /// Takes the tables of a segment. One that is no code counts as missing; the decoder says what is wrong.
    pub(super) fn define(&mut self, mut body: &[u8]) {
        while let [class_and_place, rest @ ..] = body
            && let Some((counts, rest)) = rest.split_first_chunk::<CODE_BITS_MAX>()
        {
            let len = counts.iter().map(|&n| usize::from(n)).sum::<usize>();
            let Some((symbols, rest)) = rest.split_at_checked(len) else { return };
            let tables = if class_and_place >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            tables[usize::from(class_and_place & 3)] = Table::new(counts, symbols).map(Box::new);
            body = rest;
        }
    }

    /// The tables that a scan's component names: for DC, if `needs_dc`, and for AC, if `needs_ac`. The standard's own
    /// stand in for those that the file does not define. `None` if neither has them.
    pub(super) fn ready(&mut self, dc: usize, ac: usize, needs_dc: bool, needs_ac: bool) -> Option<()> {
        for (tables, place, is_needed, class) in
            [(&mut self.dc, dc, needs_dc, 0), (&mut self.ac, ac, needs_ac, 1)]
        {
            let table = tables.get_mut(place)?;
            if is_needed && table.is_none() {
                let standard = STANDARD_TABLES.iter().find(|t| t.class == class && t.place == place)?;
                *table = Table::new(&standard.counts, standard.symbols).map(Box::new);
                self.lacked = true;
            }
        }
        Some(())
    }

    pub(super) fn dc(&self, place: usize) -> Option<&Table> {
        self.dc[place].as_deref()
    }

    pub(super) fn ac(&self, place: usize) -> Option<&Table> {
        self.ac[place].as_deref()
    }
}

/// A table of the standard.
pub(super) struct Standard {
    class: u8,
    place: usize,
    counts: [u8; CODE_BITS_MAX],
    symbols: &'static [u8],
}

impl Standard {
    /// As a segment of a file.
    pub(super) fn segment(&self) -> Vec<u8> {
        let len = (2 + 1 + CODE_BITS_MAX + self.symbols.len()) as u16;
        let head = [0xff, HUFFMAN_TABLES, (len >> 8) as u8, len as u8, self.class << 4 | self.place as u8];
        [&head[..], &self.counts, self.symbols].concat()
    }
}

/// ITU-T T.81, tables K.3 to K.6: of luma at place 0, of chroma at place 1.
pub(super) const STANDARD_TABLES: [Standard; 4] = [
    Standard {
        class: 0,
        place: 0,
        counts: [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        symbols: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    },
    Standard {
        class: 0,
        place: 1,
        counts: [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        symbols: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    },
    Standard {
        class: 1,
        place: 0,
        counts: [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
        symbols: &[
            0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
            0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
            0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
            0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
            0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
            0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
            0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
            0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
            0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
            0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
            0xf9, 0xfa,
        ],
    },
    Standard {
        class: 1,
        place: 1,
        counts: [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
        symbols: &[
            0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
            0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
            0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
            0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
            0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
            0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
            0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
            0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
            0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
            0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
            0xf9, 0xfa,
        ],
    },
];
