//! Checks what callers pass by address, as far as that is possible.

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::mem::MaybeUninit;

use crate::failure::{Failure, Result};

/// A struct that begins with its size in bytes, so that it can grow: callers of older and of newer versions are
/// understood.
///
/// # Safety
/// `repr(C)`, its first field is a `usize`, and any bytes in the rest of it are a valid value.
pub(crate) unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size in the first version: less is never handed in.
    const FIRST_BYTES: usize;
}

/// Bytes of the largest struct that a newer caller may have; more is taken for a mistake.
const BYTES_MAX: usize = 4096;

fn check_place<T>(name: impl Display, place: *const T) -> Result<()> {
    if place.is_null() {
        return Err(Failure::argument(format!("the address of {name} is null")));
    }
    if !place.is_aligned() {
        return Err(Failure::argument(format!(
            "the address of {name} is not a multiple of {}",
            align_of::<T>()
        )));
    }
    Ok(())
}

/// The size that the caller has written into a struct.
///
/// # Safety
/// `place` is null, or can be read as far as its size.
unsafe fn stated<T: Versioned>(place: *const T) -> Result<usize> {
    check_place(T::NAME, place)?;
    // SAFETY: not null and aligned as just checked; the first field is a `usize` by the trait's promise.
    let bytes = unsafe { place.cast::<usize>().read() };
    if !(T::FIRST_BYTES..=BYTES_MAX).contains(&bytes) {
        return Err(Failure::argument(format!(
            "{} says that it has {bytes} bytes, where {} are the least: set it up with its init function, or its size to sizeof",
            T::NAME,
            T::FIRST_BYTES
        )));
    }
    Ok(bytes)
}

/// The options of a caller, or the defaults for null. What an older caller does not know has its default; what a newer
/// one knows must be zero beyond our knowledge.
///
/// # Safety
/// `place` is null, or can be read as far as its size.
pub(crate) unsafe fn options<T: Versioned>(place: *const T, default: T) -> Result<T> {
    if place.is_null() {
        return Ok(default);
    }
    // SAFETY: as this function's.
    unsafe { required(place, default) }
}

/// Like [`options`], but null is an error.
///
/// # Safety
/// As [`options`].
pub(crate) unsafe fn required<T: Versioned>(place: *const T, default: T) -> Result<T> {
    // SAFETY: as this function's.
    let bytes = unsafe { stated(place) }?;
    let known = bytes.min(size_of::<T>());
    // SAFETY: the caller's memory reaches as far as its size.
    let beyond = unsafe { std::slice::from_raw_parts(place.cast::<u8>().add(known), bytes - known) };
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(Failure::argument(format!(
            "{} uses fields that this version of the library does not have: it is older than the header",
            T::NAME
        )));
    }
    let mut value = MaybeUninit::new(default);
    // SAFETY: both reach as far as `known`; they do not overlap, since `value` is our own.
    unsafe { std::ptr::copy_nonoverlapping(place.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: any bytes are a value, by the trait's promise.
    Ok(unsafe { value.assume_init() })
}

/// Writes defaults into a struct of `bytes` bytes, as far as it and we go, and its size.
///
/// # Safety
/// `place` is null, or can be written as far as `bytes`.
pub(crate) unsafe fn init<T: Versioned>(place: *mut T, bytes: usize, default: T) -> Result<()> {
    check_place(T::NAME, place)?;
    if !(T::FIRST_BYTES..=BYTES_MAX).contains(&bytes) {
        let name = T::NAME;
        return Err(Failure::argument(format!("{bytes} is not the size of {name}: give sizeof({name})")));
    }
    // SAFETY: not null and aligned as just checked, and the caller's memory reaches as far as `bytes`.
    unsafe {
        std::ptr::write_bytes(place.cast::<u8>(), 0, bytes);
        place.cast::<usize>().write(bytes);
        fill(place, bytes, default);
    }
    Ok(())
}

/// Checks a struct that a result is to be written into.
///
/// # Safety
/// `place` is null, or can be read as far as its size.
pub(crate) unsafe fn check<T: Versioned>(place: *const T) -> Result<()> {
    // SAFETY: as this function's.
    unsafe { stated(place) }.map(drop)
}

/// Writes a result into a struct whose size the caller has set, as far as both go.
///
/// # Safety
/// `place` is null, or can be read and written as far as its size.
pub(crate) unsafe fn give<T: Versioned>(place: *mut T, value: T) -> Result<()> {
    // SAFETY: as this function's.
    let bytes = unsafe { stated(place) }?;
    // SAFETY: checked by `stated`, and the caller's memory reaches as far as `bytes`.
    unsafe { fill(place, bytes, value) };
    Ok(())
}

/// Copies all but the size.
///
/// # Safety
/// `place` can be written as far as `bytes`, of which there are at least the size's.
unsafe fn fill<T: Versioned>(place: *mut T, bytes: usize, value: T) {
    let head = size_of::<usize>();
    let from = (&raw const value).cast::<u8>();
    // SAFETY: both reach as far as the lesser of their sizes; `value` is our own, so they do not overlap.
    unsafe {
        let n = bytes.min(size_of::<T>()) - head;
        std::ptr::copy_nonoverlapping(from.add(head), place.cast::<u8>().add(head), n);
    }
}

/// A place for something that a call gives.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Checks the address, and writes `nothing` there, so that a failed call leaves no old value.
    ///
    /// # Safety
    /// `place` is null, or can be written until the value is given.
    pub unsafe fn new(name: &str, place: *mut T, nothing: T) -> Result<Self> {
        check_place(name, place)?;
        // SAFETY: not null and aligned as just checked, writable by the caller's promise.
        unsafe { place.write(nothing) };
        Ok(Self(place))
    }

    pub fn give(self, value: T) {
        // SAFETY: checked in `new`, and writable by its caller's promise.
        unsafe { self.0.write(value) };
    }
}

/// Bytes of the caller.
///
/// # Safety
/// `data` is null, or `bytes` bytes can be read there and do not change for `'a`.
pub(crate) unsafe fn bytes<'a>(name: &str, data: *const u8, bytes: usize) -> Result<&'a [u8]> {
    if bytes == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::argument(format!("the address of {name} is null")));
    }
    if bytes > isize::MAX as usize || (data as usize).checked_add(bytes).is_none() {
        return Err(Failure::argument(format!("{name} cannot have {bytes} bytes")));
    }
    // SAFETY: not null and of a possible size as just checked; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(data, bytes) })
}

/// A text of the caller.
///
/// # Safety
/// `text` is null, or ends with a zero and does not change for `'a`.
pub(crate) unsafe fn text<'a>(name: impl Display, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Failure::argument(format!("{name} is null")));
    }
    // SAFETY: not null; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{name} is not valid UTF-8")))
}

pub(crate) fn check_count(name: &str, count: usize, max: usize) -> Result<()> {
    if count <= max {
        return Ok(());
    }
    Err(Failure::argument(format!("{count} {name}s, but {max} is the maximum")))
}

/// Values of the caller, behind each other.
///
/// # Safety
/// `list` is null, or has `count` values, which do not change for `'a`. Any bytes are a valid `T`.
pub(crate) unsafe fn list<'a, T>(
    name: &'static str,
    list: *const T,
    count: usize,
    max: usize,
) -> Result<&'a [T]> {
    check_count(name, count, max)?;
    if count == 0 {
        return Ok(&[]);
    }
    check_place(format_args!("the list of {name}s"), list)?;
    // SAFETY: neither null nor misplaced as just checked; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(list, count) })
}

/// Texts of the caller, one by one.
///
/// # Safety
/// `texts` is null, or has `count` addresses, each as for [`text`].
pub(crate) unsafe fn texts<'a>(
    name: &'static str,
    texts: *const *const c_char,
    count: usize,
    max: usize,
) -> Result<impl Iterator<Item = Result<&'a str>>> {
    // SAFETY: as this function's.
    let texts = unsafe { list(name, texts, count, max)? };
    // SAFETY: each is a text by the caller's promise.
    Ok(texts.iter().enumerate().map(move |(i, &t)| unsafe { text(format_args!("{name} {i}"), t) }))
}

/// Structs of the caller, one by one. They stand behind each other as the caller's compiler puts them: all have the
/// size of the first. What an older caller does not know has its default, as in [`options`].
///
/// # Safety
/// `structs` is null, or `count` structs can be read there, each as far as the first one's size.
pub(crate) unsafe fn structs<T: Versioned>(
    name: &'static str,
    structs: *const T,
    count: usize,
    max: usize,
    default: T,
) -> Result<impl Iterator<Item = Result<T>>> {
    check_count(name, count, max)?;
    // SAFETY: as this function's.
    let step = if count > 0 { unsafe { stated(structs)? } } else { 0 };
    Ok((0..count).map(move |i| {
        let place = structs.wrapping_byte_add(i * step);
        // SAFETY: there are `count` structs of `step` bytes by the caller's promise.
        let bytes = unsafe { stated(place)? };
        if bytes != step {
            return Err(Failure::argument(format!(
                "{name} {i} says that it has {bytes} bytes, the first one {step}: all of a list have the same size"
            )));
        }
        // SAFETY: as just checked, it goes no further than that.
        unsafe { required(place, default) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first version had `a` only.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        size: usize,
        a: u64,
        b: u64,
    }

    // SAFETY: integers, the first a `usize`.
    unsafe impl Versioned for Grown {
        const NAME: &'static str = "grown";
        const FIRST_BYTES: usize = 16;
    }

    const DEFAULT: Grown = Grown { size: 24, a: 1, b: 2 };

    #[test]
    fn callers_of_other_versions_are_understood() {
        // SAFETY: every array reaches as far as it says.
        let read = |memory: &[u64]| unsafe { options(memory.as_ptr().cast::<Grown>(), DEFAULT) }.ok();
        assert_eq!(read(&[16, 7]), Some(Grown { size: 16, a: 7, b: 2 }));
        assert_eq!(read(&[24, 7, 8]), Some(Grown { size: 24, a: 7, b: 8 }));
        assert_eq!(read(&[32, 7, 8, 0]), Some(Grown { size: 32, a: 7, b: 8 }));
        assert_eq!(read(&[32, 7, 8, 1]), None, "a field that we do not know is used");
        assert_eq!(read(&[8]), None);
        assert_eq!(read(&[0]), None);
        assert_eq!(read(&[u64::MAX]), None);
    }

    #[test]
    fn lists_of_other_versions_are_understood() {
        // SAFETY: every array has as many structs as it says.
        let read = |memory: &[u64], count| unsafe {
            let list = structs("thing", memory.as_ptr().cast::<Grown>(), count, 2, DEFAULT).ok()?;
            list.collect::<Result<Vec<_>>>().ok()
        };
        let grown = |size, a, b| Grown { size, a, b };
        assert_eq!(read(&[16, 7, 16, 8], 2), Some(vec![grown(16, 7, 2), grown(16, 8, 2)]));
        assert_eq!(read(&[24, 7, 3, 24, 8, 4], 2), Some(vec![grown(24, 7, 3), grown(24, 8, 4)]));
        assert_eq!(read(&[32, 7, 3, 0, 32, 8, 4, 0], 2), Some(vec![grown(32, 7, 3), grown(32, 8, 4)]));
        assert_eq!(read(&[32, 7, 3, 0, 32, 8, 4, 1], 2), None, "a field that we do not know is used");
        assert_eq!(read(&[16, 7, 24, 8, 4], 2), None, "sizes differ");
        assert_eq!(read(&[20, 7, 3, 20, 8, 4], 2), None, "the second is misaligned");
        assert_eq!(read(&[8, 7], 1), None);
        assert_eq!(read(&[16, 7, 16, 8, 16, 9], 3), None, "too many");
        assert_eq!(read(&[], 0), Some(vec![]));
    }

    #[test]
    fn results_reach_as_far_as_both_know() {
        for (size, expected) in [(16, [16, 5, 9, 9]), (24, [24, 5, 6, 9]), (32, [32, 5, 6, 9])] {
            let mut memory = [size, 9, 9, 9u64];
            // SAFETY: the array has 32 bytes.
            unsafe { give(memory.as_mut_ptr().cast(), Grown { size: 0, a: 5, b: 6 }) }.unwrap();
            assert_eq!(memory, expected);
        }
        for (size, expected) in [(16, [16, 1, 9, 9]), (24, [24, 1, 2, 9]), (32, [32, 1, 2, 0])] {
            let mut memory = [9u64; 4];
            // SAFETY: the array has 32 bytes.
            unsafe { init(memory.as_mut_ptr().cast(), size as usize, DEFAULT) }.unwrap();
            assert_eq!(memory, expected);
        }
    }
}
