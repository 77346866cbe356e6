#!/usr/bin/env bash
# palmtop for Android: palmtop-VERSION.aar, for arm64-v8a and x86_64.
#
#     ANDROID_NDK_HOME=… release/phones/android.sh
#
# The archive has the class for Java and Kotlin, its native side linked with libpalmtop.a, and the rules by which shrinkers
# leave both alone. Kotlin's flows are sources (mobile/kotlin), as they need kotlinx-coroutines of the app's version.
#
# It takes a JDK, and Android's NDK for its linker and C library. Without the NDK it builds what it can, the static
# libraries and the class, says so, and ends with 77.
cd "$(dirname "$0")/../.."
. release/common.sh
name_commit

declare -A abis=([aarch64-linux-android]=arm64-v8a [x86_64-linux-android]=x86_64)
# Android 5.0, the oldest that the libraries' undefined symbols are in.
api=21
has javac || fail "a JDK is missing (Debian: default-jdk-headless)"

aar=$target/android
rm -rf "$aar"
mkdir -p "$aar/classes" "$aar/aar/jni" "$out"
stage "the class"
javac --release 8 -Xlint:-options -d "$aar/classes" mobile/java/dev/palmtop/Palmtop.java

for triple in aarch64-linux-android x86_64-linux-android; do
    stage "libpalmtop.a for ${abis[$triple]}"
    need_std "$triple" || fail "Rust's standard library for $triple is missing: rustup target add $triple"
    RUSTFLAGS=$(remaps) capi/build.sh "$triple"
done

if [ -z "${ANDROID_NDK_HOME:-}" ]; then
    echo "Android's NDK is not here (ANDROID_NDK_HOME): the static libraries and the class are built, the archive is not"
    exit 77
fi
bin=$(echo "$ANDROID_NDK_HOME"/toolchains/llvm/prebuilt/*/bin)
for triple in aarch64-linux-android x86_64-linux-android; do
    stage "libpalmtop_jni.so for ${abis[$triple]}"
    library=target/libpalmtop/libpalmtop-$version-$triple
    mkdir -p "$aar/aar/jni/${abis[$triple]}"
    # Pages of 16 KiB, which newer phones have.
    "$bin/$triple$api-clang" -shared -fPIC -O2 -I "$library/include" mobile/jni/palmtop_jni.c "$library/lib/libpalmtop.a" \
        -Wl,-soname,libpalmtop_jni.so -Wl,-z,max-page-size=16384 -Wl,--gc-sections -Wl,--exclude-libs,ALL \
        -ldl -llog -lm -o "$aar/aar/jni/${abis[$triple]}/libpalmtop_jni.so"
    "$bin/llvm-strip" --strip-unneeded "$aar/aar/jni/${abis[$triple]}/libpalmtop_jni.so"
done

stage "the archive"
cat > "$aar/aar/AndroidManifest.xml" <<XML
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="dev.palmtop">
    <uses-sdk android:minSdkVersion="$api" />
</manifest>
XML
: > "$aar/aar/R.txt"
echo "-keep class dev.palmtop.** { *; }" > "$aar/aar/proguard.txt"
mkdir -p "$aar/aar/META-INF"
cp LICENSE "$aar/aar/META-INF/LICENSE"
release/notices.sh palmtop-capi aarch64-linux-android "$aar/aar/META-INF/THIRD-PARTY.txt"
python3 release/phones/zip.py "$aar/aar/classes.jar" "$aar/classes"
python3 release/phones/zip.py "$out/palmtop-$version.aar" "$aar/aar"
