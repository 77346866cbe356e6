//! Memory that is asked for once, and may be refused.

use bytemuck::Zeroable;

use crate::error::{Error, Result};

/// `n` zeros, or an error instead of an abort if the system has not so much.
pub(crate) fn zeroed<T: Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n)
        .map_err(|()| Error::OutOfMemory { bytes: n.saturating_mul(size_of::<T>()) })
}
