//! Publishes what is found as messages of ROS 2.
//!
//! | topic | type | when |
//! | --- | --- | --- |
//! | `/palmtop/<camera>/<question>/detections` | `vision_msgs/msg/Detection2DArray` | each answer that locates objects, also if there are none |
//! | `/palmtop/<camera>/<question>/text` | `std_msgs/msg/String` | each other answer |
//! | `/palmtop/<camera>/events` | `std_msgs/msg/String` | each beginning and end of an event, as JSON |
//! | `/palmtop/<camera>/annotated/compressed` | `sensor_msgs/msg/CompressedImage` | each picture that was looked at, while somebody subscribes |

#[cfg(feature = "ros2")]
mod publish;

use super::{Sink, SinkError};
#[cfg(not(feature = "ros2"))]
use crate::ros2::Ros2Error;
use crate::ros2::Ros2Options;
use crate::setup::Setup;

#[cfg(feature = "ros2")]
pub use publish::Ros2Sink;

/// The sink of these settings.
///
/// # Errors
/// If a setting is no name or domain of ROS, or there are no sockets; always in a build without the feature `ros2`.
pub fn sink(options: &Ros2Options, setup: &Setup) -> Result<Box<dyn Sink>, SinkError> {
    #[cfg(feature = "ros2")]
    let made = Ros2Sink::new(options, setup).map(|sink| Box::new(sink) as Box<dyn Sink>);
    #[cfg(not(feature = "ros2"))]
    let made = {
        let (_, _) = (options, setup);
        Err(Ros2Error::NotBuilt)
    };
    made.map_err(|error| SinkError(error.to_string()))
}
