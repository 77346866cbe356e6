#!/usr/bin/env bash
# Installs clang with its sanitizers, and valgrind, which the tests of the C library use beside gcc: on Debian and as root, as far as
# they are missing. Elsewhere, or if it fails, nothing happens, and the tests say what they skip.
set -euo pipefail

missing=()
echo 'int main(void) { return 0; }' | clang -fsanitize=address,undefined -x c - -o /dev/null 2> /dev/null ||
    missing+=(clang libclang-rt-dev)
command -v valgrind > /dev/null || missing+=(valgrind)

[ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || exit 0
{
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}"
} > /dev/null 2>&1 || true
