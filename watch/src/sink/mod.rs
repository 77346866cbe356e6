//! Where records go: each sink behind a bounded queue and a thread of its own, so that none can hold up the loop.

pub mod command;
pub mod end;
mod health;
pub mod interest;
pub mod mqtt;
pub mod outbox;
pub mod receivers;
pub mod ros2;
pub mod secret;
pub mod snapshots;
pub mod webhook;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use palmtop::image::RgbImage;
use palmtop_present::encode::{self, EncodeError, PictureFormat};
use palmtop_present::overlay::{self, Canvas, Item, Style};
use serde::Serialize;

use crate::record::{ObjectRecord, RECORD_VERSION, Record};
use end::End;
use interest::{Interest, Picture};

/// A record as receivers get it in JSON: the same as a line of `--json` (docs/json.md).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    record: &'a Record,
}

impl<'a> From<&'a Record> for Versioned<'a> {
    fn from(record: &'a Record) -> Self {
        Self { version: RECORD_VERSION, record }
    }
}

/// A record, and the picture that it is about.
#[derive(Debug)]
pub struct Message {
    /// The record.
    pub record: Record,
    /// The picture; none if no sink wants one, or the record is about none.
    pub picture: Option<Arc<Snapshot>>,
}

/// A picture that was looked at, with what was found in it. It is encoded once, by the first sink that wants it.
#[derive(Debug)]
pub struct Snapshot {
    picture: RgbImage,
    objects: Vec<ObjectRecord>,
    plain: OnceLock<Vec<u8>>,
    annotated: OnceLock<Vec<u8>>,
}

impl Snapshot {
    /// A picture with these objects in it.
    pub fn new(picture: RgbImage, objects: Vec<ObjectRecord>) -> Self {
        Self { picture, objects, plain: OnceLock::new(), annotated: OnceLock::new() }
    }

    /// The picture.
    pub fn picture(&self) -> &RgbImage {
        &self.picture
    }

    /// The objects that were found in it.
    pub fn objects(&self) -> &[ObjectRecord] {
        &self.objects
    }

    /// The picture as JPEG.
    ///
    /// # Errors
    /// If a side is longer than JPEG has it.
    pub fn jpeg(&self) -> Result<&[u8], EncodeError> {
        once(&self.plain, || encoded(&self.picture))
    }

    /// The picture as JPEG, drawn in or not; none if none is wanted.
    ///
    /// # Errors
    /// If a side is longer than JPEG has it.
    pub fn jpeg_of(&self, which: Picture) -> Result<Option<&[u8]>, EncodeError> {
        match which {
            Picture::None => Ok(None),
            Picture::Plain => self.jpeg().map(Some),
            Picture::Annotated => self.annotated_jpeg().map(Some),
        }
    }

    /// The picture as JPEG, with boxes, labels and masks drawn.
    ///
    /// # Errors
    /// If a side is longer than JPEG has it.
    pub fn annotated_jpeg(&self) -> Result<&[u8], EncodeError> {
        once(&self.annotated, || {
            let mut drawn = self.picture.clone();
            let (width, height) = (drawn.width(), drawn.height());
            if let Ok(mut canvas) = Canvas::new(width, height, drawn.data_mut()) {
                let items: Vec<Item<'_>> = self.objects.iter().map(|o| Item::from(&o.detection)).collect();
                overlay::draw(&mut canvas, &items, &Style::default());
            }
            encoded(&drawn)
        })
    }
}

fn encoded(picture: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode::picture(picture, PictureFormat::Jpeg, &mut out)?;
    Ok(out)
}

fn once(
    place: &OnceLock<Vec<u8>>,
    make: impl FnOnce() -> Result<Vec<u8>, EncodeError>,
) -> Result<&[u8], EncodeError> {
    if place.get().is_none() {
        // Two threads may encode at once; both get the same bytes.
        let _ = place.set(make()?);
    }
    Ok(place.get().map_or(&[], Vec::as_slice))
}

/// Why a record did not get to its receiver, or a sink cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// A receiver of records.
pub trait Sink: Send {
    /// What it is called in notes, without user and password.
    fn name(&self) -> String;

    /// Which records it gets, and of which of them the picture. This never changes.
    fn interest(&self) -> Interest;

    /// Hands over the deadline, before the first record. A sink that pauses or waits heeds it.
    fn attach(&mut self, _end: Arc<End>) {}

    /// Delivers a record. It is called on the sink's own thread and may take its time, but not for ever.
    ///
    /// # Errors
    /// If the record did not get there. It is lost then, and counted.
    fn send(&mut self, message: &Message) -> Result<(), SinkError>;

    /// Delivers what it still holds, as the last call, and says how many records it had to give up. It is back by the
    /// deadline.
    fn finish(&mut self, _deadline: Instant) -> u64 {
        0
    }
}
