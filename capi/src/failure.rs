//! Errors as status numbers and as text, and the boundary that stops every panic.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error as _;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use palmtop::image::ImageError;
use palmtop::{DefaultFloatMode, Error, GrammarError};

pub type palmtop_status = i32;

pub const PALMTOP_OK: palmtop_status = 0;
pub const PALMTOP_INVALID_ARGUMENT: palmtop_status = 1;
pub const PALMTOP_INVALID_HANDLE: palmtop_status = 2;
pub const PALMTOP_BUSY: palmtop_status = 3;
pub const PALMTOP_TOO_SMALL: palmtop_status = 4;
pub const PALMTOP_BAD_MODEL: palmtop_status = 5;
pub const PALMTOP_BAD_IMAGE: palmtop_status = 6;
pub const PALMTOP_IO: palmtop_status = 7;
pub const PALMTOP_OUT_OF_MEMORY: palmtop_status = 8;
pub const PALMTOP_NO_THREADS: palmtop_status = 9;
pub const PALMTOP_CANCELLED: palmtop_status = 10;
pub const PALMTOP_DEADLINE: palmtop_status = 11;
pub const PALMTOP_NOT_FOUND: palmtop_status = 12;
pub const PALMTOP_INTERNAL: palmtop_status = 13;

/// Why a call fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: palmtop_status,
    pub message: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(status: palmtop_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(PALMTOP_INVALID_ARGUMENT, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Grammar(GrammarError::Tokenizer(_)) => PALMTOP_BAD_MODEL,
            Error::Usage(_) | Error::Isa(_) | Error::Prompt(_) | Error::Grammar(_) => {
                PALMTOP_INVALID_ARGUMENT
            }
            Error::Image(ImageError::Layout(_)) => PALMTOP_INVALID_ARGUMENT,
            Error::Image(_) | Error::Mask(_) => PALMTOP_BAD_IMAGE,
            Error::File { .. } | Error::Format(_) | Error::Tokenizer(_) | Error::MaskCodec(_) => {
                PALMTOP_BAD_MODEL
            }
            Error::FileChanged { .. } => PALMTOP_BAD_MODEL,
            Error::Io { .. } => PALMTOP_IO,
            Error::OutOfMemory { .. } | Error::Lock { .. } => PALMTOP_OUT_OF_MEMORY,
            Error::Threads(_) => PALMTOP_NO_THREADS,
            Error::Cancelled => PALMTOP_CANCELLED,
            Error::DeadlinePassed => PALMTOP_DEADLINE,
            _ => PALMTOP_INTERNAL,
        };
        let mut message = match error {
            Error::Cancelled => {
                "the call was cancelled: use palmtop_session_reset_cancel before the next call".to_owned()
            }
            Error::DeadlinePassed => "the deadline passed before the call finished".to_owned(),
            _ => error.to_string(),
        };
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_says = cause.to_string();
            // Some messages hold their cause's already.
            if !message.contains(&cause_says) {
                message = format!("{message}: {cause_says}");
            }
            source = cause.source();
        }
        Self { status, message }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Error::from(error).into()
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs a call, in the default mode of floating point. A panic in it becomes [`PALMTOP_INTERNAL`].
pub(crate) fn call(work: impl FnOnce() -> Result<()>) -> palmtop_status {
    let _mode = DefaultFloatMode::enter();
    // Whatever a panic leaves behind in a locked object, its lock then refuses.
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return PALMTOP_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let message = format!("a bug in palmtop, please report it: {}", panicked(&*panic));
            // What the payload does when it is dropped is not known.
            std::mem::forget(panic);
            Failure::new(PALMTOP_INTERNAL, message)
        }
    };
    let text = failure.message.replace('\0', "\u{fffd}");
    // A thread that is ending has no place for it any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = CString::new(text).unwrap_or_default());
    failure.status
}

/// The text that a panic came with.
fn panicked(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_status_name(status: palmtop_status) -> *const c_char {
    let name = match status {
        PALMTOP_OK => c"ok",
        PALMTOP_INVALID_ARGUMENT => c"invalid argument",
        PALMTOP_INVALID_HANDLE => c"invalid handle",
        PALMTOP_BUSY => c"busy",
        PALMTOP_TOO_SMALL => c"too small",
        PALMTOP_BAD_MODEL => c"bad model",
        PALMTOP_BAD_IMAGE => c"bad image",
        PALMTOP_IO => c"input or output",
        PALMTOP_OUT_OF_MEMORY => c"out of memory",
        PALMTOP_NO_THREADS => c"no threads",
        PALMTOP_CANCELLED => c"cancelled",
        PALMTOP_DEADLINE => c"deadline",
        PALMTOP_NOT_FOUND => c"not found",
        PALMTOP_INTERNAL => c"internal",
        _ => c"unknown status",
    };
    name.as_ptr()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> String {
        // SAFETY: the text is this thread's, and no call fails meanwhile.
        unsafe { CStr::from_ptr(palmtop_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(call(|| Ok(())), PALMTOP_OK);
        assert_eq!(call(|| panic!("of {}", "some kind")), PALMTOP_INTERNAL);
        assert!(last().ends_with("of some kind"), "{}", last());
        assert_eq!(call(|| std::panic::panic_any(7)), PALMTOP_INTERNAL);
        assert_eq!(call(|| Err(Failure::argument("nul \0 inside"))), PALMTOP_INVALID_ARGUMENT);
        assert_eq!(last(), "nul \u{fffd} inside");
        // What another thread does wrong is not told here.
        std::thread::spawn(|| call(|| Err(Failure::argument("elsewhere")))).join().unwrap();
        assert_eq!(last(), "nul \u{fffd} inside");
    }

    #[test]
    fn messages_tell_their_causes_once() {
        let error = Error::Io { path: "x.palm".into(), source: std::io::Error::other("gone") };
        assert_eq!(Failure::from(error).message, "cannot use x.palm: gone");
        let error = Error::Threads(std::io::Error::other("none left"));
        assert_eq!(Failure::from(error).message, "cannot start threads: none left");
    }
}
