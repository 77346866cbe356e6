//! The limits of the machine, measured: how fast it reads memory, and how fast it multiplies int8.
//!
//! Decoding reads every weight once a token; encoding and prefill multiply every weight by hundreds of rows. What a
//! model reaches is a share of these two.

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
    /// int8 multiply-adds a second, from registers, with the vectors of the kernels' instruction set. AMX multiplies in
    /// a unit of its own, and can do more.
    pub int8_macs_per_s: f64,
}

impl MachineLimits {
    /// Measures with `threads` threads; takes about two seconds, and up to 2 GiB of memory (a quarter of what is
    /// available) meanwhile.
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

/// Threads that a session uses if it is not told: one per physical core that this process may run on, slow cores left
/// out where the system tells them apart (see [`fast_cores`]). A second thread on a core shares its multipliers and its
/// memory, and gains nothing here.
pub fn default_threads() -> usize {
    // This heeds affinity and, on Linux, quotas of a container.
    let allowed = std::thread::available_parallelism().map_or(1, Into::into);
    fast_cores().map_or(allowed, |cores| allowed.min(cores)).max(1)
}

/// Physical cores, if the system tells.
pub fn physical_cores() -> Option<usize> {
    cores::count().map(|cores| cores.all)
}

/// Physical cores that this process may run on, without those that are less than half as fast as the fastest of them
/// (the LITTLE ones of big.LITTLE, the efficient ones of Apple's chips); if the system tells.
///
/// Threads claim tasks as they get ready, so a core of half the speed still helps. With a slower one the others wait at
/// the end of every region for the task that it took last.
pub fn fast_cores() -> Option<usize> {
    cores::count().map(|cores| cores.fast)
}

/// Physical cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cores {
    /// Of the machine.
    all: usize,
    /// Those that [`fast_cores`] counts.
    fast: usize,
}

/// Linux describes every logical CPU by a folder.
#[cfg(any(target_os = "linux", target_os = "android", test))]
mod sysfs {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::Cores;

    /// The cores that `folder` describes as `/sys/devices/system/cpu` does; of the fast ones those with a CPU that is
    /// `allowed`.
    pub fn count(folder: &Path, allowed: impl Fn(usize) -> bool) -> Option<Cores> {
        // A core is named by the list of its CPUs. Its value: its capacity if one of its CPUs is allowed.
        let mut cores: BTreeMap<String, Option<u32>> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name();
            let Some(cpu) = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok()) else {
                continue;
            };
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
            // The second is its new name. A CPU that is switched off has neither.
            let siblings = read("topology/thread_siblings_list").or_else(|| read("topology/core_cpus_list"));
            let Some(siblings) = siblings else { continue };
            // Of 1024, which is the fastest core at its highest clock; not there where all cores are of one kind, and
            // on PCs.
            let capacity = read("cpu_capacity").and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
            let core = cores.entry(siblings).or_default();
            if allowed(cpu) {
                *core = Some(core.unwrap_or(0).max(capacity));
            }
        }
        let fastest = cores.values().flatten().copied().max();
        let fast = cores.values().flatten().filter(|&&capacity| capacity >= fastest.unwrap_or(0).div_ceil(2));
        let fast = fast.count();
        (fast > 0).then_some(Cores { all: cores.len(), fast })
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod cores {
    use super::{Cores, sysfs};

    pub fn count() -> Option<Cores> {
        let affinity = rustix::thread::sched_getaffinity(None).ok();
        // More CPUs than the set can name are allowed rather than forgotten.
        let allowed = |cpu| {
            affinity.as_ref().is_none_or(|set| cpu >= rustix::thread::CpuSet::MAX_CPU || set.is_set(cpu))
        };
        sysfs::count("/sys/devices/system/cpu".as_ref(), allowed)
    }
}

#[cfg(target_vendor = "apple")]
mod cores {
    use std::ffi::{CStr, c_int};

    use super::Cores;

    pub fn count() -> Option<Cores> {
        let all = number(c"hw.physicalcpu")?;
        // Level 0 is the fastest; Macs with Intel's chips have no levels.
        Some(Cores { all, fast: number(c"hw.perflevel0.physicalcpu").unwrap_or(all) })
    }

    fn number(name: &CStr) -> Option<usize> {
        let mut value: c_int = 0;
        let mut bytes = size_of::<c_int>();
        // SAFETY: the name ends with a zero, and the system writes at most the `bytes` of `value`; nothing is set.
        let failed = unsafe {
            libc::sysctlbyname(name.as_ptr(), (&raw mut value).cast(), &mut bytes, std::ptr::null_mut(), 0)
        };
        (failed == 0 && bytes == size_of::<c_int>()).then_some(value)?.try_into().ok().filter(|&n| n > 0)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod cores {
    use super::Cores;

    pub fn count() -> Option<Cores> {
        let all = num_cpus::get_physical();
        (all > 0).then_some(Cores { all, fast: all })
    }
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
    use std::ops::Range;

    use super::*;

    #[test]
    fn what_the_machine_has_fits_together() {
        let allowed: usize = std::thread::available_parallelism().map_or(1, Into::into);
        assert!((1..=allowed).contains(&default_threads()));
        if let Some(all) = physical_cores() {
            assert!((1..=all).contains(&fast_cores().unwrap()));
        }
        if cfg!(target_os = "linux") {
            let (total, available) = (total_memory().unwrap(), available_memory().unwrap());
            assert!(available > 0 && available <= total, "{available} of {total}");
        }
    }

    /// CPUs with the same capacity, or none, and so many of them in a core.
    type Cluster = (Range<usize>, Option<u32>, usize);

    /// A folder as Linux would show these CPUs in, one after the other.
    fn sysfs_of(clusters: &[Cluster]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (cpus, capacity, threads) in clusters {
            for cpu in cpus.clone() {
                let topology = folder.path().join(format!("cpu{cpu}/topology"));
                std::fs::create_dir_all(&topology).unwrap();
                let first = cpus.start + (cpu - cpus.start) / threads * threads;
                let siblings =
                    (first..first + threads).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",");
                std::fs::write(topology.join("thread_siblings_list"), siblings + "\n").unwrap();
                if let Some(capacity) = capacity {
                    std::fs::write(
                        folder.path().join(format!("cpu{cpu}/cpu_capacity")),
                        format!("{capacity}\n"),
                    )
                    .unwrap();
                }
            }
        }
        // What else lies there, and a CPU that is switched off.
        for other in ["cpufreq", "cpuidle", "cpu99", "power"] {
            std::fs::create_dir(folder.path().join(other)).unwrap();
        }
        std::fs::write(folder.path().join("online"), "0-3\n").unwrap();
        folder
    }

    #[test]
    fn slow_cores_and_second_threads_are_not_counted() {
        let rows: [(&str, &[Cluster], usize, usize); 8] = [
            ("Raspberry Pi 5", &[(0..4, Some(1024), 1)], 4, 4),
            ("RK3588", &[(0..4, Some(414), 1), (4..8, Some(1024), 1)], 8, 4),
            ("phone", &[(0..4, Some(325), 1), (4..7, Some(871), 1), (7..8, Some(1024), 1)], 8, 4),
            (
                "phone, little middle",
                &[(0..4, Some(160), 1), (4..6, Some(498), 1), (6..8, Some(1024), 1)],
                8,
                2,
            ),
            ("half as fast", &[(0..2, Some(511), 1), (2..4, Some(512), 1), (4..6, Some(1024), 1)], 6, 4),
            ("PC with two threads a core", &[(0..16, None, 2)], 8, 8),
            ("hybrid PC", &[(0..16, Some(1024), 2), (16..24, Some(505), 1)], 16, 8),
            ("hybrid PC that says nothing", &[(0..16, None, 2), (16..24, None, 1)], 16, 16),
        ];
        for (name, clusters, all, fast) in rows {
            let folder = sysfs_of(clusters);
            assert_eq!(sysfs::count(folder.path(), |_| true), Some(Cores { all, fast }), "{name}");
        }
    }

    #[test]
    fn only_cores_that_the_process_may_run_on_are_fast() {
        let folder = sysfs_of(&[(0..4, Some(414), 1), (4..8, Some(1024), 1)]);
        let fast =
            |allowed: &dyn Fn(usize) -> bool| sysfs::count(folder.path(), allowed).map(|cores| cores.fast);
        assert_eq!(fast(&|cpu| cpu >= 6), Some(2));
        // Bound to slow cores, the fastest of those count.
        assert_eq!(fast(&|cpu| cpu < 3), Some(3));
        assert_eq!(fast(&|_| false), None);
        // One thread of each core, and both of one.
        let folder = sysfs_of(&[(0..8, None, 2)]);
        let fast =
            |allowed: &dyn Fn(usize) -> bool| sysfs::count(folder.path(), allowed).map(|cores| cores.fast);
        assert_eq!(fast(&|cpu| cpu % 2 == 0), Some(4));
        assert_eq!(fast(&|cpu| cpu < 2), Some(1));
    }

    #[test]
    fn folders_that_tell_nothing_count_nothing() {
        assert_eq!(sysfs::count(sysfs_of(&[]).path(), |_| true), None);
        assert_eq!(sysfs::count("/no/such/folder".as_ref(), |_| true), None);
        // A capacity that cannot be read is that of the fastest.
        let folder = sysfs_of(&[(0..2, Some(1024), 1)]);
        std::fs::write(folder.path().join("cpu0/cpu_capacity"), "fast").unwrap();
        assert_eq!(sysfs::count(folder.path(), |_| true), Some(Cores { all: 2, fast: 2 }));
    }
}
