"""Writes what transformers computes for a PaliGemma checkpoint, a picture and a prompt, under the names of docs/trace.md.

    python trace_with_transformers.py CHECKPOINT_DIR PICTURE "caption en" -o trace.safetensors -n 16

Everything runs in f32, greedily; the end-of-sequence token does not stop it. Besides the traced values the file holds
`resized` (u8, the picture before normalising), `token_type_ids`, and `gen.margin` (the lead of each token over the
next). A .json file beside it names the prompt, the versions and the answer.

Needs torch, transformers (5.23 made the vectors here), safetensors and pillow; f32 weights of the model must fit memory.
"""
import argparse
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
    """Keeps the first input or output of modules, without the batch dimension."""

    def __init__(self):
        self.values = {}

    def output(self, name, module):
        module.register_forward_hook(lambda _m, _args, out: self.keep(name, out[0] if isinstance(out, tuple) else out))

    def input(self, name, module):
        def hook(_module, args, kwargs):
            self.keep(name, args[0] if args else kwargs["hidden_states"])

        module.register_forward_pre_hook(hook, with_kwargs=True)

    def keep(self, name, value):
        self.values.setdefault(name, value.detach()[0].float().contiguous().clone())


@torch.no_grad()
def trace(checkpoint, picture, prompt, tokens):
    processor = PaliGemmaProcessor.from_pretrained(checkpoint)
    model = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    image = Image.open(picture).convert("RGB")
    inputs = processor(images=image, text="<image>" + prompt, return_tensors="pt")
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
    resized = image.resize((size["width"], size["height"]), resample=processor.image_processor.resample)
    values = watcher.values | {
        "input_ids": inputs["input_ids"][0],
        "token_type_ids": inputs["token_type_ids"][0],
        "resized": torch.from_numpy(np.array(resized)),
        "pixel_values": inputs["pixel_values"][0].float(),
        "logits.prefill": logits[0].clone(),
        "gen.tokens": chosen,
        "gen.logits": logits,
        "gen.margin": best[:, 0] - best[:, 1],
    }
    about = {
        "checkpoint": pathlib.Path(checkpoint).name,
        "image": pathlib.Path(picture).name,
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
    arguments.add_argument("picture")
    arguments.add_argument("prompt")
    arguments.add_argument("-o", "--output", type=pathlib.Path, required=True)
    arguments.add_argument("-n", "--tokens", type=int, default=16)
    given = arguments.parse_args()
    values, about = trace(given.checkpoint, given.picture, given.prompt, given.tokens)
    save_file(values, given.output)
    given.output.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    print(about["decoded_skip_special"])
