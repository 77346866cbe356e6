//! Pictures of a topic of ROS 2.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use rustdds::dds::ReadError;
use rustdds::no_key::{Decode, DeserializerAdapter};
use rustdds::{DataReaderStatus, RepresentationIdentifier, StatusEvented};

use super::capture::Status;
use super::feed::Stop;
use super::latest::Latest;
use crate::ros2::node::{Node, Quality, Reader};
use crate::ros2::picture::{self, Broken, Kind, Picture};
use crate::ros2::{Ros2Error, Ros2Options};

/// So long no picture comes before it is said.
const QUIET: Duration = Duration::from_secs(5);
/// So often a wait looks whether it is to end.
const STEP: Duration = Duration::from_millis(100);
/// A stamp so near to the clock here is taken for the time of exposure; others come from a simulation, a recording or a
/// clock that was never set.
const STAMP_OFF_MAX: Duration = Duration::from_secs(10);

/// A topic of pictures that is subscribed to.
pub(super) struct Subscription {
    reader: Reader<Result<Picture, Broken>, Pictures>,
    topic: String,
    kind: Kind,
    picture_bytes_max: usize,
    /// How many nodes publish it.
    publishers: i32,
    /// Messages without a picture.
    broken: u64,
}

/// Subscribes to a topic, `/camera/image_raw` or `…/compressed`. It need not be published yet.
pub(super) fn open(
    topic: &str,
    picture_bytes_max: usize,
    options: &Ros2Options,
) -> Result<Subscription, Ros2Error> {
    let kind = Kind::of_topic(topic);
    let reader = Node::join(options)?.subscribe(topic, kind.type_name(), Quality::Sensor)?;
    Ok(Subscription { reader, topic: topic.into(), kind, picture_bytes_max, publishers: 0, broken: 0 })
}

impl Subscription {
    /// Hands pictures over until nobody wants them, or `stop`; gives the reason. `status` hears whether any come.
    pub fn read(&mut self, latest: &Latest, stop: &Stop, status: impl Fn(Status)) -> String {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let picture = RefCell::new(Vec::new());
        let mut came = Instant::now();
        let mut why_broken: Option<Broken> = None;
        while !stop.is_set() {
            // Before the look, so that what comes during it wakes.
            self.reader.reader.set_waker(Some(waker.clone()));
            self.reader.reader.drain_read_notifications();
            let decoder = Decoder { kind: self.kind, bytes_max: self.picture_bytes_max, out: &picture };
            match self.reader.reader.try_take_one_with(decoder).map(|m| m.map(|m| m.into_value())) {
                Ok(Some(Ok(found))) => {
                    came = Instant::now();
                    why_broken = None;
                    let full = picture.take();
                    match latest.put(full, found.layout, came, wall(found.stamp, SystemTime::now())) {
                        Some(spare) => *picture.borrow_mut() = spare,
                        None => return "nobody looks any more".into(),
                    }
                    status(Status::Running);
                }
                Ok(Some(Err(broken))) => self.refuse(why_broken.insert(broken)),
                Err(ReadError::Deserialization { .. }) => {
                    self.refuse(why_broken.insert(Broken::Representation));
                }
                Err(error) => return error.to_string(),
                Ok(None) => {
                    if came.elapsed() >= QUIET {
                        let why = self.quiet(why_broken.as_ref());
                        status(Status::Waiting { why });
                    }
                    thread::park_timeout(STEP);
                }
            }
        }
        "it was stopped".into()
    }

    /// Counts a message without a picture. However many there are, few are told of.
    fn refuse(&mut self, broken: &Broken) {
        self.broken += 1;
        if self.broken.is_power_of_two() {
            log::warn!("ros2://{}: {} messages without a picture so far: {broken}", self.topic, self.broken);
        }
    }

    /// Why no pictures come.
    fn quiet(&mut self, broken: Option<&Broken>) -> String {
        while let Some(status) = self.reader.reader.try_recv_status() {
            if let DataReaderStatus::SubscriptionMatched { current, .. } = status {
                self.publishers = current.count();
            }
        }
        match (self.publishers, broken) {
            (0, _) => format!("no node publishes {} as {}", self.topic, self.kind.ros_type()),
            (_, Some(broken)) => format!("its messages have no pictures: {broken}"),
            (_, None) => format!("it is published, but no picture has come for {} s", QUIET.as_secs()),
        }
    }
}

/// When a picture was exposed, by the clock on the wall.
fn wall(stamp: Option<SystemTime>, now: SystemTime) -> SystemTime {
    let is_near = |stamp: &SystemTime| {
        let off = now.duration_since(*stamp).or_else(|_| stamp.duration_since(now));
        off.is_ok_and(|off| off <= STAMP_OFF_MAX)
    };
    stamp.filter(is_near).unwrap_or(now)
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Messages as pictures.
struct Pictures;

impl DeserializerAdapter<Result<Picture, Broken>> for Pictures {
    type Error = Infallible;
    type Decoded = Result<Picture, Broken>;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &[RepresentationIdentifier::CDR_LE, RepresentationIdentifier::CDR_BE]
    }

    fn transform_decoded(decoded: Self::Decoded) -> Self::Decoded {
        decoded
    }
}

/// Puts the bytes of a picture where the caller has room for them.
#[derive(Clone)]
struct Decoder<'a> {
    kind: Kind,
    bytes_max: usize,
    out: &'a RefCell<Vec<u8>>,
}

impl Decode<'_, Result<Picture, Broken>> for Decoder<'_> {
    type Error = Infallible;

    fn decode_bytes(
        self,
        message: &[u8],
        encoding: RepresentationIdentifier,
    ) -> Result<Result<Picture, Broken>, Infallible> {
        let is_little = encoding == RepresentationIdentifier::CDR_LE;
        Ok(picture::read(self.kind, message, is_little, self.bytes_max, &mut self.out.borrow_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stamps_near_the_clock_are_times_of_exposure() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let second = Duration::from_secs(1);
        for near in [now, now - second, now + second, now - STAMP_OFF_MAX] {
            assert_eq!(wall(Some(near), now), near);
        }
        for far in [SystemTime::UNIX_EPOCH, now - STAMP_OFF_MAX - second, now + STAMP_OFF_MAX + second] {
            assert_eq!(wall(Some(far), now), now);
        }
        assert_eq!(wall(None, now), now);
    }
}
