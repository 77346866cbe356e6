//! Which array each tensor of a checkpoint lies in, by big_vision's names, and how.
//!
//! Layers are stacked on the first axis of an array. Older image encoders have an array for each layer instead.

use palmtop::model::config::{Config, Generation};

use super::view::{Axis, View};

/// A tensor under its classic name, and where it lies.
pub struct Place {
    pub classic: String,
    /// The array.
    pub key: String,
    /// The array's shape, in which `view` lies.
    pub shape: Vec<usize>,
    pub view: View,
}

pub const PATCH_KERNEL: &str = "img/embedding/kernel";
pub const PATCH_BIAS: &str = "img/embedding/bias";
pub const POSITION: &str = "img/pos_embedding";
/// Where image encoders have it whose layers are not stacked.
pub const POSITION_OLD: &str = "img/Transformer/posembed_input/pos_embedding";
pub const PROJECTOR: &str = "img/head/kernel";
pub const EMBEDDING: &str = "llm/embedder/input_embedding";
pub const QUERY: &str = "llm/layers/attn/q_einsum/w";
pub const KEY_VALUE: &str = "llm/layers/attn/kv_einsum/w";
pub const ATTENTION_OUT: &str = "llm/layers/attn/attn_vec_einsum/w";
pub const GATING: &str = "llm/layers/mlp/gating_einsum";
pub const DOWN: &str = "llm/layers/mlp/linear";
pub const POST_ATTENTION_NORM: &str = "llm/layers/post_attention_norm/scale";

/// The arrays of the image encoder's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisionLayers {
    /// One array for all layers.
    Stacked,
    /// One array for each layer.
    Apart,
}

impl VisionLayers {
    /// The array of layer `layer`, and the layer's number within it.
    pub fn key(self, layer: usize, name: &str) -> (String, usize) {
        match self {
            Self::Stacked => (format!("img/Transformer/encoderblock/{name}"), layer),
            Self::Apart => (format!("img/Transformer/encoderblock_{layer}/{name}"), 0),
        }
    }

    fn shape(self, layers: usize, of_layer: &[usize]) -> Vec<usize> {
        match self {
            Self::Stacked => stacked(layers, of_layer),
            Self::Apart => of_layer.to_vec(),
        }
    }
}

/// All tensors of an architecture.
pub fn places(config: &Config, vision_layers: VisionLayers) -> Vec<Place> {
    let mut places = Vec::new();
    vision(&mut places, config, vision_layers);
    text(&mut places, config);
    places
}

fn vision(places: &mut Vec<Place>, config: &Config, layers: VisionLayers) {
    let v = &config.vision;
    let (h, x, side, heads, size) = (v.hidden, v.intermediate, v.patch_size, v.heads, v.head_dim());
    let mut add = |classic: String, key: &str, shape: &[usize], view: View| {
        places.push(Place { classic, key: key.to_owned(), shape: shape.to_vec(), view });
    };
    let tree = |name: &str| format!("vision_tower.vision_model.{name}");
    // A kernel [row, column, channel, output] becomes [output, channel, row, column].
    let axis = |size, stride| Axis { size, stride };
    let kernel = View {
        base: 0,
        rows: vec![axis(h, 1)],
        cols: vec![axis(3, h), axis(side, side * 3 * h), axis(side, 3 * h)],
    };
    add(tree("embeddings.patch_embedding.weight"), PATCH_KERNEL, &[side, side, 3, h], kernel);
    add(tree("embeddings.patch_embedding.bias"), PATCH_BIAS, &[h], View::plain(0, 1, h));
    let position = if layers == VisionLayers::Stacked { POSITION } else { POSITION_OLD };
    let table = View::plain(0, v.patches(), h);
    add(tree("embeddings.position_embedding.weight"), position, &[1, v.patches(), h], table);
    for layer in 0..v.layers {
        let mut add = |classic: &str, name: &str, of_layer: &[usize], view: View| {
            let (key, at) = layers.key(layer, name);
            let view = View { base: at * of_layer.iter().product::<usize>(), ..view };
            let classic = tree(&format!("encoder.layers.{layer}.{classic}"));
            add(classic, &key, &layers.shape(v.layers, of_layer), view);
        };
        for (classic, name) in [("layer_norm1", "LayerNorm_0"), ("layer_norm2", "LayerNorm_1")] {
            add(&format!("{classic}.weight"), &format!("{name}/scale"), &[h], View::plain(0, 1, h));
            add(&format!("{classic}.bias"), &format!("{name}/bias"), &[h], View::plain(0, 1, h));
        }
        for (classic, name, from, to) in
            [("mlp.fc1", "MlpBlock_0/Dense_0", h, x), ("mlp.fc2", "MlpBlock_0/Dense_1", x, h)]
        {
            let kernel = View::transposed(0, from, to);
            add(&format!("{classic}.weight"), &format!("{name}/kernel"), &[from, to], kernel);
            add(&format!("{classic}.bias"), &format!("{name}/bias"), &[to], View::plain(0, 1, to));
        }
        let attention = "MultiHeadDotProductAttention_0";
        for (classic, name) in [("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")] {
            let (classic, name) = (format!("self_attn.{classic}"), format!("{attention}/{name}"));
            let kernel = View::transposed(0, h, heads * size);
            add(&format!("{classic}.weight"), &format!("{name}/kernel"), &[h, heads, size], kernel);
            add(&format!("{classic}.bias"), &format!("{name}/bias"), &[heads, size], View::plain(0, 1, h));
        }
        let kernel = View::transposed(0, heads * size, h);
        add("self_attn.out_proj.weight", &format!("{attention}/out/kernel"), &[heads, size, h], kernel);
        add("self_attn.out_proj.bias", &format!("{attention}/out/bias"), &[h], View::plain(0, 1, h));
    }
    for (classic, name) in [("weight", "scale"), ("bias", "bias")] {
        let key = format!("img/Transformer/encoder_norm/{name}");
        add(tree(&format!("post_layernorm.{classic}")), &key, &[h], View::plain(0, 1, h));
    }
    let d = config.text.hidden;
    let projector = |name: &str| format!("multi_modal_projector.linear.{name}");
    add(projector("weight"), PROJECTOR, &[h, d], View::transposed(0, h, d));
    add(projector("bias"), "img/head/bias", &[d], View::plain(0, 1, d));
}

fn text(places: &mut Vec<Place>, config: &Config) {
    let t = &config.text;
    let (d, f, n, k, h) = (t.hidden, t.intermediate, t.heads, t.kv_heads, t.head_dim);
    let mut add = |classic: String, key: &str, shape: Vec<usize>, view: View| {
        places.push(Place { classic, key: key.to_owned(), shape, view });
    };
    let tree = |name: &str| format!("language_model.model.{name}");
    add(tree("embed_tokens.weight"), EMBEDDING, vec![t.vocab, d], View::plain(0, t.vocab, d));
    // Heads [head, inputs, size] become rows head by head.
    let of_heads = |base, heads| View {
        base,
        rows: vec![Axis { size: heads, stride: d * h }, Axis { size: h, stride: 1 }],
        cols: vec![Axis { size: d, stride: h }],
    };
    for layer in 0..t.layers {
        let mut add = |classic: &str, key: &str, of_layer: &[usize], view: View| {
            let base = view.base + layer * of_layer.iter().product::<usize>();
            let classic = tree(&format!("layers.{layer}.{classic}"));
            add(classic, key, stacked(t.layers, of_layer), View { base, ..view });
        };
        let kv = [2, k, d, h];
        add("self_attn.q_proj.weight", QUERY, &[n, d, h], of_heads(0, n));
        add("self_attn.k_proj.weight", KEY_VALUE, &kv, of_heads(0, k));
        add("self_attn.v_proj.weight", KEY_VALUE, &kv, of_heads(k * d * h, k));
        add("self_attn.o_proj.weight", ATTENTION_OUT, &[n, h, d], View::transposed(0, n * h, d));
        add("mlp.gate_proj.weight", GATING, &[2, d, f], View::transposed(0, d, f));
        add("mlp.up_proj.weight", GATING, &[2, d, f], View::transposed(d * f, d, f));
        add("mlp.down_proj.weight", DOWN, &[f, d], View::transposed(0, f, d));
        let mut norm = |classic: &str, name: &str| {
            let key = format!("llm/layers/{name}/scale");
            add(&format!("{classic}.weight"), &key, &[d], View::plain(0, 1, d));
        };
        norm("input_layernorm", "pre_attention_norm");
        if t.generation == Generation::Gemma1 {
            norm("post_attention_layernorm", "pre_ffw_norm");
        } else {
            norm("post_attention_layernorm", "post_attention_norm");
            norm("pre_feedforward_layernorm", "pre_ffw_norm");
            norm("post_feedforward_layernorm", "post_ffw_norm");
        }
    }
    add(tree("norm.weight"), "llm/final_norm/scale", vec![d], View::plain(0, 1, d));
}

fn stacked(layers: usize, of_layer: &[usize]) -> Vec<usize> {
    [&[layers], of_layer].concat()
}
