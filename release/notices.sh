#!/usr/bin/env bash
# What a package is made of, and the licences of others in it:
#
#     release/notices.sh PACKAGE TARGET THIRD-PARTY.txt [BILL.cdx.json]
cd "$(dirname "$0")/.."
. release/common.sh
name_commit
fetch_tools
package=$1 triple=$2
rust=$(rustc --version | cut -d ' ' -f 2)
# What is linked beside crates. The texts are those that zig brings of the same projects.
extras=(
    --extra "Rust's standard library $rust=MIT OR Apache-2.0"
    --extra "LLVM's libunwind=Apache-2.0 WITH LLVM-exception=$zig_folder/lib/libunwind/LICENSE.TXT"
)
[[ $triple == *-musl ]] && extras+=(--extra "musl=MIT=$zig_folder/lib/libc/musl/COPYRIGHT")
[ "$package" = palmtop-cli ] &&
    extras+=(--extra "DejaVu Sans Bold=Bitstream-Vera=present/assets/DejaVuSans-LICENSE.txt")
python3 release/bill.py "$package" "$triple" --notices "$3" ${4:+--bill "$4"} "${extras[@]}"
