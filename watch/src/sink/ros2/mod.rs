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

/// Checks settings without joining anything.
///
/// # Errors
/// As [`sink`], as far as it is known before.
pub fn check(options: &Ros2Options) -> Result<(), SinkError> {
    let settled = options.settle(|name| std::env::var(name).ok());
    #[cfg(not(feature = "ros2"))]
    let settled = settled.and(Err::<(), _>(Ros2Error::NotBuilt));
    settled.map(drop).map_err(|error| SinkError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_before_anything_is_joined() {
        let options = |domain| Ros2Options { domain: Some(domain), ..Ros2Options::default() };
        let error = check(&options(233)).unwrap_err().to_string();
        assert!(error.contains("233 is no domain"), "{error}");
        let sound = check(&options(232));
        if cfg!(feature = "ros2") {
            sound.unwrap();
        } else {
            let error = sound.unwrap_err().to_string();
            assert!(error.contains("built without ROS 2"), "{error}");
        }
    }
}
