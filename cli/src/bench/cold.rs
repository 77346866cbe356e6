//! `palmtop bench --cold`: the first answer when the model file is not in memory, beside what the disk can do.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow};
use palmtop::image::RgbImage;
use palmtop::session::{CancelToken, GenerateOptions, Session};
use palmtop_present::plain::human_bytes;
use serde::Serialize;

use super::Spread;
use crate::args::BenchArgs;
use crate::models;
use crate::output::Console;

/// Bytes that the disk is asked for at once, when its own speed is measured.
const READ_BYTES: usize = 4 << 20;

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
pub struct Report {
    model: String,
    rounds: usize,
    file_bytes: u64,
    cold_ms: Spread,
    warm_ms: Spread,
    read_bytes: Option<u64>,
    disk_gb_per_s: f64,
    disk_ms: f64,
}

/// What a round took, in milliseconds, and what it read from the disk.
struct Round {
    cold: f64,
    warm: f64,
    disk: f64,
    read_bytes: Option<u64>,
}

/// Measures what opening a model, starting a session and its first token take together: with a file that the system
/// has dropped from memory, and with the same file right afterwards; and how long the disk takes to read the file.
pub fn measure(
    args: &BenchArgs,
    path: &Path,
    picture: &RgbImage,
    console: Console,
    cancel: &CancelToken,
) -> anyhow::Result<Report> {
    // Closed again at once: what is mapped cannot be forgotten.
    let model = {
        let opened = models::open(path)?;
        super::model_name(&opened, path)
    };
    let file_bytes = std::fs::metadata(path)?.len();
    let mut rounds = Vec::new();
    for i in 1..=args.rounds {
        console.note(format_args!("round {i} of {}", args.rounds));
        forget(path)?;
        let disk = read(path)?;
        forget(path)?;
        let before = read_bytes();
        let cold = first_token(args, path, picture, cancel)?;
        let read_bytes = before.zip(read_bytes()).map(|(before, after)| after - before);
        let warm = first_token(args, path, picture, cancel)?;
        if cancel.is_cancelled() {
            return Err(anyhow!("interrupted"));
        }
        rounds.push(Round { cold, warm, disk, read_bytes });
    }
    let spread = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    let disk_ms = spread(|round| round.disk).min;
    Ok(Report {
        model,
        rounds: rounds.len(),
        file_bytes,
        cold_ms: spread(|round| round.cold),
        warm_ms: spread(|round| round.warm),
        read_bytes: rounds.iter().filter_map(|round| round.read_bytes).max(),
        disk_gb_per_s: 1e-6 * file_bytes as f64 / disk_ms,
        disk_ms,
    })
}

/// Milliseconds from opening the file to the first token.
fn first_token(
    args: &BenchArgs,
    path: &Path,
    picture: &RgbImage,
    cancel: &CancelToken,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    let model = models::open(path)?;
    let mut limits = args.model.machine.limits();
    limits.new_tokens = 1;
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut features = session.new_features()?;
    let mut options = GenerateOptions::default();
    options.cancel = cancel.clone();
    session.encode(picture.view(), &mut features, &options)?;
    session.answer(&features, &[&args.prompt], &options, &mut |_| ControlFlow::Continue(()))?;
    Ok(1e3 * start.elapsed().as_secs_f64())
}

/// Milliseconds to read a file from front to back.
fn read(path: &Path) -> anyhow::Result<f64> {
    let mut buffer = vec![0; READ_BYTES];
    let start = Instant::now();
    let mut file = File::open(path)?;
    while file.read(&mut buffer).context("cannot read the model file")? > 0 {}
    Ok(1e3 * start.elapsed().as_secs_f64())
}

/// Has the system drop a file from memory, which nobody may have mapped.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn forget(path: &Path) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    let file = File::open(path)?;
    // What is not on the disk yet is not dropped.
    file.sync_all()?;
    // SAFETY: the descriptor is open, and the call changes nothing but what is in memory.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => {
            Err(std::io::Error::from_raw_os_error(code)).context("cannot drop the model file from memory")
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn forget(_: &Path) -> anyhow::Result<()> {
    Err(anyhow!("--cold is only for Linux: other systems drop no file from memory when they are asked to"))
}

/// Bytes that this process has had read from disks; `None` where the system does not tell.
fn read_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.trim().parse().ok()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = if self.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", self.rounds) };
        writeln!(f, "{}: from opening the file to the first token, {rounds}\n", self.model)?;
        let mut row = |what: &str, Spread { median, min, max }: Spread| {
            writeln!(f, "{what:<22}{median:>9.1} ms       ({min:.1} to {max:.1})")
        };
        row("not in memory", self.cold_ms)?;
        row("in memory", self.warm_ms)?;
        let read = self.read_bytes.map_or("unknown".to_owned(), human_bytes);
        let mut line = |what: &str, value: String| writeln!(f, "{what:<22}{value}");
        line("read from the disk", format!("{read} of {}", human_bytes(self.file_bytes)))?;
        line("the disk", format!("{:.2} GB/s: {:.1} ms for the file", self.disk_gb_per_s, self.disk_ms))
    }
}
