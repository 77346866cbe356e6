"""The other side of ros2.rs: Cyclone DDS, the middleware of many ROS 2 nodes, without ROS.

    ros2_peer.py DOMAIN receive TYPE:TOPIC…    prints the first message of each topic as a line of JSON
    ros2_peer.py DOMAIN follow TYPE:TOPIC…     prints all of them
    ros2_peer.py DOMAIN publish                publishes pictures until its standard input ends

The types are written down from the definitions in github.com/ros2/common_interfaces, ros2/rcl_interfaces,
ros2/rmw_dds_common and ros-perception/vision_msgs (4.1). tests/setup.sh brings Cyclone DDS.
"""

import base64
import dataclasses
import json
import os
import select
import sys
import time
from dataclasses import dataclass

# Loopback only, where nothing is sent to all: each side looks for the other at the ports where it may be.
os.environ["CYCLONEDDS_URI"] = """<CycloneDDS><Domain id="any">
  <General>
    <Interfaces><NetworkInterface address="127.0.0.1" multicast="false"/></Interfaces>
    <AllowMulticast>false</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex>
    <MaxAutoParticipantIndex>9</MaxAutoParticipantIndex>
    <Peers><Peer address="127.0.0.1"/></Peers>
  </Discovery>
</Domain></CycloneDDS>"""

from cyclonedds.core import Policy, Qos  # noqa: E402
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.idl import IdlStruct  # noqa: E402
from cyclonedds.idl.types import array, float64, int32, sequence, uint8, uint32  # noqa: E402
from cyclonedds.pub import DataWriter  # noqa: E402
from cyclonedds.sub import DataReader  # noqa: E402
from cyclonedds.topic import Topic  # noqa: E402
from cyclonedds.util import duration  # noqa: E402


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str


@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    header: Header
    format: str
    data: sequence[uint8]


@dataclass
class Point(IdlStruct, typename="geometry_msgs::msg::dds_::Point_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Pose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: Point
    orientation: Quaternion


@dataclass
class PoseWithCovariance(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"):
    pose: Pose
    covariance: array[float64, 36]


@dataclass
class ObjectHypothesis(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesis_"):
    class_id: str
    score: float64


@dataclass
class ObjectHypothesisWithPose(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesisWithPose_"):
    hypothesis: ObjectHypothesis
    pose: PoseWithCovariance


@dataclass
class Point2D(IdlStruct, typename="vision_msgs::msg::dds_::Point2D_"):
    x: float64
    y: float64


@dataclass
class Pose2D(IdlStruct, typename="vision_msgs::msg::dds_::Pose2D_"):
    position: Point2D
    theta: float64


@dataclass
class BoundingBox2D(IdlStruct, typename="vision_msgs::msg::dds_::BoundingBox2D_"):
    center: Pose2D
    size_x: float64
    size_y: float64


@dataclass
class Detection2D(IdlStruct, typename="vision_msgs::msg::dds_::Detection2D_"):
    header: Header
    results: sequence[ObjectHypothesisWithPose]
    bbox: BoundingBox2D
    id: str


@dataclass
class Detection2DArray(IdlStruct, typename="vision_msgs::msg::dds_::Detection2DArray_"):
    header: Header
    detections: sequence[Detection2D]


@dataclass
class Gid(IdlStruct, typename="rmw_dds_common::msg::dds_::Gid_"):
    # char[16] of ROS is uint8[16] of IDL.
    data: array[uint8, 16]


@dataclass
class NodeEntitiesInfo(IdlStruct, typename="rmw_dds_common::msg::dds_::NodeEntitiesInfo_"):
    node_namespace: str
    node_name: str
    reader_gid_seq: sequence[Gid]
    writer_gid_seq: sequence[Gid]


@dataclass
class ParticipantEntitiesInfo(IdlStruct, typename="rmw_dds_common::msg::dds_::ParticipantEntitiesInfo_"):
    gid: Gid
    node_entities_info_seq: sequence[NodeEntitiesInfo]


TYPES = {t.__name__: t for t in (String, CompressedImage, Detection2DArray, ParticipantEntitiesInfo)}
# ROS speaks the first version of CDR.
CDR = Policy.DataRepresentation(use_cdrv0_representation=True)
RELIABLE = Qos(CDR, Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(10))
SENSOR = Qos(CDR, Policy.Reliability.BestEffort, Policy.History.KeepLast(5))
LATCHED = Qos(
    CDR,
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.TransientLocal,
    Policy.History.KeepAll,
)


def plain(value):
    """A message as JSON has it: bytes in base64."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple)):
        if len(value) >= 16 and all(isinstance(v, int) for v in value):
            return base64.b64encode(bytes(value)).decode()
        return [plain(v) for v in value]
    return value


def receive(participant, topics, every):
    """Prints what comes first on each topic, or all; of nodes, all."""
    readers = {}
    for wanted in topics:
        kind, name = wanted.split(":")
        qos = LATCHED if kind == "ParticipantEntitiesInfo" else SENSOR if kind == "CompressedImage" else RELIABLE
        readers[wanted] = DataReader(participant, Topic(participant, name, TYPES[kind], qos=qos), qos=qos)
    print(json.dumps({"ready": True}), flush=True)
    seen = set()
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        for wanted, reader in readers.items():
            for message in reader.take(N=20):
                if not dataclasses.is_dataclass(message):
                    continue
                if every or wanted not in seen or wanted.startswith("Participant"):
                    seen.add(wanted)
                    print(json.dumps({"topic": wanted, "message": plain(message)}), flush=True)


def publish(participant):
    """Publishes pictures, and messages that only pretend to have one, again and again."""
    images = DataWriter(
        participant, Topic(participant, "rt/camera/image_raw", Image, qos=SENSOR), qos=SENSOR
    )
    # A driver may also be reliable.
    files = DataWriter(
        participant, Topic(participant, "rt/camera/image_raw/compressed", CompressedImage, qos=RELIABLE), qos=RELIABLE
    )

    def header():
        now = time.time_ns()
        return Header(Time(now // 10**9, now % 10**9), "optical")

    def image(width, height, step, encoding, count):
        data = [n * 7 % 251 for n in range(count)]
        images.write(Image(header(), height, width, encoding, 0, step, data))

    print(json.dumps({"ready": True}), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        # More than one datagram takes, with rows that are padded.
        image(200, 150, 610, "rgb8", 150 * 610)
        image(64, 48, 64, "mono8", 48 * 64)
        image(64, 48, 128, "yuv422_yuy2", 48 * 128)
        image(64, 48, 192, "bgr8", 100)
        image(2**31, 2**31, 2**32 - 1, "bgr8", 100)
        image(64, 48, 128, "mono16", 48 * 128)
        # Pretends to be cut short, and is no picture.
        files.write(CompressedImage(header(), "jpeg", list(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 400)))
        files.write(CompressedImage(header(), "jpeg", list(b"GIF89a")))
        time.sleep(0.05)


def main():
    participant = DomainParticipant(int(sys.argv[1]))
    if sys.argv[2] == "publish":
        publish(participant)
    else:
        receive(participant, sys.argv[3:], sys.argv[2] == "follow")


main()
