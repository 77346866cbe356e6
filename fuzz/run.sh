#!/bin/sh
# Runs the fuzz targets, each for so many seconds:
#
#     fuzz/run.sh SECONDS [TARGET...]
#
# It takes a nightly compiler and a C++ compiler, and nothing else. What is found stands in fuzz/artifacts; the corpus
# that has grown stays in fuzz/corpus, and both are ignored by git. Each target begins with fuzz/seeds. The exit code is
# 1 if anything was found. At the end there is a line for each target: runs, and places of the code that were reached.
set -eu
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
cd "$(dirname "$0")"
if [ $# -eq 0 ]; then
    set -- $(ls fuzz_targets | sed 's/\.rs$//')
fi

# What cargo-fuzz passes: counters and comparisons for libFuzzer, and AddressSanitizer.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
bins=$(for target; do printf ' --bin %s' "$target"; done)
cargo +nightly build --release --target "$host" $bins

failed=0
summary=
for target; do
    mkdir -p "corpus/$target" "artifacts/$target" "seeds/$target"
    log="artifacts/$target.log"
    # Memory per run is bounded, and so is its time: a hang is a finding.
    if "target/$host/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -artifact_prefix="artifacts/$target/" -print_final_stats=1 2>"$log"; then
        found=nothing
    else
        found="SOMETHING, see fuzz/$log"
        failed=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    reached=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    summary="$summary$(printf '%-18s %12s runs %8s places  found %s' "$target" "$runs" "$reached" "$found")
"
    printf '%s' "$summary" | tail -1
done
printf '\n%s' "$summary"
exit $failed
