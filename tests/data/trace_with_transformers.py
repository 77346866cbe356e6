"""Writes what transformers computes for a checkpoint, pictures and a prompt, under the names of docs/trace.md.

    python trace_with_transformers.py CHECKPOINT_DIR PICTURE "caption en" -o trace.safetensors -n 16
    python trace_with_transformers.py CHECKPOINT_DIR FIRST SECOND "answer en which is brighter?" -o trace.safetensors

Several pictures become one prompt: the rows of all of them, picture after picture, then begin-of-sequence, prompt and
newline. Values that are named to `--leave-out` (shell patterns) are not written.

Everything runs in f32, greedily; the end-of-sequence token does not stop it. Besides the traced values the file holds
`resized` (u8, the pictures before normalising), `token_type_ids`, and `gen.margin` (the lead of each token over the
next). A .json file beside it names the prompt, the pictures, the versions and the answer.

Needs torch, transformers (5.23 and 5.24 made the vectors here), safetensors and pillow; f32 weights of the model must
fit memory.
"""
import argparse
import fnmatch
import json
import pathlib

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor


class Watcher:
    """Keeps the first input or output of modules, all rows of it: in the encoder the batch is the pictures."""

    def __init__(self):
        self.values = {}

    def output(self, name, module):
        module.register_forward_hook(lambda _m, _args, out: self.keep(name, out[0] if isinstance(out, tuple) else out))

    def input(self, name, module):
        def hook(_module, args, kwargs):
            self.keep(name, args[0] if args else kwargs["hidden_states"])

        module.register_forward_pre_hook(hook, with_kwargs=True)

    def keep(self, name, value):
        self.values.setdefault(name, value.detach().flatten(0, 1).float().contiguous().clone())


@torch.no_grad()
def trace(checkpoint, pictures, prompt, tokens):
    processor = PaliGemmaProcessor.from_pretrained(checkpoint)
    model = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    images = [Image.open(picture).convert("RGB") for picture in pictures]
    # A list for each prompt, of which there is one.
    inputs = processor(images=[images], text=["<image>" * len(images) + prompt], return_tensors="pt")
    inputs.pop("labels", None)

    tower, decoder, watcher = model.model.vision_tower, model.model.language_model, Watcher()
    tower = getattr(tower, "vision_model", tower)
    watcher.output("vision.embed", tower.embeddings)
    for i, layer in enumerate(tower.encoder.layers):
        watcher.output(f"vision.layer.{i}", layer)
    watcher.output("vision.last_hidden_state", tower.post_layernorm)
    watcher.output("image_features", model.model.multi_modal_projector)
    watcher.input("text.embed", decoder.layers[0])
    for i, layer in enumerate(decoder.layers):
        watcher.output(f"text.layer.{i}", layer)
    watcher.output("text.final_norm", decoder.norm)

    model.generation_config.eos_token_id = None
    model.generation_config.cache_implementation = None
    made = model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    logits = torch.cat(made.logits).float()
    chosen = made.sequences[0, inputs["input_ids"].shape[1] :]
    assert torch.equal(logits.argmax(-1), chosen), "generate() is expected to take the likeliest token"
    best = logits.topk(2, -1).values

    size = processor.image_processor.size
    size, resample = (size["width"], size["height"]), processor.image_processor.resample
    resized = [torch.from_numpy(np.array(image.resize(size, resample=resample))) for image in images]

    def one_or_all(values):
        """One picture has no dimension of pictures."""
        return values[0] if len(images) == 1 else values

    values = watcher.values | {
        "input_ids": inputs["input_ids"][0],
        "token_type_ids": inputs["token_type_ids"][0],
        "resized": one_or_all(torch.stack(resized)),
        "pixel_values": one_or_all(inputs["pixel_values"].float()),
        "logits.prefill": logits[0].clone(),
        "gen.tokens": chosen,
        "gen.logits": logits,
        "gen.margin": best[:, 0] - best[:, 1],
    }
    names = [pathlib.Path(picture).name for picture in pictures]
    about = {
        "checkpoint": pathlib.Path(checkpoint).name,
        **({"image": names[0]} if len(names) == 1 else {"images": names}),
        "prompt": prompt,
        "tokens": chosen.tolist(),
        "decoded_skip_special": processor.decode(chosen.tolist(), skip_special_tokens=True),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }
    return {name: value.contiguous() for name, value in values.items()}, about


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint")
    arguments.add_argument("pictures", nargs="+", metavar="picture")
    arguments.add_argument("prompt")
    arguments.add_argument("-o", "--output", type=pathlib.Path, required=True)
    arguments.add_argument("-n", "--tokens", type=int, default=16)
    arguments.add_argument("--leave-out", action="append", default=[], metavar="PATTERN")
    given = arguments.parse_args()
    values, about = trace(given.checkpoint, given.pictures, given.prompt, given.tokens)
    left_out = {name for name in values for pattern in given.leave_out if fnmatch.fnmatch(name, pattern)}
    values = {name: value for name, value in values.items() if name not in left_out}
    save_file(values, given.output)
    given.output.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    print(about["decoded_skip_special"])
