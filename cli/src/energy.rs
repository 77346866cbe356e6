//! The energy that the processor used, if the system reports it: Linux's powercap folder has a counter of microjoules
//! for every processor package (RAPL, on x86). On most systems only root can read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where Linux has its counters.
const POWERCAP: &str = "/sys/class/powercap";

/// The counters of all packages.
pub struct EnergyMeter {
    packages: Vec<Package>,
}

struct Package {
    counter: PathBuf,
    /// Microjoules after which it begins again at 0.
    range: u64,
}

/// What the counters said, and when.
pub struct Reading {
    microjoules: Vec<u64>,
    time: Instant,
}

impl EnergyMeter {
    /// `None` where nothing tells.
    pub fn find() -> Option<Self> {
        Self::find_in(Path::new(POWERCAP))
    }

    fn find_in(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for zone in fs::read_dir(folder).ok()?.flatten() {
            // `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it, and `intel-rapl-mmio` counts the same once
            // more.
            let name = zone.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("intel-rapl:"));
            if !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                continue;
            }
            let label = fs::read_to_string(zone.path().join("name")).unwrap_or_default();
            if !label.starts_with("package") {
                continue;
            }
            let package = Package {
                counter: zone.path().join("energy_uj"),
                range: read_number(&zone.path().join("max_energy_range_uj"))?,
            };
            read_number(&package.counter)?;
            packages.push(package);
        }
        (!packages.is_empty()).then_some(Self { packages })
    }

    pub fn read(&self) -> Option<Reading> {
        let microjoules: Option<_> = self.packages.iter().map(|p| read_number(&p.counter)).collect();
        Some(Reading { microjoules: microjoules?, time: Instant::now() })
    }

    /// Watts between two readings, all packages together.
    pub fn watts(&self, from: &Reading, to: &Reading) -> f64 {
        1e-6 * self.microjoules(from, to) as f64 / (to.time - from.time).as_secs_f64()
    }

    fn microjoules(&self, from: &Reading, to: &Reading) -> u64 {
        let one = |((package, from), to): ((&Package, &u64), &u64)| match to.checked_sub(*from) {
            Some(taken) => taken,
            None => package.range.saturating_sub(*from).saturating_add(*to),
        };
        self.packages.iter().zip(&from.microjoules).zip(&to.microjoules).map(one).sum()
    }
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(folder: &Path, zone: &str, name: &str, energy: u64) {
        let zone = folder.join(zone);
        fs::create_dir_all(&zone).unwrap();
        for (file, text) in
            [("name", name), ("energy_uj", &energy.to_string()), ("max_energy_range_uj", "1000")]
        {
            fs::write(zone.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn packages_are_added_up_over_their_wrap_and_parts_of_them_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        zone(folder, "intel-rapl:0", "package-0", 900);
        zone(folder, "intel-rapl:1", "package-1", 100);
        zone(folder, "intel-rapl:0:0", "core", 5);
        zone(folder, "intel-rapl:2", "psys", 5);
        zone(folder, "intel-rapl-mmio:0", "package-0", 5);
        let meter = EnergyMeter::find_in(folder).unwrap();
        let from = meter.read().unwrap();
        zone(folder, "intel-rapl:0", "package-0", 50);
        zone(folder, "intel-rapl:1", "package-1", 130);
        zone(folder, "intel-rapl:0:0", "core", 700);
        let to = meter.read().unwrap();
        assert_eq!(meter.microjoules(&from, &to), 150 + 30);
        let seconds = (to.time - from.time).as_secs_f64();
        assert!((meter.watts(&from, &to) * seconds - 180e-6).abs() < 1e-12);
    }

    #[test]
    fn where_nothing_tells_there_is_no_meter() {
        let folder = tempfile::tempdir().unwrap();
        assert!(EnergyMeter::find_in(folder.path()).is_none());
        assert!(EnergyMeter::find_in(&folder.path().join("missing")).is_none());
        zone(folder.path(), "intel-rapl:0", "package-0", 1);
        fs::write(folder.path().join("intel-rapl:0/energy_uj"), "secret").unwrap();
        assert!(EnergyMeter::find_in(folder.path()).is_none());
    }
}
