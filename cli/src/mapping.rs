//! A mapped file that is shortened while it is in use: the system sends SIGBUS, and the program says why it ends.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn report_bus_errors() {}

/// From now on, reading a mapped file where it ends no more ends the program with a message and exit code 1.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn report_bus_errors() {
    // SAFETY: zeros are a valid action: no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack that Rust gives every thread for signals.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that `SA_SIGINFO` asks for, and calls nothing that a signal could have
    // interrupted halfway.
    unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
}

#[cfg(any(target_os = "linux", target_os = "android"))]
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const MESSAGE: &[u8] = b"\nerror: a file that is mapped was shortened, or cannot be read any more (SIGBUS)\n\
        hint: replace a model by renaming a finished file into its place, never write into it; or use --load read\n";
    // SAFETY: the system gives a whole `siginfo_t`; the other functions may be called in a signal handler, and write
    // what is there.
    unsafe {
        if (*info).si_code == libc::BUS_ADRERR {
            libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(1);
        }
        // Something else: it happens again at once, and ends the program as usual.
        libc::signal(signal, libc::SIG_DFL);
    }
}
