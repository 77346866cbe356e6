//! Lengths of time as people write them: `250ms`, `2s`, `5m`, `1h`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// The units, longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// No period is longer: some hundred years.
const DAYS_MAX: f64 = 40_000.0;

impl FromStr for Period {
    type Err = String;

    /// Reads a number and a unit, such as `1.5s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no length of time: write a number and ms, s, m, h or d, as in '2s'");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let seconds = number * *millis as f64 / 1e3;
        if seconds > DAYS_MAX * 86_400.0 {
            return Err(format!("'{text}' is too long"));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl fmt::Display for Period {
    /// In the longest unit of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |(_, unit): &&(&str, u64)| millis > 0 && millis.is_multiple_of(u128::from(*unit));
        let (name, unit) = UNITS.iter().find(whole).unwrap_or(&("ms", 1));
        write!(f, "{}{name}", millis / u128::from(*unit))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_written() {
        for (text, millis, written) in [
            ("250ms", 250, "250ms"),
            ("2s", 2000, "2s"),
            ("1.5s", 1500, "1500ms"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            (" 1 h ", 3_600_000, "1h"),
            ("7d", 604_800_000, "7d"),
            ("0s", 0, "0ms"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!((period.0.as_millis(), period.to_string().as_str()), (millis, written), "{text}");
        }
        for text in ["", "2", "s", "-1s", "2 weeks", "1e3s", "..s", "99999999d", "∞s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
