//! The weights of a model, bound by name once: places in the mapped file, checked against the architecture.

use std::ops::Range;

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix, WeightFormat};

use super::config::Config;
use super::tensors::{TensorSpec, Visitor, describe};
use crate::format::{FormatError, PalmFile};

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
    /// A matrix of which only sizes can be had.
    #[cfg(test)]
    pub fn without_a_file(layout: MatrixLayout) -> Self {
        Self { layout, place: 0..0 }
    }

    pub fn format(&self) -> WeightFormat {
        self.layout.format
    }

    /// Outputs of the matrix.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Its bytes in the file.
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// Number of its bytes in the file.
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

/// Everything that the graph multiplies with: places in a file, or what another [`Visitor`] of the table makes of them.
pub(crate) struct Weights<M = Matrix, P = Plain> {
    pub patch_embed: M,
    pub patch_bias: P,
    /// Added to the patches' rows by position.
    pub position: P,
    pub vision: Vec<VisionLayer<M, P>>,
    pub vision_norm: LayerNorm<P>,
    pub projector: M,
    pub projector_bias: P,
    pub text: Vec<TextLayer<M, P>>,
    pub text_norm: P,
    /// Token embedding; also the LM head, if there is no other.
    pub embed: M,
    /// Where [`own_head`](super::config::TextConfig::own_head) says so.
    pub own_head: Option<M>,
    /// Where the [`Config`] has a [`Retrieval`](super::retrieval::Retrieval).
    pub retrieval: Option<RetrievalHead<M, P>>,
}

/// From the decoder's rows to vectors.
pub(crate) struct RetrievalHead<M = Matrix, P = Plain> {
    pub matrix: M,
    pub bias: P,
}

pub(crate) struct LayerNorm<P = Plain> {
    pub weight: P,
    pub bias: P,
}

pub(crate) struct VisionLayer<M = Matrix, P = Plain> {
    pub norm1: LayerNorm<P>,
    pub qkv: M,
    pub qkv_bias: P,
    pub out: M,
    pub out_bias: P,
    pub norm2: LayerNorm<P>,
    pub fc1: M,
    pub fc1_bias: P,
    pub fc2: M,
    pub fc2_bias: P,
}

pub(crate) struct TextLayer<M = Matrix, P = Plain> {
    pub attention_pre_norm: P,
    pub qkv: M,
    pub out: M,
    /// Where [`post_norms`](super::config::LayerFacts::post_norms) says so.
    pub attention_post_norm: Option<P>,
    pub mlp_pre_norm: P,
    pub gate_up: M,
    pub down: M,
    /// Where [`post_norms`](super::config::LayerFacts::post_norms) says so.
    pub mlp_post_norm: Option<P>,
}

/// Finds tensors in a file, in the shape that the table says.
struct Binder<'a>(&'a PalmFile);

impl Binder<'_> {
    fn place(&self, name: &str) -> Result<Range<usize>, FormatError> {
        let info = self.0.tensor(name)?;
        Ok(info.offset as usize..(info.offset + info.length) as usize)
    }
}

impl Visitor for Binder<'_> {
    type Matrix = Matrix;
    type Plain = Plain;
    type Error = FormatError;

    fn matrix(&mut self, spec: TensorSpec) -> Result<Matrix, FormatError> {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let layout = self.0.matrix(&spec.name, rows, cols)?.layout().to_owned();
        Ok(Matrix { layout, place: self.place(&spec.name)? })
    }

    fn plain(&mut self, spec: TensorSpec) -> Result<Plain, FormatError> {
        self.0.f32s(&spec.name, &spec.shape)?;
        Ok(Plain(self.place(&spec.name)?))
    }
}

/// Weights of any architecture, all matrices in one format, with no file behind them: only sizes can be had.
#[cfg(test)]
struct Unbound(WeightFormat);

#[cfg(test)]
impl Visitor for Unbound {
    type Matrix = Matrix;
    type Plain = Plain;
    type Error = std::convert::Infallible;

    fn matrix(&mut self, spec: TensorSpec) -> Result<Matrix, Self::Error> {
        let layout =
            MatrixLayout::new(self.0, spec.shape[0], spec.shape[1]).expect("a matrix that fits into memory");
        Ok(Matrix::without_a_file(layout))
    }

    fn plain(&mut self, _: TensorSpec) -> Result<Plain, Self::Error> {
        Ok(Plain(0..0))
    }
}

impl Weights {
    /// Finds every tensor that the architecture needs, in its shape.
    pub fn bind(file: &PalmFile, config: &Config) -> Result<Self, FormatError> {
        describe(&mut Binder(file), config)
    }

    /// All matrices in one format, with no file behind them: only sizes can be had.
    #[cfg(test)]
    pub fn without_a_file(config: &Config, format: WeightFormat) -> Self {
        let Ok(weights) = describe(&mut Unbound(format), config);
        weights
    }
}

impl<M, P> VisionLayer<M, P> {
    /// The matrices that every patch goes through.
    pub fn matrices(&self) -> [&M; 4] {
        [&self.qkv, &self.out, &self.fc1, &self.fc2]
    }
}

impl<M, P> TextLayer<M, P> {
    /// The matrices that every token goes through.
    pub fn matrices(&self) -> [&M; 4] {
        [&self.qkv, &self.out, &self.gate_up, &self.down]
    }
}

impl<M, P> Weights<M, P> {
    /// The matrices that a picture goes through.
    pub fn encoder_matrices(&self) -> impl Iterator<Item = &M> {
        let layers = self.vision.iter().flat_map(VisionLayer::matrices);
        [&self.patch_embed, &self.projector].into_iter().chain(layers)
    }

    /// The LM head.
    pub fn head(&self) -> &M {
        self.own_head.as_ref().unwrap_or(&self.embed)
    }

    /// The matrices of the decoder's layers, without the [`head`](Self::head).
    pub fn decoder_matrices(&self) -> impl Iterator<Item = &M> {
        self.text.iter().flat_map(TextLayer::matrices)
    }

    /// All matrices, but for the second ones of the MLPs.
    pub fn matrices_from_rows(&self) -> impl Iterator<Item = &M> {
        let vision = self.vision.iter().flat_map(|l| [&l.qkv, &l.out, &l.fc1]);
        let text = self.text.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up]);
        [&self.patch_embed, &self.projector, self.head()].into_iter().chain(vision).chain(text)
    }

    /// The second matrices of the MLPs, whose input comes through an activation.
    pub fn matrices_from_activations(&self) -> impl Iterator<Item = &M> {
        self.vision.iter().map(|l| &l.fc2).chain(self.text.iter().map(|l| &l.down))
    }
}
