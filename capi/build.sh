#!/usr/bin/env bash
# Builds libpalmtop for C: header, static and shared library, pkg-config file, examples and licence, as a folder and a tarball.
#
#     capi/build.sh                            for this machine
#     capi/build.sh aarch64-unknown-linux-gnu  for another one
#     capi/build.sh aarch64-linux-android      the static library for Android; aarch64-apple-ios: for iOS (rustup target add)
#     PREFIX=/usr/local capi/build.sh          and installs it there
#
# What comes out is target/libpalmtop/libpalmtop-VERSION-TARGET{/,.tar.gz}; its size and what it depends on are printed.
#
# For aarch64 Linux this takes Debian's cross-building packages, as tests/aarch64.sh does (run it once: it installs them).
# Android's shared library takes the NDK's linker: CARGO_TARGET_AARCH64_LINUX_ANDROID_LINKER=.../aarch64-linux-android21-clang.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Programs linked with one of these run with all of the same number: palmtop_abi_version.
abi=$(sed -n 's/^#define PALMTOP_ABI_VERSION \([0-9]*\)u$/\1/p' capi/palmtop.h)
[ -n "$version" ] && [ -n "$abi" ] || { echo "the version cannot be read from Cargo.toml and palmtop.h" >&2; exit 1; }

cargo=cargo
kinds=(--crate-type staticlib --crate-type cdylib)
strip=strip
readelf=readelf
cc=cc
if [ "$target" = aarch64-unknown-linux-gnu ] && [ "$host" != "$target" ]; then
    cc=aarch64-linux-gnu-gcc
    strip=aarch64-linux-gnu-strip
    readelf=aarch64-linux-gnu-readelf
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cc
    if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
        # Debian's toolchain, since this one has no library for the target.
        [ -d /usr/lib/rustlib/$target ] && [ -x /usr/bin/cargo ] || {
            echo "there is no Rust library for $target: rustup target add $target, or run tests/aarch64.sh once" >&2
            exit 1
        }
        export RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
        cargo=/usr/bin/cargo
        unset RUSTUP_TOOLCHAIN
    fi
fi
case $target in
*-apple-ios* | *-linux-android)
    # Its linker comes with the system's own tools; the static library is linked by the app.
    [ -n "${CARGO_TARGET_AARCH64_LINUX_ANDROID_LINKER:-}" ] && [ "$target" = aarch64-linux-android ] || kinds=(--crate-type staticlib)
    strip=$(command -v llvm-strip || echo :)
    ;;
esac

folder=target/libpalmtop
linking=$folder/link-$target
mkdir -p "$linking"
linker_arguments=()
# What a program that links the static library links too.
system_libraries=
case $target in
*-linux-gnu)
    linker_arguments+=("-C" "link-arg=-Wl,-soname,libpalmtop.so.$abi")
    # The unwinder goes into the library, where Rust would link libgcc_s: then the C library is all that it depends on.
    ln -sf "$("$cc" -print-file-name=libgcc_eh.a)" "$linking/libgcc_s.a"
    linker_arguments+=("-C" "link-arg=-L$PWD/$linking" "-C" "link-arg=-Wl,-z,now,--as-needed,--gc-sections")
    # Nothing but the functions of palmtop.h is seen from outside.
    system_libraries="-lpthread -ldl -lm -lgcc_s"
    ;;
*-linux-android)
    linker_arguments+=("-C" "link-arg=-Wl,-soname,libpalmtop.so" "-C" "link-arg=-Wl,-z,max-page-size=16384")
    system_libraries="-ldl -llog -lunwind -lm"
    ;;
esac
"$cargo" rustc -p palmtop-capi --lib --profile capi --target "$target" --target-dir target/capi \
    "${kinds[@]}" -- "${linker_arguments[@]}"
built=target/capi/$target/capi

name=libpalmtop-$version-$target
out=$folder/$name
rm -rf "$out"
mkdir -p "$out/include" "$out/lib/pkgconfig" "$out/share/doc/palmtop/examples"
cp capi/palmtop.h "$out/include/"
cp LICENSE "$out/share/doc/palmtop/"
cp examples/c/*.c "$out/share/doc/palmtop/examples/"
cp "$built/libpalmtop_capi.a" "$out/lib/libpalmtop.a"
"$strip" --strip-debug "$out/lib/libpalmtop.a"
case $target in
*-apple-ios*) ;;
*-apple-*)
    cp "$built/libpalmtop_capi.dylib" "$out/lib/libpalmtop.dylib"
    ;;
*-linux-android)
    [ ${#kinds[@]} = 2 ] || cp "$built/libpalmtop_capi.so" "$out/lib/libpalmtop.so"
    ;;
*)
    cp "$built/libpalmtop_capi.so" "$out/lib/libpalmtop.so.$version"
    "$strip" --strip-unneeded "$out/lib/libpalmtop.so.$version"
    ln -s "libpalmtop.so.$version" "$out/lib/libpalmtop.so.$abi"
    ln -s "libpalmtop.so.$abi" "$out/lib/libpalmtop.so"
    ;;
esac
cat > "$out/lib/pkgconfig/palmtop.pc" <<PC
prefix=\${pcfiledir}/../..
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: palmtop
Description: asks PaliGemma about pictures, on the CPU
Version: $version
Cflags: -I\${includedir}
Libs: -L\${libdir} -lpalmtop
Libs.private: $system_libraries
PC
tar -C "$folder" --owner=0 --group=0 --numeric-owner --sort=name -czf "$folder/$name.tar.gz" "$name"

echo
echo "$folder/$name.tar.gz: $(stat -c %s "$folder/$name.tar.gz") bytes"
for library in "$out"/lib/libpalmtop.{a,so.$version,dylib}; do
    [ -e "$library" ] && echo "$library: $(stat -c %s "$library") bytes"
done
if [ -e "$out/lib/libpalmtop.so.$version" ]; then
    echo "the shared library needs:"
    "$readelf" -d "$out/lib/libpalmtop.so.$version" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/    \1/p'
fi
if [ -n "${PREFIX:-}" ]; then
    mkdir -p "$PREFIX"
    cp -a "$out/include" "$out/lib" "$out/share" "$PREFIX/"
    echo "installed in $PREFIX"
fi
