#!/usr/bin/env python3
"""Converts a checkpoint in several ways, evaluates each beside f32, and prints docs/accuracy.md's table.

    python3 demo/accuracy.py CHECKPOINT --data heldout/DATA.jsonl --calibrate calibration/DATA.jsonl

Needs only Python and the program (cargo build --release). The examples of --calibrate must not be those of --data.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

TASKS = ["caption", "answer", "ocr", "detect", "segment"]
# What it is called, what convert is told, whether it is calibrated.
VARIANTS = [
    ("f32", ["--weights", "f32"], False),
    ("int8", ["--weights", "int8"], False),
    ("int4", ["--weights", "int4"], False),
    ("int4, calibrated", ["--weights", "int4"], True),
    ("int4, encoder too", ["--recipe", "int4,vision=int4,projector=int4"], False),
    ("int4, encoder too, calibrated", ["--recipe", "int4,vision=int4,projector=int4"], True),
    ("auto, 5.5 bits", ["--recipe", "auto", "--target-bits", "5.5"], True),
    ("auto, 6.0 bits", ["--recipe", "auto", "--target-bits", "6.0"], True),
    ("auto, 7.0 bits", ["--recipe", "auto", "--target-bits", "7.0"], True),
]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--data", required=True, help="what to evaluate on")
    parser.add_argument("--calibrate", required=True, help="what to calibrate with")
    parser.add_argument("--mask-codec", type=pathlib.Path, help="vae-oid.npz [default: the checkpoint's, if it has one]")
    parser.add_argument("--palmtop", default="target/release/palmtop", help="the program")
    parser.add_argument("--limit", help="evaluate only so many items")
    parser.add_argument("--max-new-tokens", default="96")
    args = parser.parse_args()
    codec = args.mask_codec or args.checkpoint / "vae-oid.npz"
    more = ["--mask-codec", codec] if codec.exists() else []
    limit = ["--limit", args.limit] if args.limit else []
    print("| weights | MB | bits | " + " | ".join(TASKS) + " | same answers | KL |")
    print("|---|" + "---|" * (len(TASKS) + 4))
    with tempfile.TemporaryDirectory() as folder:
        exact = pathlib.Path(folder) / "f32.palm"
        for name, how, calibrated in VARIANTS:
            target = exact if name == "f32" else pathlib.Path(folder) / "model.palm"
            examples = ["--calibrate", args.calibrate] if calibrated else []
            report = run([args.palmtop, "convert", args.checkpoint, "-o", target, *how, *examples, *more, "--report", "json", "--quiet"])
            command = [args.palmtop, "eval", args.data, "-m", exact, *limit, "--max-new-tokens", args.max_new_tokens, "--json", "--quiet"]
            found = run(command if name == "f32" else [*command, "-m", target])
            tasks = (found["other"] or found)["tasks"]
            scores = ["-" if tasks[t]["score"] is None else f"{100 * tasks[t]['score']:.1f}" for t in TASKS]
            agreement = found["agreement"]
            same = f"{100 * agreement['same_answers']:.1f} % | {agreement['kl']:.5f}" if agreement else "|"
            print(f"| {name} | {report['bytes'] / 1e6:.1f} | {report['matrix_bits']:.2f} | {' | '.join(scores)} | {same} |", flush=True)


if __name__ == "__main__":
    main()
