# shellcheck shell=bash
# What the scripts here share. To be sourced from the root of the sources.

set -euo pipefail

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || { echo "the version cannot be read from Cargo.toml" >&2; exit 1; }

# Where everything is built, and where what is given away lies in the end.
target=$PWD/${PALMTOP_RELEASE_TARGET:-target/release-build}
out=$target/palmtop-$version
tools=$target/tools

fail() { echo "error: $*" >&2; exit 1; }
stage() { echo; echo "== $*"; }
has() { command -v "$1" > /dev/null; }

# Whether git knows this very folder, and not one that it lies in.
is_checkout() { [ "$(git rev-parse --show-toplevel 2> /dev/null)" = "$(pwd -P)" ]; }

# The commit that is built, and its time: what else would be the time of the build is this one, so that two builds give
# the same bytes.
name_commit() {
    if is_checkout; then
        : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
        if [ -z "${PALMTOP_COMMIT:-}" ]; then
            PALMTOP_COMMIT=$(git rev-parse --short=12 HEAD)
            git diff --quiet HEAD || { PALMTOP_COMMIT+=-dirty; echo "note: files differ from the commit"; }
        fi
    fi
    [ -n "${SOURCE_DATE_EPOCH:-}" ] ||
        fail "this is no checkout of git: set SOURCE_DATE_EPOCH (seconds since 1970), and PALMTOP_COMMIT if it is known"
    export SOURCE_DATE_EPOCH PALMTOP_COMMIT=${PALMTOP_COMMIT:-}
    export TZ=UTC LC_ALL=C.UTF-8
    umask 022
}

# Compilers and packers of these versions exactly, from PyPI: `zig` compiles the little C that there is (`ring`) and
# links the wheels, for any Linux; `maturin` makes wheels.
zig_version=0.17.1
maturin_version=1.16.0

fetch_tools() {
    local venv=$tools/venv
    if [ "$(cat "$tools/versions" 2> /dev/null)" != "$zig_version $maturin_version" ]; then
        has python3 || fail "python3 is missing (Debian: python3 python3-venv)"
        rm -rf "$venv"
        python3 -m venv "$venv" || fail "python3 cannot make an environment (Debian: python3-venv)"
        "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
            "ziglang==$zig_version" "maturin==$maturin_version"
        echo "$zig_version $maturin_version" > "$tools/versions"
    fi
    zig_folder=$("$venv/bin/python3" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')
    export ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache ZIG_LOCAL_CACHE_DIR=$tools/zig-cache
    local arch
    for arch in x86_64 aarch64; do
        # The names that cargo's build scripts give to the target are not zig's.
        cat > "$tools/cc-$arch" <<SCRIPT
#!/usr/bin/env bash
arguments=()
for argument in "\$@"; do
    case \$argument in --target=*) ;; *) arguments+=("\$argument") ;; esac
done
exec "$zig_folder/zig" cc -target $arch-linux-musl -mcpu=$([ $arch = x86_64 ] && echo baseline || echo generic) "\${arguments[@]}"
SCRIPT
        chmod +x "$tools/cc-$arch"
    done
    printf '#!/usr/bin/env bash\nexec "%s/zig" ar "$@"\n' "$zig_folder" > "$tools/ar"
    chmod +x "$tools/ar"
}

# Rust's standard library for a target.
need_std() {
    local libraries
    libraries=$(rustc --print target-libdir --target "$1")
    compgen -G "$libraries/libstd-*" > /dev/null && return
    has rustup && rustup --quiet target add "$1" 2> /dev/null
    compgen -G "$libraries/libstd-*" > /dev/null
}

# Paths of this machine that rustc would write into what it makes.
remaps() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo}
    echo "--remap-path-prefix=$PWD=/palmtop --remap-path-prefix=$cargo_home=/cargo"
}

# pack ARCHIVE FOLDER…: with nothing in it of whoever packs, or when.
pack() {
    local archive=$1
    shift
    tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$@" |
        gzip -9n > "$archive"
}

debian_arch() { case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac; }

# The program for an architecture, which `release/program.sh` has built.
program_of() { echo "$target/$1-unknown-linux-musl/dist/palmtop"; }

# runner ARCH: what runs its programs here: nothing, or an emulator.
runner() { [ "$1" = "$(uname -m)" ] || command -v "qemu-$1-static" || command -v "qemu-$1"; }
