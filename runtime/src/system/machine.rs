//! The limits of the machine, measured: how fast it reads memory, and how fast it multiplies int8.
//!
//! Decoding reads every weight once a token; encoding and prefill multiply every weight by hundreds of rows. What a model
//! reaches is a share of these two.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use palmtop_kernels::Kernels;

use crate::error::{Error, Result};
use crate::system::pool::{Disjoint, ThreadPool};

/// Most memory that is read for a measurement: more than caches hold.
const READ_BYTES_MAX: usize = 2 << 30;
/// Least: below this caches would be measured.
const READ_BYTES_MIN: usize = 64 << 20;
/// Passes, of which the best counts: others on the machine only take away.
const PASSES: usize = 5;

/// What a number of threads reach together at most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MachineLimits {
    /// Threads that were measured.
    pub threads: usize,
    /// Bytes a second read in sequence from memory.
    pub read_bytes_per_s: f64,
    /// int8 multiply-adds a second, from registers, with the vectors of the kernels' instruction set. AMX multiplies in a unit
    /// of its own, and can do more.
    pub int8_macs_per_s: f64,
}

impl MachineLimits {
    /// Measures with `threads` threads; takes about two seconds, and up to 2 GiB of memory (a quarter of what is available)
    /// meanwhile.
    pub fn measure(kernels: &Kernels, threads: usize) -> Result<Self> {
        let mut pool = ThreadPool::new(threads).map_err(Error::Threads)?;
        Ok(Self {
            threads,
            read_bytes_per_s: read(kernels, &mut pool)?,
            int8_macs_per_s: multiply(kernels, &mut pool),
        })
    }
}

/// Bytes a second: the better of ordinary and huge pages.
fn read(kernels: &Kernels, pool: &mut ThreadPool) -> Result<f64> {
    let available = available_memory().unwrap_or(READ_BYTES_MAX as u64 * 4);
    let bytes = READ_BYTES_MAX.min((available / 4) as usize).max(READ_BYTES_MIN);
    let part = (bytes / pool.threads()).next_multiple_of(4096);
    let mut best: f64 = 0.0;
    for huge in [false, true] {
        let out_of_memory = |_| Error::OutOfMemory { bytes };
        let mut memory = MmapMut::map_anon(part * pool.threads()).map_err(out_of_memory)?;
        advise_pages(&memory, huge);
        let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut memory);
        let len = part / size_of::<f32>();
        let parts = Disjoint::new(numbers);
        let mut scratch = vec![(); pool.threads()];
        pool.run(&mut scratch, pool.threads(), |i, ()| {
            // SAFETY: every task has its own part.
            unsafe { parts.get(i * len..(i + 1) * len) }.fill(1.0)
        });
        for _ in 0..PASSES {
            let start = Instant::now();
            pool.run(&mut scratch, pool.threads(), |i, ()| {
                // SAFETY: as above.
                black_box(kernels.peak_read(unsafe { parts.get(i * len..(i + 1) * len) }));
            });
            best = best.max((part * pool.threads()) as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// Asks for huge or for ordinary pages; refused, the system's own choice is measured.
#[cfg(target_os = "linux")]
fn advise_pages(memory: &MmapMut, huge: bool) {
    use memmap2::Advice;
    let _ = memory.advise(if huge { Advice::HugePage } else { Advice::NoHugePage });
}

#[cfg(not(target_os = "linux"))]
fn advise_pages(_memory: &MmapMut, _huge: bool) {}

fn multiply(kernels: &Kernels, pool: &mut ThreadPool) -> f64 {
    // So many rounds that a pass takes some 20 ms.
    let mut rounds = 1000;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(20) {
        rounds *= 2;
        black_box(kernels.peak_multiply(rounds));
    }
    let mut done = vec![0; pool.threads()];
    let mut best: f64 = 0.0;
    for _ in 0..2 * PASSES {
        let start = Instant::now();
        done.fill(0);
        let tasks = pool.threads();
        pool.run(&mut done, tasks, |_, done| *done += black_box(kernels.peak_multiply(rounds)).0);
        best = best.max(done.iter().sum::<usize>() as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Threads that a session uses if it is not told: one per physical core that this process may run on. A second thread on
/// a core shares its multipliers and its memory, and gains nothing here.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, Into::into);
    physical_cores().map_or(allowed, |cores| allowed.min(cores)).max(1)
}

/// Physical cores, if the system tells.
pub fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        let siblings = entry.path().join("topology/thread_siblings_list");
        if let Ok(siblings) = std::fs::read_to_string(siblings) {
            cores.insert(siblings);
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Bytes of memory that programs can still have, if the system tells.
pub fn available_memory() -> Option<u64> {
    memory_line("MemAvailable:")
}

/// Bytes of memory that the machine has, if the system tells.
pub fn total_memory() -> Option<u64> {
    memory_line("MemTotal:")
}

fn memory_line(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_fits_together() {
        let allowed: usize = std::thread::available_parallelism().map_or(1, Into::into);
        assert!((1..=allowed).contains(&default_threads()));
        assert!(physical_cores().is_none_or(|cores| cores >= 1));
        if cfg!(target_os = "linux") {
            let (total, available) = (total_memory().unwrap(), available_memory().unwrap());
            assert!(available > 0 && available <= total, "{available} of {total}");
        }
    }
}
