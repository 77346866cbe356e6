//! ROS 2: what a node of it needs, for the sink that publishes and the source that subscribes.
//!
//! Settings and names are always here, so that a build without the feature `ros2` can say what it lacks. DDS is spoken
//! by the crate `rustdds`; the layers of ROS above it are these files: names (`names.rs`), messages that go out
//! (`messages.rs`), pictures that come in (`picture.rs`), and the node that others see (`node.rs`).

#[cfg(feature = "ros2")]
mod cdr;
#[cfg(feature = "ros2")]
pub(crate) mod messages;
mod names;
#[cfg(feature = "ros2")]
pub(crate) mod node;
mod options;
#[cfg(feature = "ros2")]
pub(crate) mod picture;

#[cfg(feature = "ros2")]
pub(crate) use names::Names;
pub(crate) use names::is_topic;
pub use options::{Ros2Error, Ros2Options};
