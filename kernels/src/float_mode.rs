//! The floating-point mode of a thread: which way results are rounded, and whether subnormal numbers count as zero.
//!
//! Rust code, and so every kernel, takes it for granted that results are rounded to nearest even, that subnormal
//! numbers are numbers, and that no operation traps. Programs in other languages may have set something else on the
//! thread that calls (audio hosts flush subnormal numbers to zero), and threads inherit the mode of the one that starts
//! them.

use std::marker::PhantomData;

/// While it lives, this thread computes in the default mode; then the mode before is restored.
///
/// Hold it wherever another language calls, and on threads that it may have started; nest it around callbacks, which
/// may leave another mode behind. On architectures other than x86-64 and aarch64 it does nothing.
#[must_use = "the mode before is restored when it is dropped"]
#[derive(Debug)]
pub struct DefaultFloatMode {
    before: Mode,
    /// A thread's own.
    not_send: PhantomData<*const ()>,
}

impl DefaultFloatMode {
    /// Sets the default mode for this thread.
    #[inline]
    pub fn enter() -> Self {
        let before = read();
        if before != DEFAULT {
            write(DEFAULT);
        }
        Self { before, not_send: PhantomData }
    }
}

impl Drop for DefaultFloatMode {
    #[inline]
    fn drop(&mut self) {
        write(self.before);
    }
}

/// The control and status register of SSE and AVX.
#[cfg(all(target_arch = "x86_64", not(miri)))]
type Mode = u32;
/// No exception has been seen, and none traps; to nearest even; subnormal numbers are read and written as they are.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const DEFAULT: Mode = 0x1F80;

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn read() -> Mode {
    let mut mode = 0;
    // SAFETY: four bytes are written to a `u32`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut mode, options(nostack, preserves_flags)) };
    mode
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn write(mode: Mode) {
    // SAFETY: four bytes are read from a `u32`, which is the default or has come from this register, so that no reserved bit is
    // set. Compiled code counts on the default mode; only that of `DefaultFloatMode`'s owner, which has come here in `mode`, runs
    // in another.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &mode, options(nostack, preserves_flags)) };
}

/// The floating-point control register.
#[cfg(all(target_arch = "aarch64", not(miri)))]
type Mode = u64;
/// Nothing traps; to nearest even; subnormal numbers are read and written as they are.
#[cfg(all(target_arch = "aarch64", not(miri)))]
const DEFAULT: Mode = 0;

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
fn read() -> Mode {
    let mode;
    // SAFETY: a register is read that every program may read.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) mode, options(nomem, nostack, preserves_flags)) };
    mode
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
fn write(mode: Mode) {
    // SAFETY: a register is written that every program may write, with the default or what has come from it. Not `nomem`, so
    // that no operation is moved across. Compiled code counts on the default mode; only that of `DefaultFloatMode`'s owner, which
    // has come here in `mode`, runs in another.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) mode, options(nostack, preserves_flags)) };
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
type Mode = ();
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
const DEFAULT: Mode = ();
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn read() -> Mode {}
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn write(_: Mode) {}

#[cfg(all(test, not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// Flushes to zero, reads subnormal numbers as zeros, and rounds up.
    #[cfg(target_arch = "x86_64")]
    const STRANGE: Mode = DEFAULT | 1 << 15 | 1 << 6 | 0b10 << 13;
    #[cfg(target_arch = "aarch64")]
    const STRANGE: Mode = 1 << 24 | 0b01 << 22;

    /// What the mode makes of a subnormal number and of a sum that is not exact. Computed by instructions that no
    /// compiler knows, since it may take the default mode for granted.
    fn computed() -> (f32, f32) {
        let (mut half, mut sum) = (f32::MIN_POSITIVE, 1.0f32);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: registers only.
        unsafe {
            std::arch::asm!("mulss {0}, {1}", inout(xmm_reg) half, in(xmm_reg) 0.5f32, options(nomem, nostack));
            std::arch::asm!("addss {0}, {1}", inout(xmm_reg) sum, in(xmm_reg) 1e-9f32, options(nomem, nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: registers only.
        unsafe {
            std::arch::asm!("fmul {0:s}, {0:s}, {1:s}", inout(vreg) half, in(vreg) 0.5f32, options(nomem, nostack));
            std::arch::asm!("fadd {0:s}, {0:s}, {1:s}", inout(vreg) sum, in(vreg) 1e-9f32, options(nomem, nostack));
        }
        (half, sum)
    }

    #[test]
    fn the_mode_is_the_default_inside_and_what_it_was_outside() {
        let plain = (f32::MIN_POSITIVE / 2.0, 1.0);
        assert_eq!(computed(), plain);
        let outside = DefaultFloatMode::enter();
        write(STRANGE);
        let strange = computed();
        let inside = {
            let _mode = DefaultFloatMode::enter();
            let first = computed();
            // A callback that leaves its own mode behind.
            {
                let _mode = DefaultFloatMode::enter();
                write(STRANGE);
            }
            (first, computed())
        };
        let (mode, after) = (read(), computed());
        drop(outside);
        assert_eq!(strange, (0.0, 1.0f32.next_up()), "the mode makes a difference");
        assert_eq!(inside, (plain, plain));
        assert_eq!(after, strange);
        // What has happened meanwhile may be noted beside the mode.
        assert_eq!(mode & STRANGE, STRANGE);
        assert_eq!(computed(), plain);
    }
}
