"""Draws the learning curves of a run.

    python demo/train/plot.py --run RUN --out curve.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def thousands(entry: dict) -> float:
    return entry["pictures"] / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tower, model = read(args.run / "tower.jsonl"), read(args.run / "model.jsonl")
    evaluations = read(args.run / "evaluation.jsonl")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for name, label in (("kind", "object of a patch"), ("letter", "letter of a patch")):
        left.plot([thousands(e) for e in tower], [e["right"][name] for e in tower], label=label)
    left.set(title="Image encoder: right on held-out patches")
    for name, label in (("words", "words"), ("places", "boxes, within 2 pixels"), ("codes", "mask codes")):
        found = [(thousands(e), e["right"][name]) for e in model if name in e["right"]]
        middle.plot([x for x, _ in found], [right for _, right in found], label=label)
    middle.set(title="Whole model: right tokens, given those before")
    for task in ("caption", "answer", "ocr", "detect", "segment"):
        right.plot([thousands(e) for e in evaluations], [e[task] for e in evaluations], marker="o", label=task)
    right.set(title="Held-out scenes, greedy answers: score")
    for axis in (middle, right):
        axis.set_xscale("log")
    for axis in (left, middle, right):
        axis.set(xlabel="thousands of pictures", ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
