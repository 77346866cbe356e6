"""Writes small adapters of every kind that PEFT's LoRA has, and what they make of a tiny checkpoint.

    python make_adapters.py        # beside ../checkpoints and ../tokenizer; writes folders here

Each folder is an adapter as PEFT saves it, with weights that are not zero, and two files of ours. `case.json` names the
checkpoint and the adapters that were merged, in order, with their factors. `expected.safetensors` has for each tensor
of the checkpoint that has changed, by its classic name,

- `NAME.rows`: the first row, the middle one and the last one of what merge_and_unload makes of it, f32;
- `NAME.sums`: every row times a fixed vector, f64, so that no row can be wrong unseen;

and `logits`: those behind the prompt, of the model with the adapter *beside* its weights, which is what was trained.
A head is listed as `lm_head.weight` where it must part from the embedding. There PEFT's own merge cannot be the
measure, since it changes both through the one matrix that they share (it warns of that): what is expected is the
embedding that inputs see and the head that outputs see.

Needs torch, transformers, peft and pillow; made with peft 0.21.2, transformers 5.24, torch 2.15.
"""
import json
import pathlib
import shutil
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

HERE = pathlib.Path(__file__).parent
PICTURE, PROMPT = "gradient_400x300.png", "caption en"
EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "lm_head.weight"

TEXT = r".*language_model.*layers\.[02]\..*\.(q_proj|v_proj)"
CASES = {
    "lora": ("tiny1-f32", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "rank_stabilized": (
        "tiny1-f32",
        dict(
            r=4,
            lora_alpha=2,
            use_rslora=True,
            target_modules=r".*(layers\.[13]\.mlp\.(gate_proj|down_proj)|projector\.linear|layers\.1\.mlp\.fc1)",
            rank_pattern={"down_proj": 2, r"^model\.vision_tower.*fc1": 3},
            alpha_pattern={r"layers\.[13]\.mlp\.gate_proj": 5, "fc1": 1, "1.mlp.fc1": 7, "mlp.down": 9},
        ),
    ),
    "dora": ("tiny1-f32", dict(r=3, lora_alpha=6, use_dora=True, target_modules=r".*\.(1\..*\.(o_proj|fc2)|linear)")),
    "vision_embeddings": (
        "tiny1-f32",
        dict(r=2, lora_alpha=3, use_dora=True, target_modules=["patch_embedding", "position_embedding"]),
    ),
    "lora_bias": ("tiny1-f32", dict(r=2, lora_alpha=3, lora_bias=True, target_modules=["out_proj", "linear"])),
    "bias_all": ("tiny1-f32", dict(r=2, bias="all", target_modules=r".*\.0\.self_attn\.q_proj")),
    "bias_lora_only": ("tiny1-f32", dict(r=2, bias="lora_only", target_modules=r".*\.0\.(self_attn\.q_proj|.*fc1)")),
    "saved_projector": (
        "tiny1-f32",
        dict(r=1, target_modules=r".*language_model.*\.q_proj", modules_to_save=["multi_modal_projector"]),
    ),
    "fan_in_fan_out": ("tiny1-f32", dict(r=2, fan_in_fan_out=True, target_modules=TEXT)),
    "tokens": ("tiny1-f32", dict(r=2, target_modules=TEXT, trainable_token_indices=[5, 2100, 7])),
    "embedding": ("tiny1-f32", dict(r=2, target_modules=["embed_tokens"])),
    "embedding_dora": ("tiny1-f32", dict(r=2, use_dora=True, target_modules=["embed_tokens"])),
    "head": ("tiny1-f32", dict(r=2, target_modules=["lm_head"])),
    "head_and_embedding": (
        "tiny1-f32",
        dict(r=2, target_modules=["embed_tokens"], ensure_weight_tying=True),
    ),
    "head_tokens": ("tiny1-f32", dict(r=2, target_modules=TEXT, trainable_token_indices={"lm_head": [9, 2000]})),
    "gemma2": ("tiny2-f32", dict(r=3, lora_alpha=5, target_modules=["up_proj", "down_proj", "k_proj"])),
    "gemma2_bf16": ("tiny2-f32", dict(r=2, use_dora=True, target_modules=["down_proj", "up_proj", "o_proj"])),
}
# One after the other, with factors.
SEQUENCES = {
    "scaled": ("tiny2-f32", [("gemma2", -0.5)]),
    "sequence": ("tiny2-f32", [("gemma2", 0.5), ("gemma2_bf16", 1.0)]),
    "sequence_tokens": ("tiny1-f32", [("tokens", 1.0), ("dora", 0.25), ("lora", 1.0)]),
}


def base(checkpoint):
    return PaliGemmaForConditionalGeneration.from_pretrained(
        HERE / "../checkpoints" / checkpoint, dtype=torch.float32
    ).eval()


def make(name, checkpoint, options):
    """Saves an adapter with random weights."""
    torch.manual_seed(sum(name.encode()))
    model = get_peft_model(base(checkpoint), LoraConfig(**options))
    for parameter, value in model.named_parameters():
        if value.requires_grad:
            size = 0.1 if "lora_" in parameter and "magnitude" not in parameter else 0.02
            value.data += size * torch.randn_like(value)
    if name.endswith("bf16"):
        for parameter, value in model.named_parameters():
            if "lora_" in parameter:
                value.data = value.data.bfloat16()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    # The base's own embedding would be most of the file.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = checkpoint
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def rescale(model, factor):
    for module in model.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(factor)


@torch.no_grad()
def logits(model, checkpoint):
    processor = PaliGemmaProcessor.from_pretrained(joined(checkpoint))
    picture = Image.open(HERE / "../images" / PICTURE).convert("RGB")
    inputs = processor(images=[picture], text=["<image>" + PROMPT], return_tensors="pt")
    return model(**inputs).logits[0, -1].float()


def joined(checkpoint):
    """The files of a checkpoint and of its tokenizer in one folder."""
    folder = pathlib.Path(tempfile.mkdtemp())
    for file in [*(HERE / "../checkpoints" / checkpoint).iterdir(), *(HERE / "../tokenizer").iterdir()]:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def classic(name):
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def part(model):
    """Gives the head a copy of the matrix that it shares, so that merging into one leaves the other alone."""
    head = model.get_output_embeddings()
    while not type(head) is torch.nn.Linear:
        head = head.base_layer if hasattr(head, "base_layer") else head.original_module
    head.weight = torch.nn.Parameter(head.weight.clone())


@torch.no_grad()
def expect(name, checkpoint, steps):
    before = {classic(k): v for k, v in base(checkpoint).state_dict().items()}
    model, expected = base(checkpoint), {}
    for adapter, factor in steps:
        peft = PeftModel.from_pretrained(model, HERE / adapter).eval()
        rescale(peft, factor)
        expected["logits"] = logits(peft, checkpoint)
        part(peft.get_base_model())
        model = peft.merge_and_unload()
    merged = logits(model, checkpoint)
    assert (merged - expected["logits"]).abs().max() < 1e-4 * merged.abs().max(), name
    after = {classic(k): v for k, v in model.state_dict().items()}
    head, embedding = after[HEAD], after[EMBEDDING]
    if (head - embedding).abs().max() <= 1e-6 * embedding.abs().max():
        after.pop(HEAD)
    elif torch.equal(head, before[HEAD]):
        # It is to be looked at nevertheless, since it is no longer the embedding.
        before[HEAD] = torch.zeros(1)
    rows = lambda t: t.reshape(1, -1) if t.dim() == 1 else t.flatten(1)
    for key, value in after.items():
        if torch.equal(value, before[key]):
            continue
        value = rows(value.float())
        n = len(value)
        weights = torch.tensor([(j * 37 % 64 - 31.5) / 32 for j in range(value.shape[1])], dtype=torch.float64)
        expected[key + ".rows"] = value[[0, n // 2, n - 1]].contiguous()
        expected[key + ".sums"] = value.double() @ weights
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save_file(expected, folder / "expected.safetensors")
    case = {"checkpoint": checkpoint, "adapters": [{"name": a, "scale": f} for a, f in steps]}
    (folder / "case.json").write_text(json.dumps(case) + "\n")
    changed = [k.removesuffix(".sums") for k in expected if k.endswith(".sums")]
    moved = (expected["logits"] - logits(base(checkpoint), checkpoint)).abs().max().item()
    both = [k for k in changed if k in (HEAD, EMBEDDING)]
    print(f"{name}: {len(changed)} tensors changed, logits by {moved:.3g}", both)


for name, (checkpoint, options) in CASES.items():
    make(name, checkpoint, options)
    expect(name, checkpoint, [(name, 1.0)])
for name, (checkpoint, steps) in SEQUENCES.items():
    expect(name, checkpoint, steps)
