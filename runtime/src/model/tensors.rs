//! The table of tensors: what a `.palm` file has, in which shape, for what, and what it is made of in a checkpoint.
//!
//! [`describe`] is the table. Everything that must know tensors walks it with a [`Visitor`] of its own: binding a
//! file's tensors ([`Weights`]), listing them for the converter ([`Config::tensors`], which has the sources too), and
//! counting work. To add a tensor, add a field to [`super::weights`] and its line here; then use it in the graph.

use super::config::{Config, gate_up_padded};
use super::weights::{LayerNorm, RetrievalHead, TextLayer, VisionLayer, Weights};

/// What a tensor is for; it says how the tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A packed matrix `[outputs, inputs]` of this part of the model.
    Matrix(Part),
    /// Weights or biases of a norm, f32.
    Norm,
    /// Added to a product, f32.
    Bias,
    /// Added to the rows of an input by position, f32.
    Table,
}

/// The part of the model to which a matrix belongs; recipes choose a weight format per part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Patch embedding: small, at the very start, fed with pixels.
    PatchEmbedding,
    /// Image encoder.
    Vision,
    /// The linear map from image features to the decoder's width.
    Projector,
    /// Decoder layers.
    Text,
    /// Token embedding and LM head: one matrix, or two of the same format.
    Embedding,
    /// The linear map from the decoder's rows to vectors for retrieval: small, at the very end.
    Retrieval,
}

/// A tensor that the architecture needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in the `.palm` file.
    pub name: String,
    /// Dimensions, outermost first; a matrix is `[outputs, inputs]`.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// How it is made of a checkpoint's tensors.
    pub source: Source,
}

impl TensorSpec {
    /// The part of a packed matrix; `None` for what is stored as plain f32.
    pub fn matrix(&self) -> Option<Part> {
        match self.role {
            Role::Matrix(part) => Some(part),
            Role::Norm | Role::Bias | Role::Table => None,
        }
    }
}

/// The tensors of a checkpoint that make one of a file, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Checkpoint tensors, in the order in which they are used.
    pub parts: Vec<SourcePart>,
    /// How they become one.
    pub making: Making,
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePart {
    /// Name in the *classic* dialect, that of the hub's checkpoints; [`classic`] turns the names of others into it.
    pub name: String,
    /// Dimensions, outermost first. A convolution kernel is `[outputs, channels, height, width]`.
    pub shape: Vec<usize>,
}

/// How the tensors of a checkpoint become one of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// All rows of the first part, then those of the next.
    Stack,
    /// Sixteen rows of the first part, the same sixteen of the second, and so on; zeros fill up the last.
    Stripes,
    /// One vector, to which one is added: Gemma's norms multiply by `1 + w`.
    OnePlus,
}

/// A subtree of a checkpoint's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Vision,
    Projector,
    Text,
    Retrieval,
}

impl Tree {
    const ALL: [Self; 4] = [Self::Vision, Self::Projector, Self::Text, Self::Retrieval];

    /// What names of this subtree begin with in each dialect, the classic one first. An outer `model.`, which
    /// transformers writes from 4.52 on, has been taken off before.
    const fn prefixes(self) -> &'static [&'static str] {
        match self {
            // `vision_model.` is missing from transformers 5.0 on.
            Self::Vision => &["vision_tower.vision_model.", "vision_tower."],
            Self::Projector => &["multi_modal_projector."],
            // The inner `model.` is missing from transformers 4.52 on.
            Self::Text => &["language_model.model.", "language_model."],
            // colpali-engine's name, and that of transformers.
            Self::Retrieval => &["custom_text_proj.", "embedding_proj_layer."],
        }
    }

    fn name(self, rest: &str) -> String {
        format!("{}{rest}", self.prefixes()[0])
    }
}

/// The classic name of the LM head, which the hub's checkpoints do not have: theirs is the embedding.
pub const HEAD: &str = "lm_head.weight";

/// The classic name of the token embedding, which is also the LM head if there is no other.
pub const EMBEDDING: &str = "language_model.model.embed_tokens.weight";

/// The classic name of the retrieval head, which checkpoints of models for retrieval have beside a PaliGemma.
pub const RETRIEVAL: &str = "custom_text_proj.weight";

/// True for a classic name of the retrieval head's weight or bias.
pub fn is_of_retrieval(name: &str) -> bool {
    name.starts_with(Tree::Retrieval.prefixes()[0])
}

/// The classic name of a checkpoint's tensor, whatever its dialect; names that palmtop does not know come back without
/// an outer `model.`.
pub fn classic(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    for tree in Tree::ALL {
        if let Some(rest) = tree.prefixes().iter().find_map(|prefix| name.strip_prefix(prefix)) {
            // The head stands beside the decoder's inner model, under the same prefix.
            return if tree == Tree::Text && rest == HEAD { HEAD.to_owned() } else { tree.name(rest) };
        }
    }
    name.to_owned()
}

/// Somebody who goes through the table.
pub(crate) trait Visitor {
    /// What a packed matrix is to this visitor.
    type Matrix;
    /// What a plain f32 tensor is to this visitor.
    type Plain;
    type Error;

    fn matrix(&mut self, spec: TensorSpec) -> Result<Self::Matrix, Self::Error>;
    fn plain(&mut self, spec: TensorSpec) -> Result<Self::Plain, Self::Error>;
}

/// One line of the table: a name, a shape, a role, and what a checkpoint has for it.
struct Line<'a> {
    tree: Tree,
    /// Prefix in the file, with the layer's number.
    file: &'a str,
    /// Prefix in the subtree of a checkpoint, with the layer's number.
    checkpoint: &'a str,
}

impl Line<'_> {
    fn spec(
        &self,
        name: &str,
        shape: &[usize],
        role: Role,
        from: &[(&str, &[usize])],
        making: Making,
    ) -> TensorSpec {
        let part = |&(name, shape): &(&str, &[usize])| SourcePart {
            name: self.tree.name(&format!("{}{name}", self.checkpoint)),
            shape: shape.to_vec(),
        };
        TensorSpec {
            name: format!("{}{name}", self.file),
            shape: shape.to_vec(),
            role,
            source: Source { parts: from.iter().map(part).collect(), making },
        }
    }

    /// A matrix that a checkpoint has as it is.
    fn matrix(&self, part: Part, name: &str, shape: [usize; 2], from: &str) -> TensorSpec {
        self.spec(name, &shape, Role::Matrix(part), &[(from, &shape)], Making::Stack)
    }

    /// A vector or a table that a checkpoint has as it is.
    fn plain(&self, role: Role, name: &str, shape: &[usize], from: &str) -> TensorSpec {
        self.spec(name, shape, role, &[(from, shape)], Making::Stack)
    }

    /// One of Gemma's norms, which a checkpoint has as the difference from one.
    fn rms_norm(&self, name: &str, width: usize, from: &str) -> TensorSpec {
        self.spec(name, &[width], Role::Norm, &[(from, &[width])], Making::OnePlus)
    }
}

/// The LM head of a model whose head is not its embedding.
fn own_head(shape: &[usize]) -> TensorSpec {
    let part = SourcePart { name: HEAD.to_owned(), shape: shape.to_vec() };
    TensorSpec {
        name: "text.head".to_owned(),
        shape: shape.to_vec(),
        role: Role::Matrix(Part::Embedding),
        source: Source { parts: vec![part], making: Making::Stack },
    }
}

/// The table, in the order in which answering about a picture reads it.
pub(crate) fn describe<V: Visitor>(
    visitor: &mut V,
    config: &Config,
) -> Result<Weights<V::Matrix, V::Plain>, V::Error> {
    use Making::{Stack, Stripes};
    use Role::{Bias, Matrix, Norm, Table};
    let (v, t) = (&config.vision, &config.text);
    let (h, x) = (v.hidden, v.intermediate);

    let line = Line { tree: Tree::Vision, file: "vision.", checkpoint: "" };
    let (values, side) = (v.patch_values(), v.patch_size);
    let kernel: (&str, &[usize]) = ("embeddings.patch_embedding.weight", &[h, 3, side, side]);
    let patch_embed =
        line.spec("patch_embed.weight", &[h, values], Matrix(Part::PatchEmbedding), &[kernel], Stack);
    let patch_embed = visitor.matrix(patch_embed)?;
    let patch_bias =
        visitor.plain(line.plain(Bias, "patch_embed.bias", &[h], "embeddings.patch_embedding.bias"))?;
    let position = &[v.patches(), h];
    let position =
        visitor.plain(line.plain(Table, "position", position, "embeddings.position_embedding.weight"))?;

    let mut vision = Vec::new();
    for i in 0..v.layers {
        let (file, checkpoint) = (format!("vision.layer.{i}."), format!("encoder.layers.{i}."));
        let line = Line { tree: Tree::Vision, file: &file, checkpoint: &checkpoint };
        let (square, vector): (&[usize], &[usize]) = (&[h, h], &[h]);
        let weights = [
            ("self_attn.q_proj.weight", square),
            ("self_attn.k_proj.weight", square),
            ("self_attn.v_proj.weight", square),
        ];
        let biases = [
            ("self_attn.q_proj.bias", vector),
            ("self_attn.k_proj.bias", vector),
            ("self_attn.v_proj.bias", vector),
        ];
        vision.push(VisionLayer {
            norm1: LayerNorm {
                weight: visitor.plain(line.plain(Norm, "norm1.weight", &[h], "layer_norm1.weight"))?,
                bias: visitor.plain(line.plain(Norm, "norm1.bias", &[h], "layer_norm1.bias"))?,
            },
            qkv: visitor.matrix(line.spec(
                "attn.qkv.weight",
                &[3 * h, h],
                Matrix(Part::Vision),
                &weights,
                Stack,
            ))?,
            qkv_bias: visitor.plain(line.spec("attn.qkv.bias", &[3 * h], Bias, &biases, Stack))?,
            out: visitor.matrix(line.matrix(
                Part::Vision,
                "attn.out.weight",
                [h, h],
                "self_attn.out_proj.weight",
            ))?,
            out_bias: visitor.plain(line.plain(Bias, "attn.out.bias", &[h], "self_attn.out_proj.bias"))?,
            norm2: LayerNorm {
                weight: visitor.plain(line.plain(Norm, "norm2.weight", &[h], "layer_norm2.weight"))?,
                bias: visitor.plain(line.plain(Norm, "norm2.bias", &[h], "layer_norm2.bias"))?,
            },
            fc1: visitor.matrix(line.matrix(Part::Vision, "mlp.fc1.weight", [x, h], "mlp.fc1.weight"))?,
            fc1_bias: visitor.plain(line.plain(Bias, "mlp.fc1.bias", &[x], "mlp.fc1.bias"))?,
            fc2: visitor.matrix(line.matrix(Part::Vision, "mlp.fc2.weight", [h, x], "mlp.fc2.weight"))?,
            fc2_bias: visitor.plain(line.plain(Bias, "mlp.fc2.bias", &[h], "mlp.fc2.bias"))?,
        });
    }
    let vision_norm = LayerNorm {
        weight: visitor.plain(line.plain(Norm, "norm.weight", &[h], "post_layernorm.weight"))?,
        bias: visitor.plain(line.plain(Norm, "norm.bias", &[h], "post_layernorm.bias"))?,
    };

    let line = Line { tree: Tree::Projector, file: "projector.", checkpoint: "linear." };
    let projector = visitor.matrix(line.matrix(Part::Projector, "weight", [t.hidden, h], "weight"))?;
    let projector_bias = visitor.plain(line.plain(Bias, "bias", &[t.hidden], "bias"))?;

    let (d, m) = (t.hidden, t.intermediate);
    let mut text = Vec::new();
    for i in 0..t.layers {
        let facts = t.layer(i);
        let (file, checkpoint) = (format!("text.layer.{i}."), format!("layers.{i}."));
        let line = Line { tree: Tree::Text, file: &file, checkpoint: &checkpoint };
        let (of_query, of_key) = ([t.heads * t.head_dim, d], [t.kv_heads * t.head_dim, d]);
        let qkv: [(&str, &[usize]); 3] = [
            ("self_attn.q_proj.weight", &of_query),
            ("self_attn.k_proj.weight", &of_key),
            ("self_attn.v_proj.weight", &of_key),
        ];
        let gate_up: [(&str, &[usize]); 2] =
            [("mlp.gate_proj.weight", &[m, d]), ("mlp.up_proj.weight", &[m, d])];
        // With norms behind the branches too, checkpoints have this name for the one behind attention.
        let post_attention = "post_attention_layernorm.weight";
        let pre_mlp = if facts.post_norms { "pre_feedforward_layernorm.weight" } else { post_attention };
        let post_mlp = "post_feedforward_layernorm.weight";
        text.push(TextLayer {
            attention_pre_norm: visitor.plain(line.rms_norm("attn.pre_norm", d, "input_layernorm.weight"))?,
            qkv: visitor.matrix(line.spec(
                "attn.qkv.weight",
                &[t.qkv(), d],
                Matrix(Part::Text),
                &qkv,
                Stack,
            ))?,
            out: visitor.matrix(line.matrix(
                Part::Text,
                "attn.out.weight",
                [d, t.heads * t.head_dim],
                "self_attn.o_proj.weight",
            ))?,
            attention_post_norm: match facts.post_norms {
                true => Some(visitor.plain(line.rms_norm("attn.post_norm", d, post_attention))?),
                false => None,
            },
            mlp_pre_norm: visitor.plain(line.rms_norm("mlp.pre_norm", d, pre_mlp))?,
            gate_up: visitor.matrix(line.spec(
                "mlp.gate_up.weight",
                &[2 * gate_up_padded(m), d],
                Matrix(Part::Text),
                &gate_up,
                Stripes,
            ))?,
            down: visitor.matrix(line.matrix(
                Part::Text,
                "mlp.down.weight",
                [d, m],
                "mlp.down_proj.weight",
            ))?,
            mlp_post_norm: match facts.post_norms {
                true => Some(visitor.plain(line.rms_norm("mlp.post_norm", d, post_mlp))?),
                false => None,
            },
        });
    }
    let line = Line { tree: Tree::Text, file: "text.", checkpoint: "" };
    Ok(Weights {
        patch_embed,
        patch_bias,
        position,
        vision,
        vision_norm,
        projector,
        projector_bias,
        text,
        text_norm: visitor.plain(line.rms_norm("norm", d, "norm.weight"))?,
        embed: visitor.matrix(line.matrix(Part::Embedding, "embed", [t.vocab, d], "embed_tokens.weight"))?,
        own_head: match t.own_head {
            true => Some(visitor.matrix(own_head(&[t.vocab, d]))?),
            false => None,
        },
        retrieval: match &config.retrieval {
            Some(retrieval) => {
                let line = Line { tree: Tree::Retrieval, file: "retrieval.", checkpoint: "" };
                let matrix = line.matrix(Part::Retrieval, "weight", [retrieval.dim, d], "weight");
                Some(RetrievalHead {
                    matrix: visitor.matrix(matrix)?,
                    bias: visitor.plain(line.plain(Bias, "bias", &[retrieval.dim], "bias"))?,
                })
            }
            None => None,
        },
    })
}

/// Lists the table.
#[derive(Default)]
struct Lister(Vec<TensorSpec>);

impl Visitor for Lister {
    type Matrix = ();
    type Plain = ();
    type Error = std::convert::Infallible;

    fn matrix(&mut self, spec: TensorSpec) -> Result<(), Self::Error> {
        self.0.push(spec);
        Ok(())
    }

    fn plain(&mut self, spec: TensorSpec) -> Result<(), Self::Error> {
        self.0.push(spec);
        Ok(())
    }
}

impl Config {
    /// All tensors in the order in which answering about a picture reads them.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut lister = Lister::default();
        let Ok(_) = describe(&mut lister, self);
        lister.0
    }
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
