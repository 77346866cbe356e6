#!/usr/bin/env bash
# The Python package: wheels for glibc (2.17 and newer: manylinux) and musl (musllinux), each for any Python from 3.9 on,
# and the sources.
#
#     release/python.sh x86_64
#     release/python.sh sdist
#
# Both are made of a copy of the sources that has the licences of others beside it. zig links, against the symbols of the
# old glibc.
cd "$(dirname "$0")/.."
. release/common.sh
what=$1
name_commit
fetch_tools
export PATH=$tools/venv/bin:$PATH

sources=$target/python-sources
rm -rf "$sources"
mkdir -p "$sources" "$out"
if is_checkout; then
    git ls-files -z --cached | tar --null --files-from - -cf - | tar -xf - -C "$sources"
else
    tar --exclude=./target --exclude=./shared -cf - . | tar -xf - -C "$sources"
fi
cp LICENSE "$sources/python/LICENSE"
release/notices.sh palmtop-python x86_64-unknown-linux-musl "$sources/python/THIRD-PARTY.txt"
sed -i '/^license = /a license-files = ["LICENSE", "THIRD-PARTY.txt"]' "$sources/python/pyproject.toml"

unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
wheel() {
    local triple=$1 compatibility=$2 flags
    need_std "$triple" || fail "Rust's standard library for $triple is missing: rustup target add $triple"
    flags="--remap-path-prefix=$sources=/palmtop $(remaps)"
    [[ $triple != *-musl ]] || flags+=" -C target-feature=-crt-static"
    release/notices.sh palmtop-python "$triple" /dev/null "$sources/python/palmtop.cdx.json"
    local upper=${triple//-/_}
    (
        export "CARGO_TARGET_${upper^^}_RUSTFLAGS=$flags" CARGO_TARGET_DIR=$target/python
        cd "$sources/python"
        maturin build --quiet --locked --zig --target "$triple" --compatibility "$compatibility" --out "$out" \
            --sbom-include palmtop.cdx.json
    )
}

case $what in
sdist)
    # maturin takes what the crates and the package have; the model that is part of them lies beside.
    unpacked=$target/python-sdist
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    (cd "$sources/python" && maturin sdist --out "$unpacked")
    (cd "$unpacked" && tar -xf "palmtop-$version.tar.gz")
    install -D -m 644 demo/demo.palm "$unpacked/palmtop-$version/demo/demo.palm"
    # Of the tests only the manifest is needed, since cargo reads those of all members.
    rm -rf "$unpacked/palmtop-$version/tests/data"
    (cd "$unpacked" && pack "$out/palmtop-$version.tar.gz" "palmtop-$version")
    ;;
*)
    wheel "$what-unknown-linux-gnu" manylinux2014
    wheel "$what-unknown-linux-musl" musllinux_1_2
    ;;
esac
