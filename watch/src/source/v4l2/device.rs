//! What a camera is asked, and the real one.

use std::io;
use std::time::Duration;

use super::abi::{
    Buffer, Capability, Format, FormatDescription, FrameIntervals, FrameSizes, RequestBuffers,
    StreamParameters,
};

/// A call to the driver, with what it is given and what it fills in.
pub(super) enum Call<'a> {
    /// `VIDIOC_QUERYCAP`
    QueryCapabilities(&'a mut Capability),
    /// `VIDIOC_ENUM_FMT`
    EnumFormats(&'a mut FormatDescription),
    /// `VIDIOC_ENUM_FRAMESIZES`
    EnumFrameSizes(&'a mut FrameSizes),
    /// `VIDIOC_ENUM_FRAMEINTERVALS`
    EnumFrameIntervals(&'a mut FrameIntervals),
    /// `VIDIOC_S_FMT`
    SetFormat(&'a mut Format),
    /// `VIDIOC_S_PARM`
    SetParameters(&'a mut StreamParameters),
    /// `VIDIOC_REQBUFS`
    RequestBuffers(&'a mut RequestBuffers),
    /// `VIDIOC_QUERYBUF`
    QueryBuffer(&'a mut Buffer),
    /// `VIDIOC_QBUF`
    Enqueue(&'a mut Buffer),
    /// `VIDIOC_DQBUF`
    Dequeue(&'a mut Buffer),
    /// `VIDIOC_STREAMON`, with the type of buffers
    StreamOn(u32),
    /// `VIDIOC_STREAMOFF`
    StreamOff(u32),
}

/// A camera's device node, or a recorded one.
pub(super) trait Device: Send {
    /// Calls the driver.
    fn call(&mut self, call: Call<'_>) -> io::Result<()>;

    /// Maps a buffer that `VIDIOC_QUERYBUF` described. Buffers are mapped in order, from 0 on.
    fn map(&mut self, offset: u32, bytes: usize) -> io::Result<()>;

    /// The bytes of a mapped buffer, which must not be in the driver's queue.
    fn buffer(&self, index: usize) -> Option<&[u8]>;

    /// Waits until a frame, or an error, can be fetched; false if none came in time.
    fn wait(&mut self, most: Duration) -> io::Result<bool>;

    /// `CLOCK_MONOTONIC`, by which drivers date frames.
    fn monotonic(&self) -> Duration;
}

#[cfg(target_os = "linux")]
pub(super) use real::Node;

#[cfg(target_os = "linux")]
mod real {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::ptr::{self, NonNull};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    /// `'V'`, the letter of Video4Linux's calls.
    const LETTER: u8 = b'V';
    const QUERYCAP: Opcode = opcode::read::<Capability>(LETTER, 0);
    const ENUM_FMT: Opcode = opcode::read_write::<FormatDescription>(LETTER, 2);
    const S_FMT: Opcode = opcode::read_write::<Format>(LETTER, 5);
    const REQBUFS: Opcode = opcode::read_write::<RequestBuffers>(LETTER, 8);
    const QUERYBUF: Opcode = opcode::read_write::<Buffer>(LETTER, 9);
    const QBUF: Opcode = opcode::read_write::<Buffer>(LETTER, 15);
    const DQBUF: Opcode = opcode::read_write::<Buffer>(LETTER, 17);
    const STREAMON: Opcode = opcode::write::<u32>(LETTER, 18);
    const STREAMOFF: Opcode = opcode::write::<u32>(LETTER, 19);
    const S_PARM: Opcode = opcode::read_write::<StreamParameters>(LETTER, 22);
    const ENUM_FRAMESIZES: Opcode = opcode::read_write::<FrameSizes>(LETTER, 74);
    const ENUM_FRAMEINTERVALS: Opcode = opcode::read_write::<FrameIntervals>(LETTER, 75);

    // As a C compiler computes them from the header on these systems.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    const _: () = assert!(
        QUERYCAP == 0x8068_5600
            && ENUM_FMT == 0xc040_5602
            && S_FMT == 0xc0d0_5605
            && REQBUFS == 0xc014_5608
            && QUERYBUF == 0xc058_5609
            && QBUF == 0xc058_560f
            && DQBUF == 0xc058_5611
            && STREAMON == 0x4004_5612
            && STREAMOFF == 0x4004_5613
            && S_PARM == 0xc0cc_5616
            && ENUM_FRAMESIZES == 0xc02c_564a
            && ENUM_FRAMEINTERVALS == 0xc034_564b
    );
    #[cfg(target_arch = "arm")]
    const _: () = assert!(S_FMT == 0xc0cc_5605 && QBUF == 0xc044_560f && DQBUF == 0xc044_5611);

    /// An open device node.
    pub(in super::super) struct Node {
        file: File,
        mapped: Vec<Mapped>,
    }

    struct Mapped {
        start: NonNull<u8>,
        bytes: usize,
    }

    // SAFETY: the memory belongs to this value alone and is only read; which thread does it is all the same.
    unsafe impl Send for Mapped {}

    impl Node {
        /// Opens a node. Reading never blocks.
        pub fn open(path: &Path) -> io::Result<Self> {
            let flags = OFlags::NONBLOCK.bits() as i32;
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
            Ok(Self { file, mapped: Vec::new() })
        }

        fn update<const OPCODE: Opcode, T>(&self, value: &mut T) -> io::Result<()> {
            loop {
                // SAFETY: every caller below pairs a number with the struct that is part of it, which the assertions
                // above compare with the header: the kernel reads and writes no byte beyond it, and any bytes are a
                // value of these structs of numbers.
                match unsafe { ioctl(&self.file, Updater::<OPCODE, T>::new(value)) } {
                    Err(Errno::INTR) => {}
                    other => return Ok(other?),
                }
            }
        }
    }

    impl Device for Node {
        fn call(&mut self, call: Call<'_>) -> io::Result<()> {
            match call {
                Call::QueryCapabilities(value) => self.update::<QUERYCAP, _>(value),
                Call::EnumFormats(value) => self.update::<ENUM_FMT, _>(value),
                Call::EnumFrameSizes(value) => self.update::<ENUM_FRAMESIZES, _>(value),
                Call::EnumFrameIntervals(value) => self.update::<ENUM_FRAMEINTERVALS, _>(value),
                Call::SetFormat(value) => self.update::<S_FMT, _>(value),
                Call::SetParameters(value) => self.update::<S_PARM, _>(value),
                Call::RequestBuffers(value) => self.update::<REQBUFS, _>(value),
                Call::QueryBuffer(value) => self.update::<QUERYBUF, _>(value),
                Call::Enqueue(value) => self.update::<QBUF, _>(value),
                Call::Dequeue(value) => self.update::<DQBUF, _>(value),
                // SAFETY: the kernel reads an int, which a u32 has the size of.
                Call::StreamOn(kind) => unsafe { Ok(ioctl(&self.file, Setter::<STREAMON, u32>::new(kind))?) },
                // SAFETY: as above.
                Call::StreamOff(kind) => unsafe {
                    Ok(ioctl(&self.file, Setter::<STREAMOFF, u32>::new(kind))?)
                },
            }
        }

        fn map(&mut self, offset: u32, bytes: usize) -> io::Result<()> {
            // SAFETY: the kernel chooses a free place, so no memory of ours is replaced. It refuses what is no buffer
            // of this device, or larger than it.
            let start = unsafe {
                mmap(
                    ptr::null_mut(),
                    bytes,
                    ProtFlags::READ,
                    MapFlags::SHARED,
                    &self.file,
                    u64::from(offset),
                )?
            };
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            self.mapped.push(Mapped { start, bytes });
            Ok(())
        }

        fn buffer(&self, index: usize) -> Option<&[u8]> {
            let mapped = self.mapped.get(index)?;
            // SAFETY: `map` made this mapping of so many bytes, and it lasts as long as `self`. The driver writes only
            // into buffers of its queue, and callers ask only for those that they have taken from it.
            Some(unsafe { std::slice::from_raw_parts(mapped.start.as_ptr(), mapped.bytes) })
        }

        fn wait(&mut self, most: Duration) -> io::Result<bool> {
            let most = Timespec::try_from(most).map_err(io::Error::other)?;
            // An error (POLLERR) is fetched like a frame.
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&most)) {
                Ok(n) => Ok(n > 0),
                Err(Errno::INTR) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        fn monotonic(&self) -> Duration {
            let now = clock_gettime(ClockId::Monotonic);
            Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec as u32)
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: `map` made this mapping; it is removed once, and no slice of it outlives its `Node`.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}
