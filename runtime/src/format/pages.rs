//! What of a file is in memory: read beforehand, read ahead, kept.

use std::ops::Range;
use std::sync::PoisonError;

use super::PalmFile;
use super::file::Bytes;
use crate::error::{Error, Result};
use crate::system::memory::Lock;

/// Of the smallest pages that any of the systems has.
const PAGE_BYTES: usize = 4096;
/// Asked for at once: systems read no more than this by one wish, however much is wished for.
const WISH_BYTES: usize = 128 << 10;
/// Taken to be in memory if both of its ends are.
const PIECE_BYTES: usize = 2 << 20;
/// Read ahead of what is touched.
const AHEAD_BYTES: usize = 64 << 20;

impl PalmFile {
    /// Reads all of the file once, so that its pages are in memory and the first answer does not wait for the disk. The
    /// system may drop pages again when it needs room: [`lock`](Self::lock) prevents that.
    pub fn preload(&self) {
        let bytes = self.bytes.get();
        let mut asked = 0;
        for (i, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            let wanted = (i * PAGE_BYTES + AHEAD_BYTES).min(bytes.len());
            if wanted >= asked + PIECE_BYTES || (wanted == bytes.len() && wanted > asked) {
                self.read_ahead(asked..wanted);
                asked = wanted;
            }
            std::hint::black_box(page[0]);
        }
    }

    /// Asks the system to read these bytes of a mapped file into memory, as far as they are not there, and does not
    /// wait for them. False if the system does not tell what is there, and had to be asked for everything.
    pub(crate) fn read_ahead(&self, place: Range<usize>) -> bool {
        let mut tells = true;
        #[cfg(unix)]
        if let Bytes::Mapped { map, file } = &self.bytes {
            for start in place.clone().step_by(PIECE_BYTES) {
                let piece = start..place.end.min(start + PIECE_BYTES);
                let ends = [piece.start, piece.end - 1];
                let is_there = file.as_ref().and_then(|file| {
                    let [first, last] = ends.map(|at| file.has_in_memory(at as u64));
                    Some(first? && last?)
                });
                tells &= is_there.is_some();
                if is_there == Some(true) {
                    continue;
                }
                for at in piece.clone().step_by(WISH_BYTES) {
                    // A wish; without it the pages come one after the other.
                    let _ = map.advise_range(memmap2::Advice::WillNeed, at, WISH_BYTES.min(piece.end - at));
                }
            }
        }
        #[cfg(not(unix))]
        let _ = (place, &mut tells);
        tells
    }

    /// Reads all of the file, and keeps it in memory for as long as it is open. [`Error::Lock`] if the system does not
    /// allow that much, which is usual without a privilege or a higher limit (`ulimit -l`); and always on systems other
    /// than Unix.
    pub fn lock(&self) -> Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            let bytes = self.bytes.get();
            *lock = Some(Lock::new(bytes).map_err(|source| Error::Lock { bytes: bytes.len(), source })?);
        }
        Ok(())
    }
}

#[cfg(unix)]
impl super::file::Opened {
    /// Whether a byte of the mapped part can be had without the disk; `None` if the system does not tell.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn has_in_memory(&self, at: u64) -> Option<bool> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut byte = [0];
        let buffers = &mut [std::io::IoSliceMut::new(&mut byte)];
        match preadv2(&self.file, buffers, self.offset + at, ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn has_in_memory(&self, _: u64) -> Option<bool> {
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::format::{Head, Storage, TensorInfo, checksum};

    /// Whatever is asked for, the file reads as before; and where the system tells, what was read is there.
    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn what_was_preloaded_is_in_memory() {
        let values = 5 * PIECE_BYTES / 4 / 2 + 7;
        let mut head = Head::default();
        head.metadata.set("general.architecture", "paligemma");
        head.tensors.push(TensorInfo::new("norm", Storage::F32, &[values]).unwrap());
        head.tensors[0].checksum = checksum(&vec![0; values * 4]);
        let length = head.place() as usize;
        let mut bytes = head.encode();
        bytes.resize(length, 0);
        // A part of a larger file, so that places in the two differ.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package");
        std::fs::write(&path, [&[1; 4096][..], &bytes, &[1; 100]].concat()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let palm = PalmFile::open_part(&file, 4096, Some(length as u64)).unwrap();
        assert!(palm.is_mapped());
        palm.read_ahead(0..length);
        palm.read_ahead(length - 1..length);
        palm.preload();
        assert!(palm.verify(|_| {}).is_empty());
        let Bytes::Mapped { file: Some(opened), .. } = &palm.bytes else { panic!("it is mapped") };
        for at in (0..length).step_by(PAGE_BYTES).chain([length - 1]) {
            assert_ne!(opened.has_in_memory(at as u64), Some(false), "byte {at}");
        }
        if opened.has_in_memory(0).is_some() {
            assert!(palm.read_ahead(0..length));
        }
    }
}
