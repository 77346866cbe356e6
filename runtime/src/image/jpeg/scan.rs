//! Whether a scan's data are whole: its codes are walked through and its blocks counted, without a value kept.
//!
//! A block of a sequential picture is a code for the constant part and codes for the others, each with the bits of a
//! value behind it. Scans of progressive pictures bring a band of coefficients to some precision; in those that refine
//! a band, coefficients that are not zero have a bit each, so which ones are is kept: 64 bits a block.

use super::huffman::{Table, Tables};

const COEFFICIENTS: usize = 64;
/// Bits at the low end that a scan may leave to others.
const PRECISION_MAX: u8 = 13;

/// A component of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, 1 to 4.
    pub(super) h: u32,
    pub(super) v: u32,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanEnd {
    /// All of it is there; the next marker, or the end of the file, is here.
    Whole(usize),
    /// The data end too early.
    Cut,
    /// The data make no sense.
    Damaged,
    /// The header makes no sense.
    None,
}

/// Why the walk over a scan ends before the scan does.
enum Stop {
    Cut,
    Damaged,
}

/// What scans so far have brought of a component.
#[derive(Debug)]
struct Brought {
    /// Blocks in a row, and rows, as a scan of this component alone has them.
    columns: usize,
    rows: usize,
    /// For each coefficient the bits that still lack at its low end; `None` if nothing has come.
    lacking: [Option<u8>; COEFFICIENTS],
    /// Of each block the coefficients that are not zero; empty until a band comes.
    nonzero: Vec<u64>,
}

/// The walk over the scans of a picture.
#[derive(Debug)]
pub(super) struct Scan {
    components: Vec<Component>,
    brought: Vec<Brought>,
    is_progressive: bool,
    /// Groups of blocks of all components, in a row and in rows.
    mcu_columns: usize,
    mcu_rows: usize,
    is_possible: bool,
}

/// What a scan brings.
struct Plan {
    /// The band of coefficients.
    first: usize,
    last: usize,
    /// Whether they get one bit more.
    refines: bool,
    /// How many low bits lack then.
    low: u8,
    /// The components.
    places: Vec<usize>,
    /// The places of the tables for DC and AC, of each block of a group.
    blocks: Vec<(usize, usize)>,
}

impl Scan {
    pub(super) fn new(width: u32, height: u32, components: &[Component], is_progressive: bool) -> Self {
        let is_possible = (1..=4).contains(&components.len())
            && components.iter().all(|c| (1..=4).contains(&c.h) && (1..=4).contains(&c.v))
            && width > 0
            && height > 0;
        let h_max = components.iter().map(|c| c.h).max().unwrap_or(1).max(1);
        let v_max = components.iter().map(|c| c.v).max().unwrap_or(1).max(1);
        let blocks = |side: u32, own: u32, most: u32| (side * own).div_ceil(most).div_ceil(8) as usize;
        let brought = components.iter().map(|c| Brought {
            columns: blocks(width, c.h, h_max),
            rows: blocks(height, c.v, v_max),
            lacking: [None; COEFFICIENTS],
            nonzero: Vec::new(),
        });
        Self {
            brought: brought.collect(),
            components: components.to_vec(),
            is_progressive,
            mcu_columns: width.div_ceil(8 * h_max) as usize,
            mcu_rows: height.div_ceil(8 * v_max) as usize,
            is_possible,
        }
    }

    /// Whether the frame is one that can be walked.
    pub(super) fn is_possible(&self) -> bool {
        self.is_possible
    }

    /// Whether every component has come, at least coarsely.
    pub(super) fn has_all_components(&self) -> bool {
        self.brought.iter().all(|b| b.lacking[0].is_some())
    }

    /// Whether nothing can be added.
    pub(super) fn is_refined(&self) -> bool {
        self.brought.iter().all(|b| b.lacking.iter().all(|&bits| bits == Some(0)))
    }

    /// Walks over the scan whose data begin at `at` and whose header has this body.
    pub(super) fn walk(
        &mut self,
        bytes: &[u8],
        body: &[u8],
        at: usize,
        restart_interval: usize,
        tables: &mut Tables,
    ) -> ScanEnd {
        let Some(plan) = self.plan(body, tables) else { return ScanEnd::None };
        let mut bits = Bits { bytes, at, window: 0, count: 0, has_ended: false };
        match self.walk_blocks(&mut bits, &plan, restart_interval, tables) {
            Ok(()) => ScanEnd::Whole(bits.next_marker().map_or(bytes.len(), |(at, _)| at)),
            Err(Stop::Cut) => ScanEnd::Cut,
            Err(Stop::Damaged) => ScanEnd::Damaged,
        }
    }

    /// What a scan with this header brings. `None` if that is nothing sensible.
    fn plan(&self, body: &[u8], tables: &mut Tables) -> Option<Plan> {
        let count = usize::from(*body.first()?);
        let selectors = body.get(1..1 + 2 * count)?;
        let [first, last, precision] = *body[1 + 2 * count..].first_chunk()?;
        if usize::from(last) >= COEFFICIENTS
            || precision >> 4 > PRECISION_MAX
            || precision & 15 > PRECISION_MAX
        {
            return None;
        }
        let (first, last, low) = match (self.is_progressive, first) {
            (true, 0) => (0, 0, precision & 15),
            (true, first) => (first.into(), last.into(), precision & 15),
            (false, _) => (0, COEFFICIENTS - 1, 0),
        };
        let refines = self.is_progressive && precision >> 4 != 0;
        let mut plan = Plan { first, last, refines, low, places: Vec::new(), blocks: Vec::new() };
        let is_band = self.is_progressive && first > 0;
        let components_max = if is_band { 1 } else { 4 };
        if first > last || !(1..=components_max).contains(&count) {
            return None;
        }
        for selector in selectors.as_chunks::<2>().0 {
            let place = self.components.iter().position(|c| c.id == selector[0])?;
            let (dc, ac) = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            tables.ready(dc, ac, !is_band && !refines, !self.is_progressive || is_band)?;
            let component = self.components[place];
            let blocks = if count == 1 { 1 } else { component.h * component.v };
            plan.blocks.extend((0..blocks).map(|_| (dc, ac)));
            plan.places.push(place);
        }
        Some(plan)
    }

    fn walk_blocks(
        &mut self,
        bits: &mut Bits<'_>,
        plan: &Plan,
        restart_interval: usize,
        tables: &Tables,
    ) -> Result<(), Stop> {
        let (columns, rows) = match plan.places[..] {
            [one] => (self.brought[one].columns, self.brought[one].rows),
            _ => (self.mcu_columns, self.mcu_rows),
        };
        let groups = columns * rows;
        let blocks: Vec<_> = plan.blocks.iter().map(|&(dc, ac)| (tables.dc(dc), tables.ac(ac))).collect();
        let is_band = self.is_progressive && plan.first > 0;
        let mut nonzero: &mut [u64] = &mut [];
        if is_band {
            let brought = &mut self.brought[plan.places[0]];
            brought.nonzero.resize(groups, 0);
            nonzero = &mut brought.nonzero;
        }
        let interval = if restart_interval == 0 { groups } else { restart_interval };
        let (mut group, mut restarts) = (0, 0u8);
        while group < groups {
            if group > 0 {
                bits.restart(restarts % 8)?;
                restarts = restarts.wrapping_add(1);
            }
            let end = groups.min(group + interval);
            if is_band {
                let table = blocks[0].1.ok_or(Stop::Damaged)?;
                walk_band(bits, table, plan, &mut nonzero[group..end])?;
            } else if plan.refines {
                bits.skip_many(blocks.len() * (end - group))?;
            } else {
                for _ in group..end {
                    for &(dc, ac) in &blocks {
                        bits.constant(dc.ok_or(Stop::Damaged)?)?;
                        if !self.is_progressive {
                            bits.others(ac.ok_or(Stop::Damaged)?)?;
                        }
                    }
                }
            }
            group = end;
        }
        for &place in &plan.places {
            self.brought[place].lacking[plan.first..=plan.last].fill(Some(plan.low));
        }
        Ok(())
    }
}

/// Blocks of a scan that brings or refines a band of one component.
fn walk_band(bits: &mut Bits<'_>, table: &Table, plan: &Plan, blocks: &mut [u64]) -> Result<(), Stop> {
    // Blocks from here on that have nothing new in the rest of the plan.
    let mut ended = 0u32;
    for block in blocks {
        let mut at = plan.first;
        if ended == 0 {
            while at <= plan.last {
                let symbol = bits.code(table)?;
                let (mut zeros, value_bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                if value_bits == 0 && zeros < 15 {
                    ended = (1 << zeros) + bits.take(zeros as u32)?;
                    break;
                }
                if plan.refines {
                    // The new one's sign; then a bit of each one that is not zero, over so many that are.
                    bits.skip(u32::from(value_bits != 0))?;
                    while at <= plan.last {
                        if *block >> at & 1 == 1 {
                            bits.skip(1)?;
                        } else if zeros == 0 {
                            break;
                        } else {
                            zeros -= 1;
                        }
                        at += 1;
                    }
                } else {
                    bits.skip(value_bits)?;
                    at += zeros;
                }
                if value_bits != 0 && at < COEFFICIENTS {
                    *block |= 1 << at;
                }
                at += 1;
            }
        }
        if ended > 0 {
            if plan.refines && at <= plan.last {
                let rest = (u64::MAX << at) & (u64::MAX >> (COEFFICIENTS - 1 - plan.last));
                bits.skip_many((*block & rest).count_ones() as usize)?;
            }
            ended -= 1;
        }
    }
    Ok(())
}

/// The bits of a scan, between its markers.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, the first one highest; zeros behind them.
    window: u64,
    /// How many bits there are in the window.
    count: u32,
    /// Whether a marker or the end of the file was met.
    has_ended: bool,
}

impl Bits<'_> {
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
    fn code(&mut self, table: &Table) -> Result<u8, Stop> {
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
    fn skip(&mut self, bits: u32) -> Result<(), Stop> {
        self.fill();
        self.consume(bits)
    }

    fn skip_many(&mut self, mut bits: usize) -> Result<(), Stop> {
        while bits > 0 {
            let some = bits.min(Self::STEP_MAX as usize);
            self.skip(some as u32)?;
            bits -= some;
        }
        Ok(())
    }

    /// The value of at most 16 bits.
    fn take(&mut self, bits: u32) -> Result<u32, Stop> {
        self.fill();
        let value = (self.window >> 48) as u32 >> (16 - bits);
        self.consume(bits)?;
        Ok(value)
    }

    /// The constant part of a block.
    #[inline]
    fn constant(&mut self, table: &Table) -> Result<(), Stop> {
        match self.code(table)? {
            bits @ 0..=16 => self.skip(bits.into()),
            _ => Err(Stop::Damaged),
        }
    }

    /// The other coefficients of a block.
    #[inline]
    fn others(&mut self, table: &Table) -> Result<(), Stop> {
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
    fn next_marker(&self) -> Option<(usize, u8)> {
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
    fn restart(&mut self, number: u8) -> Result<(), Stop> {
        match self.next_marker() {
            Some((at, code)) if code == 0xd0 + number => {
                *self = Self { bytes: self.bytes, at: at + 2, window: 0, count: 0, has_ended: false };
                Ok(())
            }
            _ => Err(Stop::Cut),
        }
    }
}
