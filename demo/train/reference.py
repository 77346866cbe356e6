"""Writes a held-out set again, expecting what transformers answers, greedily and in f32.

    python demo/train/reference.py --model FOLDER --data DIR --items 200
    palmtop eval DIR/reference.jsonl -m f32.palm

The f32 file made of the same folder must give the same answers: an exact match of 1 for every task.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, PaliGemmaForConditionalGeneration

from sizes import IMAGE, PATCHES


def pixels(path: Path) -> torch.Tensor:
    picture = Image.open(path).convert("RGB").resize((IMAGE, IMAGE), Image.BICUBIC)
    values = np.asarray(picture, np.float32) / 255
    return torch.from_numpy((values - 0.5) / 0.5).permute(2, 0, 1)[None]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    image = model.config.image_token_id
    items = [json.loads(line) for line in (args.data / "DATA.jsonl").read_text().splitlines()][: args.items]
    with (args.data / "reference.jsonl").open("w") as out:
        for item in items:
            prompt = tokenizer(item["prompt"] + "\n", add_special_tokens=False).input_ids
            ids = torch.tensor([[image] * PATCHES + [tokenizer.bos_token_id] + prompt])
            made = model.generate(
                input_ids=ids, pixel_values=pixels(args.data / item["image"]), attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids), do_sample=False, max_new_tokens=128,
            )[0, ids.shape[1] :]
            item["expected"] = tokenizer.decode(made, skip_special_tokens=True)
            out.write(json.dumps(item) + "\n")


if __name__ == "__main__":
    main()
