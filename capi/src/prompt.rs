//! The prompts of tasks.

use std::ffi::c_char;

use palmtop::Error;
use palmtop::tasks::Task;

use crate::arguments::{self, Out};
use crate::failure::{Failure, PALMTOP_TOO_SMALL, Result, call, palmtop_status};

pub const PALMTOP_CAP: i32 = 1;
pub const PALMTOP_CAPTION: i32 = 2;
pub const PALMTOP_DESCRIBE: i32 = 3;
pub const PALMTOP_ANSWER: i32 = 4;
pub const PALMTOP_QUESTION: i32 = 5;
pub const PALMTOP_OCR: i32 = 6;
pub const PALMTOP_DETECT: i32 = 7;
pub const PALMTOP_SEGMENT: i32 = 8;

/// Names of objects in a prompt at most.
const ITEMS_MAX: usize = 1024;

fn worded(task: i32, language: Option<&str>, items: &[&str]) -> Result<String> {
    let language = language.unwrap_or("en");
    let one = || match items {
        [item] => Ok(*item),
        _ => Err(Failure::argument(format!("this task takes one text, not {}", items.len()))),
    };
    let none = || match items {
        [] => Ok(()),
        _ => Err(Failure::argument(format!("this task takes no text, not {}", items.len()))),
    };
    let task = match task {
        PALMTOP_CAP => none().map(|()| Task::cap(language))?,
        PALMTOP_CAPTION => none().map(|()| Task::caption(language))?,
        PALMTOP_DESCRIBE => none().map(|()| Task::describe(language))?,
        PALMTOP_ANSWER => Task::answer(language, one()?),
        PALMTOP_QUESTION => Task::question(language, one()?),
        PALMTOP_OCR => none().map(|()| Ok(Task::ocr()))?,
        PALMTOP_DETECT => Task::detect(items),
        PALMTOP_SEGMENT => Task::segment(items),
        other => return Err(Failure::argument(format!("{other} is not a task"))),
    };
    Ok(task.map_err(Error::from)?.prompt())
}

/// # Safety
/// `language` is null or a text; `items` is null, or has `count` texts; `buffer` is null, or has `bytes` bytes that can
/// be written; `length` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_prompt(
    task: i32,
    language: *const c_char,
    items: *const *const c_char,
    count: usize,
    buffer: *mut c_char,
    bytes: usize,
    length: *mut usize,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("length", length, 0)? };
        let language = match language.is_null() {
            true => None,
            // SAFETY: as this function's.
            false => Some(unsafe { arguments::text("the language", language)? }),
        };
        // SAFETY: as this function's.
        let items = unsafe { arguments::texts("text", items, count, ITEMS_MAX)? };
        let text = worded(task, language, &items.collect::<Result<Vec<_>>>()?)?;
        out.give(text.len());
        if buffer.is_null() {
            return Ok(());
        }
        if bytes <= text.len() {
            let message = format!("the prompt has {} bytes and a zero, the buffer {bytes}", text.len());
            return Err(Failure::new(PALMTOP_TOO_SMALL, message));
        }
        // SAFETY: the buffer has room for the text and a zero, as just checked, and is not part of it.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len());
            buffer.add(text.len()).write(0);
        }
        Ok(())
    })
}
