//! Programs that write pictures: `ffmpeg`, `rpicam-vid`, `gst-launch-1.0`. They end with their capture, and what they
//! say is the reason if they fail.

use std::io;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::bytes::{Trickle, read};
use super::secrets::Secrets;

/// So much of what a program says last is kept.
const SAID_BYTES: usize = 2048;
/// And so much of it is told.
const LINES: usize = 2;
const TOLD_BYTES: usize = 300;
/// A program that was asked to end may take so long for it.
const GRACE: Duration = Duration::from_millis(400);
/// One whose output has ended is waited for so long, to know how it ended.
const LAST_WORDS: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(5);

/// A running program.
pub(super) struct Program {
    name: String,
    child: Child,
    out: ChildStdout,
    err: Option<ChildStderr>,
    said: Vec<u8>,
    secrets: Secrets,
}

impl Program {
    /// Starts a program. What it says is told without `secrets`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, secrets: Secrets) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // Only where reading it does not block.
        command.stderr(if cfg!(unix) { Stdio::piped() } else { Stdio::null() });
        bind(&mut command);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn()?;
        let out = child.stdout.take().expect("it is piped");
        let err = child.stderr.take();
        Ok(Self { name, child, out, err, said: Vec::with_capacity(2 * SAID_BYTES), secrets })
    }

    /// Hears what the program says; the last of it is kept.
    #[cfg(unix)]
    fn hear(&mut self) {
        let mut some = [0; SAID_BYTES];
        let Some(err) = &mut self.err else { return };
        match read(err, &mut some) {
            Ok(Some(n)) if n > 0 => {
                self.said.extend_from_slice(&some[..n]);
                let surplus = self.said.len().saturating_sub(SAID_BYTES);
                self.said.drain(..surplus);
            }
            Ok(None) => {}
            // It has closed it, and may go on without.
            _ => self.err = None,
        }
    }

    /// Its last words.
    fn last_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("; ").replace(char::is_control, "");
        let mut told = self.secrets.hidden_in(&last);
        if told.len() > TOLD_BYTES {
            told.truncate(told.floor_char_boundary(TOLD_BYTES));
            told.push('…');
        }
        told
    }
}

#[cfg(unix)]
impl Trickle for Program {
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        use std::os::fd::AsFd;
        let out_is_ready = match &self.err {
            Some(err) => {
                let [out, err] = super::bytes::wait([self.out.as_fd(), err.as_fd()])?;
                if err {
                    self.hear();
                }
                out
            }
            None => super::bytes::wait([self.out.as_fd()])?[0],
        };
        if out_is_ready { read(&mut self.out, buffer) } else { Ok(None) }
    }

    fn why_ended(&mut self) -> String {
        use std::os::fd::AsFd;
        let until = Instant::now() + LAST_WORDS;
        let mut status = None;
        while status.is_none() && Instant::now() < until {
            status = self.child.try_wait().ok().flatten();
            std::thread::sleep(STEP);
        }
        // All that it wrote before it ended is there by now; one that did not end may write for ever.
        while let Some(err) = &self.err
            && Instant::now() < until
            && matches!(super::bytes::wait([err.as_fd()]), Ok([true]))
        {
            self.hear();
        }
        let how = status.map_or("is silent".into(), |status| format!("ended ({status})"));
        match self.last_words() {
            words if words.is_empty() => format!("{} {how}", self.name),
            words => format!("{} {how}: {words}", self.name),
        }
    }
}

#[cfg(not(unix))]
impl Trickle for Program {
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        read(&mut self.out, buffer)
    }

    fn why_ended(&mut self) -> String {
        let _ = (&self.err, LAST_WORDS, self.last_words());
        format!("{} ended", self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // An interrupt lets it give its camera back: services of cameras are left in a bad state by killed clients.
        signal(&self.child, false);
        let until = Instant::now() + GRACE;
        while runs(&self.child) && Instant::now() < until {
            std::thread::sleep(STEP);
        }
        // Also what it may have started. Before it is waited for nobody else gets its number.
        signal(&self.child, true);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the program a group of its own, which an interrupt from the keyboard does not reach, and on Linux lets the
/// kernel end it if the thread that started it ends, however that comes.
#[cfg(unix)]
fn bind(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
        let parent = getpid();
        // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // If the parent was gone before, nobody tells.
                match getppid() == Some(parent) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::BrokenPipe.into()),
                }
            });
        }
    }
}

#[cfg(not(unix))]
fn bind(_: &mut Command) {}

/// Interrupts or kills the program's group.
#[cfg(unix)]
fn signal(child: &Child, kills: bool) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // There may be nobody left.
        let _ = kill_process_group(group, if kills { Signal::KILL } else { Signal::INT });
    }
}

#[cfg(not(unix))]
fn signal(_: &Child, _: bool) {}

/// Whether the program has not ended. It is not waited for.
#[cfg(unix)]
fn runs(child: &Child) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
}

#[cfg(not(unix))]
fn runs(_: &Child) -> bool {
    false
}
