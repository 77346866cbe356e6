#!/usr/bin/env bash
# The program for an architecture of Linux, static: release/program.sh x86_64
#
# The C library is musl, as Rust brings it; Rust's own linker links. Identical functions are folded: AVX-512 and AMX, for
# example, share all but their matrix products.
cd "$(dirname "$0")/.."
. release/common.sh
arch=$1
name_commit
fetch_tools

triple=$arch-unknown-linux-musl
need_std "$triple" || fail "Rust's standard library for $triple is missing: rustup target add $triple"
lower=${triple//-/_}
upper=${lower^^}
export "CC_$lower=$tools/cc-$arch" "AR_$lower=$tools/ar"
flags="-C linker=rust-lld -C linker-flavor=ld.lld -C link-self-contained=yes -C target-feature=+crt-static"
flags+=" -C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr -C link-arg=-O2"
export "CARGO_TARGET_${upper}_RUSTFLAGS=$flags $(remaps)"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_INCREMENTAL
cargo build --locked --profile dist -p palmtop-cli --target "$triple" --target-dir "$target"
