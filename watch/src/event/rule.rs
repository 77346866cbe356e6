//! Rules: what makes an event of answers.
//!
//! A rule about a whole answer ([`Condition::Is`] to [`Condition::Count`]) has at most one event at a time. A rule
//! about single objects has one for each track: "a second person" is another event than "the same person".

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use regex::Regex;

use super::hours::Hours;
use super::track::Track;
use super::vote::{Change, Quorum, Vote};
use crate::gate::Polygon;

/// What must be so for an event.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The answer is this text; case and white space around it do not matter.
    Is(String),
    /// The answer contains this text, in letters of either case.
    Contains(String),
    /// A regular expression matches somewhere in the answer.
    Matches(Regex),
    /// So many objects are seen.
    Count {
        /// Only those of this label; all if absent.
        label: Option<String>,
        /// At least so many.
        at_least: usize,
        /// At most so many.
        at_most: usize,
    },
    /// An object is there.
    Appears(Objects),
    /// An object that was there is no more.
    Disappears(Objects),
}

/// Which objects a rule is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Those of this label; all if absent.
    pub label: Option<String>,
    /// Those whose centre is in this zone; all if absent.
    pub zone: Option<Polygon>,
}

impl Objects {
    fn have(&self, track: &Track, (width, height): (u32, u32)) -> bool {
        let at = &track.at;
        let centre = |low: f32, high: f32, side: u32| (low + high) / 2.0 / side.max(1) as f32;
        self.label.as_ref().is_none_or(|label| *label == track.label)
            && self.zone.as_ref().is_none_or(|zone| {
                zone.contains(centre(at.x_min, at.x_max, width), centre(at.y_min, at.y_max, height))
            })
    }
}

/// A rule: a condition, and how long it must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What its events are called.
    pub name: Arc<str>,
    /// What must be so.
    pub condition: Condition,
    /// In so many looks, for an event to begin.
    pub needed: Quorum,
    /// In so many looks it must not be so, for the event to end.
    pub until: Quorum,
    /// At least so long from the beginning of one event to that of the next.
    pub cooldown: Duration,
    /// Events begin only within these hours, and end with them.
    pub hours: Option<Hours>,
}

/// What a look has seen, for rules.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The answer's text.
    pub text: &'a str,
    /// The labels of the objects in it.
    pub labels: &'a [&'a str],
    /// The tracks behind this look, those that have just left included.
    pub tracks: &'a [Track],
    /// Width and height of the picture in pixels.
    pub picture: (u32, u32),
    /// When the picture was taken.
    pub taken: Instant,
    /// The same by the clock on the wall.
    pub wall: SystemTime,
}

/// The beginning or the end of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn<'a> {
    /// Which of the two.
    pub change: Change,
    /// Counts the events of the rule, from 1.
    pub event: u64,
    /// The track that it is about.
    pub track: Option<&'a Track>,
    /// How long it has lasted; zero at its beginning.
    pub lasted: Duration,
}

/// A rule, and the events that it has open.
#[derive(Clone, Debug)]
pub struct RuleState {
    rule: Rule,
    whole: Voted,
    objects: Vec<(u64, Voted)>,
    events: u64,
    last_begin: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Voted {
    vote: Vote,
    open: Option<(u64, Instant)>,
    /// The track of an open event, as it was at its beginning.
    track: Option<Track>,
}

impl RuleState {
    /// No event yet.
    pub fn new(rule: Rule) -> Self {
        let whole = Voted::new(&rule);
        Self { rule, whole, objects: Vec::new(), events: 0, last_begin: None }
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// True while looks like the last one would begin or end an event, but too few have come.
    pub fn is_undecided(&self) -> bool {
        self.whole.vote.is_undecided() || self.objects.iter().any(|(_, voted)| voted.vote.is_undecided())
    }

    /// Counts a look. `on_turn` hears of events that begin or end.
    pub fn look(&mut self, sight: &Sight<'_>, on_turn: &mut dyn FnMut(Turn<'_>)) {
        let in_hours = self.rule.hours.is_none_or(|hours| hours.contain(sight.wall));
        let (which, is_about_absence) = match &self.rule.condition {
            Condition::Appears(which) => (which, false),
            Condition::Disappears(which) => (which, true),
            condition => {
                let seen = in_hours && holds(condition, sight);
                let may_begin = !self.is_early(sight.taken);
                if let Some(change) = self.whole.vote.look(seen, may_begin) {
                    self.turn_whole(change, sight.taken, on_turn);
                }
                return;
            }
        };
        let which = which.clone();
        for track in sight.tracks {
            let index = match self.objects.iter().position(|(id, _)| *id == track.id) {
                Some(index) => index,
                None => {
                    self.objects.push((track.id, Voted::new(&self.rule)));
                    self.objects.len() - 1
                }
            };
            let seen =
                track.missed == 0 && which.have(track, sight.picture) && (in_hours || is_about_absence);
            let may_begin = is_about_absence || !self.is_early(sight.taken);
            let voted = &mut self.objects[index].1;
            let mut change = voted.vote.look(seen, may_begin);
            if track.has_left && voted.vote.holds() {
                voted.vote.end();
                change = Some(Change::Ends);
            }
            if let Some(change) = change {
                match is_about_absence {
                    false => self.turn_object(index, change, track, sight.taken, on_turn),
                    // What is gone is gone: its event has no length.
                    true if change == Change::Ends && in_hours && !self.is_early(sight.taken) => {
                        self.turn_object(index, Change::Begins, track, sight.taken, on_turn);
                        self.turn_object(index, Change::Ends, track, sight.taken, on_turn);
                    }
                    true => {}
                }
            }
        }
        self.objects.retain(|(id, _)| sight.tracks.iter().any(|track| track.id == *id && !track.has_left));
    }

    /// Ends all events: the loop ends, or the rule goes.
    pub fn end(&mut self, now: Instant, on_turn: &mut dyn FnMut(Turn<'_>)) {
        let whole = std::iter::once(&mut self.whole);
        for voted in whole.chain(self.objects.iter_mut().map(|(_, voted)| voted)) {
            if let Some((event, began)) = voted.open.take() {
                let lasted = now.saturating_duration_since(began);
                let track = voted.track.take();
                on_turn(Turn { change: Change::Ends, event, track: track.as_ref(), lasted });
            }
        }
    }

    fn is_early(&self, now: Instant) -> bool {
        self.last_begin.is_some_and(|last| now.saturating_duration_since(last) < self.rule.cooldown)
    }

    fn turn_whole(&mut self, change: Change, now: Instant, on_turn: &mut dyn FnMut(Turn<'_>)) {
        let (event, lasted) = turn(&mut self.whole, change, &mut self.events, &mut self.last_begin, now);
        on_turn(Turn { change, event, track: None, lasted });
    }

    fn turn_object(
        &mut self,
        index: usize,
        change: Change,
        track: &Track,
        now: Instant,
        on_turn: &mut dyn FnMut(Turn<'_>),
    ) {
        let voted = &mut self.objects[index].1;
        voted.track = (change == Change::Begins).then(|| track.clone());
        let (event, lasted) = turn(voted, change, &mut self.events, &mut self.last_begin, now);
        on_turn(Turn { change, event, track: Some(track), lasted });
    }
}

impl Voted {
    fn new(rule: &Rule) -> Self {
        Self { vote: Vote::new(rule.needed).until(rule.until), open: None, track: None }
    }
}

/// Opens or closes an event; gives its number, and how long it has lasted.
fn turn(
    voted: &mut Voted,
    change: Change,
    events: &mut u64,
    last_begin: &mut Option<Instant>,
    now: Instant,
) -> (u64, Duration) {
    match change {
        Change::Begins => {
            *events += 1;
            *last_begin = Some(now);
            voted.open = Some((*events, now));
            (*events, Duration::ZERO)
        }
        Change::Ends => {
            let (event, began) = voted.open.take().unwrap_or((*events, now));
            (event, now.saturating_duration_since(began))
        }
    }
}

/// Whether a condition about a whole answer holds.
fn holds(condition: &Condition, sight: &Sight<'_>) -> bool {
    match condition {
        Condition::Is(text) => lower(sight.text.trim()).eq(lower(text.trim())),
        Condition::Contains(text) => {
            let begins = |(at, _)| is_prefix(lower(text.trim()), lower(&sight.text[at..]));
            sight.text.char_indices().any(begins)
        }
        Condition::Matches(pattern) => pattern.is_match(sight.text),
        Condition::Count { label, at_least, at_most } => {
            let is_it = |seen: &&&str| label.as_ref().is_none_or(|label| label == **seen);
            (*at_least..=*at_most).contains(&sight.labels.iter().filter(is_it).count())
        }
        Condition::Appears(_) | Condition::Disappears(_) => false,
    }
}

/// Letters in lower case, one by one: nothing is allocated for them.
fn lower(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// True if a text begins with another one.
fn is_prefix(start: impl Iterator<Item = char>, mut text: impl Iterator<Item = char>) -> bool {
    start.into_iter().all(|letter| text.next() == Some(letter))
}

#[cfg(test)]
mod tests {
    use super::super::{Seen, TrackOptions, Tracker};
    use super::*;
    use palmtop::tasks::BoundingBox;

    fn rule(condition: Condition) -> Rule {
        let once = Quorum::default();
        Rule { name: "r".into(), condition, needed: once, until: once, cooldown: Duration::ZERO, hours: None }
    }

    fn appears(label: Option<&str>, zone: Option<Polygon>) -> Condition {
        Condition::Appears(Objects { label: label.map(str::to_owned), zone })
    }

    /// Looks, one a second from midnight UTC of the first day on, and what begins (+) and ends (-) in each.
    struct Looks {
        state: RuleState,
        tracker: Tracker,
        start: Instant,
        second: u64,
    }

    impl Looks {
        fn new(rule: Rule) -> Self {
            let options = TrackOptions { missed_max: 2, ..TrackOptions::default() };
            Self {
                state: RuleState::new(rule),
                tracker: Tracker::new(options),
                start: Instant::now(),
                second: 0,
            }
        }

        /// Objects have a label and a left edge in a picture of 100 by 100.
        fn look(&mut self, text: &str, objects: &[(&str, f32)]) -> String {
            let at = |x: f32| BoundingBox { x_min: x, y_min: 40.0, x_max: x + 10.0, y_max: 60.0 };
            let seen: Vec<Seen<'_>> = objects.iter().map(|&(label, x)| Seen { label, at: at(x) }).collect();
            self.tracker.look(&seen, |_, _| {});
            let labels: Vec<&str> = objects.iter().map(|o| o.0).collect();
            let since = Duration::from_secs(self.second);
            self.second += 1;
            let sight = Sight {
                text,
                labels: &labels,
                tracks: self.tracker.tracks(),
                picture: (100, 100),
                taken: self.start + since,
                wall: SystemTime::UNIX_EPOCH + since,
            };
            let mut out = String::new();
            self.state.look(&sight, &mut |turn| {
                let sign = if turn.change == Change::Begins { '+' } else { '-' };
                let track = turn.track.map_or(String::new(), |track| format!("t{}", track.id));
                out += &format!("{sign}{}{track}@{} ", turn.event, turn.lasted.as_secs());
            });
            out.trim_end().to_owned()
        }
    }

    fn of_texts(rule: Rule, texts: &[&str]) -> Vec<String> {
        let mut looks = Looks::new(rule);
        texts.iter().map(|text| looks.look(text, &[])).collect()
    }

    #[test]
    fn texts_are_compared_in_either_case() {
        let is = rule(Condition::Is(" Yes".into()));
        assert_eq!(of_texts(is, &["no", "yes", "YES ", "yes, it is"]), ["", "+1@0", "", "-1@2"]);
        let contains = rule(Condition::Contains("Straße".into()));
        assert_eq!(
            of_texts(contains, &["eine straße", "STRASSE", "die Straße!", ""]),
            ["+1@0", "-1@1", "+2@0", "-2@1"]
        );
        let matches = rule(Condition::Matches(Regex::new("[A-Z]{2} ?[0-9]+").unwrap()));
        assert_eq!(of_texts(matches, &["AB 123", "ab 123", "x CD9"]), ["+1@0", "-1@1", "+2@0"]);
    }

    #[test]
    fn objects_are_counted_by_label() {
        let count = Condition::Count { label: Some("car".into()), at_least: 2, at_most: 3 };
        let mut looks = Looks::new(rule(count));
        let cars = |n: usize| (0..n).map(|i| ("car", 20.0 * i as f32)).collect::<Vec<_>>();
        assert_eq!(looks.look("", &[("car", 0.0), ("bus", 50.0)]), "");
        assert_eq!(looks.look("", &cars(2)), "+1@0");
        assert_eq!(looks.look("", &cars(3)), "");
        assert_eq!(looks.look("", &cars(4)), "-1@2");
    }

    #[test]
    fn each_object_has_an_event_of_its_own() {
        let mut looks =
            Looks::new(Rule { until: "3".parse().unwrap(), ..rule(appears(Some("person"), None)) });
        assert_eq!(looks.look("", &[("person", 0.0), ("dog", 50.0)]), "+1t1@0");
        assert_eq!(looks.look("", &[("person", 3.0), ("person", 60.0)]), "+2t3@0");
        // Missed twice, and back.
        assert_eq!(looks.look("", &[("person", 62.0)]), "");
        assert_eq!(looks.look("", &[("person", 64.0)]), "");
        assert_eq!(looks.look("", &[("person", 5.0), ("person", 66.0)]), "");
        assert_eq!((looks.look("", &[]), looks.look("", &[])), (String::new(), String::new()));
        assert_eq!(looks.look("", &[]), "-1t1@7 -2t3@6");
        let nothing = &mut |_: Turn<'_>| panic!("all have ended");
        looks.state.end(looks.start, nothing);
    }

    #[test]
    fn zones_are_entered_and_left() {
        let right = || Some(Polygon::rectangle(0.5, 0.0, 1.0, 1.0).unwrap());
        let walk = [10.0, 20.0, 30.0, 44.0, 52.0, 58.0, 50.0, 40.0, 30.0];
        let mut enters = Looks::new(rule(appears(None, right())));
        let got: Vec<String> = walk.iter().map(|&x| enters.look("", &[("cat", x)])).collect();
        assert_eq!(got, ["", "", "", "", "+1t1@0", "", "", "-1t1@3", ""]);
        let mut leaves = Looks::new(rule(Condition::Disappears(Objects { label: None, zone: right() })));
        let got: Vec<String> = walk.iter().map(|&x| leaves.look("", &[("cat", x)])).collect();
        assert_eq!(got, ["", "", "", "", "", "", "", "+1t1@0 -1t1@0", ""]);
    }

    #[test]
    fn a_cooldown_and_the_hours_hold_back_beginnings() {
        let cooldown = Rule { cooldown: Duration::from_secs(3), ..rule(Condition::Is("a".into())) };
        assert_eq!(of_texts(cooldown, &["a", "b", "a", "a", "b"]), ["+1@0", "-1@1", "", "+2@0", "-2@1"]);
        // No hour of the day is in both, whatever zone this machine is in.
        for hours in ["00:00-12:00", "12:00-24:00"] {
            let hours: Hours = hours.parse().unwrap();
            let got = of_texts(Rule { hours: Some(hours), ..rule(Condition::Is("a".into())) }, &["a", "a"]);
            let is_now = hours.contain(SystemTime::UNIX_EPOCH);
            assert_eq!(got, if is_now { ["+1@0", ""] } else { ["", ""] });
        }
    }

    #[test]
    fn open_events_end_when_the_loop_ends() {
        let mut looks = Looks::new(rule(appears(None, None)));
        looks.look("", &[("cat", 0.0), ("dog", 50.0)]);
        let mut ends = Vec::new();
        let end = looks.start + Duration::from_secs(9);
        looks.state.end(end, &mut |turn| {
            let label = turn.track.expect("they are about objects").label.clone();
            ends.push((turn.event, turn.lasted.as_secs(), label));
        });
        assert_eq!(ends, [(1, 9, "cat".to_owned()), (2, 9, "dog".to_owned())]);
    }
}
