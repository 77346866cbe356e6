//! Messages that go out, field by field in the order of their definitions, which is the order of CDR.
//!
//! The layouts are those of `vision_msgs` 4.1 (github.com/ros-perception/vision_msgs, the same from Humble on),
//! `std_msgs`, `sensor_msgs` and `geometry_msgs` (github.com/ros2/common_interfaces), `builtin_interfaces`
//! (github.com/ros2/rcl_interfaces) and `rmw_dds_common` (github.com/ros2/rmw_dds_common).

use std::time::{SystemTime, UNIX_EPOCH};

use palmtop::tasks::BoundingBox;
use rustdds::bytes::Bytes;
use rustdds::no_key::SerializerAdapter;
use rustdds::{CDRSerializerAdapter, RepresentationIdentifier};
use serde::ser::{Serialize, SerializeTuple, Serializer};

/// A message that is a type of ROS.
pub(crate) trait Message: Serialize {
    /// Its type as DDS knows it: `package::msg::dds_::Name_`.
    const TYPE: &'static str;

    /// Its bytes in little-endian CDR.
    fn bytes(&self) -> Result<Bytes, String>
    where
        Self: Sized,
    {
        CDRSerializerAdapter::<Self>::to_bytes(self).map_err(|e| e.to_string())
    }
}

/// Bytes that are CDR already, so that one kind of writer is enough for all messages.
pub(crate) struct Encoded;

impl SerializerAdapter<Bytes> for Encoded {
    type Error = std::convert::Infallible;

    fn output_encoding() -> RepresentationIdentifier {
        RepresentationIdentifier::CDR_LE
    }

    fn to_bytes(value: &Bytes) -> Result<Bytes, Self::Error> {
        Ok(value.clone())
    }
}

/// `builtin_interfaces/msg/Time`
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Time {
    sec: i32,
    nanosec: u32,
}

impl From<SystemTime> for Time {
    /// Times before 1970 and after 2038 become the nearest that there is.
    fn from(wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        match i32::try_from(since.as_secs()) {
            Ok(sec) => Self { sec, nanosec: since.subsec_nanos() },
            Err(_) => Self { sec: i32::MAX, nanosec: 999_999_999 },
        }
    }
}

/// `std_msgs/msg/Header`
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Header<'a> {
    stamp: Time,
    frame_id: &'a str,
}

impl<'a> Header<'a> {
    /// Of a picture of this camera.
    pub fn new(wall: SystemTime, camera: &'a str) -> Self {
        Self { stamp: wall.into(), frame_id: camera }
    }
}

/// `std_msgs/msg/String`
#[derive(Debug, serde::Serialize)]
pub(crate) struct Text<'a> {
    pub data: &'a str,
}

impl Message for Text<'_> {
    const TYPE: &'static str = "std_msgs::msg::dds_::String_";
}

/// `sensor_msgs/msg/CompressedImage`
#[derive(Debug, serde::Serialize)]
pub(crate) struct CompressedImage<'a> {
    header: Header<'a>,
    format: &'static str,
    #[serde(serialize_with = "octets")]
    data: &'a [u8],
}

impl<'a> CompressedImage<'a> {
    pub fn jpeg(header: Header<'a>, data: &'a [u8]) -> Self {
        Self { header, format: "jpeg", data }
    }
}

impl Message for CompressedImage<'_> {
    const TYPE: &'static str = "sensor_msgs::msg::dds_::CompressedImage_";
}

/// In one piece, not byte by byte.
fn octets<S: Serializer>(data: &[u8], out: S) -> Result<S::Ok, S::Error> {
    out.serialize_bytes(data)
}

/// `vision_msgs/msg/Detection2DArray`
#[derive(Debug, serde::Serialize)]
pub(crate) struct Detection2DArray<'a> {
    pub header: Header<'a>,
    pub detections: Vec<Detection2D<'a>>,
}

impl Message for Detection2DArray<'_> {
    const TYPE: &'static str = "vision_msgs::msg::dds_::Detection2DArray_";
}

/// `vision_msgs/msg/Detection2D`
#[derive(Debug, serde::Serialize)]
pub(crate) struct Detection2D<'a> {
    header: Header<'a>,
    results: Vec<ObjectHypothesisWithPose<'a>>,
    bbox: BoundingBox2D,
    id: String,
}

impl<'a> Detection2D<'a> {
    /// An object in a picture; its likelihood if that is known, and its track if it has one.
    pub fn new(
        header: Header<'a>,
        label: &'a str,
        score: Option<f32>,
        edges: &BoundingBox,
        track: Option<u64>,
    ) -> Self {
        // By convention between 0 and 1; an answer without likelihoods is taken at its word.
        let hypothesis = ObjectHypothesis { class_id: label, score: score.map_or(1.0, f64::from) };
        let results = vec![ObjectHypothesisWithPose { hypothesis, pose: PoseWithCovariance::UNKNOWN }];
        let id = track.map(|track| track.to_string()).unwrap_or_default();
        Self { header, results, bbox: edges.into(), id }
    }
}

/// `vision_msgs/msg/ObjectHypothesisWithPose`
#[derive(Debug, serde::Serialize)]
struct ObjectHypothesisWithPose<'a> {
    hypothesis: ObjectHypothesis<'a>,
    pose: PoseWithCovariance,
}

/// `vision_msgs/msg/ObjectHypothesis`
#[derive(Debug, serde::Serialize)]
struct ObjectHypothesis<'a> {
    class_id: &'a str,
    score: f64,
}

/// `geometry_msgs/msg/PoseWithCovariance`
#[derive(Debug, serde::Serialize)]
struct PoseWithCovariance {
    /// `Pose.position`, a `Point`
    position: [f64; 3],
    /// `Pose.orientation`, a `Quaternion`: x, y, z, w
    orientation: [f64; 4],
    covariance: [[f64; 6]; 6],
}

impl PoseWithCovariance {
    /// What a picture does not tell: no turn, at the origin, all zeros as ROS has it for an unknown covariance.
    const UNKNOWN: Self =
        Self { position: [0.0; 3], orientation: [0.0, 0.0, 0.0, 1.0], covariance: [[0.0; 6]; 6] };
}

/// `vision_msgs/msg/BoundingBox2D`, in pixels
#[derive(Debug, serde::Serialize)]
struct BoundingBox2D {
    center: Pose2D,
    size_x: f64,
    size_y: f64,
}

/// `vision_msgs/msg/Pose2D`
#[derive(Debug, serde::Serialize)]
struct Pose2D {
    position: Point2D,
    theta: f64,
}

/// `vision_msgs/msg/Point2D`
#[derive(Debug, serde::Serialize)]
struct Point2D {
    x: f64,
    y: f64,
}

impl From<&BoundingBox> for BoundingBox2D {
    fn from(edges: &BoundingBox) -> Self {
        let [left, top, right, bottom] = [edges.x_min, edges.y_min, edges.x_max, edges.y_max].map(f64::from);
        let position = Point2D { x: (left + right) / 2.0, y: (top + bottom) / 2.0 };
        Self { center: Pose2D { position, theta: 0.0 }, size_x: right - left, size_y: bottom - top }
    }
}

/// `rmw_dds_common/msg/ParticipantEntitiesInfo`: the nodes of a participant of DDS.
#[derive(Debug, serde::Serialize)]
pub(crate) struct ParticipantEntitiesInfo<'a> {
    pub gid: Gid,
    pub nodes: Vec<NodeEntitiesInfo<'a>>,
}

impl Message for ParticipantEntitiesInfo<'_> {
    const TYPE: &'static str = "rmw_dds_common::msg::dds_::ParticipantEntitiesInfo_";
}

/// `rmw_dds_common/msg/NodeEntitiesInfo`
#[derive(Debug, serde::Serialize)]
pub(crate) struct NodeEntitiesInfo<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub readers: Vec<Gid>,
    pub writers: Vec<Gid>,
}

/// `rmw_dds_common/msg/Gid`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gid {
    pub guid: rustdds::GUID,
    /// Up to Humble there are eight zeros behind.
    pub is_long: bool,
}

impl Serialize for Gid {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.guid.to_bytes());
        let bytes = &bytes[..if self.is_long { 24 } else { 16 }];
        let mut tuple = out.serialize_tuple(bytes.len())?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stamps_beyond_what_ros_has_are_the_nearest() {
        let time = |sec, nanosec| Time { sec, nanosec };
        let at = |since| UNIX_EPOCH + since;
        assert_eq!(Time::from(at(Duration::new(5, 7))), time(5, 7));
        assert_eq!(Time::from(UNIX_EPOCH - Duration::from_secs(1)), time(0, 0));
        assert_eq!(Time::from(at(Duration::new(i32::MAX as u64, 3))), time(i32::MAX, 3));
        assert_eq!(Time::from(at(Duration::from_secs(1 << 31))), time(i32::MAX, 999_999_999));
    }

    #[test]
    fn a_detection_lies_as_its_definition_says() {
        let header = Header::new(UNIX_EPOCH + Duration::new(1, 2), "c");
        let edges = BoundingBox { x_min: 1.0, y_min: 2.0, x_max: 4.0, y_max: 4.0 };
        let detections = vec![Detection2D::new(header, "cat", Some(0.5), &edges, Some(3))];
        let bytes = Detection2DArray { header, detections }.bytes().unwrap();
        // Numbers lie at multiples of their size, and texts end with a zero.
        let mut expected = Vec::new();
        let pad = |out: &mut Vec<u8>, to: usize| out.resize(out.len().next_multiple_of(to), 0);
        let int = |out: &mut Vec<u8>, value: u32| {
            pad(out, 4);
            out.extend(value.to_le_bytes());
        };
        let text = |out: &mut Vec<u8>, text: &str| {
            int(out, text.len() as u32 + 1);
            out.extend(text.bytes().chain([0]));
        };
        let floats = |out: &mut Vec<u8>, values: &[f64]| {
            pad(out, 8);
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        let out = &mut expected;
        for count in [1, 1] {
            // The header of the array, then that of the detection, each before a sequence of one.
            int(out, 1);
            int(out, 2);
            text(out, "c");
            int(out, count);
        }
        text(out, "cat");
        floats(out, &[0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        floats(out, &[0.0; 36]);
        floats(out, &[2.5, 3.0, 0.0, 3.0, 2.0]);
        text(out, "3");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn identifiers_have_the_length_of_the_distribution() {
        let guid = rustdds::GUID::from_bytes(std::array::from_fn(|n| n as u8 + 1));
        let bytes = |is_long| CDRSerializerAdapter::<Gid>::to_bytes(&Gid { guid, is_long }).unwrap();
        let short: Vec<u8> = (1..=16).collect();
        assert_eq!(bytes(false), short);
        assert_eq!(bytes(true), [short.as_slice(), &[0; 8]].concat());
    }
}
