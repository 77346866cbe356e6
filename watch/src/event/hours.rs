//! Hours of the day, as in `22:00-06:30`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY: u32 = 24 * 60;

/// A part of the day by the local clock; it may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes since midnight.
    from: u32,
    /// The first minute behind it.
    to: u32,
}

impl Hours {
    /// True for a time within, by the clock of this machine's zone.
    pub fn contain(self, wall: SystemTime) -> bool {
        let Ok(time) = Timestamp::try_from(wall) else { return true };
        let local = TimeZone::system().to_datetime(time);
        self.contain_minute(local.hour() as u32 * 60 + local.minute() as u32)
    }

    fn contain_minute(self, minute: u32) -> bool {
        match self.from <= self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl FromStr for Hours {
    type Err = String;

    /// Reads `8:00-18:30`, and `22:00-06:00` for a night.
    fn from_str(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let minutes = hour.parse::<u32>().ok()? * 60 + minute.parse::<u32>().ok().filter(|m| *m < 60)?;
            (minutes <= DAY).then_some(minutes)
        };
        let hours = text.split_once('-').and_then(|(from, to)| minute(from).zip(minute(to)));
        let is_part = |&(from, to): &(u32, u32)| from != to && from < DAY;
        hours
            .filter(is_part)
            .map(|(from, to)| Self { from, to })
            .ok_or_else(|| format!("'{text}' are no hours of the day: write '8:00-18:30', or '22:00-06:00'"))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_goes_over_midnight() {
        let inside = |hours: &str, minutes: &[u32]| {
            let hours: Hours = hours.parse().unwrap();
            minutes.iter().map(|&m| hours.contain_minute(m)).collect::<Vec<_>>()
        };
        assert_eq!(inside("8:00-18:30", &[479, 480, 1109, 1110]), [false, true, true, false]);
        assert_eq!(inside("22:00-06:00", &[1319, 1320, 0, 359, 360]), [false, true, true, true, false]);
        assert_eq!(inside("00:00-24:00", &[0, 720, 1439]), [true, true, true]);
        assert_eq!("9:05-17:30".parse::<Hours>().unwrap().to_string(), "09:05-17:30");
    }

    #[test]
    fn what_is_no_part_of_a_day_is_refused() {
        for text in ["", "8-18", "8:00", "25:00-26:00", "8:60-9:00", "8:00-8:00", "24:00-1:00", "-1:00-2:00"]
        {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }
}
