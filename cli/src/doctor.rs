//! `palmtop doctor`: shows what this machine has, what palmtop uses of it, and how fast it is.

use std::fmt;

use palmtop::system::machine::{self, MachineLimits};
use palmtop_kernels::{ISA_VARIABLE, Isa, Kernels};
use palmtop_present::plain::human_bytes;
use serde::Serialize;

use crate::Outcome;
use crate::args::DoctorArgs;
use crate::output::Stdout;

/// Memory that PaliGemma 3B with int4 weights needs: its file and a session at 224 pixels.
const SMALLEST_MODEL_BYTES: u64 = 2_300_000_000;

pub fn run(args: &DoctorArgs) -> anyhow::Result<Outcome> {
    let kernels = args.machine.kernels()?;
    let named = std::env::var_os(ISA_VARIABLE).is_some_and(|name| !name.is_empty());
    let is_forced = args.machine.isa.is_some() || named;
    let threads = args.machine.threads.map_or_else(machine::default_threads, |n| n as usize);
    let report = Report::new(&kernels, is_forced, threads)?;
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&report)?
    } else {
        out.print(&report)?
    }
    Ok(Outcome::Done)
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct Report {
    cpu: Option<String>,
    logical_cores: usize,
    physical_cores: Option<usize>,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    isas: Vec<IsaJson>,
    isa: &'static str,
    isa_forced: bool,
    threads: usize,
    one_thread: LimitsJson,
    all_threads: LimitsJson,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct IsaJson {
    name: &'static str,
    available: bool,
}

#[derive(Clone, Copy, Serialize)]
struct LimitsJson {
    read_gb_per_s: f64,
    int8_gmac_per_s: f64,
}

impl From<MachineLimits> for LimitsJson {
    fn from(limits: MachineLimits) -> Self {
        Self { read_gb_per_s: 1e-9 * limits.read_bytes_per_s, int8_gmac_per_s: 1e-9 * limits.int8_macs_per_s }
    }
}

impl Report {
    fn new(kernels: &Kernels, isa_forced: bool, threads: usize) -> anyhow::Result<Self> {
        let one = MachineLimits::measure(kernels, 1)?;
        let all = if threads == 1 { one } else { MachineLimits::measure(kernels, threads)? };
        let mut report = Self {
            cpu: device_name(),
            logical_cores: std::thread::available_parallelism().map_or(1, Into::into),
            physical_cores: machine::physical_cores(),
            memory_bytes: machine::total_memory(),
            available_bytes: machine::available_memory(),
            isas: Isa::ALL.map(|isa| IsaJson { name: isa.name(), available: isa.is_available() }).into(),
            isa: kernels.isa().name(),
            isa_forced,
            threads,
            one_thread: one.into(),
            all_threads: all.into(),
            warnings: Vec::new(),
        };
        report.warnings = report.warnings(kernels.isa());
        Ok(report)
    }

    fn warnings(&self, isa: Isa) -> Vec<String> {
        let mut warnings = Vec::new();
        let best = Isa::best();
        if isa != best {
            warnings.push(format!(
                "{isa} is forced, but this CPU has {best}, which is faster and gives the same bits"
            ));
        } else if isa == Isa::Scalar {
            warnings
                .push("there are no kernels for this CPU yet: plain Rust is many times slower".to_owned());
        }
        if let Some(physical) = self.physical_cores.filter(|&cores| self.threads > cores) {
            warnings.push(format!(
                "{} threads on {physical} physical cores: one per physical core is usually faster",
                self.threads
            ));
        }
        if let Some(available) = self.available_bytes.filter(|&bytes| bytes < SMALLEST_MODEL_BYTES) {
            warnings.push(format!(
                "{} of memory are available, and PaliGemma 3B with int4 weights needs {}: its weights will be read \
                 from disk again and again",
                human_bytes(available),
                human_bytes(SMALLEST_MODEL_BYTES)
            ));
        }
        warnings
    }
}

/// What the device calls itself: the processor, or where that has no name, the board.
pub(crate) fn device_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    // Boards name themselves where x86 names the processor.
    let board = || std::fs::read_to_string("/proc/device-tree/model").ok();
    field("model name")
        .or_else(board)
        .or_else(|| field("Model"))
        .map(|name| name.trim_matches('\0').to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "unknown".to_owned();
        let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, human_bytes);
        let mut line = |what: &str, value: String| writeln!(f, "{what:<20}{value}");
        line("processor", self.cpu.clone().unwrap_or_else(unknown))?;
        let physical = self.physical_cores.map_or_else(unknown, |n| n.to_string());
        line("cores", format!("{} ({physical} physical)", self.logical_cores))?;
        line("memory", format!("{}, {} available", bytes(self.memory_bytes), bytes(self.available_bytes)))?;
        let has: Vec<_> = self.isas.iter().filter(|isa| isa.available).map(|isa| isa.name).collect();
        line("instruction sets", has.join(", "))?;
        let why = if self.isa_forced { "forced" } else { "the best of these" };
        line("kernels", format!("{} ({why})", self.isa))?;
        line("threads", self.threads.to_string())?;
        let limits = |l: LimitsJson| {
            format!("{:.1} GB/s read, {:.0} G int8 multiply-adds/s", l.read_gb_per_s, l.int8_gmac_per_s)
        };
        line("one thread", limits(self.one_thread))?;
        line("all threads", limits(self.all_threads))?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
