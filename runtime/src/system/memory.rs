//! Memory that is asked for once, and may be refused.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};

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
    /// `n` zeros.
    pub fn zeroed(n: usize) -> Result<Self> {
        let lines = zeroed(n.saturating_mul(size_of::<T>()).div_ceil(size_of::<Line>()))?;
        Ok(Self { lines, len: n, elements: PhantomData })
    }

    /// What `n` elements take.
    pub fn bytes(n: usize) -> usize {
        n.saturating_mul(size_of::<T>()).div_ceil(size_of::<Line>()).saturating_mul(size_of::<Line>())
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
