"""Writes a held-out set: pictures, masks and DATA.jsonl for `palmtop eval`.

    python demo/train/generate.py --seed S --count N --out DIR

Scenes come from a stream that training never draws from, whatever the seed. Each picture gives about six items, one
JSON object a line: image, prompt (as the model gets it, without <image>, <bos> and the final line feed), expected,
task, and for segmentation the path of the true mask. Needs numpy and Pillow; with PyTorch, expected answers have the
codes of masks too (by the codec in demo/train/mask_codec.pt).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from world import dialogue, scene, seeds, words
from world.dialogue import Item

try:
    import mask_codec
    import texts
except ImportError as error:
    mask_codec, missing = None, error

CODEC = Path(__file__).parent / "mask_codec.pt"
# How many items of a task a picture gives; of `ocr` only where something is written, or seldom.
SHARE = {"caption": 1, "ocr": 1, "detect": 1, "segment": 1, "answer": 2}
BLANK = 0.2


def choose(picture: scene.Scene, items: list[Item], rng: np.random.Generator) -> list[Item]:
    chosen = []
    for task, count in SHARE.items():
        # A mask of nothing has no overlap to measure.
        pool = [item for item in items if item.task == task and (item.masks or task != "segment")]
        if task == "ocr" and not picture.text and rng.random() > BLANK:
            continue
        chosen += [pool[i] for i in sorted(rng.choice(len(pool), min(count, len(pool)), replace=False))]
    return chosen


def true_mask(picture: scene.Scene, item: Item) -> Image.Image:
    """White where one of the item's things is seen."""
    inside = np.isin(picture.owner, [1 + number for number in item.masks])
    return Image.fromarray(inside.astype(np.uint8) * 255)


def fill_masks(picture: scene.Scene, items: list[Item], codec: Path) -> list[Item]:
    """The items with the codes of their masks; without PyTorch with their boxes only."""
    if mask_codec is None:
        return [item._replace(answer=item.answer.replace("{seg}", "")) for item in items]
    return texts.fill_masks(picture, items, mask_codec.load(codec))


def held_out(seed: int, count: int, codec: Path, side: int = scene.SIDE):
    """Scenes with their chosen items."""
    for number in range(count):
        rng = seeds.stream(seeds.HELD_OUT, seed, number)
        picture = scene.compose(rng, words.held_out, side)
        items = choose(picture, list(dialogue.items(picture, rng, dialogue.ABSENT_HELD_OUT)), rng)
        yield picture, fill_masks(picture, items, codec)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="pictures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codec", type=Path, default=CODEC, help="mask_codec.pt of another training run")
    parser.add_argument("--side", type=int, default=scene.SIDE, help="pixels of a picture's side")
    args = parser.parse_args()
    if mask_codec is None:
        print(f"note: {missing}; expected answers have no codes of masks", file=sys.stderr)
    for folder in ("pictures", "masks"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    with (args.out / "DATA.jsonl").open("w") as data:
        for number, (picture, items) in enumerate(held_out(args.seed, args.count, args.codec, args.side)):
            image = f"pictures/{number:05d}.png"
            Image.fromarray(picture.pixels).save(args.out / image)
            for item in items:
                line = {"image": image, "prompt": item.prompt, "expected": item.answer, "task": item.task}
                if item.masks:
                    line["mask"] = f"masks/{number:05d}.png"
                    true_mask(picture, item).save(args.out / line["mask"])
                data.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
