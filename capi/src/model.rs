//! Models, and the plan of a session.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;

use palmtop::Model;
use palmtop::model::config::Generation;

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, PALMTOP_BAD_MODEL, Result, call, palmtop_status};
use crate::handles::handle;
use crate::session::{self, palmtop_session_options};

handle!(palmtop_model, MODELS: Model, 1, "model");

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_model_info {
    pub size: usize,
    pub file_bytes: u64,
    pub image_side: u32,
    pub image_tokens: u32,
    pub vocabulary: u32,
    pub generation: u32,
    pub vision_layers: u32,
    pub text_layers: u32,
    pub has_mask_decoder: u32,
    pub reserved: u32,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_model_info {
    const NAME: &'static str = "palmtop_model_info";
    const FIRST_BYTES: usize = size_of::<Self>();
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_plan {
    pub size: usize,
    pub session_bytes: u64,
    pub weights_bytes: u64,
    pub kv_bytes: u64,
    pub activation_bytes: u64,
    pub thread_bytes: u64,
    pub image_bytes: u64,
    pub text_bytes: u64,
    pub features_bytes: u64,
    pub threads: u32,
    pub reserved: u32,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_plan {
    const NAME: &'static str = "palmtop_plan";
    const FIRST_BYTES: usize = size_of::<Self>();
}

impl From<&palmtop::Plan> for palmtop_plan {
    fn from(planned: &palmtop::Plan) -> Self {
        Self {
            size: 0,
            session_bytes: planned.session_bytes() as u64,
            weights_bytes: planned.weights_bytes as u64,
            kv_bytes: planned.kv_bytes as u64,
            activation_bytes: planned.activation_bytes as u64,
            thread_bytes: planned.thread_bytes as u64,
            image_bytes: planned.image_bytes as u64,
            text_bytes: planned.text_bytes as u64,
            features_bytes: planned.features_bytes as u64,
            threads: planned.threads as u32,
            reserved: 0,
        }
    }
}

pub type palmtop_release_callback = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// # Safety
/// `path` is null or a text, `model` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_open(
    path: *const c_char,
    model: *mut palmtop_model,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out, path) = unsafe {
            (Out::new("model", model, palmtop_model::default())?, arguments::text("the path", path)?)
        };
        give(out, Model::open(Path::new(path))?)
    })
}

/// # Safety
/// `path` is null or a text, `model` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_read(
    path: *const c_char,
    model: *mut palmtop_model,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out, path) = unsafe {
            (Out::new("model", model, palmtop_model::default())?, arguments::text("the path", path)?)
        };
        give(out, Model::read(Path::new(path))?)
    })
}

/// # Safety
/// `model` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_open_fd(
    fd: i32,
    offset: u64,
    length: u64,
    model: *mut palmtop_model,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("model", model, palmtop_model::default())? };
        give(out, open_fd(fd, offset, length)?)
    })
}

#[cfg(unix)]
fn open_fd(fd: i32, offset: u64, length: u64) -> Result<Arc<Model>> {
    use std::fs::File;
    use std::os::fd::BorrowedFd;
    if fd < 0 {
        return Err(Failure::argument(format!("{fd} is not a file descriptor")));
    }
    // SAFETY: not -1. If it is not open, the system says so in the next call; nothing else is done with it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let owned = borrowed
        .try_clone_to_owned()
        .map_err(|error| Failure::argument(format!("file descriptor {fd} cannot be used: {error}")))?;
    Ok(Model::open_part(&File::from(owned), offset, (length > 0).then_some(length))?)
}

#[cfg(not(unix))]
fn open_fd(_: i32, _: u64, _: u64) -> Result<Arc<Model>> {
    Err(Failure::argument("this system has no file descriptors: open the model by its path"))
}

/// The caller's memory, given back when the model is no longer in use.
struct Borrowed {
    data: *const u8,
    bytes: usize,
    release: palmtop_release_callback,
    user: *mut c_void,
}

// SAFETY: the memory is only read, and the caller promises that `release` may be called on any thread.
unsafe impl Send for Borrowed {}
// SAFETY: as above; all access through a shared reference is reading.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: checked in `palmtop_model_open_memory`, and unchanged until released by its caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: called once, with what came with it.
            unsafe { release(self.user) };
        }
    }
}

/// # Safety
/// `data` is null, or has `bytes` bytes that do not change until `release` is called, or for ever without it; that may
/// happen on any thread. `model` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_open_memory(
    data: *const c_void,
    bytes: usize,
    release: palmtop_release_callback,
    user: *mut c_void,
    model: *mut palmtop_model,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("model", model, palmtop_model::default())? };
        let data = data.cast::<u8>();
        // SAFETY: as this function's.
        let seen = unsafe { arguments::bytes("the model", data, bytes)? };
        if !(seen.as_ptr() as usize).is_multiple_of(64) && !seen.is_empty() {
            return Err(Failure::argument("the address of the model is not a multiple of 64"));
        }
        if seen.is_empty() {
            return Err(Failure::argument("a model of 0 bytes is not possible"));
        }
        // Tried without `release`, which is not called unless this succeeds.
        let try_out = Borrowed { data, bytes, release: None, user };
        drop(Model::from_memory(try_out)?);
        give(out, Model::from_memory(Borrowed { data, bytes, release, user })?)
    })
}

fn give(out: Out<palmtop_model>, model: Arc<Model>) -> Result<()> {
    let id = MODELS.insert(model)?;
    out.give(palmtop_model { id });
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_model_free(model: palmtop_model) -> palmtop_status {
    call(|| MODELS.remove(model.id).map(drop))
}

/// # Safety
/// `info` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_get_info(
    model: palmtop_model,
    info: *mut palmtop_model_info,
) -> palmtop_status {
    call(|| {
        let model = MODELS.get(model.id)?;
        let (vision, text) = (&model.config().vision, &model.config().text);
        let value = palmtop_model_info {
            size: 0,
            file_bytes: model.file().bytes(),
            image_side: vision.image_size as u32,
            image_tokens: vision.patches() as u32,
            vocabulary: text.vocab as u32,
            generation: if text.generation == Generation::Gemma1 { 1 } else { 2 },
            vision_layers: vision.layers as u32,
            text_layers: text.layers as u32,
            has_mask_decoder: u32::from(model.mask_codec()?.is_some()),
            reserved: 0,
        };
        // SAFETY: as this function's.
        unsafe { arguments::give(info, value) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_model_verify(model: palmtop_model) -> palmtop_status {
    call(|| {
        let damaged = MODELS.get(model.id)?.file().verify(|_| {});
        match damaged.first() {
            None => Ok(()),
            Some(first) => Err(Failure::new(
                PALMTOP_BAD_MODEL,
                format!("{} tensors of the model are damaged; the first: {first}", damaged.len()),
            )),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_model_preload(model: palmtop_model) -> palmtop_status {
    call(|| {
        MODELS.get(model.id)?.preload();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_model_lock(model: palmtop_model) -> palmtop_status {
    call(|| Ok(MODELS.get(model.id)?.lock()?))
}

/// # Safety
/// `options` is null, or can be read as far as its size; `plan` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_model_plan(
    model: palmtop_model,
    options: *const palmtop_session_options,
    plan: *mut palmtop_plan,
) -> palmtop_status {
    call(|| {
        let model = MODELS.get(model.id)?;
        // SAFETY: as this function's.
        let options = unsafe { arguments::options(options, session::DEFAULT_SESSION_OPTIONS)? };
        let planned = model.plan(&session::limits(&options)?)?;
        // SAFETY: as this function's.
        unsafe { arguments::give(plan, palmtop_plan::from(&planned)) }
    })
}
