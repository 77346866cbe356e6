"""Writes what transformers' ColPali computes for three pages and two questions, on a random model.

    python make_vectors.py

The model is ../checkpoints/tiny1-f32 with a random retrieval head, which is `head.safetensors` here, and besides with a
random adapter, `adapter`, of the shape of ColPali's own: rank 2, on the decoder's matrices and on the head.

In `plain.safetensors`, and `adapted.safetensors` with the adapter merged by peft: vectors [rows, dim] of each page and
each question, as `ColPaliProcessor` words them (`question.N`); of the questions also without `token_type_ids`, so that
rows see those before them, in the wordings of colpali-engine (`query.N`, `plain.N`); the scores of questions for pages
that `score_retrieval` gives; and the token ids of everything. Attention is eager: with SDPA, a question alone is not
masked. `retrieval.json` has the pictures and questions.

Needs torch, transformers (5.24 made the vectors here), peft (0.21), safetensors and pillow.
"""
import json
import pathlib
import shutil
import tempfile

import peft
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    ColPaliConfig,
    ColPaliForRetrieval,
    ColPaliProcessor,
    PaliGemmaForConditionalGeneration,
    __version__,
)

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent
PAGES = ["scene_640x361.png", "noise_97x61.png", "gradient_400x300.png"]
QUESTIONS = ["where is the red car?", "Größe der Tabelle auf Seite 3"]
DIM = 40
TARGETS = r".*language_model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$|.*embedding_proj_layer$"


def write(values, file):
    save_file({name: value.contiguous() for name, value in values.items()}, file)
    file.chmod(0o644)


def load(folder):
    """ColPali over the checkpoint, with the head."""
    pali = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    config = ColPaliConfig(vlm_config=AutoConfig.from_pretrained(folder).to_dict(), embedding_dim=DIM)
    config._attn_implementation = "eager"
    model = ColPaliForRetrieval(config).float().eval()
    model.vlm.load_state_dict(pali.model.state_dict())
    model.embedding_proj_layer.load_state_dict(
        {name.split(".")[1]: value for name, value in load_file(HERE / "head.safetensors").items()}
    )
    return model


def make_head():
    torch.manual_seed(5)
    weight, bias = torch.randn(DIM, 96) / 96**0.5, 0.1 * torch.randn(DIM)
    write({"custom_text_proj.weight": weight, "custom_text_proj.bias": bias}, HERE / "head.safetensors")


def with_adapter(model):
    torch.manual_seed(6)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS)
    wrapped = peft.get_peft_model(model, config)
    for name, value in wrapped.named_parameters():
        if "lora_" in name:
            value.data = (torch.randn_like(value) * 0.3).bfloat16().float()
    folder = HERE / "adapter"
    folder.mkdir(exist_ok=True)
    # As colpali-engine names them: its PaliGemma stands in `model.`, its head is `custom_text_proj`.
    saved = {}
    for name, value in peft.get_peft_model_state_dict(wrapped).items():
        name = name.replace("base_model.model.vlm.language_model.", "base_model.model.model.language_model.model.")
        saved[name.replace("embedding_proj_layer", "custom_text_proj")] = value.bfloat16()
    write(saved, folder / "adapter_model.safetensors")
    matrices = "down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj"
    about = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "vidore/colpaligemma-3b-pt-448-base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": False,
        "init_lora_weights": "gaussian",
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 2,
        "lora_dropout": 0.1,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 2,
        "rank_pattern": {},
        "revision": None,
        "target_modules": f"(.*(language_model).*({matrices}).*$|.*(custom_text_proj).*$)",
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=1) + "\n")
    return wrapped.merge_and_unload()


@torch.no_grad()
def compute(model, processor):
    values, pages, questions = {}, [], []
    for n, page in enumerate(PAGES):
        inputs = processor.process_images(images=[Image.open(DATA / "images" / page).convert("RGB")])
        values[f"page.{n}.tokens"] = inputs["input_ids"][0]
        inputs.pop("labels")
        pages.append(model(**inputs).embeddings[0])
        values[f"page.{n}"] = pages[-1]
    tokenizer, pads = processor.tokenizer, processor.tokenizer.pad_token * 10
    for n, question in enumerate(QUESTIONS):
        inputs = processor.process_queries(text=[question])
        values[f"question.{n}.tokens"] = inputs["input_ids"][0]
        questions.append(model(**inputs).embeddings[0])
        values[f"question.{n}"] = questions[-1]
        for form, text in (("query", f"Query: {question}{pads}\n"), ("plain", f"{question}{pads}")):
            inputs = tokenizer(tokenizer.bos_token + text, add_special_tokens=False, return_tensors="pt")
            values[f"{form}.{n}.tokens"] = inputs["input_ids"][0]
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            values[f"{form}.{n}"] = model(**inputs).embeddings[0]
    values["scores"] = processor.score_retrieval(questions, pages)
    return values


if __name__ == "__main__":
    make_head()
    with tempfile.TemporaryDirectory() as folder:
        for part in (DATA / "checkpoints" / "tiny1-f32", DATA / "tokenizer"):
            shutil.copytree(part, folder, dirs_exist_ok=True)
        processor = ColPaliProcessor.from_pretrained(folder)
        model = load(folder)
        write(compute(model, processor), HERE / "plain.safetensors")
        write(compute(with_adapter(model).eval(), processor), HERE / "adapted.safetensors")
    about = {"pages": PAGES, "questions": QUESTIONS, "dim": DIM, "transformers": __version__}
    (HERE / "retrieval.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
