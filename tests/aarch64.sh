#!/usr/bin/env bash
# Builds the tests of the kernels for 64-bit Arm and runs them in emulation on three CPUs, one for each set of NEON kernels:
# every set must give the bits of plain Rust. Needs Debian's packages below; as root it installs what is missing.
#
# Exit code 77: this system cannot have what is needed, and why is said.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)

skip() {
    echo "cannot test for aarch64: $1"
    exit 77
}

complete() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu ] &&
        command -v qemu-aarch64-static aarch64-linux-gnu-gcc > /dev/null
}

if ! complete; then
    command -v apt-get > /dev/null || skip "the packages ${packages[*]} are Debian's, and this is not Debian"
    [ "$(id -u)" = 0 ] || skip "install ${packages[*]} (dpkg --add-architecture arm64), or run this as root"
    dpkg --add-architecture arm64
    {
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}"
    } > /dev/null 2>&1 || skip "apt-get could not install ${packages[*]}"
    complete || skip "the packages are installed, but something is still missing"
fi

# Debian's toolchain, since rustup's may lack the target. Linked statically: emulated threads of a dynamic program hang.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO=/usr/bin/cargo
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR RUSTUP_TOOLCHAIN LD_LIBRARY_PATH

test_on() {
    echo "== $1: expects $2"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1" PALMTOP_EXPECT_ISAS="$2" \
        /usr/bin/cargo test --quiet -p palmtop-kernels --tests \
        --target aarch64-unknown-linux-gnu --target-dir target-aarch64
}

test_on cortex-a72 scalar,neon
test_on cortex-a76 scalar,neon,neon-dotprod
test_on max scalar,neon,neon-dotprod,neon-i8mm
