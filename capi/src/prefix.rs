//! Prefixes for models that stand on top of this one: keys and values of every layer, and the rows of the decoder.

use std::ffi::c_char;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use palmtop::{ImageFeatures, Prefix, PrefixLimits, PrefixText};
use smallvec::SmallVec;

use crate::answer::PICTURES_MAX;
use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, Result, call, palmtop_status};
use crate::handles::handle;
use crate::model::{MODELS, palmtop_model};
use crate::picture::{FEATURES, FeaturesEntry, palmtop_features};
use crate::session::{SESSIONS, palmtop_session, try_lock};

handle!(palmtop_prefix, PREFIXES: RwLock<Prefix>, 7, "prefix");

/// Tokens at most: those of the longest prompt that a session can be made for.
const TOKENS_MAX: usize = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_prefix_options {
    pub size: usize,
    pub pictures: u32,
    pub tokens: u32,
    pub keys_values: u32,
    pub hidden: u32,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_prefix_options {
    const NAME: &'static str = "palmtop_prefix_options";
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// The defaults of [`PrefixLimits`].
const DEFAULT_PREFIX_OPTIONS: palmtop_prefix_options = palmtop_prefix_options {
    size: size_of::<palmtop_prefix_options>(),
    pictures: 1,
    tokens: 256,
    keys_values: 1,
    hidden: 1,
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_prefix_request {
    pub size: usize,
    pub pictures: *const palmtop_features,
    pub picture_count: usize,
    pub text: *const c_char,
    pub tokens: *const u32,
    pub token_count: usize,
    pub open: u32,
    pub reserved: u32,
    pub deadline_ns: u64,
}

// SAFETY: integers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_prefix_request {
    const NAME: &'static str = "palmtop_prefix_request";
    const FIRST_BYTES: usize = size_of::<Self>();
}

const NO_REQUEST: palmtop_prefix_request = palmtop_prefix_request {
    size: size_of::<palmtop_prefix_request>(),
    pictures: std::ptr::null(),
    picture_count: 0,
    text: std::ptr::null(),
    tokens: std::ptr::null(),
    token_count: 0,
    open: 0,
    reserved: 0,
    deadline_ns: 0,
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_prefix_info {
    pub size: usize,
    pub keys: *const f32,
    pub values: *const f32,
    pub hidden: *const f32,
    pub mask: *const u8,
    pub positions: *const i32,
    pub layers: u32,
    pub rows: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub width: u32,
    pub next_position: u32,
}

// SAFETY: integers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_prefix_info {
    const NAME: &'static str = "palmtop_prefix_info";
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// No call takes more than these.
fn limits(options: &palmtop_prefix_options) -> Result<PrefixLimits> {
    let mut limits = PrefixLimits::default();
    (limits.pictures, limits.tokens) = (options.pictures as usize, options.tokens as usize);
    (limits.keys_values, limits.hidden) = (options.keys_values != 0, options.hidden != 0);
    arguments::check_count("picture", limits.pictures, PICTURES_MAX)?;
    arguments::check_count("token", limits.tokens, TOKENS_MAX)?;
    Ok(limits)
}

/// # Safety
/// `options` is null, or can be written as far as `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_prefix_options_init(
    options: *mut palmtop_prefix_options,
    size: usize,
) -> palmtop_status {
    // SAFETY: as this function's.
    call(|| unsafe { arguments::init(options, size, DEFAULT_PREFIX_OPTIONS) })
}

/// # Safety
/// `options` is null, or can be read as far as its size; `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_prefix_plan(
    model: palmtop_model,
    options: *const palmtop_prefix_options,
    bytes: *mut u64,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out, options) =
            unsafe { (Out::new("bytes", bytes, 0)?, arguments::options(options, DEFAULT_PREFIX_OPTIONS)?) };
        out.give(MODELS.get(model.id)?.plan_prefix(&limits(&options)?)? as u64);
        Ok(())
    })
}

/// # Safety
/// `options` is null, or can be read as far as its size; `prefix` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_prefix_new(
    model: palmtop_model,
    options: *const palmtop_prefix_options,
    prefix: *mut palmtop_prefix,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out, options) = unsafe {
            let out = Out::new("prefix", prefix, palmtop_prefix::default())?;
            (out, arguments::options(options, DEFAULT_PREFIX_OPTIONS)?)
        };
        let prefix = MODELS.get(model.id)?.new_prefix(&limits(&options)?)?;
        out.give(palmtop_prefix { id: PREFIXES.insert(Arc::new(RwLock::new(prefix)))? });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_prefix_free(prefix: palmtop_prefix) -> palmtop_status {
    call(|| {
        let entry = PREFIXES.get(prefix.id)?;
        if let Err(std::sync::TryLockError::WouldBlock) = entry.try_write() {
            try_lock(entry.try_write(), "prefix").map(drop)?;
        }
        PREFIXES.remove(prefix.id).map(drop)
    })
}

/// # Safety
/// `request` is null, or can be read as far as its size; its lists are null, or as long as it says, and its text is
/// null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_compute_prefix(
    session: palmtop_session,
    prefix: palmtop_prefix,
    request: *const palmtop_prefix_request,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (request, pictures, text) = unsafe {
            let request = arguments::required(request, NO_REQUEST)?;
            let count = request.picture_count;
            let pictures = arguments::list("picture", request.pictures, count, PICTURES_MAX)?;
            (request, pictures, text(&request)?)
        };
        let (session, prefix) = (SESSIONS.get(session.id)?, PREFIXES.get(prefix.id)?);
        let of = |picture: &palmtop_features| match picture.id {
            0 => Ok(None),
            id => FEATURES.get(id).map(Some),
        };
        let entries: SmallVec<[Option<Arc<FeaturesEntry>>; PICTURES_MAX]> =
            pictures.iter().map(of).collect::<Result<_>>()?;
        let mut state = session.lock()?;
        let mut prefix = try_lock(prefix.try_write(), "prefix")?;
        let mut guards = SmallVec::<[Option<RwLockReadGuard<'_, ImageFeatures>>; PICTURES_MAX]>::new();
        for entry in &entries {
            guards.push(match entry {
                None => None,
                Some(entry) => Some(try_lock(entry.features.try_read(), "features")?),
            });
        }
        let pictures: SmallVec<[Option<&ImageFeatures>; PICTURES_MAX]> =
            guards.iter().map(Option::as_deref).collect();
        let state = &mut *state;
        state.options.deadline = crate::instant(request.deadline_ns);
        Ok(state.session.prefix(&pictures, text, &state.options, &mut prefix)?)
    })
}

/// The text of a request, or its tokens.
///
/// # Safety
/// The text is null or one; the tokens are null, or as many as it says. They do not change for `'a`.
unsafe fn text<'a>(request: &palmtop_prefix_request) -> Result<PrefixText<'a>> {
    // SAFETY: as this function's.
    let tokens = unsafe { arguments::list("token", request.tokens, request.token_count, TOKENS_MAX)? };
    if request.text.is_null() {
        return Ok(PrefixText::Tokens(tokens));
    }
    if !tokens.is_empty() {
        return Err(Failure::argument("a prefix has a text or tokens, not both"));
    }
    // SAFETY: as this function's.
    let text = unsafe { arguments::text("the text", request.text)? };
    Ok(if request.open == 0 { PrefixText::Prompt(text) } else { PrefixText::Open(text) })
}

/// Where values are; null if there are none.
fn place<T>(values: &[T]) -> *const T {
    if values.is_empty() { std::ptr::null() } else { values.as_ptr() }
}

/// # Safety
/// `info` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_prefix_get_info(
    prefix: palmtop_prefix,
    info: *mut palmtop_prefix_info,
) -> palmtop_status {
    call(|| {
        let entry = PREFIXES.get(prefix.id)?;
        let prefix = try_lock(entry.try_read(), "prefix")?;
        let [layers, rows, kv_heads, head_dim] = prefix.shape();
        let value = palmtop_prefix_info {
            size: 0,
            keys: place(prefix.keys()),
            values: place(prefix.values()),
            hidden: place(prefix.hidden()),
            // A `bool` is a byte, 0 or 1.
            mask: place(prefix.mask()).cast(),
            positions: place(prefix.positions()),
            layers: layers as u32,
            rows: rows as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            width: prefix.hidden_shape()[1] as u32,
            next_position: prefix.next_position() as u32,
        };
        // SAFETY: as this function's.
        unsafe { arguments::give(info, value) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_rust_library() {
        assert_eq!(limits(&DEFAULT_PREFIX_OPTIONS).unwrap(), PrefixLimits::default());
    }
}
