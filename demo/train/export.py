"""Writes a checkpoint as a Hugging Face folder, and checks that transformers computes the same with it.

    python demo/train/export.py --run RUN --out FOLDER [--last] [--check]

The averaged weights are written unless --last is given. --check needs transformers and compares logits.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import vocabulary
from decoder import attention_mask
from paligemma import PaliGemma
from sizes import IMAGE, PATCH, PATCHES, TEXT, VISION

TOWER, LANGUAGE = "vision_tower.vision_model.", "language_model.model."


def weights(path: Path, last: bool) -> tuple[dict[str, torch.Tensor], int]:
    """f32 weights by their names in PaliGemma, and how many pictures had been trained on."""
    saved = torch.load(path)
    return saved["optimizer"]["tensors"]["master" if last else "average"], saved["pictures"]


def hub_names(mine: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under the names of the hub's classic PaliGemma checkpoints."""
    out = {}

    def linear(source, target):
        out[target + ".weight"] = mine[source + ".weight"]
        if source + ".bias" in mine:
            out[target + ".bias"] = mine[source + ".bias"]

    patch = mine["tower.patch.weight"].view(VISION.hidden, 3, PATCH, PATCH)
    out[TOWER + "embeddings.patch_embedding.weight"] = patch
    out[TOWER + "embeddings.patch_embedding.bias"] = mine["tower.patch.bias"]
    out[TOWER + "embeddings.position_embedding.weight"] = mine["tower.position"]
    for i in range(VISION.layers):
        here, there = f"tower.layers.{i}.", f"{TOWER}encoder.layers.{i}."
        for a, b in [("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("q", "self_attn.q_proj"),
                     ("k", "self_attn.k_proj"), ("v", "self_attn.v_proj"), ("out", "self_attn.out_proj"),
                     ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2")]:
            linear(here + a, there + b)
    linear("tower.norm", TOWER + "post_layernorm")
    linear("decoder.projector", "multi_modal_projector.linear")
    out[LANGUAGE + "embed_tokens.weight"] = mine["decoder.embedding"]
    for i in range(TEXT.layers):
        here, there = f"decoder.layers.{i}.", f"{LANGUAGE}layers.{i}."
        for a, b in [("attention_norm", "input_layernorm"), ("mlp_norm", "post_attention_layernorm"),
                     ("q", "self_attn.q_proj"), ("k", "self_attn.k_proj"), ("v", "self_attn.v_proj"),
                     ("out", "self_attn.o_proj"), ("gate", "mlp.gate_proj"), ("up", "mlp.up_proj"),
                     ("down", "mlp.down_proj")]:
            linear(here + a, there + b)
    out[LANGUAGE + "norm.weight"] = mine["decoder.norm.weight"]
    return {name: tensor.float().contiguous() for name, tensor in out.items()}


def configuration() -> dict[str, dict]:
    """The JSON files beside the weights."""
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": VISION.hidden, "intermediate_size": VISION.intermediate,
        "num_hidden_layers": VISION.layers, "num_attention_heads": VISION.heads, "image_size": IMAGE,
        "patch_size": PATCH, "num_image_tokens": PATCHES, "projection_dim": TEXT.hidden, "vision_use_head": False,
        "layer_norm_eps": VISION.norm_eps, "torch_dtype": "float32",
    }
    text = {
        "model_type": "gemma", "hidden_size": TEXT.hidden, "intermediate_size": TEXT.intermediate,
        "num_hidden_layers": TEXT.layers, "num_attention_heads": TEXT.heads, "num_key_value_heads": TEXT.kv_heads,
        "head_dim": TEXT.head_dim, "num_image_tokens": PATCHES, "vocab_size": vocabulary.SIZE,
        "rms_norm_eps": TEXT.norm_eps, "rope_theta": TEXT.rope_theta, "torch_dtype": "float32",
        "max_position_embeddings": 1024,
    }
    ids = {"bos_token_id": vocabulary.BOS, "eos_token_id": vocabulary.EOS, "pad_token_id": vocabulary.PAD}
    top = {
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "hidden_size": TEXT.hidden,
        "image_token_index": vocabulary.IMAGE_TOKEN, "ignore_index": -100, "projection_dim": TEXT.hidden,
        "torch_dtype": "float32", "vocab_size": vocabulary.SIZE, "text_config": text, "vision_config": vision, **ids,
    }
    picture = {
        "image_processor_type": "SiglipImageProcessor", "processor_class": "PaliGemmaProcessor", "do_convert_rgb": None,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_seq_length": PATCHES,
        "size": {"height": IMAGE, "width": IMAGE},
    }
    return {"config.json": top, "generation_config.json": ids, "preprocessor_config.json": picture}


def write(tensors: dict[str, torch.Tensor], folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hub_names(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in configuration().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    for file in vocabulary.FILES.iterdir():
        shutil.copy(file, folder / file.name)


@torch.no_grad()
def check(tensors: dict[str, torch.Tensor], folder: Path) -> float:
    """The largest difference of the last logits to those of transformers, on noise and a prompt."""
    from transformers import PaliGemmaForConditionalGeneration

    model = PaliGemma()
    model.load_state_dict(tensors)
    pixels = torch.randint(0, 256, (1, PATCHES, 3 * PATCH * PATCH), generator=torch.Generator().manual_seed(0))
    prompt = torch.tensor([[vocabulary.BOS, *vocabulary.encode("detect dog ; cat\n")]])
    length = prompt.shape[1]
    ones = torch.ones_like(prompt)
    mask = attention_mask(ones, ones.bool(), exact=True)
    positions = PATCHES + torch.arange(length)[None]
    mine = model.decoder(model.tower(pixels), prompt, positions, mask, torch.tensor([length - 1]), exact=True)

    theirs = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    side = IMAGE // PATCH
    image = (pixels / 127.5 - 1).view(1, side, side, 3, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    ids = torch.cat([torch.full((1, PATCHES), vocabulary.IMAGE_TOKEN), prompt], 1)
    logits = theirs(
        input_ids=ids, pixel_values=image.reshape(1, 3, IMAGE, IMAGE), attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
    ).logits[0, -1]
    return float((mine[0] - logits).abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--last", action="store_true", help="the latest weights, not their average")
    parser.add_argument("--check", action="store_true", help="compare with transformers")
    args = parser.parse_args()
    tensors, pictures = weights(args.run / "model.pt", args.last)
    write(tensors, args.out)
    shutil.copy(args.run / "vae-oid.npz", args.out / "vae-oid.npz")
    print(f"after {pictures} pictures -> {args.out}")
    if args.check:
        difference = check(tensors, args.out)
        print(f"largest difference to transformers: {difference:.2e}")
        assert difference < 1e-3


if __name__ == "__main__":
    main()
