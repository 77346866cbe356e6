//! Tracks: objects keep their identity from look to look, so that "a second person" is not "the same person".
//!
//! Looks are seconds apart, so nothing is predicted: an object is taken for one of the last look if they have the same
//! label and their boxes overlap, or lie closer to each other than they are large. Pairs are made by the greatest
//! overlap first. A track that is missed for a while is kept, and then given up.

use palmtop::tasks::BoundingBox;

/// An object that was seen in a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<'a> {
    /// What it was called.
    pub label: &'a str,
    /// Where it was, in pixels.
    pub at: BoundingBox,
}

/// An object over several looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Of all tracks of a tracker each has another number, from 1 on.
    pub id: u64,
    /// What it is called.
    pub label: String,
    /// Where it was seen last, in pixels.
    pub at: BoundingBox,
    /// In how many looks it was seen.
    pub looks: u32,
    /// In how many looks since it was not.
    pub missed: u32,
    /// It was missed for too long: it is gone with the next look.
    pub has_left: bool,
}

/// How tracks are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackOptions {
    /// Looks that an object may be missed in before it has left.
    pub missed_max: u32,
    /// Most tracks; more objects than that have none.
    pub tracks_max: usize,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self { missed_max: 2, tracks_max: 64 }
    }
}

/// What became of tracks in a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Seen for the first time.
    Appeared,
    /// Missed for too long.
    Left,
}

/// Follows objects.
#[derive(Debug)]
pub struct Tracker {
    options: TrackOptions,
    tracks: Vec<Track>,
    given: u64,
    /// Pairs that could be the same: likeness, track, object.
    pairs: Vec<(f32, usize, usize)>,
    /// For each object of the look, whether it has a track.
    taken: Vec<bool>,
}

impl Tracker {
    /// Follows nothing yet.
    pub fn new(options: TrackOptions) -> Self {
        Self { options, tracks: Vec::new(), given: 0, pairs: Vec::new(), taken: Vec::new() }
    }

    /// The tracks, in the order of their numbers; those that left in the last look are among them.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Takes what a look has found. `on_fate` hears of each track that appears or leaves.
    pub fn look(&mut self, seen: &[Seen<'_>], mut on_fate: impl FnMut(Fate, &Track)) {
        self.tracks.retain(|track| !track.has_left);
        self.pairs.clear();
        for (t, track) in self.tracks.iter().enumerate() {
            for (s, object) in seen.iter().enumerate().filter(|(_, s)| s.label == track.label) {
                if let Some(likeness) = likeness(&track.at, &object.at) {
                    self.pairs.push((likeness, t, s));
                }
            }
        }
        // Equal ones in the order of tracks and objects.
        self.pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        self.taken.clear();
        self.taken.resize(seen.len(), false);
        self.tracks.iter_mut().for_each(|track| track.missed += 1);
        for &(_, t, s) in &self.pairs {
            let track = &mut self.tracks[t];
            if track.missed > 0 && !self.taken[s] {
                (track.at, track.missed) = (seen[s].at, 0);
                track.looks += 1;
                self.taken[s] = true;
            }
        }
        let mut there = self.tracks.len();
        for track in self.tracks.iter_mut().filter(|track| track.missed > self.options.missed_max) {
            track.has_left = true;
            there -= 1;
            on_fate(Fate::Left, track);
        }
        let new = seen.iter().zip(&self.taken).filter(|(_, taken)| !**taken);
        for (object, _) in new.take(self.options.tracks_max.saturating_sub(there)) {
            self.given += 1;
            let label = object.label.to_owned();
            let track = Track { id: self.given, label, at: object.at, looks: 1, missed: 0, has_left: false };
            on_fate(Fate::Appeared, &track);
            self.tracks.push(track);
        }
    }
}

/// How much two boxes may be of the same object: their overlap (intersection over union) plus 1, or less than 1 if
/// they only lie close. `None` if they lie apart, or one is more than four times as large.
fn likeness(a: &BoundingBox, b: &BoundingBox) -> Option<f32> {
    let side = |low: f32, high: f32| (high - low).max(0.0);
    let area = |b: &BoundingBox| side(b.x_min, b.x_max) * side(b.y_min, b.y_max);
    let (area_a, area_b) = (area(a), area(b));
    if area_a <= 0.0 || area_b <= 0.0 || !(0.25..=4.0).contains(&(area_a / area_b)) {
        return None;
    }
    let both =
        side(a.x_min.max(b.x_min), a.x_max.min(b.x_max)) * side(a.y_min.max(b.y_min), a.y_max.min(b.y_max));
    if both > 0.0 {
        return Some(1.0 + both / (area_a + area_b - both));
    }
    let centre = |b: &BoundingBox| ((b.x_min + b.x_max) / 2.0, (b.y_min + b.y_max) / 2.0);
    let ((xa, ya), (xb, yb)) = (centre(a), centre(b));
    let apart = ((xa - xb).powi(2) + (ya - yb).powi(2)).sqrt();
    let reach = (area_a.sqrt() + area_b.sqrt()) / 2.0;
    (apart < 1.5 * reach).then(|| 1.0 - apart / (1.5 * reach))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, y: f32) -> BoundingBox {
        BoundingBox { x_min: x, y_min: y, x_max: x + 10.0, y_max: y + 20.0 }
    }

    fn seen(objects: &[(&'static str, f32, f32)]) -> Vec<Seen<'static>> {
        objects.iter().map(|&(label, x, y)| Seen { label, at: at(x, y) }).collect()
    }

    /// Tracks that appear (+) and leave (-) in a row of looks.
    fn fates(looks: &[&[(&'static str, f32, f32)]]) -> Vec<Vec<i64>> {
        let mut tracker = Tracker::new(TrackOptions::default());
        let look = |objects: &&[(&'static str, f32, f32)]| {
            let mut fates = Vec::new();
            tracker.look(&seen(objects), |fate, track| {
                fates.push(if fate == Fate::Appeared { track.id as i64 } else { -(track.id as i64) });
            });
            fates
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn the_same_one_is_told_from_a_second_one() {
        let got = fates(&[
            &[("person", 0.0, 0.0)],
            &[("person", 4.0, 2.0)],
            &[("person", 12.0, 4.0), ("person", 100.0, 0.0)],
            &[("person", 92.0, 0.0), ("person", 20.0, 4.0)],
            &[("person", 24.0, 4.0), ("dog", 92.0, 0.0)],
        ]);
        assert_eq!(got, [vec![1], vec![], vec![2], vec![], vec![3]]);
    }

    #[test]
    fn two_that_pass_each_other_keep_their_numbers_by_overlap() {
        let mut tracker = Tracker::new(TrackOptions::default());
        for (a, b) in [(0.0, 40.0), (5.0, 35.0), (10.0, 30.0), (14.0, 26.0)] {
            tracker.look(&seen(&[("cat", b, 0.0), ("cat", a, 0.0)]), |_, _| {});
        }
        let left: Vec<(u64, f32)> = tracker.tracks().iter().map(|t| (t.id, t.at.x_min)).collect();
        assert_eq!(left, [(1, 26.0), (2, 14.0)]);
        assert!(tracker.tracks().iter().all(|t| t.looks == 4 && t.missed == 0));
    }

    #[test]
    fn what_is_missed_is_kept_for_a_while() {
        let (there, gone): (&[_], &[_]) = (&[("cup", 5.0, 5.0)], &[]);
        assert_eq!(fates(&[there, gone, gone, there]), [vec![1], vec![], vec![], vec![]]);
        assert_eq!(fates(&[there, gone, gone, gone, there]), [vec![1], vec![], vec![], vec![-1], vec![2]]);
    }

    #[test]
    fn boxes_without_an_area_and_too_many_are_no_danger() {
        let mut tracker = Tracker::new(TrackOptions { tracks_max: 2, ..TrackOptions::default() });
        let flat = BoundingBox { x_min: 3.0, y_min: 3.0, x_max: 3.0, y_max: f32::NAN };
        let objects: Vec<Seen<'_>> = (0..5).map(|_| Seen { label: "x", at: flat }).collect();
        let mut appeared = 0;
        tracker.look(&objects, |_, _| appeared += 1);
        assert_eq!((appeared, tracker.tracks().len()), (2, 2));
        for _ in 0..3 {
            tracker.look(&[], |_, _| {});
        }
        assert!(tracker.tracks().iter().all(|track| track.has_left));
        tracker.look(&[], |_, _| panic!("they have left already"));
        assert!(tracker.tracks().is_empty());
    }
}
