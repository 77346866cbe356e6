//! Ctrl-C: the first one asks the program to stop and clean up, the second one ends it at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use palmtop::session::CancelToken;

/// The exit code of a program that was interrupted, by the convention of shells: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

static IS_WAITING: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on; the token is cancelled by it.
pub fn listen() -> anyhow::Result<CancelToken> {
    let token = CancelToken::default();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if cancelled.is_cancelled() || IS_WAITING.load(Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
        cancelled.cancel();
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(token)
}

/// Reads pictures in files (`None` is standard input), of which any may be a pipe that never ends: as
/// [`while_waiting`] then. If all are plain files they end soon, and what is done so far can still be reported.
pub fn while_reading<'a, T>(
    paths: impl IntoIterator<Item = Option<&'a Path>>,
    read: impl FnOnce() -> T,
) -> T {
    let ends_soon = |path: Option<&Path>| path.is_some_and(Path::is_file);
    if paths.into_iter().all(ends_soon) { read() } else { while_waiting(read) }
}

/// Reads from what may be a pipe that never ends: there Ctrl-C ends the program at once, as nothing is half done.
pub fn while_waiting<T>(read: impl FnOnce() -> T) -> T {
    IS_WAITING.store(true, Ordering::SeqCst);
    let result = read();
    IS_WAITING.store(false, Ordering::SeqCst);
    result
}
