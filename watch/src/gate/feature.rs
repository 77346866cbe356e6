//! The feature gate: whether the image encoder sees something else than when questions were last asked.
//!
//! Encoding is a small part of a look; prefill and decoding are the rest. Each patch of the picture has a row of image
//! features, which is compared with the row that was kept when the patch last changed, or a question about it was last
//! asked. Their distance is 1 minus the cosine of the angle between them. In a still scene it is not zero: the sensor's
//! noise moves features, and since every patch attends to every other, so does whatever moves elsewhere. So a patch has
//! changed if its distance is several times what is usual for it, and for the picture at hand as a whole.

/// How a [`FeatureGate`] judges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureOptions {
    /// How many times its usual distance a patch must be away.
    pub threshold: f32,
    /// How many patches must have changed; in a smaller zone, all of its patches.
    pub patches_min: usize,
}

impl Default for FeatureOptions {
    fn default() -> Self {
        // In a still scene the most distant patch is some 20 to 40 times as far away as the median, and a single one now
        // and then farther; where an object comes or goes several patches are hundreds of times as far.
        Self { threshold: 12.0, patches_min: 2 }
    }
}

/// What the gate saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureReport {
    /// Patches that have changed; all of them in the first picture.
    pub patches: usize,
    /// The median distance of the picture: the noise, if less than half of it has changed.
    pub usual: f32,
    /// The greatest distance.
    pub most: f32,
}

/// No distance is noise below this: rows are rounded in computing, and the best camera is not still.
const DISTANCE_MIN: f32 = 0.002;
/// No distance is noise from here on: what a patch shows is another thing.
const DISTANCE_MAX: f32 = 0.3;
/// A patch is no noisier than so many times the median patch. Otherwise what changes slowly would become noise.
const NOISIER: f32 = 4.0;
/// How much a picture adds to what is known of a patch's noise.
const LEARNS: f32 = 0.1;

/// Compares the features of a camera's pictures.
#[derive(Debug)]
pub struct FeatureGate {
    options: FeatureOptions,
    width: usize,
    /// `[patches, width]`: what each patch was when it last changed or was asked about.
    kept: Vec<f32>,
    /// The usual distance of each patch.
    noise: Vec<f32>,
    distances: Vec<f32>,
    sorted: Vec<f32>,
    changed: Vec<bool>,
    has_seen: bool,
    /// What is usual, over the last pictures.
    usual: f32,
}

impl FeatureGate {
    /// For pictures of so many patches with rows of `width`. All its memory is taken here.
    pub fn new(patches: usize, width: usize, options: FeatureOptions) -> Self {
        Self {
            options,
            width,
            kept: vec![0.0; patches * width],
            noise: vec![0.0; patches],
            distances: vec![0.0; patches],
            sorted: Vec::with_capacity(patches),
            changed: vec![false; patches],
            has_seen: false,
            usual: 0.0,
        }
    }

    /// Bytes that such a gate takes.
    pub fn bytes(patches: usize, width: usize) -> usize {
        size_of::<f32>() * patches * (width + 3) + patches
    }

    /// The usual distance of a patch in the last pictures, and the one from which on it has changed.
    pub fn usual_and_limit(&self) -> (f32, f32) {
        (self.usual, (self.options.threshold * self.usual.max(DISTANCE_MIN)).min(DISTANCE_MAX))
    }

    /// Which patches had changed in the last picture, row by row.
    pub fn changed(&self) -> &[bool] {
        &self.changed
    }

    /// True if enough of these patches had changed in the last picture.
    pub fn is_open(&self, cells: &[bool]) -> bool {
        let of_zone = || self.changed.iter().zip(cells).filter(|&(_, &counts)| counts);
        let needed = self.options.patches_min.min(of_zone().count()).max(1);
        of_zone().filter(|&(&changed, _)| changed).count() >= needed
    }

    /// A question about these patches is asked of the picture with these features: what counts from now on is whether
    /// they differ from these. So light that has changed since a patch last did does not become its noise.
    pub fn keep(&mut self, cells: &[bool], features: &[f32]) {
        let rows = self.kept.chunks_exact_mut(self.width).zip(features.chunks_exact(self.width));
        for ((kept, now), _) in rows.zip(cells).filter(|(_, counts)| **counts) {
            kept.copy_from_slice(now);
        }
    }

    /// Looks at the features of a picture, `[patches, width]`. Allocates nothing.
    pub fn look(&mut self, features: &[f32]) -> FeatureReport {
        if !self.has_seen {
            self.has_seen = true;
            self.kept.copy_from_slice(features);
            self.changed.fill(true);
            return FeatureReport { patches: self.changed.len(), usual: 0.0, most: f32::INFINITY };
        }
        let rows = self.kept.chunks_exact(self.width).zip(features.chunks_exact(self.width));
        for (out, (kept, now)) in self.distances.iter_mut().zip(rows) {
            *out = distance(kept, now);
        }
        self.sorted.clear();
        self.sorted.extend_from_slice(&self.distances);
        let middle = self.sorted.len() / 2;
        // The median of pictures that are not numbers is none either, and clamping needs one.
        let usual = self.sorted.select_nth_unstable_by(middle, f32::total_cmp).1.clamp(0.0, 2.0);
        let usual = if usual.is_nan() { 0.0 } else { usual };
        self.usual += LEARNS * (usual - self.usual);
        let mut report = FeatureReport { patches: 0, usual, most: 0.0 };
        for (patch, &distance) in self.distances.iter().enumerate() {
            let noise = &mut self.noise[patch];
            let noisy = noise.clamp(usual, NOISIER * usual).max(DISTANCE_MIN);
            let limit = (self.options.threshold * noisy).min(DISTANCE_MAX);
            // What is no number is no reason to stay shut.
            let has_changed = distance > limit || distance.is_nan();
            self.changed[patch] = has_changed;
            if has_changed {
                report.patches += 1;
                let row = patch * self.width..(patch + 1) * self.width;
                self.kept[row.clone()].copy_from_slice(&features[row]);
            } else {
                *noise += LEARNS * (distance - *noise);
            }
            report.most = report.most.max(distance);
        }
        report
    }
}

/// 1 minus the cosine of the angle between two rows: 0 if they point the same way, 1 at right angles.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let (mut both, mut squares_a, mut squares_b) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
    // Eight sums side by side, which compilers turn into vectors.
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            both[i] += a * b;
            squares_a[i] += a * a;
            squares_b[i] += b * b;
        }
    }
    let sum = |parts: [f32; 8]| parts.iter().sum::<f32>();
    let length = (sum(squares_a) * sum(squares_b)).sqrt();
    // Rows of zeros have no direction: two of them are alike.
    if length == 0.0 { 0.0 } else { 1.0 - sum(both) / length }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCHES: usize = 64;
    const WIDTH: usize = 40;

    /// Features of a scene with noise: rows in `other` are of something else.
    fn features(time: u32, noise: f32, other: &[usize]) -> Vec<f32> {
        let mut random = time.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            (random >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let mut out = Vec::new();
        for patch in 0..PATCHES {
            let phase = if other.contains(&patch) { 1.3 } else { 0.0 };
            for i in 0..WIDTH {
                out.push(((patch * 7 + i) as f32 * (0.37 + phase)).sin() + noise * next());
            }
        }
        out
    }

    fn gate() -> FeatureGate {
        FeatureGate::new(PATCHES, WIDTH, FeatureOptions::default())
    }

    #[test]
    fn noise_stays_shut_and_what_is_new_opens() {
        for noise in [0.0, 0.1, 0.5] {
            let mut gate = gate();
            assert_eq!(gate.look(&features(0, noise, &[])).patches, PATCHES);
            for time in 1..100 {
                let report = gate.look(&features(time, noise, &[]));
                assert_eq!(report.patches, 0, "noise {noise}, picture {time}: {report:?}");
            }
            let report = gate.look(&features(100, noise, &[3, 4]));
            assert_eq!(report.patches, 2, "noise {noise}: {report:?}");
            assert_eq!(gate.changed().iter().filter(|&&c| c).count(), 2);
            let mut zone = [false; PATCHES];
            assert!(!gate.is_open(&zone));
            zone[4] = true;
            assert!(gate.is_open(&zone));
            // It stays: it was news once. It goes: that is news again.
            assert_eq!(gate.look(&features(101, noise, &[3, 4])).patches, 0);
            assert_eq!(gate.look(&features(102, noise, &[])).patches, 2);
        }
    }

    #[test]
    fn what_changes_slowly_is_seen_once_it_has_changed() {
        let mut gate = gate();
        let (from, to) = (features(0, 0.0, &[]), features(0, 0.0, &[9]));
        gate.look(&from);
        let mut changes = 0;
        for step in 0..=200 {
            let part = step as f32 / 200.0;
            let now: Vec<f32> = from.iter().zip(&to).map(|(a, b)| a + part * (b - a)).collect();
            changes += gate.look(&now).patches;
        }
        assert!((1..40).contains(&changes), "{changes}");
    }

    #[test]
    fn numbers_that_are_none_open_the_gate_and_zeros_do_not() {
        let mut gate = gate();
        gate.look(&vec![0.0; PATCHES * WIDTH]);
        assert_eq!(gate.look(&vec![0.0; PATCHES * WIDTH]).patches, 0);
        let mut broken = vec![0.0; PATCHES * WIDTH];
        broken[WIDTH] = f32::NAN;
        assert_eq!(gate.look(&broken).patches, 1);
    }

    #[test]
    fn its_memory_is_what_the_plan_says() {
        let gate = gate();
        let bytes = size_of_val(&gate.kept[..])
            + size_of_val(&gate.noise[..])
            + size_of_val(&gate.distances[..])
            + gate.sorted.capacity() * size_of::<f32>()
            + gate.changed.len();
        assert_eq!(bytes, FeatureGate::bytes(PATCHES, WIDTH));
    }
}
