//! The decoder of mask codes: the second half of the VQ-VAE that big_vision publishes as `vae-oid.npz`.
//!
//! ```text
//! 16 codes -> codebook rows, 512 channels of 4x4
//!   decoder.0        1x1, ReLU                               128 of 4x4
//!   decoder.2, .3    x + 1x1(ReLU(3x3(ReLU(3x3(x)))))        128 of 4x4
//!   decoder.4        transposed 4x4, stride 2, ReLU          128 of 8x8
//!   decoder.6        "                                        64 of 16x16
//!   decoder.8        "                                        32 of 32x32
//!   decoder.10       "                                        16 of 64x64
//!   decoder.12       1x1                                       1 of 64x64
//! ```
//!
//! These are the channels of `vae-oid.npz`. A file may have fewer at each stage; its shapes say how many.
//!
//! The weights stay where they are, in PyTorch's layouts. Loops run over the pixels of a plane, weights are single
//! values: planes have a border of zeros and are walked as one line, so that every tap is a shift and a loop of
//! fixed length vectorizes. Products and sums are rounded apart, not fused: the same bits on every machine, without
//! calling a function for each where the target's baseline has no fused instruction.

use std::ops::RangeInclusive;

/// The decoder's result is a square of this many pixels a side.
pub const MASK_SIDE: usize = 64;

/// A decoded mask: rows of [`MASK_SIDE`] values, nominally from -1 (outside) to 1 (inside).
pub type MaskLogits = [f32; MASK_SIDE * MASK_SIDE];

/// Number of entries of the codebook.
const CODES: usize = 128;
/// Side of the square of codes.
const CODE_SIDE: usize = 4;
/// A stage is what some layers write and others read; each has at most so many channels. First that of the codebook,
/// then what the residual blocks add to, the insides of the two blocks, and what the transposed convolutions write.
const CHANNELS_MAX: [usize; 10] = [512, 128, 128, 128, 128, 128, 128, 64, 32, 16];
/// Name, stages read and written, and taps a side.
const LAYERS: [(&str, usize, usize, usize); 11] = [
    ("decoder.0", 0, 1, 1),
    ("decoder.2.net.0", 1, 2, 3),
    ("decoder.2.net.2", 2, 3, 3),
    ("decoder.2.net.4", 3, 1, 1),
    ("decoder.3.net.0", 1, 4, 3),
    ("decoder.3.net.2", 4, 5, 3),
    ("decoder.3.net.4", 5, 1, 1),
    ("decoder.4", 1, 6, 4),
    ("decoder.6", 6, 7, 4),
    ("decoder.8", 7, 8, 4),
    ("decoder.10", 8, 9, 4),
];

/// A tensor that a decoder needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskTensorSpec {
    /// The name in `vae-oid.npz`.
    pub name: String,
    /// What the sizes are, outermost first.
    pub axes: Vec<MaskAxis>,
}

/// A size of a tensor. Stages of the decoder are counted from 0; all tensors that belong to one must have the same
/// number of channels there, of which there may be fewer than in `vae-oid.npz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskAxis {
    /// This many.
    Fixed(usize),
    /// The channels of a stage, which this tensor makes.
    Makes(usize),
    /// The channels of a stage, which this tensor takes.
    Takes(usize),
}

impl MaskTensorSpec {
    /// The shape in `vae-oid.npz`, which is the largest.
    pub fn shape_max(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| *axis.possible(&CHANNELS_MAX.map(|most| 1..=most)).end()).collect()
    }
}

impl MaskAxis {
    /// The stage whose channels are counted.
    pub fn stage(self) -> Option<usize> {
        match self {
            Self::Fixed(_) => None,
            Self::Makes(stage) | Self::Takes(stage) => Some(stage),
        }
    }

    /// The sizes there may be if stages may have so many channels.
    fn possible(self, channels: &[RangeInclusive<usize>; MaskCodec::STAGES]) -> RangeInclusive<usize> {
        match self {
            Self::Fixed(size) => size..=size,
            Self::Makes(stage) | Self::Takes(stage) => channels[stage].clone(),
        }
    }
}

/// A tensor of f32 in C order, as the model file holds it.
#[derive(Clone, Debug)]
pub struct MaskTensor<'a> {
    /// The sizes, outermost first.
    pub shape: Vec<usize>,
    /// The values; their number is the product of the sizes.
    pub data: &'a [f32],
}

/// A layer's weights and biases.
#[derive(Clone, Copy, Debug)]
struct Layer<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
}

/// Decodes the 16 codes of a `<seg>` answer into a mask. Borrows its weights.
#[derive(Clone, Debug)]
pub struct MaskCodec<'a> {
    codebook: &'a [f32],
    first: Layer<'a>,
    blocks: [[Layer<'a>; 3]; 2],
    upsamplings: [Layer<'a>; 4],
    last: Layer<'a>,
}

impl<'a> MaskCodec<'a> {
    /// What the names of the tensors begin with in a model file; the rest is the name in `vae-oid.npz`.
    pub const PREFIX: &'static str = "mask_codec.";

    /// The number of stages that [`MaskAxis`] tells apart.
    pub const STAGES: usize = CHANNELS_MAX.len();

    /// The tensors that a decoder needs.
    pub fn tensors() -> Vec<MaskTensorSpec> {
        use MaskAxis::{Fixed, Makes, Takes};
        let spec = |name: String, axes: &[MaskAxis]| MaskTensorSpec { name, axes: axes.to_vec() };
        let mut tensors = vec![spec("_vq_vae._embedding".to_owned(), &[Fixed(CODES), Makes(0)])];
        for (name, takes, makes, side) in LAYERS {
            let (takes, makes) = (Takes(takes), Makes(makes));
            // Transposed convolutions have their inputs first.
            let [first, second] = if side == 4 { [takes, makes] } else { [makes, takes] };
            tensors.push(spec(format!("{name}.weight"), &[first, second, Fixed(side), Fixed(side)]));
            tensors.push(spec(format!("{name}.bias"), &[makes]));
        }
        let last = [Fixed(1), Takes(Self::STAGES - 1), Fixed(1), Fixed(1)];
        tensors.push(spec("decoder.12.weight".to_owned(), &last));
        tensors.push(spec("decoder.12.bias".to_owned(), &[Fixed(1)]));
        tensors
    }

    /// Takes the tensors from `lookup`, which is asked for names with [`MaskCodec::PREFIX`]. Every shape is checked:
    /// the first tensor of a stage says how many channels it has, and all others must agree.
    pub fn new(mut lookup: impl FnMut(&str) -> Option<MaskTensor<'a>>) -> Result<Self, MaskCodecError> {
        let mut channels = CHANNELS_MAX.map(|most| 1..=most);
        let mut slices = Vec::new();
        for MaskTensorSpec { name, axes } in Self::tensors() {
            let name = format!("{}{name}", Self::PREFIX);
            let Some(tensor) = lookup(&name) else {
                return Err(MaskCodecError::Missing { name });
            };
            let expected: Vec<_> = axes.iter().map(|axis| axis.possible(&channels)).collect();
            let fits = tensor.shape.len() == expected.len()
                && tensor.shape.iter().zip(&expected).all(|(size, possible)| possible.contains(size))
                && tensor.data.len() == tensor.shape.iter().product::<usize>();
            if !fits {
                return Err(MaskCodecError::Shape { name, expected, found: tensor.shape });
            }
            for (axis, &size) in axes.iter().zip(&tensor.shape) {
                if let Some(stage) = axis.stage() {
                    channels[stage] = size..=size;
                }
            }
            slices.push(tensor.data);
        }
        // In the order of `tensors`: the codebook, then weight and bias of each layer.
        let layer = |index: usize| Layer { weight: slices[1 + 2 * index], bias: slices[2 + 2 * index] };
        Ok(Self {
            codebook: slices[0],
            first: layer(0),
            blocks: [[layer(1), layer(2), layer(3)], [layer(4), layer(5), layer(6)]],
            upsamplings: [layer(7), layer(8), layer(9), layer(10)],
            last: layer(11),
        })
    }

    /// Decodes `codes`, row by row over the 4 × 4 grid, into `out`. Allocates nothing. Codes above 127, which no
    /// [`Detection`](super::Detection) has, are taken modulo 128.
    pub fn decode(&self, codes: &[u8; 16], scratch: &mut MaskScratch, out: &mut MaskLogits) {
        let MaskScratch { planes: [a, b, c], sums } = scratch;

        let plane = Planes::new(CODE_SIDE);
        let channels = self.codebook.len() / CODES;
        let embedded = &mut a[..channels * plane.len()];
        embedded.fill(0.0);
        for (index, &code) in codes.iter().enumerate() {
            let entry = usize::from(code) % CODES;
            let values = &self.codebook[entry * channels..][..channels];
            let pixel = plane.interior(index / CODE_SIDE) + index % CODE_SIDE;
            for (channel, &value) in values.iter().enumerate() {
                embedded[channel * plane.len() + pixel] = value;
            }
        }

        convolve::<1>(self.first, plane, a, b, sums, Finish::Relu);
        for [first, second, third] in &self.blocks {
            convolve::<3>(*first, plane, b, a, sums, Finish::Relu);
            convolve::<3>(*second, plane, a, c, sums, Finish::Relu);
            convolve::<1>(*third, plane, c, b, sums, Finish::AddTo);
        }

        let (mut from, mut to) = (b, a);
        for (layer, side) in self.upsamplings.iter().zip([4, 8, 16, 32]) {
            let into = Planes::new(2 * side);
            for channel in 0..layer.bias.len() {
                sum_upsampled(*layer, channel, Planes::new(side), from, sums);
                if into.side < MASK_SIDE {
                    let target = &mut to[channel * into.len()..][..into.len()];
                    target.fill(0.0);
                    for_each_upsampled(Planes::new(side), sums, |row, column, sum| {
                        target[into.interior(row) + column] = sum.max(0.0);
                    });
                } else {
                    // The last 1x1 convolution takes each channel as it is made; their planes are never stored.
                    if channel == 0 {
                        out.fill(self.last.bias[0]);
                    }
                    let weight = self.last.weight[channel];
                    for_each_upsampled(Planes::new(side), sums, |row, column, sum| {
                        out[row * MASK_SIDE + column] += weight * sum.max(0.0);
                    });
                }
            }
            std::mem::swap(&mut from, &mut to);
        }
    }
}

/// Room for [`MaskCodec::decode`], allocated once.
#[derive(Clone, Debug)]
pub struct MaskScratch {
    /// Three sets of planes: what a layer reads, what it writes, what a residual block keeps between its layers.
    planes: [Box<[f32]>; 3],
    /// Sums of one output plane; for a transposed convolution, of its four phases.
    sums: Box<[[f32; SUMS]; 4]>,
}

/// Floats of the larger planes: what the third transposed convolution writes, 32x32 with borders.
const PLANES_MAX: usize = CHANNELS_MAX[8] * (32 + 2) * (32 + 2);
/// Floats of what a residual block keeps, 4x4 with borders.
const BLOCK_PLANES: usize = CHANNELS_MAX[1] * (CODE_SIDE + 2) * (CODE_SIDE + 2);
/// Positions in a line over the largest plane that a layer reads, see [`Planes::line`].
const SUMS: usize = 32 * (32 + 2) - 2;

const _: () = assert!(PLANES_MAX >= CHANNELS_MAX[0] * (CODE_SIDE + 2) * (CODE_SIDE + 2));
const _: () = assert!(
    PLANES_MAX >= CHANNELS_MAX[6] * (8 + 2) * (8 + 2) && PLANES_MAX >= CHANNELS_MAX[7] * (16 + 2) * (16 + 2)
);

impl MaskScratch {
    /// Allocates [`MaskScratch::bytes`].
    pub fn new() -> Self {
        let planes =
            [PLANES_MAX, PLANES_MAX, BLOCK_PLANES].map(|length| vec![0.0; length].into_boxed_slice());
        Self { planes, sums: Box::new([[0.0; SUMS]; 4]) }
    }

    /// The memory that a scratch allocates.
    pub const fn bytes() -> usize {
        (2 * PLANES_MAX + BLOCK_PLANES + 4 * SUMS) * size_of::<f32>()
    }
}

impl Default for MaskScratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Square planes with a border of one zero on each side, one channel after the other.
#[derive(Clone, Copy)]
struct Planes {
    side: usize,
}

impl Planes {
    fn new(side: usize) -> Self {
        Self { side }
    }

    fn stride(self) -> usize {
        self.side + 2
    }

    /// Floats of one channel.
    fn len(self) -> usize {
        self.stride() * self.stride()
    }

    /// Where row `row` begins, without its border.
    fn interior(self, row: usize) -> usize {
        (row + 1) * self.stride() + 1
    }

    /// The length of a line from the first pixel to the last as it lies in memory, the borders between rows
    /// included: results there are computed and dropped. `line + 2 * stride + 2 == len`, so a line can be read from
    /// any of the nine neighbours of the first pixel.
    fn line(self) -> usize {
        self.side * self.stride() - 2
    }
}

/// What becomes of a convolution's sums.
#[derive(Clone, Copy)]
enum Finish {
    /// They replace the output, negative ones by zero.
    Relu,
    /// They are added to the output.
    AddTo,
}

/// A convolution with `SIDE` × `SIDE` taps on planes that keep their size. Weights are `[out][in][row][column]`.
fn convolve<const SIDE: usize>(
    layer: Layer,
    plane: Planes,
    input: &[f32],
    output: &mut [f32],
    sums: &mut [[f32; SUMS]; 4],
    finish: Finish,
) {
    let channels_in = layer.weight.len() / (layer.bias.len() * SIDE * SIDE);
    let weights_out = layer.weight.chunks_exact(channels_in * SIDE * SIDE);
    let targets = output.chunks_exact_mut(plane.len());
    for ((weights, &bias), target) in weights_out.zip(layer.bias).zip(targets) {
        let sums = &mut sums[0][..plane.line()];
        sums.fill(bias);
        for (taps, source) in weights.chunks_exact(SIDE * SIDE).zip(input.chunks_exact(plane.len())) {
            for (tap, &weight) in taps.iter().enumerate() {
                let border = (3 - SIDE) / 2;
                let shift = (tap / SIDE + border) * plane.stride() + tap % SIDE + border;
                for (sum, &value) in sums.iter_mut().zip(&source[shift..]) {
                    *sum += weight * value;
                }
            }
        }
        match finish {
            Finish::Relu => {
                target.fill(0.0);
                for row in 0..plane.side {
                    let sums = &sums[row * plane.stride()..][..plane.side];
                    for (value, sum) in target[plane.interior(row)..].iter_mut().zip(sums) {
                        *value = sum.max(0.0);
                    }
                }
            }
            Finish::AddTo => {
                for row in 0..plane.side {
                    let sums = &sums[row * plane.stride()..][..plane.side];
                    for (value, sum) in target[plane.interior(row)..].iter_mut().zip(sums) {
                        *value += sum;
                    }
                }
            }
        }
    }
}

/// One output channel of a transposed convolution with 4 × 4 taps, stride 2 and padding 1, as its four phases:
/// `sums[2 * a + b]` holds the pixels of rows `2 * i + a` and columns `2 * j + b`. Weights are
/// `[in][out][row][column]`.
///
/// PyTorch's definition, `out[2i - 1 + k] += in[i] * w[k]` along each axis, leaves two taps per phase: even results
/// are `in[i - 1] * w[3] + in[i] * w[1]`, odd ones `in[i] * w[2] + in[i + 1] * w[0]`.
fn sum_upsampled(layer: Layer, channel: usize, plane: Planes, input: &[f32], sums: &mut [[f32; SUMS]; 4]) {
    const TAPS: [[usize; 2]; 2] = [[3, 1], [2, 0]];
    let channels_out = layer.bias.len();
    for sums in sums.iter_mut() {
        sums[..plane.line()].fill(layer.bias[channel]);
    }
    let weights_in = layer.weight.chunks_exact(channels_out * 16);
    for (weights, source) in weights_in.zip(input.chunks_exact(plane.len())) {
        let weights = &weights[channel * 16..][..16];
        for (phase, sums) in sums.iter_mut().enumerate() {
            let (a, b) = (phase / 2, phase % 2);
            let [above, below] = TAPS[a];
            let [left, right] = TAPS[b];
            let upper = &source[a * plane.stride() + b..];
            let lower = &source[(a + 1) * plane.stride() + b..];
            let line = plane.line();
            let neighbours = upper[..line].iter().zip(&upper[1..]).zip(lower[..line].iter().zip(&lower[1..]));
            let taps = [above * 4 + left, above * 4 + right, below * 4 + left, below * 4 + right];
            let [w0, w1, w2, w3] = taps.map(|tap| weights[tap]);
            for (sum, ((x0, x1), (x2, x3))) in sums.iter_mut().zip(neighbours) {
                *sum = *sum + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3;
            }
        }
    }
}

/// Calls `each` with row, column and value of the pixels that [`sum_upsampled`] has left in `sums`.
fn for_each_upsampled(plane: Planes, sums: &[[f32; SUMS]; 4], mut each: impl FnMut(usize, usize, f32)) {
    for (phase, sums) in sums.iter().enumerate() {
        for i in 0..plane.side {
            for (j, &sum) in sums[i * plane.stride()..][..plane.side].iter().enumerate() {
                each(2 * i + phase / 2, 2 * j + phase % 2, sum);
            }
        }
    }
}

/// Why a mask decoder cannot be made. The model file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskCodecError {
    /// A tensor is not there.
    #[error("the model has no tensor {name}; convert it again with the mask decoder's vae-oid.npz")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor is not what the decoder needs.
    #[error("the tensor {name} has shape {found:?}, the mask decoder needs [{}]", in_words(expected))]
    Shape {
        /// Its name.
        name: String,
        /// The sizes that it may have, those before it being as they are.
        expected: Vec<RangeInclusive<usize>>,
        /// The shape that it has.
        found: Vec<usize>,
    },
}

fn in_words(shape: &[RangeInclusive<usize>]) -> String {
    let size = |size: &RangeInclusive<usize>| match (size.start(), size.end()) {
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    shape.iter().map(size).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "mask_codec_tests.rs"]
mod tests;
