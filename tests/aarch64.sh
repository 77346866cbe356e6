#!/usr/bin/env bash
# Builds the tests of the kernels for 64-bit Arm and runs them in emulation on three CPUs, one for each set of NEON
# kernels; and one of the whole library, which holds a JPEG file's pixels, features and logits to numbers written down:
# every set must give the bits of plain Rust. `setup.sh` installs what this takes.
#
# Exit code 77: it is not here.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu ] &&
    command -v qemu-aarch64-static aarch64-linux-gnu-gcc > /dev/null; }; then
    echo "Debian's Rust for arm64, its cross compiler or qemu-user-static is not here"
    exit 77
fi

# Debian's toolchain, since rustup's may lack the target. Linked statically: emulated threads of a dynamic program hang.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO=/usr/bin/cargo
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_NET_OFFLINE=true
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR RUSTUP_TOOLCHAIN LD_LIBRARY_PATH

test_on() {
    echo "== $1: expects $2"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1" PALMTOP_EXPECT_ISAS="$2"
    local target=(--target aarch64-unknown-linux-gnu --target-dir target-aarch64)
    /usr/bin/cargo test --quiet -p palmtop-kernels --tests "${target[@]}"
    /usr/bin/cargo test --quiet -p palmtop --test jpeg "${target[@]}"
}

test_on cortex-a72 scalar,neon
test_on cortex-a76 scalar,neon,neon-dotprod
test_on max scalar,neon,neon-dotprod,neon-i8mm
