"""Writes configs.json beside itself: configurations as `save_pretrained` writes them, defaults left out, and bare ones,
each with what the installed transformers makes of it. The converter's tests hold its own defaults against this.

Needs transformers (and torch, for its image processor).
"""
import json
import pathlib
import tempfile

import transformers
from transformers import (
    Gemma2Config, GemmaConfig, GenerationConfig, PaliGemmaConfig, SiglipImageProcessor, SiglipVisionConfig,
)


def saved(config):
    """What save_pretrained writes, but for the package's version."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        written = json.loads((pathlib.Path(folder) / "config.json").read_text())
    written.pop("transformers_version")
    return written


def resolved(written):
    """Every field that the converter reads, as transformers has it."""
    config = PaliGemmaConfig.from_dict(written)
    v, t = config.vision_config, config.text_config
    gemma2 = t.model_type == "gemma2"
    windows = [t.sliding_window if kind == "sliding_attention" else None for kind in t.layer_types] if gemma2 else None
    generation = GenerationConfig.from_model_config(config)
    eos = generation.eos_token_id
    return {
        "tied": config.tie_word_embeddings,
        "eos": eos if isinstance(eos, list) else [eos],
        "pad": generation.pad_token_id,
        "image": config.image_token_index,
        "vision": {
            "hidden": v.hidden_size, "intermediate": v.intermediate_size, "layers": v.num_hidden_layers,
            "heads": v.num_attention_heads, "image_size": v.image_size, "patch_size": v.patch_size,
            "norm_eps": v.layer_norm_eps,
        },
        "text": {
            "generation": 2 if gemma2 else 1, "hidden": t.hidden_size, "intermediate": t.intermediate_size,
            "layers": t.num_hidden_layers, "heads": t.num_attention_heads, "kv_heads": t.num_key_value_heads,
            "head_dim": t.head_dim, "vocab": t.vocab_size, "norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_parameters["rope_theta"],
            "query_scalar": t.query_pre_attn_scalar if gemma2 else t.head_dim,
            "attention_softcap": t.attn_logit_softcapping if gemma2 else None,
            "final_softcap": t.final_logit_softcapping if gemma2 else None,
            "windows": windows or [None] * t.num_hidden_layers,
        },
    }


def processor(written):
    """What the image processor of these settings does."""
    p = SiglipImageProcessor.from_dict(written)
    return {
        "mean": list(p.image_mean) if isinstance(p.image_mean, (list, tuple)) else [p.image_mean] * 3,
        "std": list(p.image_std) if isinstance(p.image_std, (list, tuple)) else [p.image_std] * 3,
        "rescale": p.rescale_factor,
        "resample": int(p.resample),
    }


def main():
    top = {"model_type": "paligemma"}
    configs = [
        top,
        {**top, "vision_config": {}},
        {**top, "text_config": {}},
        {**top, "text_config": {"model_type": "gemma2"}, "vision_config": {"model_type": "siglip_vision_model"}},
        {**top, "text_config": {"model_type": "gemma2", "sliding_window": None, "num_hidden_layers": 3}},
        {**top, "text_config": {"model_type": "gemma2", "final_logit_softcapping": None, "head_dim": 128}},
        {**top, "image_token_id": 7, "tie_word_embeddings": False},
        {**top, "text_config": {"eos_token_id": [1, 107], "pad_token_id": 3}},
        {**top, "eos_token_id": 5, "text_config": {"eos_token_id": [1, 107]}},
        saved(PaliGemmaConfig()),
        saved(PaliGemmaConfig(image_token_index=257152, text_config=GemmaConfig(), vision_config=SiglipVisionConfig())),
        saved(PaliGemmaConfig(text_config=Gemma2Config(vocab_size=257216), tie_word_embeddings=False)),
        saved(PaliGemmaConfig(
            text_config=Gemma2Config(attn_logit_softcapping=None, num_hidden_layers=2, query_pre_attn_scalar=144),
            vision_config=SiglipVisionConfig(hidden_size=1152, patch_size=14, image_size=448, layer_norm_eps=1e-5),
        )),
        saved(PaliGemmaConfig(text_config=GemmaConfig(
            num_hidden_layers=2, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ))),
    ]
    processors = [{}, {"resample": 2}, {"image_mean": 0.25, "image_std": [0.5, 0.25, 0.125]}, {"rescale_factor": 0.5}]
    out = {
        "made_with": f"transformers {transformers.__version__}",
        "configs": [{"written": written, "resolved": resolved(written)} for written in configs],
        "processors": [{"written": written, "resolved": processor(written)} for written in processors],
    }
    text = json.dumps(out, indent=1)
    (pathlib.Path(__file__).parent / "configs.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
