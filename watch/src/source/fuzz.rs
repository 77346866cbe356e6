//! Ways in for the fuzz targets, to conversations that otherwise take a camera or a network. Only with the feature
//! `fuzz`.

use super::feed::{Feed, Next};
use crate::stream::Layout;

/// What a source gave.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Pictures and how they lie.
    pub pictures: Vec<(Layout, Vec<u8>)>,
    /// Pictures that were cut short or damaged.
    pub broken: u64,
    /// What was said of the source, or why it ended.
    pub said: Vec<String>,
}

/// So often a source is asked.
const ASKED_MAX: usize = 64;

impl Given {
    /// Asks a source until it ends or has trouble.
    pub(super) fn of<E: std::fmt::Display>(opened: Result<Box<dyn Feed>, E>) -> Self {
        let mut given = Self::default();
        let mut feed = match opened {
            Ok(feed) => feed,
            Err(error) => {
                given.said.push(error.to_string());
                return given;
            }
        };
        let mut picture = Vec::new();
        for _ in 0..ASKED_MAX {
            match feed.next(&mut picture) {
                Next::Picture(caught) => given.pictures.push((caught.layout, picture.clone())),
                Next::Nothing | Next::Well => {}
                Next::Missing(why) | Next::End(why) => {
                    given.said.push(why);
                    break;
                }
            }
        }
        given.broken = feed.broken();
        given
    }
}

pub use super::http::pretend::answers as http;
#[cfg(target_os = "linux")]
pub use super::v4l2::wild::film as v4l2;
