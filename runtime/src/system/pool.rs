//! Threads that compute: one region after another, each a number of tasks that threads claim.
//!
//! Why not rayon: entering its pool from outside allocates now and then (its injector queue grows by blocks), and a
//! session promises that nothing is allocated after it is made. What is needed is also much less: the caller works
//! too, regions never nest, and the caller waits only for tasks that some thread has really begun. Idle threads
//! spin for a moment, since the next region of a token is microseconds away, then sleep.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use palmtop_kernels::DefaultFloatMode;

/// The stack of every thread that a pool starts. Kernels and graph use a few KiB of it; the rest is for the system's
/// own, such as unwinding a panic.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// How often an idle thread looks for work before it sleeps: some 50 µs. Miri, which runs one thread at a time, would
/// only wait.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4000 };
/// How often the caller looks for the last tasks before it offers its core to them.
const SPINS_BEFORE_YIELD: u32 = 2000;

/// A pool of threads; the thread that calls [`run`](Self::run) is one of them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    epoch: u32,
}

/// A region's work with its types forgotten: `call(data, task, thread)`.
type Call = unsafe fn(*const (), usize, usize);

/// What the tasks of a region are. It lies on the caller's stack, which stands still until all of them are done.
struct Region {
    call: Call,
    data: *const (),
    tasks: u32,
}

struct Shared {
    /// Epoch of the region in the upper half, tasks that nobody has claimed yet in the lower.
    state: AtomicU64,
    /// The region of that epoch. Only a thread that has claimed one of its tasks, and not finished it, may follow the
    /// pointer.
    region: AtomicPtr<Region>,
    /// Tasks of the region that are done; before the first region, threads that have started.
    done: AtomicU32,
    sleepers: AtomicU32,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl ThreadPool {
    /// Starts `threads - 1` threads and waits until they run: starting a thread allocates, using one does not.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_hints(threads, &ThreadHints::default())
    }

    /// Like [`new`](Self::new); every thread that is started follows the hints.
    pub fn with_hints(threads: usize, hints: &ThreadHints) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            region: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads), epoch: 0 };
        for index in 1..threads.max(1) {
            let (shared, hints) = (pool.shared.clone(), hints.clone());
            let builder =
                std::thread::Builder::new().name(format!("palmtop-{index}")).stack_size(STACK_BYTES);
            let worker = builder.spawn(move || {
                // A panic of the caller's function must not keep `with_hints` waiting for this thread.
                let _ = catch_unwind(AssertUnwindSafe(|| hints.follow(index)));
                drop(hints);
                // The thread that starts this one, or the hint's function, may have left another mode.
                let _mode = DefaultFloatMode::enter();
                shared.work(index);
            })?;
            pool.workers.push(worker);
        }
        while pool.shared.done.load(Ordering::Acquire) as usize != pool.workers.len() {
            std::thread::yield_now();
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(task, scratch of the thread)` once for every task below `tasks`, and returns when all are done.
    ///
    /// `scratch` has one entry per thread. Allocates nothing. A panic of a task is passed on to the caller.
    pub fn run<S: Send, F: Fn(usize, &mut S) + Sync>(&mut self, scratch: &mut [S], tasks: usize, f: F) {
        assert!(scratch.len() >= self.threads(), "one scratch per thread");
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|t| f(t, &mut scratch[0]));
            return;
        }
        let job = Job { f: &f, scratch: scratch.as_mut_ptr() };
        // SAFETY: `job` lives until `run_tasks` returns, which is after the last task. Threads have different
        // indices below `threads()`, so no two share a scratch; `S: Send` and `F: Sync` make the access legal.
        let call: Call = |data, task, thread| unsafe {
            let job = &*data.cast::<Job<'_, S, F>>();
            (job.f)(task, &mut *job.scratch.add(thread));
        };
        // SAFETY: as just said; and `call` takes the job that `data` points to.
        unsafe { self.run_tasks(call, (&raw const job).cast(), tasks) };
    }

    /// Calls `call(data, task, thread)` once for every task below `tasks`, and returns when all are done.
    ///
    /// # Safety
    /// Until this returns, `call` may be called with `data` and any such numbers on any thread, at the same time for
    /// different tasks and threads.
    unsafe fn run_tasks(&mut self, call: Call, data: *const (), tasks: usize) {
        let tasks = u32::try_from(tasks).expect("a region has fewer than 2³² tasks");
        let region = Region { call, data, tasks };
        let shared = &*self.shared;
        self.epoch = self.epoch.wrapping_add(1);
        // Threads only read it.
        shared.region.store((&raw const region).cast_mut(), Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        // Sequentially consistent with `sleepers`: either this thread sees a sleeper, or the sleeper sees the epoch.
        shared.state.store(u64::from(self.epoch) << 32 | u64::from(tasks), Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(|e| e.into_inner());
            shared.wake.notify_all();
        }
        shared.claim_all(self.epoch, 0);
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) != tasks {
            spins += 1;
            if spins > SPINS_BEFORE_YIELD { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panic = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// How the threads of a session shall run. What the system refuses is said in the log, and the threads run as they are.
///
/// The thread that calls a session computes as well, as one of [`Limits::threads`](crate::Limits::threads): whoever
/// wants it elsewhere moves it.
///
/// ```no_run
/// use palmtop::{Limits, Model, Session, ThreadHints};
///
/// # fn main() -> palmtop::Result<()> {
/// let model = Model::open("paligemma.palm".as_ref())?;
/// let mut limits = Limits::default();
/// limits.threads = Some(4);
/// let mut hints = ThreadHints::default();
/// hints.cores = vec![4, 5, 6, 7]; // the big ones of this phone
/// hints.nice = Some(-4);
/// let session = Session::with_threads(&model, &limits, &hints)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ThreadHints {
    /// Cores on which the threads may run, as the system numbers them; all if empty. Linux and Android only.
    pub cores: Vec<usize>,
    /// The threads' niceness, from -20 (before all others) to 19 (behind them). Linux and Android only, and a niceness
    /// below that of the process usually takes a privilege.
    pub nice: Option<i32>,
    /// Called first on every thread that is started, with its number from 1 on: for a priority, a quality of service, a
    /// name, or an attachment to a virtual machine. A panic in it is ignored.
    pub on_start: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

impl ThreadHints {
    /// Applies them to this thread.
    fn follow(&self, index: usize) {
        if !self.cores.is_empty()
            && let Err(what) = system::run_on(&self.cores)
        {
            log::warn!("thread {index} is not bound to cores {:?}: {what}", self.cores);
        }
        if let Some(nice) = self.nice
            && let Err(what) = system::set_nice(nice)
        {
            log::warn!("thread {index} does not get the niceness {nice}: {what}");
        }
        if let Some(on_start) = &self.on_start {
            on_start(index);
        }
    }
}

impl std::fmt::Debug for ThreadHints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let called = self.on_start.is_some();
        f.debug_struct("ThreadHints")
            .field("cores", &self.cores)
            .field("nice", &self.nice)
            .field("on_start", &called)
            .finish()
    }
}

/// What the system does for the thread that asks.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use rustix::thread::CpuSet;

    pub fn run_on(cores: &[usize]) -> Result<(), String> {
        let mut set = CpuSet::new();
        for &core in cores {
            if core >= CpuSet::MAX_CPU {
                return Err(format!("there is no core {core}"));
            }
            set.set(core);
        }
        rustix::thread::sched_setaffinity(None, &set).map_err(|e| e.to_string())
    }

    pub fn set_nice(nice: i32) -> Result<(), String> {
        // On Linux a niceness belongs to the thread, whatever POSIX says.
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice).map_err(|e| e.to_string())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    pub fn run_on(_: &[usize]) -> Result<(), String> {
        Err("this system does not take such a wish".to_owned())
    }

    pub fn set_nice(_: i32) -> Result<(), String> {
        run_on(&[])
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

struct Job<'a, S, F> {
    f: &'a F,
    scratch: *mut S,
}

impl Shared {
    /// What a thread of the pool does: wait for a region, take part in it.
    fn work(&self, thread: usize) {
        self.done.fetch_add(1, Ordering::Release);
        let mut seen = 0;
        loop {
            let Some(epoch) = self.wait_for_region(seen) else { return };
            seen = epoch;
            self.claim_all(epoch, thread);
        }
    }

    fn epoch(&self) -> u32 {
        (self.state.load(Ordering::SeqCst) >> 32) as u32
    }

    /// The epoch of a region other than `seen`; `None` when the pool ends.
    fn wait_for_region(&self, seen: u32) -> Option<u32> {
        for _ in 0..SPINS {
            let epoch = self.epoch();
            if epoch != seen {
                return Some(epoch);
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock.lock().unwrap_or_else(|e| e.into_inner());
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            let epoch = self.epoch();
            if epoch != seen {
                break Some(epoch);
            }
            guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Claims and runs tasks of region `epoch` until none is left.
    fn claim_all(&self, epoch: u32, thread: usize) {
        let mut state = self.state.load(Ordering::Acquire);
        while (state >> 32) as u32 == epoch && state as u32 > 0 {
            // The pointer is this region's if the exchange below succeeds: the state has then not changed, so a task
            // of this region was unclaimed all the while, the caller has not returned, and a later region cannot
            // have been set up. If it fails, the pointer is not followed.
            let region = self.region.load(Ordering::Relaxed);
            match self.state.compare_exchange_weak(state, state - 1, Ordering::AcqRel, Ordering::Acquire) {
                Err(now) => state = now,
                Ok(_) => {
                    // SAFETY: the region lives until all its tasks are done, and this one is not. It was written
                    // before the state, which has been read with `Acquire`.
                    let &Region { call, data, tasks } = unsafe { &*region };
                    let task = tasks.wrapping_sub(state as u32) as usize;
                    // SAFETY: `run_tasks` was promised that `call` takes `data`, and task and thread are below
                    // its numbers of them; `thread` is this thread's own index.
                    let run = || unsafe { call(data, task, thread) };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                        *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
                    }
                    self.done.fetch_add(1, Ordering::Release);
                    state = self.state.load(Ordering::Acquire);
                }
            }
        }
    }
}

/// A mutable slice of which threads write disjoint parts.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: all access goes through `get`, whose caller promises that no two parts in use overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for the time of a region.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: std::marker::PhantomData }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// No other part that overlaps `range` is in use at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self, range: std::ops::Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds as just checked; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_every_region() {
        let (small, large) = if cfg!(miri) { (8, 30) } else { (200, 5000) };
        for threads in [1, 2, 3, 8] {
            let mut pool = ThreadPool::new(threads).unwrap();
            let mut counts = vec![0usize; threads];
            for tasks in (0..small).chain([large]) {
                let ran: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(&mut counts, tasks, |t, count| {
                    ran[t].fetch_add(1, Ordering::Relaxed);
                    *count += 1;
                });
                assert!(
                    ran.iter().all(|r| r.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {tasks} tasks"
                );
            }
            assert_eq!(counts.iter().sum::<usize>(), (0..small).sum::<usize>() + large);
        }
    }

    /// Regions of different sizes, one straight after the other, on more threads than cores: a thread that comes
    /// late to a region must not take part in the next one's set-up.
    #[test]
    fn latecomers_claim_nothing() {
        let mut pool = ThreadPool::new(3).unwrap();
        let mut scratch = [(); 3];
        for round in 0..if cfg!(miri) { 50 } else { 1_000_000usize } {
            let tasks = [2, 40][round % 2];
            let ran: [AtomicU32; 64] = std::array::from_fn(|_| AtomicU32::new(0));
            pool.run(&mut scratch, tasks, |t, ()| {
                ran[t].fetch_add(1, Ordering::Relaxed);
            });
            let counts = ran.map(AtomicU32::into_inner);
            assert!(
                counts[..tasks].iter().all(|&c| c == 1) && counts[tasks..].iter().all(|&c| c == 0),
                "{counts:?}"
            );
        }
    }

    /// A thread that is late for a region can meet the fields of the next one before its epoch.
    #[test]
    fn a_late_thread_claims_nothing_of_the_next_region() {
        let mut pool = ThreadPool::new(1).unwrap();
        let ran = AtomicU32::new(0);
        let call: Call = |data, _, _| {
            // SAFETY: `data` is `ran`.
            unsafe { &*data.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
        };
        let data = (&raw const ran).cast();
        // SAFETY: `call` takes `ran`, at any time and on any thread.
        unsafe { pool.run_tasks(call, data, 2) };
        let mut next = Region { call, data, tasks: 100 };
        pool.shared.region.store(&raw mut next, Ordering::Relaxed);
        pool.shared.claim_all(pool.epoch, 0);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn threads_wake_from_sleep() {
        let mut pool = ThreadPool::new(2).unwrap();
        for _ in 0..if cfg!(miri) { 1 } else { 5 } {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let mut scratch = [0u32; 2];
            pool.run(&mut scratch, 64, |_, s| *s += 1);
            assert_eq!(scratch.iter().sum::<u32>(), 64);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no system calls for cores and niceness")]
    fn threads_follow_hints() {
        let started = Arc::new(Mutex::new(Vec::new()));
        let seen = started.clone();
        let hints = ThreadHints {
            cores: vec![0],
            nice: Some(3),
            on_start: Some(Arc::new(move |index| {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                {
                    let cores = rustix::thread::sched_getaffinity(None).unwrap();
                    assert!(cores.is_set(0) && cores.count() == 1);
                    let me = Some(rustix::thread::gettid());
                    assert_eq!(rustix::process::getpriority_process(me).unwrap(), 3);
                }
                seen.lock().unwrap().push(index);
                panic!("ignored");
            })),
        };
        let mut pool = ThreadPool::with_hints(3, &hints).unwrap();
        let mut scratch = [0u32; 3];
        pool.run(&mut scratch, 10, |_, s| *s += 1);
        assert_eq!(scratch.iter().sum::<u32>(), 10);
        let mut started = started.lock().unwrap().clone();
        started.sort();
        assert_eq!(started, [1, 2]);
        // What cannot be had is not an error.
        let hints = ThreadHints { cores: vec![usize::MAX], ..ThreadHints::default() };
        assert_eq!(ThreadPool::with_hints(2, &hints).unwrap().threads(), 2);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = ThreadPool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&mut [(), ()], 10, |t, ()| assert_ne!(t, 7, "task seven"));
        }));
        assert!(result.is_err());
        let mut scratch = [0u32; 2];
        pool.run(&mut scratch, 10, |_, s| *s += 1);
        assert_eq!(scratch.iter().sum::<u32>(), 10);
    }
}
