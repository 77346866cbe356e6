//! The log: messages of the library other than errors.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::{PoisonError, RwLock};

use log::{LevelFilter, Log, Metadata, Record};
use palmtop::DefaultFloatMode;

use crate::failure::{Failure, PALMTOP_BUSY, call, palmtop_status};

pub const PALMTOP_LOG_OFF: i32 = 0;
pub const PALMTOP_LOG_ERROR: i32 = 1;
pub const PALMTOP_LOG_WARNING: i32 = 2;
pub const PALMTOP_LOG_INFO: i32 = 3;
pub const PALMTOP_LOG_DEBUG: i32 = 4;

pub type palmtop_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// Who hears it.
struct Ear {
    function: unsafe extern "C" fn(*mut c_void, i32, *const c_char),
    user: *mut c_void,
}

// SAFETY: the caller promises that the function may be called on any thread.
unsafe impl Send for Ear {}
// SAFETY: as above, and by several threads at once.
unsafe impl Sync for Ear {}

thread_local! {
    /// True while the callback runs on this thread: what it does is not logged, and it cannot replace itself.
    static SPEAKING: Cell<bool> = const { Cell::new(false) };
}

static EAR: RwLock<Option<Ear>> = RwLock::new(None);

struct Mouth;

impl Log for Mouth {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        if SPEAKING.replace(true) {
            return;
        }
        self.say(record);
        SPEAKING.set(false);
    }

    fn flush(&self) {}
}

impl Mouth {
    fn say(&self, record: &Record) {
        let ear = EAR.read().unwrap_or_else(PoisonError::into_inner);
        let Some(ear) = &*ear else { return };
        let text = record.args().to_string().replace('\0', "\u{fffd}");
        let text = CString::new(text).unwrap_or_default();
        // The function may leave another mode of floating point behind.
        let _mode = DefaultFloatMode::enter();
        // SAFETY: as the caller of `palmtop_set_log` promises; the text lives until the function returns.
        unsafe { (ear.function)(ear.user, record.level() as i32, text.as_ptr()) };
    }
}

/// # Safety
/// `callback` may be called on any thread with `user`, until it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_set_log(
    level: i32,
    callback: palmtop_log_callback,
    user: *mut c_void,
) -> palmtop_status {
    call(|| {
        let filter = match level {
            PALMTOP_LOG_OFF => LevelFilter::Off,
            PALMTOP_LOG_ERROR => LevelFilter::Error,
            PALMTOP_LOG_WARNING => LevelFilter::Warn,
            PALMTOP_LOG_INFO => LevelFilter::Info,
            PALMTOP_LOG_DEBUG => LevelFilter::Debug,
            other => return Err(Failure::argument(format!("{other} is not a log level"))),
        };
        if SPEAKING.get() {
            return Err(Failure::new(PALMTOP_BUSY, "the log callback cannot be replaced while it runs"));
        }
        // Waits until no thread is in the callback that is replaced.
        *EAR.write().unwrap_or_else(PoisonError::into_inner) =
            callback.map(|function| Ear { function, user });
        static SET: std::sync::Once = std::sync::Once::new();
        // A Rust program that has a logger of its own keeps it.
        SET.call_once(|| drop(log::set_logger(&Mouth)));
        log::set_max_level(if callback.is_some() { filter } else { LevelFilter::Off });
        Ok(())
    })
}
