#!/usr/bin/env bash
# palmtop for iOS: Palmtop.xcframework, for devices and for simulators on Apple's own processors. It takes a Mac with Xcode:
#
#     release/phones/ios.sh
#
# Elsewhere it builds the static libraries, which take nothing of Apple's, says so, and ends with 77. `mobile/README.md`
# says how an app takes the framework.
cd "$(dirname "$0")/../.."
. release/common.sh
name_commit

libraries=()
for triple in aarch64-apple-ios aarch64-apple-ios-sim; do
    stage "libpalmtop.a for $triple"
    if ! need_std "$triple"; then
        echo "Rust's standard library for $triple is missing: rustup target add $triple"
        continue
    fi
    RUSTFLAGS=$(remaps) capi/build.sh "$triple"
    folder=target/libpalmtop/libpalmtop-$version-$triple
    # Swift finds the C functions by the name of this module.
    cat > "$folder/include/module.modulemap" <<'MAP'
module CPalmtop {
    header "palmtop.h"
    export *
}
MAP
    libraries+=(-library "$folder/lib/libpalmtop.a" -headers "$folder/include")
done

if ! has xcodebuild; then
    echo "Xcode is not here: the static libraries are built, the framework is not"
    exit 77
fi
stage "the framework"
mkdir -p "$out"
rm -rf "$target/Palmtop.xcframework"
xcodebuild -create-xcframework "${libraries[@]}" -output "$target/Palmtop.xcframework"
release/notices.sh palmtop-capi aarch64-apple-ios "$target/Palmtop.xcframework/THIRD-PARTY.txt"
cp LICENSE "$target/Palmtop.xcframework/LICENSE"
python3 release/phones/zip.py "$out/Palmtop-$version.xcframework.zip" "$target/Palmtop.xcframework"
