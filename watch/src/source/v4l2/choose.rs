//! Which of a camera's formats, sizes and rates is taken: the cheapest that fits.
//!
//! Offers are compared by these, one after the other:
//!
//! 1. the size covers what is wanted (`?size=`, or else [`SIZE_WANTED`]), or misses the least of it;
//! 2. the rate reaches what is wanted (`?fps=`, or else [`RATE_WANTED`]), or misses the least of it;
//! 3. it has colours;
//! 4. the work of a frame: pixels, times what a pixel of the format costs ([`Pixels::cost`]). So a raw format wins
//!    where the bus carries it fast enough, MJPG where it does not, and of sizes the smallest that covers.
//!
//! Of the rates of an offer the lowest that reaches is taken: frames that nobody looks at are work too.

use super::abi::{Fraction, GREY, JPEG, MJPG, NV12, UYVY, YU12, YUYV};
use crate::source::address::PixelLayout;

/// Width and height if none are asked for: above what the models' encoders see, with some room for a zone.
pub(super) const SIZE_WANTED: (u32, u32) = (640, 480);
/// Frames a second if none are asked for.
pub(super) const RATE_WANTED: f32 = 15.0;
/// Rates are fractions, and 30 may be 29.97.
const RATE_TOLERANCE: f32 = 0.97;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pixels {
    Nv12,
    I420,
    Yuyv,
    Uyvy,
    Grey,
    Mjpeg,
}

impl Pixels {
    pub fn of(fourcc: u32) -> Option<Self> {
        Some(match fourcc {
            NV12 => Self::Nv12,
            YU12 => Self::I420,
            YUYV => Self::Yuyv,
            UYVY => Self::Uyvy,
            GREY => Self::Grey,
            MJPG | JPEG => Self::Mjpeg,
            _ => return None,
        })
    }

    /// What a pixel costs: half bytes that are copied; and decoding a pixel of JPEG takes about as long as copying
    /// twelve bytes.
    fn cost(self) -> u64 {
        match self {
            Self::Grey => 2,
            Self::Nv12 | Self::I420 => 3,
            Self::Yuyv | Self::Uyvy => 4,
            Self::Mjpeg => 24,
        }
    }

    fn is(self, wanted: PixelLayout) -> bool {
        matches!(
            (self, wanted),
            (Self::Nv12, PixelLayout::Nv12)
                | (Self::I420, PixelLayout::I420)
                | (Self::Yuyv, PixelLayout::Yuyv)
                | (Self::Uyvy, PixelLayout::Uyvy)
                | (Self::Grey, PixelLayout::Grey)
                | (Self::Mjpeg, PixelLayout::Mjpeg)
        )
    }
}

/// What is wanted of a camera.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::source) struct Wish {
    pub size: Option<(u32, u32)>,
    pub fps: Option<f32>,
    pub format: Option<PixelLayout>,
}

impl Wish {
    pub(super) fn size(&self) -> (u32, u32) {
        self.size.unwrap_or(SIZE_WANTED)
    }

    fn rate(&self) -> f32 {
        self.fps.unwrap_or(RATE_WANTED)
    }

    /// Whether the format may be taken.
    pub(super) fn allows(&self, pixels: Pixels) -> bool {
        self.format.is_none_or(|wanted| pixels.is(wanted))
    }

    /// The interval of the lowest rate that reaches what is wanted, or else of the highest.
    pub(super) fn interval(&self, intervals: impl Iterator<Item = Fraction>) -> Option<Fraction> {
        let wanted = self.rate() * RATE_TOLERANCE;
        intervals.filter(|i| i.numerator > 0 && i.denominator > 0).min_by(|a, b| {
            let key = |i: &Fraction| if rate(*i) >= wanted { (false, rate(*i)) } else { (true, -rate(*i)) };
            key(a).partial_cmp(&key(b)).expect("rates of fractions without zeros are numbers")
        })
    }
}

/// Frames a second.
pub(super) fn rate(interval: Fraction) -> f32 {
    interval.denominator as f32 / interval.numerator as f32
}

/// Something that a camera can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offer {
    pub fourcc: u32,
    pub pixels: Pixels,
    pub width: u32,
    pub height: u32,
    /// From frame to frame, if the driver says it.
    pub interval: Option<Fraction>,
}

impl Offer {
    /// Less is better. A rate that is not known is taken to be reached.
    fn key(&self, wish: &Wish) -> (u64, u64, bool, u64) {
        let (width, height) = wish.size();
        let area = |w: u32, h: u32| u64::from(w) * u64::from(h);
        let missing_pixels = area(width, height) - area(self.width.min(width), self.height.min(height));
        let missing_rate = self.interval.map_or(0.0, |i| (wish.rate() * RATE_TOLERANCE - rate(i)).max(0.0));
        let work = area(self.width, self.height).saturating_mul(self.pixels.cost());
        (missing_pixels, (missing_rate * 1000.0) as u64, self.pixels == Pixels::Grey, work)
    }
}

/// Puts the best first.
pub(super) fn sort(offers: &mut [Offer], wish: &Wish) {
    offers.sort_by_key(|offer| offer.key(wish));
}

/// The size nearest to `wanted` that a range of sizes has: least, greatest and step of width and height. Rounded up to
/// a step, so that it covers if it can.
pub(super) fn in_range(
    [w_min, w_max, w_step, h_min, h_max, h_step]: [u32; 6],
    wanted: (u32, u32),
) -> (u32, u32) {
    let side = |least: u32, most: u32, step: u32, wanted: u32| {
        let (most, step) = (most.max(least), step.max(1));
        let steps = (wanted.clamp(least, most) - least).div_ceil(step);
        let at = |steps: u32| u32::try_from(u64::from(least) + u64::from(steps) * u64::from(step)).ok();
        at(steps).filter(|&side| side <= most).or_else(|| at(steps - 1)).unwrap_or(least)
    };
    (side(w_min, w_max, w_step, wanted.0), side(h_min, h_max, h_step, wanted.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sizes_give_the_nearest_that_covers() {
        let range = [32, 2592, 16, 32, 1944, 2];
        for (wanted, nearest) in [
            ((640, 480), (640, 480)),
            ((641, 481), (656, 482)),
            ((1, 1), (32, 32)),
            ((9999, 9999), (2592, 1944)),
            ((2591, 1943), (2592, 1944)),
        ] {
            assert_eq!(in_range(range, wanted), nearest);
        }
        assert_eq!(in_range([5, 3, 0, 7, 7, 0], (640, 480)), (5, 7));
        assert_eq!(in_range([10, 19, 8, 1, u32::MAX, u32::MAX], (19, 5)), (18, 1));
    }

    #[test]
    fn the_lowest_rate_that_reaches_is_taken() {
        let rates = |rates: &[u32]| {
            rates.iter().map(|&n| Fraction { numerator: 1001, denominator: n * 1000 }).collect::<Vec<_>>()
        };
        for (wanted, offered, taken) in [
            (None, &[30, 15, 10][..], 15),
            (Some(30.0), &[60, 30, 15], 30),
            (Some(16.0), &[30, 15], 30),
            (Some(90.0), &[5, 30, 15], 30),
            (None, &[5, 10], 10),
        ] {
            let wish = Wish { fps: wanted, ..Wish::default() };
            let interval = wish.interval(rates(offered).into_iter()).unwrap();
            assert_eq!(interval.denominator / 1000, taken, "{wanted:?}");
        }
        let nothing = [Fraction { numerator: 0, denominator: 5 }, Fraction { numerator: 5, denominator: 0 }];
        assert_eq!(Wish::default().interval(nothing.into_iter()), None);
    }
}
