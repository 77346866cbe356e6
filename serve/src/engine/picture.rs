//! Pictures as they come: encoded bytes, their key, and the pixels for as long as the engine needs them.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use palmtop::image::{DecodeOptions, Frame, ImageError, RgbImage, decode_with};
use palmtop_watch::stream::{Layout, to_rgb};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AskError, Engine};

/// What pictures are known by: two hashes of their bytes, each with random keys of this process, so that nobody can
/// make two pictures of one key.
pub(crate) type Key = [u64; 2];

/// A picture of a request; clones are of the same one.
#[derive(Clone)]
pub struct Picture(Arc<Inner>);

struct Inner {
    key: Key,
    bytes: Bytes,
    size: (u32, u32),
    form: Form,
    /// Taken out by the engine, which needs them once.
    pixels: Mutex<Option<Pixels>>,
}

/// What the bytes of a picture are.
#[derive(Clone, Copy)]
enum Form {
    /// A file in a picture format, and what it may cost.
    File(DecodeOptions),
    /// Plain pixels.
    Pixels(Layout),
}

impl Form {
    fn decode(self, bytes: &[u8]) -> Result<RgbImage, ImageError> {
        let layout = match self {
            Self::File(options) => return Ok(decode_with(bytes, &options)?.image),
            Self::Pixels(layout) => layout,
        };
        match layout.frame(bytes) {
            Some(frame) => to_rgb(&frame?),
            // Files in a picture format come the other way.
            None => Err(ImageError::Empty),
        }
    }
}

/// Pixels, and the permit to hold them.
pub(super) struct Pixels {
    pub image: RgbImage,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.0.size;
        write!(f, "picture of {width}x{height} pixels")
    }
}

impl Picture {
    /// Width and height in pixels, after its orientation is applied.
    pub fn size(&self) -> (u32, u32) {
        self.0.size
    }

    pub(super) fn key(&self) -> Key {
        self.0.key
    }

    /// Gives the pixels to `see`, and lets go of them. Decodes them once more if they were not kept, since features
    /// were there when the picture came.
    pub(super) fn with_pixels<T>(
        &self,
        see: impl FnOnce(Frame<'_>) -> palmtop::Result<T>,
    ) -> palmtop::Result<T> {
        let pixels = self.0.pixels.lock().unwrap_or_else(PoisonError::into_inner).take();
        match pixels {
            Some(pixels) => see(pixels.image.view().into()),
            None => see(self.0.form.decode(&self.0.bytes)?.view().into()),
        }
    }

    /// Lets go of the pixels, if nobody needed them.
    pub(super) fn release(&self) {
        self.0.pixels.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Takes encoded pictures in: so many are decoded at once, and no more pixels are held.
#[derive(Clone)]
pub struct Pictures {
    engine: Engine,
    decode: DecodeOptions,
    hashers: [RandomState; 2],
    permits: Arc<Semaphore>,
}

/// Pictures that are decoded ahead of the engine: one that is being encoded, and the next one.
const AHEAD: usize = 2;
/// Pictures whose pixels are in memory at once: those, and one that the engine has to decode by itself.
pub(crate) const DECODED_MAX: usize = AHEAD + 1;

impl Pictures {
    /// For an engine. `decode` says what a picture may cost.
    pub fn new(engine: &Engine, decode: DecodeOptions) -> Self {
        Self {
            engine: engine.clone(),
            decode,
            hashers: [RandomState::new(), RandomState::new()],
            permits: Arc::new(Semaphore::new(AHEAD)),
        }
    }

    /// Takes a picture in: looks whether it can be used, and decodes it if the engine has not its features.
    ///
    /// # Errors
    /// [`AskError::Request`] if it is none, is broken or too large.
    pub async fn take(&self, bytes: Bytes) -> Result<Picture, AskError> {
        self.take_as(bytes, Form::File(self.decode), true).await
    }

    /// Takes plain pixels in that lie so.
    ///
    /// # Errors
    /// [`AskError::Request`] if there are too few.
    pub async fn take_frame(&self, bytes: Bytes, layout: Layout) -> Result<Picture, AskError> {
        self.take_as(bytes, Form::Pixels(layout), true).await
    }

    /// Takes the pictures of one request in. The first one's pixels are kept for the engine, which decodes the others
    /// anew: requests that each held some and waited for more would wait for one another.
    ///
    /// # Errors
    /// As [`Pictures::take`], for the first that cannot be used.
    pub async fn take_all(&self, all: Vec<Bytes>) -> Result<Vec<Picture>, AskError> {
        let mut pictures = Vec::with_capacity(all.len());
        for (index, bytes) in all.into_iter().enumerate().rev() {
            pictures.push(self.take_as(bytes, Form::File(self.decode), index == 0).await?);
        }
        pictures.reverse();
        Ok(pictures)
    }

    async fn take_as(&self, bytes: Bytes, form: Form, keep: bool) -> Result<Picture, AskError> {
        let (this, for_key) = (self.clone(), bytes.clone());
        let key = blocking(move || this.key(&for_key, form)).await?;
        let picture = |size, bytes, pixels| {
            Picture(Arc::new(Inner { key, bytes, size, form, pixels: Mutex::new(pixels) }))
        };
        if let Some(size) = self.engine.kept(key) {
            return Ok(picture(size, bytes, None));
        }
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| AskError::Ending)?;
        let encoded = bytes.clone();
        let decoded = blocking(move || form.decode(&encoded)).await?;
        let image = decoded.map_err(|error| AskError::Request(error.into()))?;
        let side_max = self.engine.limits().image_side as u32;
        let size @ (width, height) = (image.width(), image.height());
        if width.max(height) > side_max {
            return Err(AskError::Request(ImageError::SideTooLarge { width, height, side_max }.into()));
        }
        Ok(picture(size, bytes, keep.then_some(Pixels { image, _permit: permit })))
    }

    fn key(&self, bytes: &[u8], form: Form) -> Key {
        self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            // The same bytes are another picture if they lie otherwise.
            if let Form::Pixels(layout) = form {
                hasher.write(format!("{layout:?}").as_bytes());
            }
            hasher.write(bytes);
            hasher.finish()
        })
    }
}

/// Runs what takes milliseconds where nobody waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AskError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| AskError::Broken("a picture could not be worked on".to_owned()))
}
