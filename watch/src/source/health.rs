//! Whether a camera's pictures are worth something: they may stay the same to the byte, turn black, or be broken.

use std::time::{Duration, Instant};

use palmtop::image::Frame;
use xxhash_rust::xxh3::xxh3_64;

use super::capture::Status;
use crate::record::CameraStatus;

/// When a camera is taken to be unwell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Its pictures have been the same to the byte for so long. No sensor does that: even the dark has noise. `None`
    /// never.
    pub frozen_after: Option<Duration>,
    /// Its pictures have been black for so long. `None` never.
    pub black_after: Option<Duration>,
    /// The brightest level, of 255, that counts as black.
    pub black_level: u8,
}

impl Default for HealthOptions {
    /// Frozen after 30 seconds, black after 10 at a level of 24.
    fn default() -> Self {
        Self {
            frozen_after: Some(Duration::from_secs(30)),
            black_after: Some(Duration::from_secs(10)),
            black_level: 24,
        }
    }
}

/// So many pictures in a row that cannot be decoded are no accident on the way.
const BROKEN_IN_A_ROW: u32 = 3;
/// Rows and columns of a picture that are looked at for light.
const SAMPLES: u32 = 32;

/// Follows the health of a camera. It is told what its capture does and of the pictures that are taken, and says when
/// the camera is not as it was.
///
/// A picture is told of in two steps, so that what is frozen or broken need not be decoded: [`bytes`](Self::bytes),
/// then [`frame`](Self::frame) or [`undecodable`](Self::undecodable).
#[derive(Clone, Debug)]
pub struct Health {
    options: HealthOptions,
    told: Option<CameraStatus>,
    why: Option<String>,
    /// The hash of the last picture's bytes, and since when they have been these.
    same: Option<(u64, Instant)>,
    is_frozen: bool,
    black_since: Option<Instant>,
    /// Pictures in a row that could not be decoded.
    undecoded: u32,
    /// A row of a picture.
    row: Vec<u8>,
}

impl Health {
    /// Of a camera that can freeze; of films and folders it is no wonder if pictures stay the same.
    pub fn new(options: HealthOptions, can_freeze: bool) -> Self {
        let frozen_after = options.frozen_after.filter(|_| can_freeze);
        Self {
            options: HealthOptions { frozen_after, ..options },
            told: None,
            why: None,
            same: None,
            is_frozen: false,
            black_since: None,
            undecoded: 0,
            row: Vec::new(),
        }
    }

    /// How the camera is, as far as it has been told.
    pub fn status(&self) -> Option<CameraStatus> {
        self.told
    }

    /// Why it does not run.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Tells what the capture does; gives how the camera is, if it is not as it was.
    pub fn capture(&mut self, status: &Status) -> Option<CameraStatus> {
        let (status, why) = match status {
            // Pictures say more than that some came.
            Status::Opening | Status::Running => return None,
            Status::Waiting { why } => (CameraStatus::Waiting, Some(why.as_str())),
            Status::Ended => (CameraStatus::Ended, None),
        };
        // What comes after a break begins anew.
        (self.same, self.is_frozen, self.black_since) = (None, false, None);
        self.tell(status, why)
    }

    /// Tells of a picture's bytes, as they came.
    pub fn bytes(&mut self, bytes: &[u8], taken: Instant) -> Option<CameraStatus> {
        let after = self.options.frozen_after?;
        let hash = xxh3_64(bytes);
        match self.same {
            Some((same, since)) if same == hash => {
                self.is_frozen = taken.saturating_duration_since(since) >= after;
            }
            _ => (self.same, self.is_frozen) = (Some((hash, taken)), false),
        }
        match self.is_frozen {
            true => {
                let why = format!("the pictures have been the same for {} s", after.as_secs_f32());
                self.tell(CameraStatus::Frozen, Some(&why))
            }
            false => None,
        }
    }

    /// Tells of a picture that could be decoded.
    pub fn frame(&mut self, frame: &Frame<'_>, taken: Instant) -> Option<CameraStatus> {
        self.undecoded = 0;
        let after = self.options.black_after;
        let after = after.filter(|_| self.is_black(frame));
        self.black_since = after.map(|_| self.black_since.unwrap_or(taken));
        let lasted = self.black_since.map(|since| taken.saturating_duration_since(since));
        let is_black = after.zip(lasted).is_some_and(|(after, lasted)| lasted >= after);
        match (self.is_frozen, is_black) {
            // It has been told.
            (true, _) => None,
            (false, true) => {
                let after = self.options.black_after.unwrap_or_default();
                let why = format!("the pictures have been black for {} s", after.as_secs_f32());
                self.tell(CameraStatus::Black, Some(&why))
            }
            (false, false) => self.tell(CameraStatus::Running, None),
        }
    }

    /// Tells of a picture that could not be decoded. One may be damaged on its way; the camera is broken if the next
    /// ones are too.
    pub fn undecodable(&mut self, why: &str) -> Option<CameraStatus> {
        self.black_since = None;
        self.undecoded = self.undecoded.saturating_add(1);
        match self.undecoded >= BROKEN_IN_A_ROW {
            true => self.tell(CameraStatus::Broken, Some(why)),
            false => None,
        }
    }

    fn tell(&mut self, status: CameraStatus, why: Option<&str>) -> Option<CameraStatus> {
        if self.told == Some(status) && self.why.as_deref() == why {
            return None;
        }
        let is_news = self.told != Some(status) || status == CameraStatus::Waiting;
        self.told = Some(status);
        self.why = why.map(str::to_owned);
        is_news.then_some(status)
    }

    fn is_black(&mut self, frame: &Frame<'_>) -> bool {
        let (width, height) = (frame.width(), frame.height());
        // Grows to the longest row once.
        self.row.resize(width as usize * 3, 0);
        let step = |side: u32| (side / SAMPLES).max(1);
        (step(height) / 2..height).step_by(step(height) as usize).all(|y| {
            frame.write_row(y, &mut self.row);
            let pixels = self.row.as_chunks::<3>().0.iter().step_by(step(width) as usize);
            pixels.flatten().all(|&level| level <= self.options.black_level)
        })
    }
}

#[cfg(test)]
mod tests {
    use palmtop::image::PixelFormat;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn grey(levels: &[u8]) -> Frame<'_> {
        Frame::packed(PixelFormat::Grey, 64, 48, 64, levels).unwrap()
    }

    #[test]
    fn pictures_that_stay_the_same_are_frozen_until_one_differs() {
        let mut health = Health::new(HealthOptions::default(), true);
        let start = Instant::now();
        let light = vec![100; 64 * 48];
        let mut told = Vec::new();
        for n in 0..80u32 {
            let bytes = if n < 40 { 7 } else { n }.to_le_bytes();
            let at = start + n * SECOND;
            told.extend(health.bytes(&bytes, at).map(|status| (n, status)));
            told.extend(health.frame(&grey(&light), at).map(|status| (n, status)));
        }
        let want = [(0, CameraStatus::Running), (30, CameraStatus::Frozen), (40, CameraStatus::Running)];
        assert_eq!(told, want);
        // A film may show the same for as long as it likes.
        let mut film = Health::new(HealthOptions::default(), false);
        assert!((0..80).all(|n| film.bytes(b"same", start + n * SECOND).is_none()));
    }

    #[test]
    fn black_is_told_after_a_while_and_light_at_once() {
        let mut health = Health::new(HealthOptions::default(), true);
        let start = Instant::now();
        let (black, mut light) = (vec![24; 64 * 48], vec![24; 64 * 48]);
        // A twentieth of the picture is enough.
        light[64 * 20..64 * 24].fill(25);
        let mut told = Vec::new();
        for n in 0..40u32 {
            let is_dark = (5..30).contains(&n) || n == 33;
            let frame = grey(if is_dark { &black } else { &light });
            told.extend(health.frame(&frame, start + n * SECOND).map(|status| (n, status)));
        }
        let want = [(0, CameraStatus::Running), (15, CameraStatus::Black), (30, CameraStatus::Running)];
        assert_eq!(told, want);
    }

    #[test]
    fn breaks_are_told_with_their_reasons() {
        let mut health = Health::new(HealthOptions::default(), true);
        let light = vec![100; 64 * 48];
        let now = Instant::now();
        let waiting = |why: &str| Status::Waiting { why: why.into() };
        assert_eq!(health.capture(&Status::Opening), None);
        assert_eq!(health.capture(&waiting("unplugged")), Some(CameraStatus::Waiting));
        assert_eq!(health.why(), Some("unplugged"));
        assert_eq!(health.capture(&waiting("unplugged")), None);
        // Another reason is news.
        assert_eq!(health.capture(&waiting("busy")), Some(CameraStatus::Waiting));
        assert_eq!(health.capture(&Status::Running), None);
        assert_eq!(health.frame(&grey(&light), now), Some(CameraStatus::Running));
        assert_eq!(health.why(), None);
        assert_eq!((health.undecodable("cut short"), health.undecodable("cut short")), (None, None));
        assert_eq!(health.undecodable("cut short"), Some(CameraStatus::Broken));
        assert_eq!(health.undecodable("other"), None);
        assert_eq!((health.status(), health.why()), (Some(CameraStatus::Broken), Some("other")));
        assert_eq!(health.frame(&grey(&light), now), Some(CameraStatus::Running));
        assert_eq!(health.capture(&Status::Ended), Some(CameraStatus::Ended));
    }
}
