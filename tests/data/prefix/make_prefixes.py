"""Writes what transformers computes for prefixes of several pictures, some of them missing, and a text.

    python make_prefixes.py

For each case below, of a checkpoint in ../checkpoints: keys behind the rotary embedding and values of the first and the
last layer, [rows, kv_heads, head_dim], and the rows behind the last norm, [rows, width], all in f32; the mask and the
positions of the rows, and the token ids of the text. Rows are those of all pictures, then of the text. A missing
picture's rows are masked out, as openpi has it: nothing sees them, and positions count what is there, from 0. What is
computed for masked rows means nothing, and only the others are written.

Needs torch, transformers (5.24 made the vectors here), safetensors and pillow.
"""
import json
import pathlib
import shutil
import tempfile

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import DynamicCache, PaliGemmaForConditionalGeneration, PaliGemmaProcessor, __version__

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent
SCENE, NOISE, GRADIENT = "scene_640x361.png", "noise_97x61.png", "gradient_400x300.png"
STATE = "Task: pick up the cup, State: 12 255 7;\nAction: "
CASES = {
    "tiny1-middle-missing": ("tiny1", [SCENE, None, NOISE], {"prompt": "caption en"}),
    "tiny1-open": ("tiny1", [GRADIENT, SCENE], {"open": STATE}),
    "tiny1-first-missing-tokens": ("tiny1", [None, NOISE], {"tokens": [2, 300, 17, 1200]}),
    "tiny2-last-missing": ("tiny2", [NOISE, None], {"open": STATE}),
    "tiny2-text-alone": ("tiny2", [], {"prompt": "fold the shirt"}),
}


def token_ids(processor, text):
    tokenizer = processor.tokenizer
    if "tokens" in text:
        return text["tokens"]
    spelled = text["prompt"] + "\n" if "prompt" in text else text["open"]
    return [tokenizer.bos_token_id] + tokenizer(spelled, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def compute(checkpoint, pictures, text):
    with tempfile.TemporaryDirectory() as folder:
        for part in (DATA / "checkpoints" / checkpoint, DATA / "tokenizer"):
            shutil.copytree(part, folder, dirs_exist_ok=True)
        processor = PaliGemmaProcessor.from_pretrained(folder)
        model = PaliGemmaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    ids = token_ids(processor, text)
    rows = model.config.text_config.num_image_tokens
    # A missing picture is black, and then not seen.
    images = [Image.open(DATA / "images" / p).convert("RGB") if p else Image.new("RGB", (8, 8)) for p in pictures]
    mask = torch.tensor([[p is not None for p in pictures for _ in range(rows)] + [True] * len(ids)])
    positions = mask.long().cumsum(-1) - 1

    image_token = model.config.image_token_id
    input_ids = torch.tensor([[image_token] * (rows * len(pictures)) + ids])
    inputs = {"input_ids": input_ids, "attention_mask": mask.long(), "position_ids": positions}
    if images:
        inputs["pixel_values"] = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    decoder = model.model.language_model
    last = {}
    decoder.norm.register_forward_hook(lambda _m, _args, out: last.update(hidden=out))
    # A cache that knows no window keeps all rows.
    out = model.model(**inputs, token_type_ids=torch.zeros_like(input_ids), cache=DynamicCache())
    hidden = last["hidden"][0]

    there = mask[0]
    values = {"mask": there, "positions": positions[0].int(), "tokens": torch.tensor(ids, dtype=torch.int32)}
    values["hidden"] = hidden[there]
    for layer in (0, model.config.text_config.num_hidden_layers - 1):
        cached = out.cache.layers[layer]
        for name, kept in (("keys", cached.keys), ("values", cached.values)):
            # [1, kv_heads, rows, head_dim]
            kept = kept[0].transpose(0, 1)
            assert kept.shape[0] == there.numel(), "the cache keeps all rows"
            values[f"{name}.{layer}"] = kept[there]
    return {name: value.contiguous() for name, value in values.items()}


if __name__ == "__main__":
    for name, (checkpoint, pictures, text) in CASES.items():
        file = HERE / f"{name}.safetensors"
        save_file(compute(checkpoint, pictures, text), file)
        file.chmod(0o644)
        about = {"checkpoint": checkpoint, "pictures": pictures, **text, "transformers": __version__}
        (HERE / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
