//! What people hand over that is no checkpoint palmtop reads: each is named, with what helps.

use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;

use super::shards::Tensor;
use crate::files::is_there;

/// What helps with a checkpoint whose weights were quantized by another program.
const CONVERT_THE_BASE: &str = "convert the checkpoint that it was made from";

/// What helps with weights that only PyTorch reads.
const SAVE_AS_SAFETENSORS: &str =
    "load it in Python and save it with save_pretrained(\"FOLDER\", safe_serialization=True)";

/// Why something that is no folder is no checkpoint.
pub fn no_folder(path: &Path) -> String {
    if !is_there(path) {
        return "does not exist".to_owned();
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let of_format = match extension.as_str() {
        "safetensors" | "json" => "is a file; name the checkpoint's folder, which has config.json too",
        "gguf" => return gguf(),
        "bin" | "pt" | "pth" | "ckpt" => return pickled("is a file"),
        "onnx" => return onnx(),
        "h5" | "keras" => return keras(),
        "tflite" | "task" | "litertlm" => return lite_rt(),
        _ => "is a file; name the checkpoint's folder",
    };
    of_format.to_owned()
}

/// Why a folder with these files has no weights.
pub fn no_weights(dir: &Path, names: &[String]) -> String {
    let any = |ends: &[&str]| names.iter().any(|n| ends.iter().any(|end| n.ends_with(end)));
    let has = |name: &str| names.iter().any(|n| n == name);
    if names.is_empty() {
        return "has neither model.safetensors nor anything else: download the checkpoint again".to_owned();
    }
    if let Some(inside) = training_folder(names) {
        return inside;
    }
    if names.iter().any(|n| n.starts_with("global_step")) || has("zero_to_fp32.py") {
        return "holds the state of a DeepSpeed run, not weights: run its zero_to_fp32.py with \
                --safe_serialization, and convert what that writes"
            .to_owned();
    }
    if any(&[".gguf"]) {
        return gguf();
    }
    if has("onnx") || any(&[".onnx"]) {
        return onnx();
    }
    if any(&[".weights.h5", ".keras"]) || is_keras(dir) {
        return keras();
    }
    if any(&[".tflite", ".task", ".litertlm"]) {
        return lite_rt();
    }
    if has("_METADATA") || has("_CHECKPOINT_METADATA") || has("manifest.ocdbt") {
        return "is an Orbax checkpoint of JAX, which palmtop does not read: download the same model as safetensors \
                from the hub, or as .npz"
            .to_owned();
    }
    if has("tf_model.h5") || has("flax_model.msgpack") {
        return "has weights for TensorFlow or Flax only, which palmtop does not read: load them with \
                from_pretrained(..., from_flax=True) and save them with save_pretrained"
            .to_owned();
    }
    if any(&[".bin", ".pt", ".pth", ".ckpt"]) {
        return pickled("has weights");
    }
    if any(&[".npz"]) {
        return "has its weights as .npz, the form of JAX: name the .npz file itself, and its tokenizer with \
                --tokenizer FILE"
            .to_owned();
    }
    "has neither model.safetensors nor model.safetensors.index.json; download the checkpoint again, or save the \
     model with save_pretrained"
        .to_owned()
}

/// The folder of a training run, whose checkpoints lie inside.
fn training_folder(names: &[String]) -> Option<String> {
    let step = |n: &String| n.strip_prefix("checkpoint-").and_then(|step| step.parse::<u64>().ok());
    let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
    steps.sort_unstable();
    let last = steps.last()?;
    let listed: Vec<String> = steps.iter().map(|step| format!("checkpoint-{step}")).collect();
    Some(format!(
        "is the folder of a training run, which holds {}: name one of them, such as checkpoint-{last}",
        crate::error::listed(&listed)
    ))
}

fn is_keras(dir: &Path) -> bool {
    let config = std::fs::read(dir.join("config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    config.is_some_and(|c| c["module"].as_str().is_some_and(|m| m.starts_with("keras")))
}

fn gguf() -> String {
    format!(
        "holds GGUF, which is quantized already and has the image encoder in a file of its own: {CONVERT_THE_BASE}"
    )
}

fn onnx() -> String {
    format!("holds ONNX graphs, from which weights cannot be taken with certainty: {CONVERT_THE_BASE}")
}

fn keras() -> String {
    "is a Keras preset, which palmtop does not read: download the same model as safetensors from the hub, or as .npz"
        .to_owned()
}

fn lite_rt() -> String {
    format!("holds a LiteRT model, which is quantized already: {CONVERT_THE_BASE}")
}

fn pickled(what: &str) -> String {
    format!(
        "{what} in PyTorch's pickle format, which can run code when it is read, so palmtop does not: \
         {SAVE_AS_SAFETENSORS}"
    )
}

/// Names the quantization or the kind of model that these tensors show, if it is one that is not read.
pub fn tensors<'a>(all: impl Iterator<Item = &'a Tensor> + Clone) -> Option<String> {
    let ends = |end: &str| all.clone().any(|t| t.name.ends_with(end));
    let quantized = |by: &str| Some(format!("its weights are quantized by {by}: {CONVERT_THE_BASE}"));
    if ends(".qweight") {
        return quantized(if ends(".g_idx") { "GPTQ" } else { "AWQ or GPTQ" });
    }
    if all.clone().any(|t| matches!(t.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)) {
        return quantized("FP8");
    }
    if ends(".weight_packed") {
        return quantized("compressed-tensors");
    }
    if all.clone().any(|t| t.dtype == Dtype::U32) && ends(".scales") {
        return quantized("MLX");
    }
    if all.clone().any(|t| t.shape == [0]) {
        return Some(
            "its tensors are empty, as DeepSpeed's ZeRO-3 leaves them: save it with \
             stage3_gather_16bit_weights_on_model_save, or run zero_to_fp32.py --safe_serialization"
                .to_owned(),
        );
    }
    None
}
