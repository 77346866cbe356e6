//! The architecture, read from `config.json` and the files beside it.
//!
//! Missing fields get the defaults of transformers. If a field asks for something that palmtop does not compute, the
//! checkpoint is refused with the name of the key: a model that runs with other functions than in training answers
//! nonsense.

use std::path::Path;

use palmtop::image::Filter;
use palmtop::model::config::{Config, Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};

use serde_json::Value;

use crate::ConvertError;
use crate::generation_json;
use crate::json::{self, Section};

const SIZE_MAX: usize = 1 << 22;
const LAYERS_MAX: usize = 1024;

/// What the files beside the weights say.
pub(crate) struct FromJson {
    pub config: Config,
    /// True if a head that is not in the file is the embedding.
    pub tied: bool,
    /// Numbers of a vector, in the configuration of a model for retrieval.
    pub retrieval_dim: Option<usize>,
    /// Keys of `config.json` that say that the weights are quantized.
    pub quantization: Vec<&'static str>,
    /// What is worth knowing of them, a sentence each.
    pub notes: Vec<String>,
}

/// Reads `config.json`, `generation_config.json` and `preprocessor_config.json` (or the newer
/// `processor_config.json`) of a checkpoint folder. Whether the LM head is a matrix of its own is known only with the
/// weights; here it is the embedding.
pub fn read_config(dir: &Path) -> Result<Config, ConvertError> {
    read_all(dir).map(|read| read.config)
}

/// As [`read_config`], and what else a conversion needs.
pub(crate) fn read_all(dir: &Path) -> Result<FromJson, ConvertError> {
    let path = dir.join("config.json");
    let value = json::read(&path)?;
    let (top, retrieval_dim) = paligemma(Section::new(&path, Some(&value)))?;
    let (mut notes, mut quantization) = (Vec::new(), Vec::new());
    let text_section = top.section("text_config", "text_config.")?;
    for section in [&top, &text_section] {
        for key in ["quantization_config", "compression_config"] {
            if section.get(key).is_some() {
                quantization.push(key);
            }
        }
    }
    let vision = vision(&top.section("vision_config", "vision_config.")?)?;
    let text = text(&text_section)?;
    let path = dir.join("generation_config.json");
    let value = json::read_if_there(&path)?;
    let generation = Section::new(&path, value.as_ref());
    // Before there was such a file, its keys stood in config.json.
    let generates = if generation.is_there() { &generation } else { &top };
    generation_json::check(generates, &mut notes)?;
    let tokens = tokens(&[generation, top, text_section], text.vocab)?;
    let image = image(dir, vision.image_size)?;
    let config = Config { vision, text, image, tokens, retrieval: None };
    config.check().map_err(|(key, what)| top.wrong(json_key(key), what))?;
    // A model for retrieval need not have a head at all.
    let tied = retrieval_dim.is_some() || top.flag("tie_word_embeddings", true)?;
    Ok(FromJson { config, tied, retrieval_dim, quantization, notes })
}

/// PaliGemma's configuration: all of the file, or a part of that of transformers' ColPali, which has the size of its
/// vectors besides.
fn paligemma<'a>(top: Section<'a>) -> Result<(Section<'a>, Option<usize>), ConvertError> {
    let (section, dim) = match top.text("model_type")? {
        Some("colpali") => {
            (top.section("vlm_config", "vlm_config.")?, Some(top.size("embedding_dim", 128, SIZE_MAX)?))
        }
        _ => (top, None),
    };
    match section.text("model_type")? {
        Some("paligemma") => Ok((section, dim)),
        Some(other) => Err(section.wrong("model_type", format!("is '{other}'; palmtop runs 'paligemma'"))),
        // transformers takes one for PaliGemma's.
        None if dim.is_some() && !section.is_there() => Ok((section, dim)),
        None => Err(section.wrong("model_type", "is missing; palmtop runs 'paligemma'")),
    }
}

fn vision(s: &Section<'_>) -> Result<VisionConfig, ConvertError> {
    if let Some(other) = s.text("model_type")?.filter(|t| *t != "siglip_vision_model") {
        return Err(s.wrong("model_type", format!("is '{other}'; palmtop runs 'siglip_vision_model'")));
    }
    activation(s, "hidden_act", false)?;
    if s.size("num_channels", 3, SIZE_MAX)? != 3 {
        return Err(s.wrong("num_channels", "is not 3: images have red, green and blue"));
    }
    // Without the section, what `PaliGemmaConfig` gives (its MLPs are not those of any PaliGemma); a section without
    // a field is SigLIP's base model.
    let default = |paligemma, siglip| if s.is_there() { siglip } else { paligemma };
    Ok(VisionConfig {
        hidden: s.size("hidden_size", default(1152, 768), SIZE_MAX)?,
        intermediate: s.size("intermediate_size", default(4096, 3072), SIZE_MAX)?,
        layers: s.size("num_hidden_layers", default(27, 12), LAYERS_MAX)?,
        heads: s.size("num_attention_heads", default(16, 12), SIZE_MAX)?,
        image_size: s.side("image_size", 224, SIZE_MAX)?,
        patch_size: s.side("patch_size", default(14, 16), SIZE_MAX)?,
        norm_eps: s.positive("layer_norm_eps", 1e-6)?,
    })
}

fn text(s: &Section<'_>) -> Result<TextConfig, ConvertError> {
    let generation = match s.text("model_type")?.unwrap_or("gemma") {
        "gemma" => Generation::Gemma1,
        "gemma2" => Generation::Gemma2,
        other => {
            return Err(s.wrong("model_type", format!("is '{other}'; palmtop runs 'gemma' and 'gemma2'")));
        }
    };
    let gemma2 = generation == Generation::Gemma2;
    if gemma2 || s.get("hidden_activation").is_some() {
        activation(s, "hidden_activation", false)?;
    } else {
        activation(s, "hidden_act", true)?;
    }
    s.refuse_flag("attention_bias", true, "palmtop runs decoders without attention biases")?;
    s.refuse_flag("use_bidirectional_attention", false, "PaliGemma's prompt sees itself both ways")?;
    let rope = s.section("rope_parameters", "text_config.rope_parameters.")?;
    for rope in [&rope, &s.section("rope_scaling", "text_config.rope_scaling.")?] {
        for key in ["rope_type", "type"] {
            if let Some(other) = rope.text(key)?.filter(|t| *t != "default") {
                return Err(rope.wrong(key, format!("is '{other}'; palmtop runs 'default'")));
            }
        }
        if rope.positive("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(rope.wrong("partial_rotary_factor", "is not 1; palmtop turns all of a head"));
        }
    }
    let rope_theta =
        if rope.get("rope_theta").is_some() { rope } else { *s }.positive("rope_theta", 10000.0)?;
    // A folder without the section is the 3B model; a section without a field has Gemma's own defaults.
    let there = s.is_there();
    let default = |paligemma, gemma, gemma2_default| match (there, gemma2) {
        (false, _) => paligemma,
        (true, false) => gemma,
        (true, true) => gemma2_default,
    };
    let layers = s.size("num_hidden_layers", default(18, 28, 26), LAYERS_MAX)?;
    let head_dim = s.size("head_dim", 256, SIZE_MAX)?;
    let softcap = |key, value| match (gemma2 && !s.is_null(key)).then(|| s.positive(key, value)) {
        None => Ok(None),
        Some(cap) => cap.map(Some),
    };
    Ok(TextConfig {
        generation,
        hidden: s.size("hidden_size", default(2048, 3072, 2304), SIZE_MAX)?,
        intermediate: s.size("intermediate_size", default(16384, 24576, 9216), SIZE_MAX)?,
        layers,
        heads: s.size("num_attention_heads", default(8, 16, 8), SIZE_MAX)?,
        kv_heads: s.size("num_key_value_heads", default(1, 16, 4), SIZE_MAX)?,
        head_dim,
        vocab: s.size("vocab_size", default(257_152, 256_000, 256_000), SIZE_MAX)?,
        own_head: false,
        norm_eps: s.positive("rms_norm_eps", 1e-6)?,
        rope_theta,
        query_scalar: match gemma2 {
            true => s.positive("query_pre_attn_scalar", 256.0)?,
            false => head_dim as f64,
        },
        attention_softcap: softcap("attn_logit_softcapping", 50.0)?,
        final_softcap: softcap("final_logit_softcapping", 30.0)?,
        windows: if gemma2 { windows(s, layers)? } else { vec![None; layers] },
    })
}

/// The window of each layer: as `layer_types` says, or on every second layer from the first.
fn windows(s: &Section<'_>, layers: usize) -> Result<Vec<Option<usize>>, ConvertError> {
    let window = match s.is_null("sliding_window") {
        true => None,
        false => Some(s.size("sliding_window", 4096, 1 << 30)?),
    };
    let Some(types) = s.get("layer_types") else {
        return Ok((0..layers).map(|i| window.filter(|_| i % 2 == 0)).collect());
    };
    let types = types.as_array().filter(|t| t.len() == layers);
    let types = types.ok_or_else(|| s.wrong("layer_types", format!("is not a list of {layers} entries")))?;
    let of_type = |t: &Value| match t.as_str() {
        Some("sliding_attention") => Ok(window),
        Some("full_attention") => Ok(None),
        _ => Err(s.wrong("layer_types", format!("has the unknown entry {t}"))),
    };
    types.iter().map(of_type).collect()
}

/// Only GELU in its tanh approximation is run. Gemma 1's old configurations say 'gelu' and mean it.
fn activation(s: &Section<'_>, key: &str, legacy: bool) -> Result<(), ConvertError> {
    match s.text(key)?.unwrap_or("gelu_pytorch_tanh") {
        "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new" | "gelu_fast" => Ok(()),
        "gelu" if legacy => Ok(()),
        other => Err(s.wrong(key, format!("is '{other}'; palmtop runs 'gelu_pytorch_tanh'"))),
    }
}

/// The first of the sections that has a key says what it is: `generation_config.json`, `config.json`, its text section.
/// Gemma 2's own list of tokens that end an answer also ends chat turns.
fn tokens(sections: &[Section<'_>; 3], vocab: usize) -> Result<TokenIds, ConvertError> {
    let top = &sections[1];
    let first = |key: &str, default: u32| {
        let mut found = sections.iter().map(|s| s.token_ids(key, vocab));
        Ok::<_, ConvertError>(found.find_map(Result::transpose).transpose()?.unwrap_or_else(|| vec![default]))
    };
    // It needs no row of the embedding.
    let image = match top.token_ids("image_token_index", SIZE_MAX)? {
        Some(ids) => ids[0],
        None => top.token_ids("image_token_id", SIZE_MAX)?.map_or(256_000, |ids| ids[0]),
    };
    // No padding is ever read, so -1, which stands for none in some files, may be any token.
    let is_none = |s: &Section<'_>| s.get("pad_token_id").and_then(Value::as_i64).is_some_and(|id| id < 0);
    let pad = if sections.iter().any(is_none) { 0 } else { first("pad_token_id", 0)?[0] };
    Ok(TokenIds { bos: first("bos_token_id", 2)?[0], eos: first("eos_token_id", 1)?, pad, image })
}

fn image(dir: &Path, image_size: usize) -> Result<ImageConfig, ConvertError> {
    let old = dir.join("preprocessor_config.json");
    let new = dir.join("processor_config.json");
    let (old_value, new_value) = (json::read_if_there(&old)?, json::read_if_there(&new)?);
    let s = match old_value.is_some() {
        true => Section::new(&old, old_value.as_ref()),
        false => Section::new(&new, new_value.as_ref()).section("image_processor", "image_processor.")?,
    };
    s.refuse_flag("do_resize", false, "palmtop resizes every picture to the size that the encoder takes")?;
    let filter = match s.get("resample") {
        None => Filter::Bicubic,
        Some(v) => match s.whole("resample") {
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            _ => {
                return Err(
                    s.wrong("resample", format!("is {v}; palmtop resizes by 2, bilinear, or 3, bicubic"))
                );
            }
        },
    };
    square(&s, "size", image_size)?;
    if s.flag("do_center_crop", false)? {
        square(&s, "crop_size", image_size)?;
        if s.get("size").is_some_and(|size| size.get("shortest_edge").is_some()) {
            let what = "is true behind a resize that keeps the shape; palmtop resizes pictures to a square";
            return Err(s.wrong("do_center_crop", what));
        }
    }
    s.refuse_flag("do_pad", true, "palmtop resizes pictures to a square without padding")?;
    let rescale = if s.flag("do_rescale", true)? { s.positive("rescale_factor", 1.0 / 255.0)? } else { 1.0 };
    let (mean, std) = match s.flag("do_normalize", true)? {
        true => (s.three("image_mean", [0.5; 3])?, s.three("image_std", [0.5; 3])?),
        false => ([0.0; 3], [1.0; 3]),
    };
    Ok(ImageConfig { mean, std, rescale, filter })
}

/// An error if a size is there, and not that of the encoder. `{"shortest_edge": n}`, and `n` alone, which stands for
/// it, are the same for pictures that transformers can go on with.
fn square(s: &Section<'_>, key: &str, image_size: usize) -> Result<(), ConvertError> {
    let Some(size) = s.get(key) else { return Ok(()) };
    let side = |key| size.get(key).and_then(json::whole);
    let wanted = Some(image_size as u64);
    if json::whole(size) == wanted
        || (side("height"), side("width")) == (wanted, wanted)
        || (side("shortest_edge") == wanted && side("longest_edge").is_none_or(|n| Some(n) == wanted))
    {
        return Ok(());
    }
    Err(s.wrong(key, format!("is {size}, and the image encoder takes {image_size} by {image_size}")))
}

/// The key of `config.json` from which an entry of the `.palm` file's metadata comes.
fn json_key(key: &str) -> &str {
    match key {
        "vision.hidden" => "vision_config.hidden_size",
        "vision.intermediate" => "vision_config.intermediate_size",
        "vision.layers" => "vision_config.num_hidden_layers",
        "vision.heads" => "vision_config.num_attention_heads",
        "vision.image_size" => "vision_config.image_size",
        "vision.patch_size" => "vision_config.patch_size",
        "text.hidden" => "text_config.hidden_size",
        "text.intermediate" => "text_config.intermediate_size",
        "text.layers" => "text_config.num_hidden_layers",
        "text.heads" => "text_config.num_attention_heads",
        "text.kv_heads" => "text_config.num_key_value_heads",
        "text.head_dim" => "text_config.head_dim",
        "text.vocab" => "text_config.vocab_size",
        "image.std" => "image_std",
        other => other,
    }
}
