#!/usr/bin/env python3
"""From exec to the first token: starts the program again and again with one new token, and times until it prints it.

    python3 benches/start.py [--palmtop target/release/palmtop] [--runs 40] [-- caption demo/scene.png -m demo]

Prints the median, the middle half and the range of all runs but the first, and of the same time the program's own parts:
what it took before it looked at the picture, and from then on, by its timings (docs/json.md). What is compared with it are
runs of the same minute: `--palmtop` may be given several times, and the programs take turns.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANSWER = ["caption", str(ROOT / "demo/scene.png"), "-m", "demo"]
PARTS = ["decode_image_ms", "encode_ms", "prefill_ms"]


def run(palmtop, answer):
    """Milliseconds until the first byte is there, and the line that was printed."""
    reads, writes = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    files = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, writes, 1), (os.POSIX_SPAWN_DUP2, nothing, 2)]
    command = [palmtop, *answer, "--max-new-tokens", "1", "--json"]
    start = time.perf_counter()
    child = os.posix_spawn(palmtop, command, os.environ, file_actions=files)
    os.close(writes)
    os.close(nothing)
    said = os.read(reads, 1 << 16)
    took = 1000 * (time.perf_counter() - start)
    while more := os.read(reads, 1 << 16):
        said += more
    os.close(reads)
    _, status = os.waitpid(child, 0)
    if status or not said:
        sys.exit(f"failed: {' '.join(command)}")
    return took, json.loads(said.splitlines()[0])


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:6.1f} ms ({low:.1f} to {high:.1f}; all {min(values):.1f} to {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--palmtop", action="append", help="the program; several take turns")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("answer", nargs="*", default=ANSWER, help="what is asked, behind --")
    given = parser.parse_args()
    programs = given.palmtop or [str(ROOT / "target/release/palmtop")]
    runs = {program: [] for program in programs}
    for _ in range(given.runs + 1):
        for program in programs:
            runs[program].append(run(program, given.answer))
    for program, (_, *timed) in runs.items():
        print(f"{program}, {len(timed)} runs")
        print(f"  exec to the first token  {spread([took for took, _ in timed])}")
        parts = [[line["timings"][part] for _, line in timed] for part in PARTS]
        before = [took - sum(line["timings"][part] for part in PARTS) for took, line in timed]
        for name, values in zip(["before the picture", "decoding it", "encoding it", "prefill"], [before, *parts]):
            print(f"    {name:22} {spread(values)}")


if __name__ == "__main__":
    main()
