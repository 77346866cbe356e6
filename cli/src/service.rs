//! What a service is told from outside, and tells: signals, lines of standard input, and systemd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use palmtop::CancelToken;
use palmtop_watch::command::Command;

/// What was asked for from outside.
#[derive(Clone, Default)]
pub struct Wishes {
    /// Read the configuration and the model anew.
    pub reload: Arc<AtomicBool>,
    /// End.
    pub end: Arc<AtomicBool>,
}

impl Wishes {
    /// True if somebody wants an orderly end.
    pub fn is_over(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }

    /// True once if the configuration is to be read anew.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::SeqCst)
    }
}

/// Listens for signals: SIGTERM ends, SIGHUP reloads, SIGUSR1 asks all questions now.
#[cfg(unix)]
pub fn listen(wishes: &Wishes, commands: Sender<Command>, cancel: &CancelToken) -> anyhow::Result<()> {
    use anyhow::Context;
    use signal_hook::consts::{SIGHUP, SIGTERM, SIGUSR1};

    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGUSR1])
        .context("cannot listen for signals")?;
    let (wishes, cancel) = (wishes.clone(), cancel.clone());
    let body = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => wishes.reload.store(true, Ordering::SeqCst),
                SIGTERM => {
                    wishes.end.store(true, Ordering::SeqCst);
                    cancel.cancel();
                }
                _ => _ = commands.send(Command::Ask { question: None, camera: None }),
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

#[cfg(not(unix))]
pub fn listen(_: &Wishes, _: Sender<Command>, _: &CancelToken) -> anyhow::Result<()> {
    Ok(())
}

/// Takes lines of standard input as commands, until it ends.
pub fn read_lines(commands: Sender<Command>) {
    const LINE_BYTES_MAX: u64 = 1 << 16;
    let body = move || {
        use std::io::{BufRead, Read};
        let mut input = std::io::stdin().lock();
        let mut line = String::new();
        loop {
            line.clear();
            match input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => match line.parse() {
                    Ok(command) => _ = commands.send(command),
                    Err(error) => log::warn!("{error}"),
                },
            }
        }
    };
    // Without the thread nothing is missing but what is typed.
    let _ = std::thread::Builder::new().name("commands".into()).spawn(body);
}

/// What systemd hears; nothing if it does not listen.
pub struct Systemd {
    /// A sign of life is due so often.
    watchdog: Option<Duration>,
    last: Instant,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Systemd {
    pub fn new() -> Self {
        // Twice as often as must be, as systemd's manual says.
        let watchdog = sd_notify::watchdog_enabled().map(|time| time / 2);
        Self { watchdog, last: Instant::now() }
    }

    fn tell(states: &[sd_notify::NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            log::debug!("systemd cannot be told: {error}");
        }
    }

    pub fn ready(&self) {
        Self::tell(&[sd_notify::NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => Self::tell(&[sd_notify::NotifyState::Reloading, now]),
            Err(_) => Self::tell(&[sd_notify::NotifyState::Reloading]),
        }
    }

    pub fn stopping(&self) {
        Self::tell(&[sd_notify::NotifyState::Stopping]);
    }

    /// A sign of life, if one is due.
    pub fn alive(&mut self) {
        if self.watchdog.is_some_and(|every| self.last.elapsed() >= every) {
            self.last = Instant::now();
            Self::tell(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Systemd {
    pub fn new() -> Self {
        Self { watchdog: None, last: Instant::now() }
    }

    pub fn ready(&self) {}

    pub fn reloading(&self) {}

    pub fn stopping(&self) {}

    pub fn alive(&mut self) {
        _ = (self.watchdog, self.last);
    }
}

/// The sockets that systemd listens on for this program (`Accept=no`); none if it was not started so.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn sockets() -> anyhow::Result<Vec<std::net::TcpListener>> {
    use anyhow::Context;
    use std::os::fd::{FromRawFd, OwnedFd};

    let numbers = sd_notify::listen_fds().context("cannot take the sockets that systemd hands over")?;
    // SAFETY: systemd passed these descriptors to this process (`LISTEN_PID` names it) open, and what this process opened
    // by itself since has other numbers. Nothing else takes or closes them: this function is called once.
    let sockets = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    Ok(sockets.map(std::net::TcpListener::from).collect())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn sockets() -> anyhow::Result<Vec<std::net::TcpListener>> {
    Ok(Vec::new())
}
