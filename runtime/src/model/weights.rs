//! The weights of a model, bound by name once: places in the mapped file, checked against the architecture.

use std::ops::Range;

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix, WeightFormat};

use crate::format::{FormatError, PalmFile, Storage};
use crate::model::config::{Config, Generation, gate_up_padded};

/// A packed matrix of the file.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    layout: MatrixLayout,
    place: Range<usize>,
}

/// A plain f32 tensor of the file.
#[derive(Clone, Debug)]
pub(crate) struct Plain(Range<usize>);

impl Matrix {
    pub fn format(&self) -> WeightFormat {
        self.layout.format
    }

    /// Outputs of the matrix.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    /// Inputs of the matrix.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    pub fn of<'a>(&self, file: &'a PalmFile) -> PackedMatrix<'a> {
        PackedMatrix::new(self.layout, file.bytes_at(self.place.clone())).expect("bound to exactly its bytes")
    }
}

impl Plain {
    pub fn of<'a>(&self, file: &'a PalmFile) -> &'a [f32] {
        bytemuck::cast_slice(file.bytes_at(self.0.clone()))
    }
}

/// Everything that the graph multiplies with.
pub(crate) struct Weights {
    pub patch_embed: Matrix,
    pub patch_bias: Plain,
    pub position: Plain,
    pub vision: Vec<VisionLayer>,
    pub vision_norm: LayerNorm,
    pub projector: Matrix,
    pub projector_bias: Plain,
    pub text: Vec<TextLayer>,
    pub text_norm: Plain,
    /// Token embedding, and head.
    pub embed: Matrix,
}

pub(crate) struct LayerNorm {
    pub weight: Plain,
    pub bias: Plain,
}

pub(crate) struct VisionLayer {
    pub norm1: LayerNorm,
    pub qkv: Matrix,
    pub qkv_bias: Plain,
    pub out: Matrix,
    pub out_bias: Plain,
    pub norm2: LayerNorm,
    pub fc1: Matrix,
    pub fc1_bias: Plain,
    pub fc2: Matrix,
    pub fc2_bias: Plain,
}

pub(crate) struct TextLayer {
    pub attention_pre_norm: Plain,
    pub qkv: Matrix,
    pub out: Matrix,
    /// Gemma 2 only.
    pub attention_post_norm: Option<Plain>,
    pub mlp_pre_norm: Plain,
    pub gate_up: Matrix,
    pub down: Matrix,
    /// Gemma 2 only.
    pub mlp_post_norm: Option<Plain>,
}

impl Weights {
    /// Finds every tensor that the architecture needs, in its shape.
    pub fn bind(file: &PalmFile, config: &Config) -> Result<Self, FormatError> {
        let matrix = |name: &str, rows: usize, cols: usize| {
            file.matrix(name, rows, cols)?;
            let info = file.tensor(name)?;
            let Storage::Packed(format) = info.storage else {
                unreachable!("matrix() takes only packed ones")
            };
            let layout = MatrixLayout::new(format, rows, cols).expect("matrix() has made one");
            Ok::<_, FormatError>(Matrix {
                layout,
                place: info.offset as usize..(info.offset + info.length) as usize,
            })
        };
        let plain = |name: &str, shape: &[usize]| {
            file.f32s(name, shape)?;
            let info = file.tensor(name)?;
            Ok::<_, FormatError>(Plain(info.offset as usize..(info.offset + info.length) as usize))
        };
        Self::assemble(config, matrix, plain)
    }

    /// Asks for every tensor that the architecture needs, by name and shape.
    fn assemble(
        config: &Config,
        matrix: impl Fn(&str, usize, usize) -> Result<Matrix, FormatError>,
        plain: impl Fn(&str, &[usize]) -> Result<Plain, FormatError>,
    ) -> Result<Self, FormatError> {
        let (v, t) = (&config.vision, &config.text);
        let layer_norm = |name: String| {
            Ok::<_, FormatError>(LayerNorm {
                weight: plain(&format!("{name}.weight"), &[v.hidden])?,
                bias: plain(&format!("{name}.bias"), &[v.hidden])?,
            })
        };
        let vision = (0..v.layers)
            .map(|i| {
                let at = |name: &str| format!("vision.layer.{i}.{name}");
                Ok(VisionLayer {
                    norm1: layer_norm(at("norm1"))?,
                    qkv: matrix(&at("attn.qkv.weight"), 3 * v.hidden, v.hidden)?,
                    qkv_bias: plain(&at("attn.qkv.bias"), &[3 * v.hidden])?,
                    out: matrix(&at("attn.out.weight"), v.hidden, v.hidden)?,
                    out_bias: plain(&at("attn.out.bias"), &[v.hidden])?,
                    norm2: layer_norm(at("norm2"))?,
                    fc1: matrix(&at("mlp.fc1.weight"), v.intermediate, v.hidden)?,
                    fc1_bias: plain(&at("mlp.fc1.bias"), &[v.intermediate])?,
                    fc2: matrix(&at("mlp.fc2.weight"), v.hidden, v.intermediate)?,
                    fc2_bias: plain(&at("mlp.fc2.bias"), &[v.hidden])?,
                })
            })
            .collect::<Result<_, FormatError>>()?;
        let text = (0..t.layers)
            .map(|i| {
                let at = |name: &str| format!("text.layer.{i}.{name}");
                let post = |name: &str| {
                    (t.generation == Generation::Gemma2).then(|| plain(&at(name), &[t.hidden])).transpose()
                };
                Ok(TextLayer {
                    attention_pre_norm: plain(&at("attn.pre_norm"), &[t.hidden])?,
                    qkv: matrix(&at("attn.qkv.weight"), t.qkv(), t.hidden)?,
                    out: matrix(&at("attn.out.weight"), t.hidden, t.heads * t.head_dim)?,
                    attention_post_norm: post("attn.post_norm")?,
                    mlp_pre_norm: plain(&at("mlp.pre_norm"), &[t.hidden])?,
                    gate_up: matrix(&at("mlp.gate_up.weight"), 2 * gate_up_padded(t.intermediate), t.hidden)?,
                    down: matrix(&at("mlp.down.weight"), t.hidden, t.intermediate)?,
                    mlp_post_norm: post("mlp.post_norm")?,
                })
            })
            .collect::<Result<_, FormatError>>()?;
        Ok(Self {
            patch_embed: matrix("vision.patch_embed.weight", v.hidden, v.patch_values())?,
            patch_bias: plain("vision.patch_embed.bias", &[v.hidden])?,
            position: plain("vision.position", &[v.patches(), v.hidden])?,
            vision,
            vision_norm: layer_norm("vision.norm".to_owned())?,
            projector: matrix("projector.weight", t.hidden, v.hidden)?,
            projector_bias: plain("projector.bias", &[t.hidden])?,
            text,
            text_norm: plain("text.norm", &[t.hidden])?,
            embed: matrix("text.embed", t.vocab, t.hidden)?,
        })
    }

    /// Weights of any architecture, all matrices in one format, with no file behind them: only sizes can be had.
    #[cfg(test)]
    pub fn without_a_file(config: &Config, format: WeightFormat) -> Self {
        let matrix = |_: &str, rows, cols| {
            let layout = MatrixLayout::new(format, rows, cols).expect("a matrix that fits into memory");
            Ok(Matrix { layout, place: 0..0 })
        };
        Self::assemble(config, matrix, |_, _| Ok(Plain(0..0))).expect("nothing is looked up")
    }

    /// All matrices, but for the second ones of the MLPs.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let vision = self.vision.iter().flat_map(|l| [&l.qkv, &l.out, &l.fc1]);
        let text = self.text.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up]);
        [&self.patch_embed, &self.projector, &self.embed].into_iter().chain(vision).chain(text)
    }

    /// The second matrices of the MLPs, whose input comes through a gate.
    pub fn gated_matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.vision.iter().map(|l| &l.fc2).chain(self.text.iter().map(|l| &l.down))
    }
}
