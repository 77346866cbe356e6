//! Where weights come from, and how the tensors of a `.palm` file are put together from a checkpoint's.

use palmtop::model::config::{Config, Generation, TensorSpec};
use palmtop_kernels::layout::LANES;

use crate::ConvertError;

/// Gives the weights of a model by the classic names and shapes of the hub's checkpoints.
pub trait WeightSource: Sync {
    /// Reads `out.len()` values of a tensor in row-major order, beginning at value `start`.
    ///
    /// Only tensors of [`needed`] are asked for, and only values that they have.
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError>;
}

/// Classic names and shapes of all tensors that a checkpoint of this architecture has.
pub fn needed(config: &Config) -> Vec<(String, Vec<usize>)> {
    config.tensors().iter().flat_map(|spec| Assembly::new(config, spec).parts).collect()
}

/// How one tensor of a `.palm` file is made.
pub(crate) struct Assembly {
    /// The checkpoint's tensors: classic name and shape.
    parts: Vec<(String, Vec<usize>)>,
    order: Order,
}

enum Order {
    /// All rows of the first part, then those of the next.
    Behind,
    /// Sixteen rows of the first part, the same sixteen of the second, and so on; zeros fill up the last.
    Stripes,
    /// One vector, to which one is added: Gemma's norms multiply by `1 + w`.
    OnePlus,
}

/// The classic name of the token embedding, which is also the head.
pub(crate) const EMBEDDING: &str = "language_model.model.embed_tokens.weight";

impl Assembly {
    pub fn new(config: &Config, spec: &TensorSpec) -> Self {
        let (v, t) = (&config.vision, &config.text);
        let one = |name: String, shape: &[usize], order| Self { parts: vec![(name, shape.to_vec())], order };
        let of_vision = |name: &str| format!("vision_tower.vision_model.{name}");
        let of_text = |name: &str| format!("language_model.model.{name}");
        let plain = |name: String| one(name, &spec.shape, Order::Behind);
        let norm = |name: String| one(name, &spec.shape, Order::OnePlus);
        if let Some((layer, rest)) = layer_of(&spec.name, "vision.layer.") {
            let at = |name: &str| of_vision(&format!("encoder.layers.{layer}.{name}"));
            return match rest {
                "attn.qkv.weight" | "attn.qkv.bias" => {
                    let kind = rest.rsplit('.').next().expect("a text has a last piece");
                    let shape = if kind == "weight" { vec![v.hidden, v.hidden] } else { vec![v.hidden] };
                    let part = |x| (at(&format!("self_attn.{x}_proj.{kind}")), shape.clone());
                    Self { parts: ["q", "k", "v"].map(part).to_vec(), order: Order::Behind }
                }
                _ => plain(at(&rest
                    .replace("norm1", "layer_norm1")
                    .replace("norm2", "layer_norm2")
                    .replace("attn.out", "self_attn.out_proj"))),
            };
        }
        if let Some((layer, rest)) = layer_of(&spec.name, "text.layer.") {
            let at = |name: &str| of_text(&format!("layers.{layer}.{name}"));
            return match (rest, t.generation) {
                ("attn.qkv.weight", _) => {
                    let part = |x, heads| {
                        (at(&format!("self_attn.{x}_proj.weight")), vec![heads * t.head_dim, t.hidden])
                    };
                    let parts = vec![part("q", t.heads), part("k", t.kv_heads), part("v", t.kv_heads)];
                    Self { parts, order: Order::Behind }
                }
                ("mlp.gate_up.weight", _) => {
                    let part = |x| (at(&format!("mlp.{x}_proj.weight")), vec![t.intermediate, t.hidden]);
                    Self { parts: vec![part("gate"), part("up")], order: Order::Stripes }
                }
                ("attn.out.weight", _) => plain(at("self_attn.o_proj.weight")),
                ("mlp.down.weight", _) => plain(at("mlp.down_proj.weight")),
                ("attn.pre_norm", _) => norm(at("input_layernorm.weight")),
                // The same name stands before the MLP in Gemma 1 and behind attention in Gemma 2.
                ("mlp.pre_norm", Generation::Gemma1) | ("attn.post_norm", Generation::Gemma2) => {
                    norm(at("post_attention_layernorm.weight"))
                }
                ("mlp.pre_norm", Generation::Gemma2) => norm(at("pre_feedforward_layernorm.weight")),
                ("mlp.post_norm", Generation::Gemma2) => norm(at("post_feedforward_layernorm.weight")),
                (other, _) => unreachable!("the architecture has no '{other}'"),
            };
        }
        match spec.name.as_str() {
            "vision.patch_embed.weight" => one(
                of_vision("embeddings.patch_embedding.weight"),
                &[v.hidden, 3, v.patch_size, v.patch_size],
                Order::Behind,
            ),
            "vision.patch_embed.bias" => plain(of_vision("embeddings.patch_embedding.bias")),
            "vision.position" => plain(of_vision("embeddings.position_embedding.weight")),
            "vision.norm.weight" => plain(of_vision("post_layernorm.weight")),
            "vision.norm.bias" => plain(of_vision("post_layernorm.bias")),
            "projector.weight" => plain("multi_modal_projector.linear.weight".into()),
            "projector.bias" => plain("multi_modal_projector.linear.bias".into()),
            "text.norm" => norm(of_text("norm.weight")),
            "text.embed" => plain(EMBEDDING.into()),
            other => unreachable!("the architecture has no '{other}'"),
        }
    }

    /// Reads a tensor that is not a matrix, or a matrix as it lies in the checkpoint.
    pub fn read_all(&self, source: &dyn WeightSource) -> Result<Vec<f32>, ConvertError> {
        let mut out = Vec::new();
        for (name, shape) in &self.parts {
            let from = out.len();
            out.resize(from + shape.iter().product::<usize>(), 0.0);
            source.read(name, 0, &mut out[from..])?;
        }
        if matches!(self.order, Order::OnePlus) {
            out.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(out)
    }

    /// Reads row `row` of a matrix.
    pub fn read_row(
        &self,
        source: &dyn WeightSource,
        row: usize,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let (part, row) = match self.order {
            Order::Stripes => ((row / LANES) % 2, row / (2 * LANES) * LANES + row % LANES),
            _ => {
                let (mut part, mut row) = (0, row);
                while row >= self.parts[part].1[0] {
                    row -= self.parts[part].1[0];
                    part += 1;
                }
                (part, row)
            }
        };
        let (name, shape) = &self.parts[part];
        if row >= shape[0] {
            out.fill(0.0);
            return Ok(());
        }
        source.read(name, row * out.len(), out)
    }
}

fn layer_of<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    name.strip_prefix(prefix)?.split_once('.')
}
