# shellcheck shell=bash disable=SC2154
# The parts of release/test.

# Most bytes of a program, which docs/releasing.md states.
program_bytes_max=23000000

test_program() {
    local arch program emulator cpu
    (cd "$out" && sha256sum --quiet --check SHA256SUMS)
    ok "sums"
    for arch in x86_64 aarch64; do
        if [ ! -e "$out/palmtop-$version-$arch-unknown-linux-musl.tar.gz" ]; then
            skip "the program for $arch: it was not built"
            continue
        fi
        rm -rf "$work/$arch" && mkdir -p "$work/$arch"
        tar -xf "$out/palmtop-$version-$arch-unknown-linux-musl.tar.gz" -C "$work/$arch" --strip-components 1
        program=$work/$arch/palmtop
        python3 release/look.py program "$program" "$program_bytes_max" "$PWD" "${CARGO_HOME:-$HOME/.cargo}"
        ok "$arch: static, no paths of this machine, $(stat -c %s "$program") bytes"
        test -s "$work/$arch/man1/palmtop-serve.1" && grep -q 'complete -F' "$work/$arch/completions/palmtop.bash"
        grep -q "The MIT License\|MIT License" "$work/$arch/THIRD-PARTY.txt"
        python3 release/look.py bill "$out/palmtop-$version-$arch-unknown-linux-musl.cdx.json"
        ok "$arch: manual, completions, licences, bill of materials"
        if ! emulator=$(runner "$arch"); then
            skip "the program for $arch: nothing here runs it (Debian: qemu-user-static)"
            continue
        fi
        for cpu in $([ -z "$emulator" ] && echo "" || echo "cortex-a72 max"); do
            captions "$(QEMU_CPU=$cpu $emulator "$program" caption --quiet "$picture")"
        done
        [ -n "$emulator" ] || captions "$("$program" caption --quiet "$picture")"
        $emulator "$program" --version --verbose > "$work/said"
        grep -qx "version: $version" "$work/said" && grep -qx "target: $arch-unknown-linux-musl" "$work/said" &&
            grep -qx "commit: ${PALMTOP_COMMIT:-unknown}" "$work/said" || { cat "$work/said"; fail "it does not say what it is"; }
        ok "$arch: captions, and says what it is"
    done
}

# What a container has: the program, and nothing else.
test_container() {
    if ! is_root; then
        skip "the program alone in a root: only root may change it"
        return
    fi
    local root=$work/scratch
    rm -rf "$root" && mkdir -p "$root"
    cp "$work/x86_64/palmtop" "$root/palmtop"
    captions "$(chroot --userspec=1000:1000 "$root" /palmtop caption --quiet - < "$picture")"
    ok "the program alone in a root, as user 1000"
    local tool
    tool=$(command -v podman || command -v buildah || command -v docker) && "$tool" info > /dev/null 2>&1 || {
        skip "building the image: there is no podman, buildah or docker that works"
        return
    }
    mkdir -p "$work/image" && cp "$work/x86_64/palmtop" LICENSE "$work/image/"
    check "$tool" build -f release/container/Containerfile --build-arg PROGRAM=palmtop -t palmtop-test "$work/image"
    captions "$("$tool" run --rm -i palmtop-test caption --quiet - < "$picture")"
    ok "the image"
}

debian=http://deb.debian.org/debian
suite=bookworm

test_deb() {
    local package=$out/palmtop_${version}_amd64.deb arm=$out/palmtop_${version}_arm64.deb root=$work/debian emulator
    if [ ! -e "$arm" ]; then
        skip "the package for arm64: it was not built"
    elif emulator=$(runner aarch64); then
        rm -rf "$work/arm64" && dpkg-deb -x "$arm" "$work/arm64"
        captions "$($emulator "$work/arm64/usr/bin/palmtop" caption --quiet "$work/arm64/usr/share/doc/palmtop/examples/scene.png")"
        ok "arm64: unpacked, captions"
    else
        skip "the package for arm64: nothing here runs it (Debian: qemu-user-static)"
    fi
    if ! { is_root && has debootstrap; }; then
        skip "installing the package: takes root and debootstrap"
        return
    fi
    if [ ! -e "$root.done" ]; then
        rm -rf "$root"
        check debootstrap --variant=minbase --include=systemd "$suite" "$root" "$debian"
        touch "$root.done"
    fi
    inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
    cp "$package" demo/street.mjpeg "$root/tmp/"
    inside dpkg -P palmtop > /dev/null 2>&1 || true
    check inside dpkg -i "/tmp/$(basename "$package")"
    captions "$(inside palmtop caption --quiet /usr/share/doc/palmtop/examples/scene.png)"
    ok "amd64: installed in a fresh $suite, captions"
    [ "$(inside id -nG palmtop)" = "palmtop video" ] && [ "$(inside stat -c %a /etc/palmtop/watch.toml)" = 644 ] ||
        fail "the user or the configuration is not as it should be"
    [ "$(inside systemctl is-enabled palmtop-watch.service palmtop-serve.service palmtop-serve.socket 2>&1 | sort -u)" = disabled ] ||
        fail "a service is enabled"
    ok "its user, its configuration, services that are off"

    check inside systemd-analyze verify --man=no /usr/lib/systemd/system/palmtop-{watch.service,serve.service,serve.socket}
    [ ! -s "$work/said" ] || { cat "$work/said"; fail "systemd-analyze verify says something"; }
    local unit
    for unit in palmtop-watch palmtop-serve; do
        check inside systemd-analyze security --offline=yes --threshold=25 --no-pager "$unit.service"
        ok "$unit: verified, $(tail -1 "$work/said" | sed 's/^[^A-Za-z]*//')"
    done

    # The configuration, with a film in place of the camera, as the service's user.
    sed 's|/dev/video0|/tmp/street.mjpeg|; s|"person"|"bus", "car"|' "$root/etc/palmtop/watch.toml" > "$root/tmp/watch.toml"
    chroot --userspec=palmtop:palmtop "$root" /usr/bin/palmtop watch --json --config /tmp/watch.toml > "$work/said" 2> "$work/notes" ||
        { cat "$work/notes"; fail "the configuration cannot be used"; }
    grep -q '"record":"event"' "$work/said" || fail "nothing happens in the film"
    ok "the configuration"

    echo "# mine" >> "$root/etc/palmtop/watch.toml"
    mkdir -p "$root/var/lib/palmtop/models"
    check inside dpkg -i "/tmp/$(basename "$package")"
    check inside dpkg -r palmtop
    grep -qx "# mine" "$root/etc/palmtop/watch.toml" || fail "the user's configuration is gone"
    check inside dpkg -P palmtop
    [ ! -e "$root/etc/palmtop" ] && [ ! -e "$root/usr/bin/palmtop" ] && [ -d "$root/var/lib/palmtop/models" ] ||
        fail "purged, but not right"
    rm -rf "$root/var/lib/palmtop"
    ok "again, removed, purged: the user's models stay, nothing else"
}

# A wheel that answers: PYTHON, with numpy and the package.
wheel_captions() {
    captions "$("$@" -c "
import sys, palmtop
session = palmtop.Model.demo().session(threads=1)
print(session.answer(session.encode(sys.argv[1]), 'caption en').text)" "$picture")"
}

test_wheel() {
    local name wheel venv=$work/venv emulator
    for name in manylinux2014_x86_64.manylinux_2_17_x86_64 manylinux2014_aarch64.manylinux_2_17_aarch64 \
        musllinux_1_2_x86_64 musllinux_1_2_aarch64; do
        wheel=$out/palmtop-$version-cp39-abi3-$name.whl
        if [ ! -e "$wheel" ]; then
            skip "the wheel for $name: it was not built"
            continue
        fi
        python3 release/look.py wheel "$wheel"
        ok "$name: $(stat -c %s "$wheel") bytes, licences, stubs, the symbols that it may use"
    done
    rm -rf "$venv" && python3 -m venv "$venv"
    wheel=$out/palmtop-$version-cp39-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl
    check "$venv/bin/pip" install --quiet "$wheel" mypy auditwheel
    wheel_captions "$venv/bin/python3"
    check "$venv/bin/python3" python/tests/test_stubs.py "$venv"/lib/python3*/site-packages/palmtop/_palmtop.pyi
    check "$venv/bin/stubtest" palmtop
    check "$venv/bin/mypy" --strict -c "import palmtop; print(palmtop.Model.demo().session().answers)"
    ok "x86_64: installed in a fresh environment, captions; mypy agrees with the stubs"
    # On Debian auditwheel cannot read what is linked with musl.
    for name in "$out"/*manylinux*.whl; do
        check "$venv/bin/auditwheel" show "$name"
        grep -q "is consistent with" "$work/said" && grep -q "linux_" "$work/said" || { cat "$work/said"; fail "$name"; }
    done
    ok "auditwheel agrees with the names of those for glibc"
    skip "running a wheel for musl: no Python of musl is at hand"

    wheel=$out/palmtop-$version-cp39-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.whl
    if ! emulator=$(runner aarch64) || ! has debootstrap || ! is_root || [ ! -e "$wheel" ]; then
        skip "using the wheel for aarch64: takes root, debootstrap, qemu-user-static and the wheel"
        return
    fi
    local root=$work/arm64-python
    if [ ! -e "$root.done" ]; then
        rm -rf "$root"
        check debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,python3-numpy "$suite" "$root" "$debian"
        for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
        # Its alternatives are what the second stage would have set up.
        for library in blas lapack; do
            ln -sf "$library/lib$library.so.3" "$root/usr/lib/aarch64-linux-gnu/lib$library.so.3"
        done
        touch "$root.done"
    fi
    rm -rf "$work/unzipped"
    python3 -m zipfile -e "$wheel" "$work/unzipped"
    PYTHONPATH=$work/unzipped wheel_captions "$emulator" -L "$root" "$root/usr/bin/python3"
    ok "aarch64: unpacked beside Debian's Python, captions"
}

test_sdist() {
    local venv=$work/venv-sdist sources=$out/palmtop-$version.tar.gz
    rm -rf "$venv" && python3 -m venv "$venv"
    # Without Rust it says so, in words.
    if PATH=$venv/bin:/usr/sbin:/sbin:$work/few "$venv/bin/pip" install "$sources" > "$work/said" 2>&1; then
        fail "it installs without Rust"
    fi
    grep -q "there is no Rust compiler" "$work/said" && grep -q "https://rustup.rs" "$work/said" || { cat "$work/said"; fail "what is missing is not said"; }
    ok "without Rust it says what is missing"
    check env CARGO_TARGET_DIR="$target/python-host" "$venv/bin/pip" install "$sources"
    wheel_captions "$venv/bin/python3"
    ok "installed from the sources, captions"
}

test_phones() {
    local part rc
    for part in android ios; do
        rc=0
        "release/phones/$part.sh" > "$work/said" 2>&1 || rc=$?
        case $rc in
        0) ok "$part" ;;
        77) skip "$part: $(tail -1 "$work/said")" ;;
        *) tail -20 "$work/said"; fail "$part" ;;
        esac
    done
}

# The same bytes from another folder.
test_same() {
    if ! git diff --quiet HEAD; then
        skip "a second build: files differ from the commit"
        return
    fi
    local other=$work/elsewhere file
    rm -rf "$other" && mkdir -p "$other/another-and-longer-name"
    git archive HEAD | tar -xf - -C "$other/another-and-longer-name"
    (cd "$other/another-and-longer-name" && release/build --only program,deb x86_64) > "$work/said" 2>&1 || { tail -20 "$work/said"; fail "the second build"; }
    for file in palmtop-$version-x86_64-unknown-linux-musl.tar.gz palmtop_${version}_amd64.deb \
        palmtop-$version-x86_64-unknown-linux-musl.cdx.json; do
        cmp "$out/$file" "$other/another-and-longer-name/target/release-build/palmtop-$version/$file"
    done
    rm -rf "$other"
    ok "two builds, the same bytes"
}
