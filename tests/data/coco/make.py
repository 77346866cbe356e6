"""Makes pycocotools.json: random annotations and answers, and what pycocotools 2.0.11 finds in them.

    python make.py pycocotools.json       # needs pycocotools and numpy
"""

import contextlib
import io
import json
import random
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LABELS = ["cat", "dog", "bird", "nothing"]


def rounded(box):
    return [round(v, 2) for v in box]


def case(seed, name, pictures, crowds=0.0, whole=False, large=200, many=6, ties=False, empty=0.2):
    rng = random.Random(seed)
    number = (lambda a, b: float(rng.randint(int(a), int(b)))) if whole else rng.uniform
    items = []
    for _ in range(pictures):
        truths, found = [], []
        for _ in range(0 if rng.random() < empty else rng.randint(1, many)):
            label = rng.choice(LABELS[:3])
            box = rounded([number(0, 400), number(0, 300), number(1, large), number(1, large)])
            # An object fills some of its box.
            area = round(box[2] * box[3] * rng.uniform(0.4, 1.0), 2)
            truths.append([label, box, area, int(rng.random() < crowds)])
        for label, box, _, _ in truths:
            for _ in range(rng.randint(0, 2)):
                wrong = rng.random() < 0.1
                moved = [v + (number(-6, 6) if rng.random() < 0.7 else 0.0) for v in box]
                moved = rounded([moved[0], moved[1], max(moved[2], 1.0), max(moved[3], 1.0)])
                score = round(rng.random(), 1 if ties else 4)
                found.append([rng.choice(LABELS) if wrong else label, moved, score])
        for _ in range(rng.randint(0, 2)):
            box = rounded([number(0, 400), number(0, 300), number(1, large), number(1, large)])
            found.append([rng.choice(LABELS), box, round(rng.random(), 1 if ties else 4)])
        # Scores are f32 in palmtop.
        items.append({"truths": truths, "found": [[l, b, float(np.float32(s))] for l, b, s in found]})
    return {"name": name, "items": items, "stats": stats(items)}


def stats(items):
    ids = {label: i + 1 for i, label in enumerate(LABELS)}
    truth = {
        "images": [{"id": i + 1} for i in range(len(items))],
        "categories": [{"id": i, "name": label} for label, i in ids.items()],
        "annotations": [],
    }
    found = []
    for i, item in enumerate(items):
        for label, box, area, crowd in item["truths"]:
            n = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {"id": n, "image_id": i + 1, "category_id": ids[label], "bbox": box, "area": area, "iscrowd": crowd}
            )
        for label, box, score in item["found"]:
            found.append({"image_id": i + 1, "category_id": ids[label], "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(evaluation.stats[i]) for i in (0, 1, 3, 4, 5)]


cases = [
    case(1, "plain", 6),
    case(2, "crowds", 8, crowds=0.3),
    case(3, "whole numbers, overlaps on the thresholds", 8, whole=True, large=20),
    case(4, "small and large", 8, large=150, many=4),
    case(5, "equal scores", 8, ties=True, crowds=0.1),
    case(6, "mostly pictures without boxes", 12, empty=0.7),
    case(7, "crowds only", 5, crowds=1.0),
    case(8, "many boxes, recalls in twentieths", 4, many=20, large=90),
]
assert len({case["name"] for case in cases}) == 8
with open(sys.argv[1], "w") as file:
    file.write('{"cases": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")
for case in cases:
    print(case["name"], case["stats"])
