#!/usr/bin/env bash
# The package for Debian, Ubuntu and Raspberry Pi OS, of a program that release/program.sh has built:
#
#     release/deb.sh x86_64
#
# It holds the program, manual pages, completions of three shells, the services with their user and configuration, and
# docs. `dpkg-deb` alone packs it: there is nothing to find out, since the program needs no library.
cd "$(dirname "$0")/.."
. release/common.sh
arch=$1
name_commit
has dpkg-deb || fail "dpkg-deb is missing (Debian: dpkg)"
program=$(program_of "$arch")
[ -x "$program" ] || fail "$program is not there: release/program.sh $arch"

# Pages and completions are made once and are in every archive.
pages=$target/pages
[ -d "$pages/man1" ] || fail "$pages is not there: release/pages.sh"

architecture=$(debian_arch "$arch")
root=$target/deb-$architecture
rm -rf "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
compress() { gzip -9n < "$1" | install -D -m 644 /dev/stdin "$root/$2"; }

put 755 "$program" usr/bin/palmtop
for page in "$pages"/man1/*; do compress "$page" "usr/share/man/man1/$(basename "$page").gz"; done
put 644 "$pages/completions/palmtop.bash" usr/share/bash-completion/completions/palmtop
put 644 "$pages/completions/_palmtop" usr/share/zsh/vendor-completions/_palmtop
put 644 "$pages/completions/palmtop.fish" usr/share/fish/vendor_completions.d/palmtop.fish
for unit in palmtop-watch.service palmtop-serve.service palmtop-serve.socket; do
    put 644 "release/deb/$unit" "usr/lib/systemd/system/$unit"
done
put 644 release/deb/sysusers.conf usr/lib/sysusers.d/palmtop.conf
put 644 release/deb/watch.toml etc/palmtop/watch.toml
put 644 release/deb/environment etc/palmtop/environment
for page in docs/*.md; do put 644 "$page" "usr/share/doc/palmtop/$(basename "$page")"; done
put 644 demo/scene.png usr/share/doc/palmtop/examples/scene.png
compress CHANGELOG.md usr/share/doc/palmtop/changelog.gz
compress "$target/$arch/THIRD-PARTY.txt" usr/share/doc/palmtop/THIRD-PARTY.gz
# Empty lines of a text are a dot there.
sed 's/^$/./; s/^/ /' present/assets/DejaVuSans-LICENSE.txt > "$target/dejavu"
sed -e "/@DEJAVU@/{r $target/dejavu" -e 'd}' release/deb/copyright.in |
    install -D -m 644 /dev/stdin "$root/usr/share/doc/palmtop/copyright"

install -d -m 755 "$root/DEBIAN"
install -m 755 release/deb/postinst release/deb/prerm release/deb/postrm "$root/DEBIAN/"
printf '/etc/palmtop/environment\n/etc/palmtop/watch.toml\n' > "$root/DEBIAN/conffiles"
(cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
size=$(find "$root/etc" "$root/usr" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
cat > "$root/DEBIAN/control" <<CONTROL
Package: palmtop
Version: $version
Architecture: $architecture
Maintainer: ${PALMTOP_MAINTAINER:-the authors of palmtop <palmtop@palmtop.example>}
Installed-Size: $size
Pre-Depends: passwd
Suggests: ffmpeg, rpicam-apps
Section: graphics
Priority: optional
Description: asks PaliGemma about pictures, on small CPUs
 Captions, answers, text, boxes and masks of pictures and cameras from Google's
 PaliGemma 1 and 2, on the CPU alone. The package has one program, and services
 that watch cameras (palmtop-watch) and answer over HTTP (palmtop-serve). They
 are off until they are enabled.
 .
 A small model of emoji and words is inside; the weights of PaliGemma are
 fetched from where Google publishes them.
CONTROL
find "$root" -type d -exec chmod 755 {} +
mkdir -p "$out"
dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$out/palmtop_${version}_$architecture.deb"
