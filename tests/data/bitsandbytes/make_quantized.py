"""Writes weights of a tiny checkpoint as bitsandbytes quantizes them, and what it reads them as.

    python make_quantized.py       # beside ../checkpoints; writes quantized.safetensors and expected.safetensors here

`quantized.safetensors` has what the state dict of bitsandbytes' modules has, under the names of tiny1-f32.
`expected.safetensors` tells of the f32 that bitsandbytes' own functions make of it: the first row of each tensor, and
the sum of the bits of all its values, and that of the bits times 1, 2, 3, and so on. The kinds: nf4 and fp4, their scales in f32
or themselves in 8 bits, blocks of 64 and 128 values, a last block that is not full, bytes stored as bf16; and 8-bit.

Needs torch, safetensors and bitsandbytes; made with bitsandbytes 0.50.2 on a CPU.
"""
import pathlib

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
TEXT, VISION = "language_model.model.layers.", "vision_tower.vision_model.encoder.layers."
FOUR_BITS = {
    TEXT + "0.self_attn.q_proj": dict(quant_type="nf4", compress_statistics=True),
    TEXT + "0.mlp.gate_proj": dict(quant_type="nf4", compress_statistics=False),
    TEXT + "1.self_attn.o_proj": dict(quant_type="fp4", compress_statistics=True),
    TEXT + "3.mlp.down_proj": dict(quant_type="nf4", compress_statistics=True, quant_storage=torch.bfloat16),
    VISION + "0.mlp.fc1": dict(quant_type="fp4", compress_statistics=False),
    VISION + "1.mlp.fc2": dict(quant_type="nf4", compress_statistics=True, blocksize=128),
}
EIGHT_BITS = [TEXT + "2.self_attn.q_proj", VISION + "1.self_attn.out_proj"]



def read_4_bits(data, state):
    """What bitsandbytes' own implementation in PyTorch reads.

    Its compiled one for CPUs does not do in 0.50.2: where rows are no multiple of the block (here 96 and 64) it takes
    the scales of other blocks, and is off by a quarter of the weights.
    """
    scales = state.absmax
    if state.nested:
        scales = bnb.functional.dequantize_blockwise(scales, state.state2) + state.offset
    data = data.view(torch.uint8).flatten()
    return _dequantize_4bit_compute(data, scales, state.code, state.blocksize, state.shape, torch.float32)


weights = load_file(HERE / "../checkpoints/tiny1-f32/model.safetensors")
quantized, expected = {}, {}
for name, options in FOUR_BITS.items():
    weight = weights[name + ".weight"]
    module = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], bias=False)
    module.weight = bnb.nn.Params4bit(weight.clone(), requires_grad=False, **options).to("cpu")
    for key, value in module.state_dict().items():
        quantized[f"{name}.{key}"] = value.contiguous()
    state = module.weight.quant_state
    expected[name + ".weight"] = read_4_bits(module.weight.data, state)
for name in EIGHT_BITS:
    weight = weights[name + ".weight"]
    module = bnb.nn.Linear8bitLt(weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False)
    module.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False).to("cpu")
    data, scales, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    if module.weight.data.dtype != torch.int8:  # modules quantize on an accelerator only
        module.weight.data, module.weight.SCB = data, scales
    for key, value in module.state_dict().items():
        quantized[f"{name}.{key}"] = value.contiguous()
    expected[name + ".weight"] = bnb.functional.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
told = {}
for key, value in expected.items():
    bits = value.flatten().contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    told[key + ".row"] = value[0].contiguous()
    told[key + ".bits"] = torch.stack([bits.sum(), (bits * torch.arange(1, len(bits) + 1)).sum()])
save_file(quantized, HERE / "quantized.safetensors")
save_file(told, HERE / "expected.safetensors")
for key, value in sorted(quantized.items()):
    print(key, value.dtype, tuple(value.shape))
    if "quant_state" in key:
        print("   ", bytes(value.tolist()).decode())
for key, value in expected.items():
    print(key, value.dtype, (value - weights[key]).pow(2).mean().sqrt().item() / weights[key].pow(2).mean().sqrt().item())
