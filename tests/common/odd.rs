//! Legal models of odd sizes: every width, head and count that a kernel or a buffer could take for granted.

use std::collections::HashMap;
use std::path::Path;

use palmtop::model::config::{Config, Generation};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{WeightSource, needed};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// A model of odd sizes.
pub struct Odd {
    /// What is odd about it.
    pub name: String,
    /// Its sizes.
    pub config: Config,
}

/// Sizes of an [`Odd`] in one line each.
struct Sizes {
    generation: u8,
    /// Width, heads, MLP and layers of the encoder.
    vision: [usize; 4],
    /// Sides of a picture and of a patch, in pixels.
    sides: [usize; 2],
    /// Width, MLP and layers of the decoder.
    text: [usize; 3],
    /// Query heads, key-value heads and their width.
    heads: [usize; 3],
    vocab: usize,
    /// Of every second layer from the first of Gemma 2.
    window: Option<usize>,
}

impl Sizes {
    fn config(&self) -> Config {
        let gemma2 = self.generation == 2;
        let mut config = preset(if gemma2 { "tiny2" } else { "tiny" }).expect("a preset");
        let (v, t) = (&mut config.vision, &mut config.text);
        [v.hidden, v.heads, v.intermediate, v.layers] = self.vision;
        [v.image_size, v.patch_size] = self.sides;
        [t.hidden, t.intermediate, t.layers] = self.text;
        [t.heads, t.kv_heads, t.head_dim] = self.heads;
        t.vocab = self.vocab;
        t.query_scalar = t.head_dim as f64;
        t.windows = (0..t.layers).map(|i| self.window.filter(|_| i % 2 == 0)).collect();
        assert!(gemma2 || self.window.is_none(), "only Gemma 2 has windows");
        config.check().unwrap_or_else(|(key, what)| panic!("{key} {what}"));
        config
    }
}

/// As many tokens as the small tokenizer has, which is two over a whole stripe of the head.
const VOCAB: usize = 2162;

/// Models that are each odd in a way of their own.
pub fn odd_models() -> Vec<Odd> {
    let of = |name: &str, sizes: Sizes| Odd { name: name.to_owned(), config: sizes.config() };
    vec![
        of(
            "a decoder wider than its queries, keys and values, behind 256 patches",
            Sizes {
                generation: 1,
                vision: [256, 4, 100, 1],
                sides: [64, 4],
                text: [1024, 50, 1],
                heads: [4, 1, 64],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "an encoder wider than its queries would need, one layer, no common divisors",
            Sizes {
                generation: 2,
                vision: [255, 5, 101, 2],
                sides: [42, 14],
                text: [35, 37, 3],
                heads: [5, 1, 6],
                vocab: VOCAB + 15,
                window: Some(2),
            },
        ),
        of(
            "one of everything",
            Sizes {
                generation: 1,
                vision: [1, 1, 1, 1],
                sides: [1, 1],
                text: [1, 1, 1],
                heads: [1, 1, 2],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "one of everything, in Gemma 2",
            Sizes {
                generation: 2,
                vision: [1, 1, 1, 1],
                sides: [1, 1],
                text: [1, 1, 1],
                heads: [1, 1, 2],
                vocab: VOCAB,
                window: Some(1),
            },
        ),
        of(
            "windows of one key",
            Sizes {
                generation: 2,
                vision: [24, 1, 17, 1],
                sides: [14, 14],
                text: [16, 15, 2],
                heads: [3, 1, 2],
                vocab: VOCAB + 1,
                window: Some(1),
            },
        ),
        of(
            "a decoder far wider than the encoder",
            Sizes {
                generation: 1,
                vision: [24, 2, 40, 1],
                sides: [28, 14],
                text: [640, 33, 1],
                heads: [2, 1, 6],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "an encoder far wider than the decoder",
            Sizes {
                generation: 2,
                vision: [256, 1, 513, 1],
                sides: [28, 14],
                text: [24, 100, 2],
                heads: [2, 2, 6],
                vocab: VOCAB,
                window: Some(3),
            },
        ),
        of(
            "heads far wider than the decoder",
            Sizes {
                generation: 2,
                vision: [96, 1, 31, 1],
                sides: [28, 14],
                text: [40, 16, 2],
                heads: [2, 1, 256],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "heads as wide as they may be",
            Sizes {
                generation: 1,
                vision: [1024, 1, 9, 1],
                sides: [4, 2],
                text: [7, 3, 1],
                heads: [1, 1, 1024],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "many heads, as narrow as they may be",
            Sizes {
                generation: 1,
                vision: [64, 64, 65, 1],
                sides: [28, 14],
                text: [17, 129, 2],
                heads: [48, 3, 2],
                vocab: VOCAB,
                window: None,
            },
        ),
        of(
            "attention in integers over narrow heads",
            Sizes {
                generation: 2,
                vision: [24, 3, 16, 1],
                sides: [64, 4],
                text: [30, 47, 2],
                heads: [4, 2, 64],
                vocab: VOCAB,
                window: Some(7),
            },
        ),
        of(
            "widths on both sides of where chunks change, and rows in two blocks",
            Sizes {
                generation: 2,
                vision: [33, 3, 512, 1],
                sides: [46, 2],
                text: [513, 511, 2],
                heads: [3, 3, 34],
                vocab: VOCAB,
                window: Some(1),
            },
        ),
        with_own_head(of(
            "a head of its own",
            Sizes {
                generation: 1,
                vision: [24, 2, 30, 1],
                sides: [9, 3],
                text: [40, 44, 2],
                heads: [2, 1, 20],
                vocab: VOCAB + 1,
                window: None,
            },
        )),
        with_own_head(of(
            "a head of its own, in Gemma 2",
            Sizes {
                generation: 2,
                vision: [24, 2, 30, 1],
                sides: [9, 3],
                text: [272, 44, 2],
                heads: [4, 2, 20],
                vocab: VOCAB,
                window: Some(3),
            },
        )),
    ]
}

/// The same model with a second matrix for the LM head.
fn with_own_head(mut odd: Odd) -> Odd {
    odd.config.text.own_head = true;
    odd
}

/// All combinations of widths, heads and patches that are narrow and wide, few and many.
pub fn odd_grid() -> Vec<Odd> {
    let mut out = Vec::new();
    for (patches, sides) in [(1, [5, 5]), (4, [12, 6]), (9, [9, 3])] {
        for vision in [[24, 1, 19, 1], [72, 3, 16, 2], [256, 8, 1, 1]] {
            for (hidden, heads) in [(16, [1, 1, 64]), (40, [6, 2, 2]), (272, [3, 1, 6])] {
                for (generation, window) in [(1, None), (2, None), (2, Some(1))] {
                    let (text, vocab) = ([hidden, hidden / 2 + 3, 2], VOCAB + patches);
                    let sizes = Sizes { generation, vision, sides, text, heads, vocab, window };
                    let of = format!("encoder {vision:?}, decoder {hidden}, {heads:?}");
                    let name = format!("Gemma {generation}, window {window:?}, {patches} patches, {of}");
                    out.push(Odd { name, config: sizes.config() });
                }
            }
        }
    }
    out
}

/// Writes a checkpoint folder of random weights in f32, with a tokenizer, as the hub would have it.
pub fn write_checkpoint(config: &Config, seed: u64, folder: &Path) {
    let random = Synthetic::new(config.clone(), seed);
    let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = needed(config)
        .into_iter()
        .map(|(name, shape)| {
            let mut values = vec![0.0f32; shape.iter().product()];
            random.read(&name, 0, &mut values).expect("random weights");
            (name, (shape, bytemuck::cast_slice(&values).to_vec()))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many values as the shape says"))
    });
    std::fs::create_dir_all(folder).expect("a folder");
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("writing weights");
    std::fs::write(folder.join("config.json"), config_json(config).to_string()).expect("writing config.json");
    crate::copy_into(&crate::data().join("tokenizer"), folder);
}

/// A configuration as transformers writes it.
fn config_json(config: &Config) -> Value {
    let (v, t) = (&config.vision, &config.text);
    let gemma2 = t.generation == Generation::Gemma2;
    let mut text = json!({
        "model_type": if gemma2 { "gemma2" } else { "gemma" },
        "hidden_size": t.hidden,
        "intermediate_size": t.intermediate,
        "num_hidden_layers": t.layers,
        "num_attention_heads": t.heads,
        "num_key_value_heads": t.kv_heads,
        "head_dim": t.head_dim,
        "vocab_size": t.vocab,
    });
    if gemma2 {
        let kind = |w: &Option<usize>| if w.is_some() { "sliding_attention" } else { "full_attention" };
        text["query_pre_attn_scalar"] = json!(t.query_scalar);
        text["attn_logit_softcapping"] = json!(t.attention_softcap);
        text["final_logit_softcapping"] = json!(t.final_softcap);
        text["sliding_window"] = json!(t.windows.iter().flatten().next());
        text["layer_types"] = t.windows.iter().map(kind).collect();
    }
    json!({
        "model_type": "paligemma",
        "image_token_index": config.tokens.image,
        "tie_word_embeddings": !config.text.own_head,
        "text_config": text,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": v.hidden,
            "intermediate_size": v.intermediate,
            "num_hidden_layers": v.layers,
            "num_attention_heads": v.heads,
            "image_size": v.image_size,
            "patch_size": v.patch_size,
        },
    })
}
