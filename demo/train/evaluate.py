"""Greedy answers to a held-out set, scored: a quick look along the way. `palmtop eval` is the measure.

    python demo/train/evaluate.py --run RUN --data DIR [--items 200] [--last] [--show 5]
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dense
import export
import greedy
import mask_codec
import progress
from paligemma import PaliGemma

BATCH = 32
OBJECT = re.compile(r"((?:<loc\d{4}>){4})((?:<seg\d{3}>){16})? ?([^;<]*)")


def read(text: str) -> list[tuple[str, np.ndarray, list[int]]]:
    """Label, box (y1, x1, y2, x2 in 0..1) and mask codes of each object in an answer."""
    found = []
    for locations, codes, label in OBJECT.findall(text):
        box = np.array([int(n) for n in re.findall(r"\d{4}", locations)]) / 1024
        found.append((label.strip(), box, [int(n) for n in re.findall(r"\d{3}", codes)]))
    return found


def box_iou(a, b) -> float:
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    area = lambda box: np.prod(np.clip(box[2:] - box[:2], 0, None))
    return float(np.prod(size) / max(1e-9, area(a) + area(b) - np.prod(size)))


def detection(said: str, expected: str) -> float:
    """F1 of boxes with the right label and an IoU of at least a half."""
    mine, theirs = read(said), read(expected)
    if not theirs:
        return float(not mine)
    free, hits = list(theirs), 0
    for label, box, _ in mine:
        best = max(free, key=lambda t: box_iou(box, t[1]) if t[0] == label else -1, default=None)
        if best and best[0] == label and box_iou(box, best[1]) >= 0.5:
            free = [t for t in free if t is not best]
            hits += 1
    return 2 * hits / (len(mine) + len(theirs))


def segmentation(said: str, truth: np.ndarray, codec) -> float:
    """IoU of all masks of an answer together with the true ones."""
    height, width = truth.shape
    mine = np.zeros(truth.shape, bool)
    for _, box, codes in read(said):
        y1, x1, y2, x2 = (round(e * s) for e, s in zip(box, (height, width, height, width)))
        if len(codes) == 16 and y2 > y1 and x2 > x1:
            with torch.no_grad():
                mask = codec.restore(torch.tensor([codes]))[0].numpy()
            mine[y1:y2, x1:x2] |= np.asarray(Image.fromarray(mask).resize((x2 - x1, y2 - y1), Image.BILINEAR)) > 0
    return float((mine & truth).sum() / (mine | truth).sum())


def objects(caption: str) -> set[str]:
    """What a caption names, with counts, whatever the order."""
    named = re.split(r" on an? | in a landscape", caption)[0]
    return set(re.split(r", | and ", named))


def score(item: dict, said: str, folder: Path, codec) -> float:
    if item["task"] == "caption":
        return float(objects(said) == objects(item["expected"]))
    if item["task"] == "detect":
        return detection(said, item["expected"])
    if item["task"] == "segment":
        return segmentation(said, np.asarray(Image.open(folder / item["mask"])) > 127, codec)
    return float(said == item["expected"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=10**9)
    parser.add_argument("--last", action="store_true", help="the latest weights, not their average")
    parser.add_argument("--show", type=int, default=0, help="print so many answers of each task")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tensors, trained_on = export.weights(args.run / "model.pt", args.last)
    model = PaliGemma()
    model.load_state_dict(tensors)
    codec = mask_codec.load(args.run / "mask_codec.pt")
    items = [json.loads(line) for line in (args.data / "DATA.jsonl").read_text().splitlines()][: args.items]
    # Prompts of like length together; ends of answers then also come at about the same time.
    items.sort(key=lambda item: (item["task"], len(item["prompt"])))
    scores, exact = {}, {}
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        pixels = [np.asarray(Image.open(args.data / item["image"]).convert("RGB")) for item in part]
        patches = torch.from_numpy(np.stack([dense.patches(p) for p in pixels]))
        for item, said in zip(part, greedy.answers(model, patches, [item["prompt"] for item in part])):
            scores.setdefault(item["task"], []).append(score(item, said, args.data, codec))
            exact.setdefault(item["task"], []).append(said == item["expected"])
            if len(scores[item["task"]]) <= args.show:
                print(f"{item['image']} {item['prompt']}\n    {item['expected']}\n    {said}")
    found = {task: round(float(np.mean(s)), 4) for task, s in scores.items()}
    found |= {f"{task} exact": round(float(np.mean(exact[task])), 4) for task in ("caption", "detect")}
    progress.Log(args.run / "evaluation.jsonl").write(pictures=trained_on, last=args.last, **found)


if __name__ == "__main__":
    main()
