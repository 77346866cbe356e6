"""Writes the weights of a checkpoint in the hub's form as a JAX checkpoint: FILE.npz as big_vision saves it.

    python jax_from_checkpoint.py checkpoints/tiny1 tiny1.npz                # needs numpy
    palmtop convert tiny1.npz -o jax.palm --tokenizer tokenizer/tokenizer.json

bf16 becomes '|V2', as numpy sees JAX's arrays. Rows of the embedding from the picture's token on are left out, since
big_vision has none. Every array is written by the inverse of what transformers'
convert_paligemma2_weights_to_hf.py does with it; tests/jax.rs writes the same with formulas of its own.
"""

import json
import sys
from pathlib import Path

import numpy as np


def raw(folder):
    """The tensors under their classic names; bf16 as two-byte voids."""
    path = Path(folder) / "model.safetensors"
    data = path.read_bytes()
    head_bytes = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + head_bytes])
    out = {}
    for name, info in head.items():
        if name == "__metadata__":
            continue
        dtype = {"F32": "<f4", "F16": "<f2", "BF16": "|V2"}[info["dtype"]]
        start, end = (8 + head_bytes + at for at in info["data_offsets"])
        name = name.removeprefix("model.")
        for new, old in [("vision_tower.", "vision_tower.vision_model."), ("language_model.", "language_model.model.")]:
            if name.startswith(new) and not name.startswith(old):
                name = old + name.removeprefix(new)
        out[name] = np.frombuffer(data[start:end], dtype).reshape(info["shape"])
    return out


def main(folder, target, prefix="params/"):
    config = json.loads((Path(folder) / "config.json").read_text())
    t = raw(folder)
    text, vision = config["text_config"], config["vision_config"]
    heads, kv, size = text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"]
    v_heads, v_hidden = vision["num_attention_heads"], vision["hidden_size"]
    out = {}

    v = "vision_tower.vision_model."
    out["img/embedding/kernel"] = t[v + "embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0)
    out["img/embedding/bias"] = t[v + "embeddings.patch_embedding.bias"]
    out["img/pos_embedding"] = t[v + "embeddings.position_embedding.weight"][None]

    def stack(name, change, layers, tree):
        return np.stack([change(t[f"{tree}{i}.{name}"]) for i in range(layers)])

    def block(key, name, change=lambda x: x):
        layers = vision["num_hidden_layers"]
        out["img/Transformer/encoderblock/" + key] = stack(name, change, layers, v + "encoder.layers.")

    for jax, torch in [("LayerNorm_0", "layer_norm1"), ("LayerNorm_1", "layer_norm2")]:
        block(jax + "/scale", torch + ".weight")
        block(jax + "/bias", torch + ".bias")
    for jax, torch in [("Dense_0", "mlp.fc1"), ("Dense_1", "mlp.fc2")]:
        block(f"MlpBlock_0/{jax}/kernel", torch + ".weight", lambda x: x.T)
        block(f"MlpBlock_0/{jax}/bias", torch + ".bias")
    for jax, torch in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")]:
        jax, torch = f"MultiHeadDotProductAttention_0/{jax}", f"self_attn.{torch}"
        block(jax + "/kernel", torch + ".weight", lambda x: x.T.reshape(v_hidden, v_heads, -1))
        block(jax + "/bias", torch + ".bias", lambda x: x.reshape(v_heads, -1))
    jax = "MultiHeadDotProductAttention_0/out"
    block(jax + "/kernel", "self_attn.out_proj.weight", lambda x: x.T.reshape(v_heads, -1, v_hidden))
    block(jax + "/bias", "self_attn.out_proj.bias")
    out["img/Transformer/encoder_norm/scale"] = t[v + "post_layernorm.weight"]
    out["img/Transformer/encoder_norm/bias"] = t[v + "post_layernorm.bias"]
    out["img/head/kernel"] = t["multi_modal_projector.linear.weight"].T
    out["img/head/bias"] = t["multi_modal_projector.linear.bias"]

    m, layers = "language_model.model.", text["num_hidden_layers"]
    get = lambda name, change=lambda x: x: stack(name, change, layers, m + "layers.")
    of_heads = lambda n: lambda x: x.reshape(n, size, -1).transpose(0, 2, 1)
    out["llm/embedder/input_embedding"] = t[m + "embed_tokens.weight"][: config["image_token_index"]]
    out["llm/layers/attn/q_einsum/w"] = get("self_attn.q_proj.weight", of_heads(heads))
    out["llm/layers/attn/kv_einsum/w"] = np.stack(
        [get(f"self_attn.{name}_proj.weight", of_heads(kv)) for name in "kv"], axis=1
    )
    o_proj = get("self_attn.o_proj.weight", lambda x: x.reshape(-1, heads, size).transpose(1, 2, 0))
    out["llm/layers/attn/attn_vec_einsum/w"] = o_proj
    out["llm/layers/mlp/gating_einsum"] = np.stack(
        [get(f"mlp.{name}_proj.weight", lambda x: x.T) for name in ("gate", "up")], axis=1
    )
    out["llm/layers/mlp/linear"] = get("mlp.down_proj.weight", lambda x: x.T)
    out["llm/layers/pre_attention_norm/scale"] = get("input_layernorm.weight")
    if text["model_type"] == "gemma2":
        out["llm/layers/post_attention_norm/scale"] = get("post_attention_layernorm.weight")
        out["llm/layers/pre_ffw_norm/scale"] = get("pre_feedforward_layernorm.weight")
        out["llm/layers/post_ffw_norm/scale"] = get("post_feedforward_layernorm.weight")
    else:
        out["llm/layers/pre_ffw_norm/scale"] = get("post_attention_layernorm.weight")
    out["llm/final_norm/scale"] = t[m + "norm.weight"]
    np.savez(target, **{prefix + key: np.ascontiguousarray(array) for key, array in out.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
