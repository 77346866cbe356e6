#!/usr/bin/env python3
"""Asks about demo/street.mjpeg, a picture every 0.7 s, with the last answer as a draft of the next one, and prints the
table of docs/performance.md: tokens, passes over the decoder, and time.

    python3 demo/drafts.py [--palmtop target/release/palmtop]

Needs only Python and the program (cargo build --release). *The same* are answers that are the last one again: a still
scene. Passes are those behind the prefill, which gives the first token and what of the draft follows it; without a draft
each gives one more, the last one the end. The command checks 8 tokens of a draft in a pass.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ["caption en", "ocr", "detect house ; tree", "detect car ; bus"]
SLIDE = ["--frames", "1", "--stride", "7", "--slide", "1"]


def answers(palmtop, prompt):
    """Tokens, passes and milliseconds of the passes, answer by answer."""
    command = [palmtop, "run", "-p", prompt, "demo/street.mjpeg", "-m", "demo", *SLIDE, "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr}")
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        took, each = answer["timings"]["decode_ms"], answer["timings"]["ms_per_token"]
        # What is called a token's time there is that of a pass.
        yield answer["tokens"], round(took / each) if each else 0, took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--palmtop", default=ROOT / "target/release/palmtop", help="the program")
    palmtop = pathlib.Path(parser.parse_args().palmtop).resolve()
    print("| question | answers | tokens | from the draft | passes | at most | time of the passes |")
    print("|---|---|---|---|---|---|---|")
    for prompt in PROMPTS:
        kinds, last = {True: [], False: []}, None
        for tokens, passes, took in answers(palmtop, prompt):
            if last is not None:
                kinds[tokens == last].append((len(tokens), passes, took))
            last = tokens
        for is_same, name in [(True, "the same"), (False, "others")]:
            if kind := kinds[is_same]:
                tokens, passes, took = (sum(column) / len(kind) for column in zip(*kind))
                accepted = 100 * (tokens - passes) / tokens if tokens else 0
                most = max(passes for _, passes, _ in kind)
                print(f"| `{prompt}`, {name} | {len(kind)} | {tokens:.1f} | {accepted:.0f} % | {passes:.2f} | {most} | {took:.2f} ms |")


if __name__ == "__main__":
    main()
