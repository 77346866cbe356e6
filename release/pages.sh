#!/usr/bin/env bash
# Manual pages and completions, by a program that runs here: release/pages.sh x86_64
cd "$(dirname "$0")/.."
. release/common.sh
arch=$1
program=$(program_of "$arch")
emulator=$(runner "$arch") || fail "nothing here runs programs for $arch (Debian: qemu-user-static)"
pages=$target/pages
rm -rf "$pages"
mkdir -p "$pages/man1" "$pages/completions"
$emulator "$program" man "$pages/man1"
$emulator "$program" completions bash > "$pages/completions/palmtop.bash"
$emulator "$program" completions zsh > "$pages/completions/_palmtop"
$emulator "$program" completions fish > "$pages/completions/palmtop.fish"
