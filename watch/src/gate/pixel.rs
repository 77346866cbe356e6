//! The pixel gate: whether something in a picture is not as it was.
//!
//! A cell of the grid is compared with its background, four by four samples that were learned from earlier pictures.
//! Light multiplies: a lamp, a cloud or the camera's exposure make the samples of a cell brighter or darker by one
//! factor, its *gain*. So the background is fitted to the cell by a gain first. Something else is there if
//!
//! - what the fit leaves is more than the cell's own noise, or
//! - the gain is not that of the cells around it, by more than it usually differs.
//!
//! Noise and the usual difference of gains are learned per cell from pictures in which nothing changed: a tree in the
//! wind becomes a noisy cell, and a flickering lamp one whose gain varies.
//!
//! What is something else is never mixed into the background: it would leave a ghost where it has gone. Instead it is
//! kept beside it, and becomes the background at once when it has not changed for a while. So a car that parks is news
//! for some seconds, and so is the place where it stood, once it has left.

use std::time::Duration;

use palmtop::image::Frame;

use super::luma::{Luma, SAMPLES};
use super::zone::Zones;

/// What a [`PixelGate`] is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelOptions {
    /// Cells from left to right.
    pub columns: usize,
    /// Cells from top to bottom.
    pub rows: usize,
    /// The longest side of a picture in pixels.
    pub side_max: usize,
    /// Where to look.
    pub zones: Zones,
    /// How many cells must differ; in a smaller zone, all of its cells. A person at the far end of a room covers some
    /// four of the default grid.
    pub cells_min: usize,
    /// How many times its usual noise a cell must differ, as a factor of standard deviations.
    pub threshold: f32,
    /// In this time the background follows slow changes.
    pub adapts_in: Duration,
    /// Something that has come to rest is background after this time.
    pub absorbs_in: Duration,
}

impl Default for PixelOptions {
    fn default() -> Self {
        Self {
            columns: 32,
            rows: 24,
            side_max: 4096,
            zones: Zones::default(),
            cells_min: 3,
            threshold: 5.0,
            adapts_in: Duration::from_secs(10),
            absorbs_in: Duration::from_secs(3),
        }
    }
}

/// What the gate saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelReport {
    /// Something changed, or nothing is known yet.
    pub is_open: bool,
    /// Cells of the zones that differ from their background.
    pub cells: usize,
    /// By how many standard deviations the one differs that differs most.
    pub most: f32,
    /// The light of the whole picture, as a factor of the background's.
    pub gain: f32,
    /// Most of the picture differs: another scene, which is learned anew.
    pub is_new_scene: bool,
}

/// Samples differ by this much at least from picture to picture (in levels of 255): quantization.
const NOISE_MIN: f32 = 0.7;
/// Gains differ by this much at least.
const GAIN_NOISE_MIN: f32 = 0.02;
/// Added to samples, so that the gain of a black cell is not noise.
const DARK: f32 = 6.0;
/// What is there instead of the background may differ by so many times more from picture to picture: it may be noisier,
/// which is not known yet, and what moves differs by more than that.
const LOOSE: f32 = 3.0;
/// Pictures until the background counts.
const LEARNED_FROM: u32 = 4;
/// If more of the zones' cells differ it is another scene.
const NEW_SCENE: f32 = 0.6;

/// Says for each picture whether it is worth a look.
pub struct PixelGate {
    options: PixelOptions,
    luma: Luma,
    counts: Vec<bool>,
    /// Which cells differed in the last picture.
    changed: Vec<bool>,
    cells: Vec<Cell>,
    /// Gains of this picture, and space to sort some of them.
    gains: Vec<f32>,
    sorted: Vec<f32>,
    seen: u32,
}

#[derive(Clone)]
struct Cell {
    background: [f32; SAMPLES],
    /// Variance of what fits leave, a sample.
    noise: f32,
    /// Variance of the gain's logarithm against those around it.
    gain_noise: f32,
    /// What is there instead of the background, if anything is.
    other: [f32; SAMPLES],
    /// The light around it, against the background's, as the gain's logarithm.
    other_around: f32,
    /// Its noise, as that of the background.
    other_noise: f32,
    other_gain_noise: f32,
    /// Seconds for which it has not changed.
    other_for: f32,
}

impl PixelGate {
    /// A gate that has seen nothing. All its memory is taken here.
    pub fn new(options: PixelOptions) -> Self {
        let (columns, rows) = (options.columns.max(1), options.rows.max(1));
        let n = columns * rows;
        let cell = Cell {
            background: [0.0; SAMPLES],
            noise: 0.0,
            gain_noise: 0.0,
            other: [0.0; SAMPLES],
            other_around: 0.0,
            other_noise: 0.0,
            other_gain_noise: 0.0,
            other_for: 0.0,
        };
        Self {
            luma: Luma::new(columns, rows, options.side_max),
            counts: options.zones.cells(columns, rows),
            changed: vec![false; n],
            cells: vec![cell; n],
            gains: vec![0.0; n],
            sorted: Vec::with_capacity(n),
            seen: 0,
            options: PixelOptions { columns, rows, ..options },
        }
    }

    /// Bytes that a gate takes.
    pub fn bytes(options: &PixelOptions) -> usize {
        let cells = options.columns.max(1) * options.rows.max(1);
        let of_cell = size_of::<Cell>() + 2 * size_of::<f32>() + 2;
        cells * of_cell + Luma::bytes(options.columns.max(1), options.rows.max(1), options.side_max)
    }

    /// The standard deviation of a sample in levels of 255, as the median cell has learned it.
    pub fn usual_noise(&self) -> f32 {
        median(&mut Vec::new(), self.cells.iter().map(|cell| cell.noise)).sqrt().max(NOISE_MIN)
    }

    /// Cells from left to right, and from top to bottom.
    pub fn grid(&self) -> (usize, usize) {
        (self.options.columns, self.options.rows)
    }

    /// Which cells differed from their background in the last picture, row by row; all of them if it was not known.
    pub fn changed(&self) -> &[bool] {
        &self.changed
    }

    /// True if enough of these cells differed in the last picture.
    pub fn is_open(&self, cells: &[bool]) -> bool {
        let of_zone = || self.changed.iter().zip(cells).filter(|&(_, &counts)| counts);
        let needed = self.options.cells_min.min(of_zone().count()).max(1);
        of_zone().filter(|&(&changed, _)| changed).count() >= needed
    }

    /// Looks at a picture that was taken so long after the one before. Allocates nothing.
    ///
    /// Pictures larger than the limit open the gate, and change nothing else.
    pub fn look(&mut self, frame: &Frame<'_>, since: Duration) -> PixelReport {
        let mut report =
            PixelReport { is_open: true, cells: 0, most: f32::INFINITY, gain: 1.0, is_new_scene: false };
        self.changed.fill(true);
        if !self.luma.look(frame) {
            return report;
        }
        if self.seen < LEARNED_FROM {
            self.learn();
            return report;
        }
        self.fit_gains();
        report.gain = libm::expf(median(&mut self.sorted, self.gains.iter().copied()));
        report.most = 0.0;
        let seconds = since.as_secs_f32();
        let adapts = 1.0 - libm::expf(-seconds / self.options.adapts_in.as_secs_f32().max(1e-3));
        let (threshold, absorbs_in) = (self.options.threshold, self.options.absorbs_in.as_secs_f32());
        let mut zone_cells = 0;
        for i in 0..self.cells.len() {
            let around = self.gain_around(i);
            let (cell, now) = (&mut self.cells[i], &self.luma.cells()[i]);
            let fit = Fit::new(&cell.background, now, self.gains[i], around);
            let differs = cell.differs(&fit);
            let is_other = differs > threshold;
            self.changed[i] = is_other && self.counts[i];
            if self.counts[i] {
                zone_cells += 1;
                report.cells += usize::from(is_other);
                report.most = report.most.max(differs);
            }
            if is_other {
                cell.keep_other(now, around, LOOSE * threshold, seconds, adapts);
                if cell.other_for >= absorbs_in {
                    cell.absorb();
                }
            } else {
                move_towards(&mut cell.background, now, adapts);
                cell.noise += adapts * (fit.left - cell.noise);
                cell.gain_noise += adapts * (fit.apart - cell.gain_noise);
                cell.other_for = 0.0;
            }
        }
        report.is_open = report.cells >= self.options.cells_min.min(zone_cells).max(1);
        if report.cells as f32 > NEW_SCENE * zone_cells as f32 {
            report.is_new_scene = true;
            self.changed.fill(true);
            self.seen = 0;
            self.learn();
        }
        report
    }

    /// Takes the first pictures for the background, and how they differ for noise.
    fn learn(&mut self) {
        let share = 1.0 / (self.seen + 1) as f32;
        for (cell, now) in self.cells.iter_mut().zip(self.luma.cells()) {
            if self.seen == 0 {
                (cell.background, cell.noise, cell.gain_noise, cell.other_for) = (*now, 0.0, 0.0, 0.0);
            }
            let squares = cell.background.iter().zip(now).map(|(b, n)| (n - b) * (n - b));
            cell.noise += share * (mean(squares) - cell.noise);
            move_towards(&mut cell.background, now, share);
        }
        self.seen += 1;
    }

    /// The logarithm of the factor that brings each background closest to its cell.
    fn fit_gains(&mut self) {
        for ((gain, cell), now) in self.gains.iter_mut().zip(&self.cells).zip(self.luma.cells()) {
            *gain = gain_between(&cell.background, now);
        }
    }

    /// The median gain of the cells around one.
    fn gain_around(&mut self, i: usize) -> f32 {
        const REACH: usize = 3;
        let (columns, rows) = (self.options.columns, self.options.rows);
        let (x, y) = (i % columns, i / columns);
        let (xs, ys) = (
            x.saturating_sub(REACH)..(x + REACH + 1).min(columns),
            y.saturating_sub(REACH)..(y + REACH + 1).min(rows),
        );
        let gains = &self.gains;
        let around = ys.flat_map(|y| xs.clone().map(move |x| gains[y * columns + x]));
        median(&mut self.sorted, around)
    }
}

impl Cell {
    /// How many standard deviations a fit is away from what is usual.
    fn differs(&self, fit: &Fit) -> f32 {
        // A bright cell is noisier than a dark one by the same light.
        let noise = self.noise.max(NOISE_MIN * NOISE_MIN) * fit.light.max(1.0);
        let gain_noise = self.gain_noise.max(GAIN_NOISE_MIN * GAIN_NOISE_MIN);
        (fit.left / noise).max(fit.apart / gain_noise).sqrt()
    }

    /// Keeps what is there instead of the background, and how long it has been the same.
    fn keep_other(&mut self, now: &[f32; SAMPLES], around: f32, threshold: f32, seconds: f32, adapts: f32) {
        let gain = gain_between(&self.other, now);
        let fit = Fit::new(&self.other, now, gain, around - self.other_around);
        if self.other_for > 0.0 && self.differs(&fit) <= threshold {
            let share = seconds / (self.other_for + seconds);
            self.other_noise += share * (fit.left - self.other_noise);
            self.other_gain_noise += share * (fit.apart - self.other_gain_noise);
            move_towards(&mut self.other, now, adapts);
            self.other_around += adapts * (around - self.other_around);
        } else {
            (self.other, self.other_around, self.other_for) = (*now, around, 0.0);
            (self.other_noise, self.other_gain_noise) = (self.noise, self.gain_noise);
        }
        self.other_for += seconds;
    }

    /// What is there instead of the background is the background.
    fn absorb(&mut self) {
        (self.background, self.other_for) = (self.other, 0.0);
        (self.noise, self.gain_noise) = (self.other_noise, self.other_gain_noise);
    }
}

/// How well samples fit a cell.
struct Fit {
    /// The factor of the light.
    light: f32,
    /// Variance of what it leaves, a sample.
    left: f32,
    /// The square of how far the gain's logarithm is from the one expected.
    apart: f32,
}

impl Fit {
    fn new(samples: &[f32; SAMPLES], now: &[f32; SAMPLES], gain: f32, expected: f32) -> Self {
        let light = libm::expf(gain);
        let left = mean(samples.iter().zip(now).map(|(b, n)| {
            let expected = (b + DARK) * light - DARK;
            (n - expected) * (n - expected)
        }));
        Self { light, left, apart: (gain - expected) * (gain - expected) }
    }
}

/// The logarithm of the factor that brings samples closest to what is there now.
fn gain_between(samples: &[f32; SAMPLES], now: &[f32; SAMPLES]) -> f32 {
    let (mut both, mut squares) = (0.0, 0.0);
    for (b, n) in samples.iter().zip(now) {
        both += (b + DARK) * (n + DARK);
        squares += (b + DARK) * (b + DARK);
    }
    // Not the system's: a film gives the same events everywhere.
    libm::logf(both / squares)
}

fn move_towards(samples: &mut [f32; SAMPLES], now: &[f32; SAMPLES], share: f32) {
    samples.iter_mut().zip(now).for_each(|(b, n)| *b += share * (n - *b));
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    values.sum::<f32>() / SAMPLES as f32
}

/// The median; `space` must have room for all values.
fn median(space: &mut Vec<f32>, values: impl Iterator<Item = f32>) -> f32 {
    space.clear();
    space.extend(values);
    let middle = space.len() / 2;
    *space.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use palmtop::image::PixelFormat;

    use super::*;

    const WIDTH: usize = 320;
    const HEIGHT: usize = 240;
    const FRAME: Duration = Duration::from_millis(100);

    /// A scene of stripes and blobs under some light, with noise and perhaps a person.
    struct Scene {
        time: u32,
        noise: f32,
        light: fn(f32, f32, f32) -> f32,
        /// The left end of a dark bar of 24 by 60 pixels.
        person: Option<f32>,
    }

    impl Scene {
        fn picture(&mut self) -> Vec<u8> {
            self.time += 1;
            let t = self.time as f32;
            let mut random = self.time.wrapping_mul(0x9e37_79b9) | 1;
            let mut noise = || {
                let mut sum = 0.0;
                for _ in 0..4 {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    sum += (random >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
                }
                sum * 1.7
            };
            let mut out = Vec::with_capacity(WIDTH * HEIGHT);
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let (fx, fy) = (x as f32, y as f32);
                    let mut value =
                        110.0 + 40.0 * (fx / 9.0).sin() * (fy / 13.0).cos() + 30.0 * (fx / 80.0).sin();
                    if let Some(at) = self.person
                        && (at..at + 24.0).contains(&fx)
                        && (100.0..160.0).contains(&fy)
                    {
                        value = 60.0 + 20.0 * (fy / 4.0).sin();
                    }
                    let value = value * (self.light)(t, fx, fy) + self.noise * noise();
                    out.push(value.clamp(0.0, 255.0) as u8);
                }
            }
            out
        }

        fn look(&mut self, gate: &mut PixelGate) -> PixelReport {
            let bytes = self.picture();
            let frame = Frame::packed(PixelFormat::Grey, WIDTH as u32, HEIGHT as u32, WIDTH, &bytes).unwrap();
            gate.look(&frame, FRAME)
        }
    }

    fn scene(light: fn(f32, f32, f32) -> f32) -> Scene {
        Scene { time: 0, noise: 3.0, light, person: None }
    }

    fn settled(scene: &mut Scene) -> PixelGate {
        let mut gate = PixelGate::new(PixelOptions::default());
        (0..60).for_each(|_| _ = scene.look(&mut gate));
        gate
    }

    #[test]
    fn a_still_scene_stays_shut_in_noise_flicker_and_clouds() {
        type Light = fn(f32, f32, f32) -> f32;
        let lights: [(&str, Light); 4] = [
            ("steady", |_, _, _| 1.0),
            ("flicker", |t, _, _| 1.0 + 0.04 * (t * 2.1).sin()),
            ("exposure", |t, _, _| if t > 100.0 { 1.3 } else { 1.0 }),
            // A shadow with a soft edge that goes over the scene in half a minute.
            ("cloud", |t, x, _| 1.0 - 0.3 / (1.0 + (-(t * 2.0 - 150.0 - x) / 60.0).exp())),
        ];
        for (name, light) in lights {
            let mut scene = scene(light);
            let mut gate = settled(&mut scene);
            for _ in 0..300 {
                let report = scene.look(&mut gate);
                assert!(!report.is_open, "{name}, picture {}: {report:?}", scene.time);
            }
        }
    }

    #[test]
    fn what_comes_goes_and_stays_opens_the_gate_in_its_time() {
        let mut scene = scene(|t, _, _| 1.0 + 0.04 * (t * 2.1).sin());
        let mut gate = settled(&mut scene);
        gate.options.absorbs_in = Duration::from_secs(10);
        scene.person = Some(100.0);
        let report = scene.look(&mut gate);
        assert!(report.is_open && report.cells >= 6, "{report:?}");
        for step in 0..40 {
            scene.person = Some(100.0 + 4.0 * step as f32);
            assert!(scene.look(&mut gate).is_open);
        }
        scene.person = None;
        for _ in 0..20 {
            scene.look(&mut gate);
        }
        assert!(!scene.look(&mut gate).is_open, "what has gone leaves no ghost");
        // A box that is put down is news for a while, and then is not.
        scene.person = Some(200.0);
        let open: Vec<bool> = (0..120).map(|_| scene.look(&mut gate).is_open).collect();
        assert!(open[..95].iter().all(|&o| o));
        assert!(open[105..].iter().all(|&o| !o));
    }

    #[test]
    fn what_has_stood_for_a_while_opens_the_gate_as_it_goes_and_leaves_no_ghost() {
        let mut scene = scene(|t, _, _| 1.0 + 0.04 * (t * 2.1).sin());
        let mut gate = settled(&mut scene);
        for pictures in [20, 45, 200] {
            scene.person = Some(100.0);
            (0..pictures).for_each(|_| _ = scene.look(&mut gate));
            scene.person = Some(102.0);
            assert!(scene.look(&mut gate).is_open, "it moves, after {pictures} pictures");
            scene.person = None;
            let open: Vec<bool> = (0..60).map(|_| scene.look(&mut gate).is_open).collect();
            let absorbed = pictures > 30;
            assert_eq!(open[0], absorbed, "the place where it stood, after {pictures} pictures");
            assert!(!open[40..].contains(&true), "a ghost after {pictures} pictures: {open:?}");
        }
    }

    #[test]
    fn only_zones_count_and_another_scene_is_learned_anew() {
        let mut scene = scene(|_, _, _| 1.0);
        let zones = Zones {
            ignore: vec![super::super::zone::Polygon::rectangle(0.5, 0.0, 1.0, 1.0).unwrap()],
            ..Zones::default()
        };
        let mut gate = PixelGate::new(PixelOptions { zones, ..PixelOptions::default() });
        (0..60).for_each(|_| _ = scene.look(&mut gate));
        scene.person = Some(220.0);
        assert!(!scene.look(&mut gate).is_open);
        scene.person = Some(80.0);
        assert!(scene.look(&mut gate).is_open);
        // The camera is turned.
        let mut other = Scene {
            light: |_, x, y| if ((x / 16.0) as i32 + (y / 16.0) as i32) % 2 == 0 { 0.2 } else { 1.5 },
            ..scene
        };
        assert!(other.look(&mut gate).is_new_scene);
        let after: Vec<bool> = (0..40).map(|_| other.look(&mut gate).is_open).collect();
        assert!(!after[10..].contains(&true), "{after:?}");
    }
}
