#!/usr/bin/env python3
"""Watches demo/street.mjpeg in several ways, and prints the table of docs/watch.md: what is saved, and what it costs.

    python3 demo/saves.py [--palmtop target/release/palmtop]

Needs only Python and the program (cargo build --release). Nothing is timed: all figures are counts, and the same on
every machine.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from score_events import score

HERE = pathlib.Path(__file__).parent
# What it is called, how often questions are asked at most, whether there is a pixel gate, a feature gate, and drafts.
WAYS = [
    ("every question about every picture", "0s", False, False, True),
    ("pixel gate", "0s", True, False, True),
    ("feature gate", "0s", False, True, True),
    ("both gates", "0s", True, True, True),
    ("every 0.7 s, no gate", "700ms", False, False, True),
    ("every 0.7 s, both gates", "700ms", True, True, True),
    ("the same without drafts", "700ms", True, True, False),
]


def configuration(every, pixels, features, drafts):
    text = (HERE / "street.toml").read_text()
    text = re.sub(r'(?m)^every = .*$', f'every = "{every}"\ndraft_tokens = {8 if drafts else 0}', text, count=1)
    gate = f"\n[gate]\npixels = {str(pixels).lower()}\nfeatures = {str(features).lower()}\n"
    return text + gate


def watch(palmtop, text):
    """Records of a run, and the line of its counts."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [palmtop, "watch", "--config", file.name, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr}")
    counts = [line for line in done.stderr.splitlines() if " pictures (" in line]
    return done.stdout.splitlines(), counts[-1]


def number(pattern, text):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    program = HERE.parent / "target/release/palmtop"
    parser.add_argument("--palmtop", type=pathlib.Path, default=program, help="the program")
    args = parser.parse_args()
    truth = json.loads((HERE / "street.json").read_text())
    print("| | pictures encoded | decoder runs | of all | tokens | from drafts | precision | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    most = None
    for name, *way in WAYS:
        lines, counts = watch(args.palmtop.resolve(), configuration(*way))
        found = score(lines, truth)
        runs = number(r"(\d+) answers", counts)
        most = most or runs
        share = f"{100 * runs / most:.1f} %"
        tokens, drafts = number(r"(\d+) tokens", counts), number(r"(\d+) % from drafts", counts)
        encoded = number(r"(\d+) encoded", counts)
        precision, recall = f"{found['precision']:.3f}", f"{found['recall']:.3f}"
        print(f"| {name} | {encoded} | {runs} | {share} | {tokens} | {drafts} % | {precision} | {recall} |", flush=True)
        for sentence in found["wrong"]:
            print(f"{name}: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
