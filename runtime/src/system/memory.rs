//! Memory that is asked for once, and may be refused.
//!
//! [`Reserve`] hands out all memory of a session. The same code runs twice: over a reserve that only counts, which is
//! the plan, and over one that takes. So what is planned is what is taken, to the byte.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};

/// What memory is for: the lines of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Keys and values of all sequences.
    KeysValues,
    /// Activations of the image encoder and of the decoder.
    Activations,
    /// Scratch memory and stacks of the threads.
    Threads,
    /// Resizing, and the pixels that the encoder sees.
    Image,
    /// Tokens, texts and sampling.
    Text,
    /// Image features.
    Features,
}

const PURPOSES: usize = Purpose::Features as usize + 1;

/// Hands out memory, or only counts it.
pub(crate) struct Reserve {
    mode: Mode,
    purpose: Purpose,
    bytes: [usize; PURPOSES],
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Nothing is taken: what is handed out is empty.
    Count,
    /// Memory is taken; with `touch`, the system must back every page of it at once.
    Take { touch: bool },
}

impl Reserve {
    /// A reserve that only counts. What it hands out is empty.
    pub fn counting() -> Self {
        Self { mode: Mode::Count, purpose: Purpose::Text, bytes: [0; PURPOSES] }
    }

    /// A reserve that takes memory. With `touch` every page is written to, so that the system backs it now and not when
    /// it is first used.
    pub fn taking(touch: bool) -> Self {
        Self { mode: Mode::Take { touch }, purpose: Purpose::Text, bytes: [0; PURPOSES] }
    }

    /// What follows is for this.
    pub fn for_purpose(&mut self, purpose: Purpose) -> &mut Self {
        self.purpose = purpose;
        self
    }

    /// True if nothing is taken.
    pub fn counts_only(&self) -> bool {
        self.mode == Mode::Count
    }

    /// Bytes so far.
    pub fn bytes(&self, purpose: Purpose) -> usize {
        self.bytes[purpose as usize]
    }

    /// Bytes so far, for everything; `usize::MAX` if they exceed the address space.
    pub fn total(&self) -> usize {
        self.bytes.iter().fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Counts bytes that somebody else takes; `usize::MAX` stands for more than the address space has.
    pub fn count(&mut self, bytes: usize) {
        let counted = &mut self.bytes[self.purpose as usize];
        *counted = counted.saturating_add(bytes);
    }

    /// An empty list with room for `capacity` elements.
    pub fn list<T>(&mut self, capacity: usize) -> Result<Vec<T>> {
        let mut list = self.room(capacity)?;
        if self.mode == (Mode::Take { touch: true }) {
            touch_pages(list.spare_capacity_mut());
        }
        Ok(list)
    }

    /// The same, with no page touched: whoever fills it does so.
    fn room<T>(&mut self, capacity: usize) -> Result<Vec<T>> {
        let bytes = capacity.saturating_mul(size_of::<T>());
        self.count(bytes);
        let mut list = Vec::new();
        if !self.counts_only() {
            list.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory { bytes })?;
        }
        Ok(list)
    }

    /// An empty text with room for `bytes`.
    pub fn text(&mut self, bytes: usize) -> Result<String> {
        Ok(String::from_utf8(self.list(bytes)?).expect("nothing is valid UTF-8"))
    }

    /// `n` times `value`.
    pub fn filled<T: Clone>(&mut self, n: usize, value: T) -> Result<Vec<T>> {
        let mut list = self.room(n)?;
        if !self.counts_only() {
            list.resize(n, value);
        }
        Ok(list)
    }

    /// `n` zeros that begin at a cache line.
    pub fn aligned<T: Pod>(&mut self, n: usize) -> Result<Aligned<T>> {
        let lines = n.saturating_mul(size_of::<T>()).div_ceil(size_of::<Line>());
        self.count(lines.saturating_mul(size_of::<Line>()));
        let Mode::Take { touch } = self.mode else {
            return Ok(Aligned { lines: Vec::new(), len: 0, elements: PhantomData });
        };
        let mut lines: Vec<Line> = zeroed(lines)?;
        if touch {
            touch_pages(uninit(&mut lines));
        }
        Ok(Aligned { lines, len: n, elements: PhantomData })
    }

    /// A value of its own on the heap.
    pub fn boxed<T: Default>(&mut self) -> Box<T> {
        self.count(size_of::<T>());
        Box::default()
    }
}

/// Zeroed memory as bytes that may be anything.
fn uninit(lines: &mut [Line]) -> &mut [MaybeUninit<Line>] {
    // SAFETY: the same memory; a `Line` is a valid `MaybeUninit<Line>`, and only zeros are written through it, so that all
    // lines stay initialised.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len()) }
}

/// Writes a zero to every page, so that the system backs it.
fn touch_pages<T>(memory: &mut [MaybeUninit<T>]) {
    /// The smallest page that a supported system has; larger ones are touched several times.
    const PAGE: usize = 4096;
    let (start, len) = (memory.as_mut_ptr().cast::<u8>(), size_of_val(memory));
    for at in (0..len).step_by(PAGE) {
        // SAFETY: `at` lies within the slice, whose bytes need not be initialised. Volatile, since the compiler may know that
        // the memory is zero already and leave a plain store out.
        unsafe { start.add(at).write_volatile(0) };
    }
}

/// `n` zeros, or an error instead of an abort if the system has not so much.
pub(crate) fn zeroed<T: Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n)
        .map_err(|()| Error::OutOfMemory { bytes: n.saturating_mul(size_of::<T>()) })
}

/// A slice that begins at a cache line, so that no vector of it lies in two.
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl<T: Pod> Aligned<T> {
    /// `n` zeros that no plan counts.
    pub fn zeroed(n: usize) -> Result<Self> {
        Reserve::taking(false).aligned(n)
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Keeps pages in memory until it is dropped.
pub(crate) struct Lock {
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is no lock there"))]
    address: usize,
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is no lock there"))]
    bytes: usize,
}

impl Lock {
    /// Reads the pages that these bytes lie in, and locks them.
    #[cfg(unix)]
    pub fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let (address, bytes) = (bytes.as_ptr() as usize, bytes.len());
        // SAFETY: locking changes nothing that a program can see, whatever the address.
        unsafe { rustix::mm::mlock(std::ptr::without_provenance_mut(address), bytes) }?;
        Ok(Self { address, bytes })
    }

    #[cfg(not(unix))]
    pub fn new(_: &[u8]) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(unix)]
impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: as for locking. Pages that are shared with another lock may then leave memory, which changes only how
        // fast they are read.
        let _ = unsafe { rustix::mm::munlock(std::ptr::without_provenance_mut(self.address), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Some = (Aligned<u16>, Vec<u64>, Vec<u32>, String, Box<[u8; 24]>);

    /// Some memory of every kind; `u16`, so that lengths are no multiples of a cache line.
    fn some(reserve: &mut Reserve) -> Some {
        let aligned = reserve.for_purpose(Purpose::Activations).aligned(1001).unwrap();
        let filled = reserve.for_purpose(Purpose::Threads).filled(3, 7).unwrap();
        reserve.for_purpose(Purpose::Text);
        (aligned, filled, reserve.list(5000).unwrap(), reserve.text(9).unwrap(), reserve.boxed())
    }

    #[test]
    fn what_is_counted_is_what_is_taken() {
        let mut counting = Reserve::counting();
        let (aligned, filled, list, text, _) = some(&mut counting);
        assert_eq!((aligned.len(), filled.len(), list.capacity(), text.capacity()), (0, 0, 0, 0));
        assert_eq!(counting.bytes(Purpose::Activations), 2048);
        assert_eq!(counting.bytes(Purpose::Threads), 24);
        assert_eq!(counting.bytes(Purpose::Text), 20_000 + 9 + 24);
        for touch in [false, true] {
            let mut taking = Reserve::taking(touch);
            let (aligned, filled, list, text, _) = some(&mut taking);
            assert_eq!(taking.bytes, counting.bytes);
            assert_eq!((aligned.len(), &filled[..]), (1001, &[7; 3][..]));
            assert!(aligned.iter().all(|&x| x == 0) && aligned.as_ptr().addr().is_multiple_of(64));
            assert_eq!((list.capacity(), text.capacity()), (5000, 9));
        }
    }

    #[test]
    fn more_than_there_can_be_is_an_error() {
        assert!(matches!(Reserve::taking(true).list::<u64>(usize::MAX), Err(Error::OutOfMemory { .. })));
        assert!(matches!(Reserve::taking(true).aligned::<u64>(1 << 60), Err(Error::OutOfMemory { .. })));
        let mut counting = Reserve::counting();
        counting.list::<u64>(usize::MAX).unwrap();
        counting.count(10);
        assert_eq!(counting.total(), usize::MAX);
    }
}
