//! Sessions, and the locks that refuse a second call at once, without harm to the first.

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use palmtop::image::Filter;
use palmtop::{CancelToken, GenerateOptions, Isa, KvFormat, Limits, Session, ThreadHints};

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, PALMTOP_BUSY, PALMTOP_INTERNAL, Result, call, palmtop_status};
use crate::handles::handle;
use crate::model::{MODELS, palmtop_model};

handle!(palmtop_session, SESSIONS: SessionEntry, 2, "session");

pub const PALMTOP_KV_AUTO: i32 = 0;
pub const PALMTOP_KV_F32: i32 = 1;
pub const PALMTOP_KV_F16: i32 = 2;
pub const PALMTOP_KV_INT8: i32 = 3;
pub const PALMTOP_ISA_DEFAULT: i32 = 0;
pub const PALMTOP_ISA_SCALAR: i32 = 1;
pub const PALMTOP_ISA_NEON: i32 = 2;
pub const PALMTOP_ISA_NEON_DOTPROD: i32 = 3;
pub const PALMTOP_ISA_NEON_I8MM: i32 = 4;
pub const PALMTOP_ISA_AVX2: i32 = 5;
pub const PALMTOP_ISA_AVXVNNI: i32 = 6;
pub const PALMTOP_ISA_AVX512: i32 = 7;
pub const PALMTOP_ISA_AMX: i32 = 8;
pub const PALMTOP_FILTER_OF_MODEL: i32 = 0;
pub const PALMTOP_FILTER_BICUBIC: i32 = 1;
pub const PALMTOP_FILTER_BILINEAR: i32 = 2;
pub const PALMTOP_FILTER_BILINEAR_ALIASED: i32 = 3;
pub const PALMTOP_NICE_AS_IT_IS: i32 = 127;

pub type palmtop_thread_callback = Option<unsafe extern "C" fn(user: *mut c_void, index: u32)>;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_session_options {
    pub size: usize,
    pub batch: u32,
    pub prompt_tokens: u32,
    pub new_tokens: u32,
    pub image_side: u32,
    pub kv: i32,
    pub threads: u32,
    pub nice: i32,
    pub core_count: u32,
    pub cores: *const u32,
    pub on_thread_start: palmtop_thread_callback,
    pub thread_user: *mut c_void,
    pub isa: i32,
    pub lazy_memory: u32,
    pub pictures: u32,
    pub draft_tokens: u32,
    pub filter: i32,
    pub reserved: u32,
}

// SAFETY: integers, addresses and a nullable function, the first a `usize`.
unsafe impl Versioned for palmtop_session_options {
    const NAME: &'static str = "palmtop_session_options";
    const FIRST_BYTES: usize = offset_of!(Self, isa);
}

/// The defaults of [`Limits`], and threads as they come.
pub(crate) const DEFAULT_SESSION_OPTIONS: palmtop_session_options = palmtop_session_options {
    size: size_of::<palmtop_session_options>(),
    batch: 1,
    prompt_tokens: 256,
    new_tokens: 256,
    image_side: 16384,
    kv: PALMTOP_KV_AUTO,
    threads: 0,
    nice: PALMTOP_NICE_AS_IT_IS,
    core_count: 0,
    cores: std::ptr::null(),
    on_thread_start: None,
    thread_user: std::ptr::null_mut(),
    isa: PALMTOP_ISA_DEFAULT,
    lazy_memory: 0,
    pictures: 1,
    draft_tokens: 0,
    filter: PALMTOP_FILTER_OF_MODEL,
    reserved: 0,
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_timings {
    pub size: usize,
    pub encode_ns: u64,
    pub prefill_ns: u64,
    pub decode_ns: u64,
    pub decode_steps: u64,
    pub prefix_ns: u64,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_timings {
    const NAME: &'static str = "palmtop_timings";
    const FIRST_BYTES: usize = offset_of!(Self, prefix_ns);
}

/// A session and what stops it.
pub(crate) struct SessionEntry {
    pub cancel: CancelToken,
    state: Mutex<State>,
}

/// What one call at a time uses.
pub(crate) struct State {
    pub session: Session,
    /// Made once, since it holds the cancel token.
    pub options: GenerateOptions,
}

impl SessionEntry {
    /// The session for the time of a call, if nobody else has it.
    pub fn lock(&self) -> Result<MutexGuard<'_, State>> {
        try_lock(self.state.try_lock(), "session")
    }
}

/// An object that nobody else uses, and in whose use nothing has gone wrong.
pub(crate) fn try_lock<G>(lock: Result<G, TryLockError<G>>, what: &str) -> Result<G> {
    match lock {
        Ok(guard) => Ok(guard),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            PALMTOP_BUSY,
            format!("another call is using the {what}: wait for it, or cancel it"),
        )),
        Err(TryLockError::Poisoned(_)) => {
            let message = format!("an earlier call with this {what} hit a bug: free it and create a new one");
            Err(Failure::new(PALMTOP_INTERNAL, message))
        }
    }
}

pub(crate) fn limits(options: &palmtop_session_options) -> Result<Limits> {
    let mut limits = Limits::default();
    limits.batch = options.batch as usize;
    limits.prompt_tokens = options.prompt_tokens as usize;
    limits.new_tokens = options.new_tokens as usize;
    limits.pictures = options.pictures as usize;
    limits.draft_tokens = options.draft_tokens as usize;
    limits.image_side = options.image_side as usize;
    limits.kv = match options.kv {
        PALMTOP_KV_AUTO => KvFormat::Auto,
        PALMTOP_KV_F32 => KvFormat::F32,
        PALMTOP_KV_F16 => KvFormat::F16,
        PALMTOP_KV_INT8 => KvFormat::Int8,
        other => return Err(Failure::argument(format!("{other} is not a format of the KV cache"))),
    };
    limits.touch_memory = options.lazy_memory == 0;
    limits.filter = match options.filter {
        PALMTOP_FILTER_OF_MODEL => None,
        PALMTOP_FILTER_BICUBIC => Some(Filter::Bicubic),
        PALMTOP_FILTER_BILINEAR => Some(Filter::Bilinear),
        PALMTOP_FILTER_BILINEAR_ALIASED => Some(Filter::BilinearAliased),
        other => return Err(Failure::argument(format!("{other} is not a filter for resizing"))),
    };
    limits.isa = match options.isa {
        PALMTOP_ISA_DEFAULT => None,
        PALMTOP_ISA_SCALAR => Some(Isa::Scalar),
        PALMTOP_ISA_NEON => Some(Isa::Neon),
        PALMTOP_ISA_NEON_DOTPROD => Some(Isa::NeonDotprod),
        PALMTOP_ISA_NEON_I8MM => Some(Isa::NeonI8mm),
        PALMTOP_ISA_AVX2 => Some(Isa::Avx2),
        PALMTOP_ISA_AVXVNNI => Some(Isa::AvxVnni),
        PALMTOP_ISA_AVX512 => Some(Isa::Avx512),
        PALMTOP_ISA_AMX => Some(Isa::Amx),
        other => return Err(Failure::argument(format!("{other} is not an instruction set"))),
    };
    limits.threads = (options.threads > 0).then_some(options.threads as usize);
    Ok(limits)
}

/// A function of the caller and what it is called with.
struct OnStart {
    function: unsafe extern "C" fn(*mut c_void, u32),
    user: *mut c_void,
}

// SAFETY: the caller promises that the function may be called on any thread.
unsafe impl Send for OnStart {}
// SAFETY: as above, and by several threads at once.
unsafe impl Sync for OnStart {}

impl OnStart {
    fn call(&self, index: usize) {
        // SAFETY: as the caller of `palmtop_session_new` promises.
        unsafe { (self.function)(self.user, index as u32) }
    }
}

/// # Safety
/// `options.cores` is null or has as many numbers as it says; the callback may be called on any thread with its user.
pub(crate) unsafe fn hints(options: &palmtop_session_options) -> Result<ThreadHints> {
    const CORES_MAX: usize = 4096;
    let mut hints = ThreadHints::default();
    // SAFETY: as this function's.
    let cores = unsafe { arguments::list("core", options.cores, options.core_count as usize, CORES_MAX)? };
    hints.cores = cores.iter().map(|&core| core as usize).collect();
    if options.nice != PALMTOP_NICE_AS_IT_IS {
        if !(-20..=19).contains(&options.nice) {
            return Err(Failure::argument(format!("{} is not a niceness: choose -20 to 19", options.nice)));
        }
        hints.nice = Some(options.nice);
    }
    if let Some(function) = options.on_thread_start {
        let on_start = OnStart { function, user: options.thread_user };
        hints.on_start = Some(Arc::new(move |index| on_start.call(index)));
    }
    Ok(hints)
}

/// # Safety
/// `options` is null, or can be written as far as `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_session_options_init(
    options: *mut palmtop_session_options,
    size: usize,
) -> palmtop_status {
    // SAFETY: as this function's.
    call(|| unsafe { arguments::init(options, size, DEFAULT_SESSION_OPTIONS) })
}

/// # Safety
/// `options` is null, or can be read as far as its size, and what it points to is as `palmtop.h` says; `session` is
/// null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_session_new(
    model: palmtop_model,
    options: *const palmtop_session_options,
    session: *mut palmtop_session,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("session", session, palmtop_session::default())? };
        let model = MODELS.get(model.id)?;
        // SAFETY: as this function's.
        let options = unsafe { arguments::options(options, DEFAULT_SESSION_OPTIONS)? };
        // SAFETY: as this function's.
        let hints = unsafe { hints(&options)? };
        let session = Session::with_threads(&model, &limits(&options)?, &hints)?;
        let mut options = GenerateOptions::default();
        let cancel = CancelToken::default();
        options.cancel = cancel.clone();
        let entry = SessionEntry { cancel, state: Mutex::new(State { session, options }) };
        out.give(palmtop_session { id: SESSIONS.insert(Arc::new(entry))? });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_session_free(session: palmtop_session) -> palmtop_status {
    call(|| {
        let entry = SESSIONS.get(session.id)?;
        match entry.state.try_lock() {
            Err(TryLockError::WouldBlock) => entry.lock().map(drop)?,
            // One with a defect can be freed too.
            Ok(_) | Err(TryLockError::Poisoned(_)) => {}
        }
        SESSIONS.remove(session.id).map(drop)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_session_cancel(session: palmtop_session) -> palmtop_status {
    call(|| {
        SESSIONS.get(session.id)?.cancel.cancel();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_session_reset_cancel(session: palmtop_session) -> palmtop_status {
    call(|| {
        SESSIONS.get(session.id)?.cancel.reset();
        Ok(())
    })
}

/// # Safety
/// `timings` is null, or can be written as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_session_get_timings(
    session: palmtop_session,
    timings: *mut palmtop_timings,
) -> palmtop_status {
    call(|| {
        let entry = SESSIONS.get(session.id)?;
        let taken = entry.lock()?.session.timings();
        let ns = |duration: std::time::Duration| duration.as_nanos() as u64;
        let value = palmtop_timings {
            size: 0,
            encode_ns: ns(taken.encode),
            prefill_ns: ns(taken.prefill),
            decode_ns: ns(taken.decode),
            decode_steps: taken.decode_steps as u64,
            prefix_ns: ns(taken.rows),
        };
        // SAFETY: as this function's.
        unsafe { arguments::give(timings, value) }
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_rust_library() {
        assert_eq!(limits(&DEFAULT_SESSION_OPTIONS).unwrap(), Limits::default());
    }

    #[test]
    fn what_a_panic_has_seen_is_not_used_again() {
        let object = Mutex::new(0);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let _guard = object.lock().unwrap();
            panic!("in a call");
        }));
        assert_eq!(try_lock(object.try_lock(), "object").unwrap_err().status, PALMTOP_INTERNAL);
        let object = Mutex::new(0);
        let _guard = object.lock().unwrap();
        assert_eq!(try_lock(object.try_lock(), "object").unwrap_err().status, PALMTOP_BUSY);
    }
}
