//! The architecture of a model: sizes, constants and the tensors that follow from them.

use super::retrieval::Retrieval;
use crate::format::{FormatError, Metadata, Value};
use crate::image::Filter;

/// Which Gemma decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// PaliGemma: Gemma 1.
    Gemma1,
    /// PaliGemma 2: Gemma 2, with norms behind attention and MLP, soft-caps and sliding windows.
    Gemma2,
}

/// Everything that a model's numbers depend on, besides its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// SigLIP image encoder.
    pub vision: VisionConfig,
    /// Gemma decoder.
    pub text: TextConfig,
    /// From pixels to the encoder's input.
    pub image: ImageConfig,
    /// Token ids with a meaning of their own.
    pub tokens: TokenIds,
    /// What a model for retrieval has besides, if it is one.
    pub retrieval: Option<Retrieval>,
}

/// Sizes of the image encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the two MLP matrices.
    pub intermediate: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads; each `hidden / heads` wide.
    pub heads: usize,
    /// Pixels of a side of the square input.
    pub image_size: usize,
    /// Pixels of a side of a patch.
    pub patch_size: usize,
    /// Epsilon of the layer norms.
    pub norm_eps: f64,
}

impl VisionConfig {
    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    pub(crate) fn attention_heads(&self) -> Heads {
        Heads { heads: self.heads, kv_heads: self.heads, head_dim: self.head_dim() }
    }

    /// Values of a patch: three colours times its pixels.
    pub fn patch_values(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }
}

/// Sizes and constants of the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Gemma 1 or 2.
    pub generation: Generation,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gate and of the up projection.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// The LM head is a matrix of its own; in PaliGemma, as Google trained it, it is the token embedding.
    pub own_head: bool,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Queries are scaled by this to the power of -1/2.
    pub query_scalar: f64,
    /// Soft-cap of attention scores, if any.
    pub attention_softcap: Option<f64>,
    /// Soft-cap of logits, if any.
    pub final_softcap: Option<f64>,
    /// Per layer: how many last positions a generated token sees, itself included; `None` for all.
    pub windows: Vec<Option<usize>>,
}

/// What a layer of the decoder does otherwise than another, or than those of another family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerFacts {
    /// How many last positions a generated token sees, itself included; `None` for all.
    pub window: Option<usize>,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Attention and MLP have a norm behind them too, before their results join the residual stream.
    pub post_norms: bool,
    /// Scores are multiplied by this.
    pub query_scale: f64,
    /// Soft-cap of attention scores, if any.
    pub attention_softcap: Option<f64>,
}

impl TextConfig {
    /// What layer `index` does.
    pub fn layer(&self, index: usize) -> LayerFacts {
        LayerFacts {
            window: self.windows[index],
            rope_theta: self.rope_theta,
            post_norms: self.generation == Generation::Gemma2,
            query_scale: 1.0 / self.query_scalar.sqrt(),
            attention_softcap: self.attention_softcap,
        }
    }

    /// Outputs of the fused query, key and value projection.
    pub fn qkv(&self) -> usize {
        self.attention_heads().stride()
    }

    pub(crate) fn attention_heads(&self) -> Heads {
        Heads { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }
}

/// How heads stand in rows of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub heads: usize,
    /// Heads that share a key-value head follow each other.
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Numbers of a row: queries of all heads, then keys, then values of all key-value heads.
    pub fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Numbers of an attended row.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Query heads that share keys.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Where the keys and the values of a key-value head stand in a row.
    pub fn key_value(&self, kv_head: usize) -> (usize, usize) {
        let key = (self.heads + kv_head) * self.head_dim;
        (key, key + self.kv_heads * self.head_dim)
    }
}

/// How a picture becomes numbers: `(value · rescale - mean) / std`.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig {
    /// Per colour, red first.
    pub mean: [f64; 3],
    /// Per colour, red first.
    pub std: [f64; 3],
    /// Applied to 0..=255.
    pub rescale: f64,
    /// How it is resized.
    pub filter: Filter,
}

/// Token ids with a meaning of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenIds {
    /// Begins every prompt.
    pub bos: u32,
    /// Any of these ends an answer.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: u32,
    /// Stands for one image token. It needs no row of the embedding: an image row is a feature of the picture.
    pub image: u32,
}

impl Config {
    /// Rows that a picture takes in the decoder's input: here one for each of its patches.
    pub fn image_rows(&self) -> usize {
        self.vision.patches()
    }

    /// True if the embedding has a row for each of a tokenizer's pieces, but for the image token, which needs none.
    pub fn has_rows_for(&self, pieces: usize) -> bool {
        let rows = self.text.vocab;
        pieces <= rows || (pieces - 1 == rows && self.tokens.image as usize == rows)
    }

    /// Writes the architecture into a file's metadata.
    pub fn to_metadata(&self, m: &mut Metadata) {
        let (v, t) = (&self.vision, &self.text);
        m.set("general.architecture", "paligemma");
        m.set("general.generation", if t.generation == Generation::Gemma1 { 1u64 } else { 2 });
        m.set("vision.hidden", v.hidden);
        m.set("vision.intermediate", v.intermediate);
        m.set("vision.layers", v.layers);
        m.set("vision.heads", v.heads);
        m.set("vision.image_size", v.image_size);
        m.set("vision.patch_size", v.patch_size);
        m.set("vision.norm_eps", v.norm_eps);
        m.set("text.hidden", t.hidden);
        m.set("text.intermediate", t.intermediate);
        m.set("text.layers", t.layers);
        m.set("text.heads", t.heads);
        m.set("text.kv_heads", t.kv_heads);
        m.set("text.head_dim", t.head_dim);
        m.set("text.vocab", t.vocab);
        if t.own_head {
            m.set("text.own_head", true);
        }
        m.set("text.norm_eps", t.norm_eps);
        m.set("text.rope_theta", t.rope_theta);
        m.set("text.query_scalar", t.query_scalar);
        if let Some(c) = t.attention_softcap {
            m.set("text.attention_softcap", c);
        }
        if let Some(c) = t.final_softcap {
            m.set("text.final_softcap", c);
        }
        m.set("text.windows", t.windows.iter().map(|w| w.unwrap_or(0) as u64).collect::<Vec<_>>());
        if t.windows.iter().any(Option::is_some) {
            m.set(WINDOWS_OF, GENERATED);
        }
        m.set("image.mean", self.image.mean.to_vec());
        m.set("image.std", self.image.std.to_vec());
        m.set("image.rescale", self.image.rescale);
        if self.image.filter != Filter::default() {
            m.set("image.filter", self.image.filter.name());
        }
        m.set("tokens.bos", u64::from(self.tokens.bos));
        m.set("tokens.eos", self.tokens.eos.iter().map(|&t| u64::from(t)).collect::<Vec<_>>());
        m.set("tokens.pad", u64::from(self.tokens.pad));
        m.set("tokens.image", u64::from(self.tokens.image));
        self.retrieval.iter().for_each(|retrieval| retrieval.to_metadata(m));
    }

    /// Reads the architecture from a file's metadata; every size within what a device could ever hold.
    pub fn from_metadata(m: &Metadata) -> Result<Self, FormatError> {
        match m.text("general.architecture")?.as_str() {
            "paligemma" => {}
            other => {
                let what = format!("is '{other}'; this program runs 'paligemma'");
                return Err(Metadata::wrong("general.architecture", &what));
            }
        }
        let positive = |key: &str| match m.f64(key)? {
            v if v.is_finite() && v > 0.0 => Ok(v),
            v => Err(Metadata::wrong(key, &format!("is {v}, not a positive number"))),
        };
        let optional = |key: &str| m.get(key).is_some().then(|| positive(key)).transpose();
        let vision = VisionConfig {
            hidden: m.usize_in("vision.hidden", 1..=WIDTH_MAX)?,
            intermediate: m.usize_in("vision.intermediate", 1..=WIDTH_MAX)?,
            layers: m.usize_in("vision.layers", 1..=LAYERS_MAX)?,
            heads: m.usize_in("vision.heads", 1..=HEADS_MAX)?,
            image_size: m.usize_in("vision.image_size", 1..=IMAGE_SIZE_MAX)?,
            patch_size: m.usize_in("vision.patch_size", 1..=IMAGE_SIZE_MAX)?,
            norm_eps: positive("vision.norm_eps")?,
        };
        let layers = m.usize_in("text.layers", 1..=LAYERS_MAX)?;
        let text = TextConfig {
            generation: match m.u64("general.generation")? {
                1 => Generation::Gemma1,
                2 => Generation::Gemma2,
                g => return Err(Metadata::wrong("general.generation", &format!("is {g}, not 1 or 2"))),
            },
            hidden: m.usize_in("text.hidden", 1..=WIDTH_MAX)?,
            intermediate: m.usize_in("text.intermediate", 1..=WIDTH_MAX)?,
            layers,
            heads: m.usize_in("text.heads", 1..=HEADS_MAX)?,
            kv_heads: m.usize_in("text.kv_heads", 1..=HEADS_MAX)?,
            head_dim: m.usize_in("text.head_dim", 2..=HEAD_DIM_MAX)?,
            vocab: m.usize_in("text.vocab", 1..=VOCAB_MAX)?,
            own_head: m.get("text.own_head").map_or(Ok(false), |_| m.bool("text.own_head"))?,
            norm_eps: positive("text.norm_eps")?,
            rope_theta: positive("text.rope_theta")?,
            query_scalar: positive("text.query_scalar")?,
            attention_softcap: optional("text.attention_softcap")?,
            final_softcap: optional("text.final_softcap")?,
            windows: m
                .u64s("text.windows")?
                .into_iter()
                .map(|w| usize::try_from(w).ok().filter(|&w| w > 0))
                .collect(),
        };
        // Files of the first release do not name what has been the only choice.
        if m.get(WINDOWS_OF).is_some() && m.text(WINDOWS_OF)? != GENERATED {
            let what =
                format!("is '{}'; this program knows windows of '{GENERATED}' rows", m.text(WINDOWS_OF)?);
            return Err(Metadata::wrong(WINDOWS_OF, &what));
        }
        let up_to = |key, last| Ok::<_, FormatError>(m.usize_in(key, 0..=last)? as u32);
        let id = |key| up_to(key, text.vocab - 1);
        let eos = |token: u64| match usize::try_from(token) {
            Ok(t) if t < text.vocab => Ok(token as u32),
            _ => Err(Metadata::wrong("tokens.eos", &format!("has {token}, outside 0..={}", text.vocab - 1))),
        };
        let config = Self {
            image: ImageConfig {
                mean: three(m, "image.mean")?,
                std: three(m, "image.std")?,
                rescale: positive("image.rescale")?,
                filter: filter(m)?,
            },
            tokens: TokenIds {
                bos: id("tokens.bos")?,
                eos: m.u64s("tokens.eos")?.into_iter().map(eos).collect::<Result<_, _>>()?,
                pad: id("tokens.pad")?,
                image: m.usize_in("tokens.image", 0..=VOCAB_MAX)? as u32,
            },
            vision,
            text,
            retrieval: Retrieval::from_metadata(m)?,
        };
        config.check().map_err(|(key, what)| Metadata::wrong(key, &what))?;
        Ok(config)
    }

    /// Checks that the sizes fit each other; gives the key at fault and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let (v, t) = (&self.vision, &self.text);
        let in_range = |key, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err((key, format!("is {value}, outside 1..={max}")))
            }
        };
        in_range("vision.hidden", v.hidden, WIDTH_MAX)?;
        in_range("vision.intermediate", v.intermediate, WIDTH_MAX)?;
        in_range("vision.layers", v.layers, LAYERS_MAX)?;
        in_range("vision.heads", v.heads, HEADS_MAX)?;
        in_range("vision.image_size", v.image_size, IMAGE_SIZE_MAX)?;
        in_range("vision.patch_size", v.patch_size, v.image_size)?;
        in_range("text.hidden", t.hidden, WIDTH_MAX)?;
        in_range("text.intermediate", t.intermediate, WIDTH_MAX)?;
        in_range("text.layers", t.layers, LAYERS_MAX)?;
        in_range("text.heads", t.heads, HEADS_MAX)?;
        in_range("text.kv_heads", t.kv_heads, t.heads)?;
        in_range("text.head_dim", t.head_dim, HEAD_DIM_MAX)?;
        in_range("text.vocab", t.vocab, VOCAB_MAX)?;
        in_range("vision.heads", v.head_dim(), HEAD_DIM_MAX)?;
        if !v.hidden.is_multiple_of(v.heads) {
            return Err(("vision.heads", format!("is {}, which does not divide {}", v.heads, v.hidden)));
        }
        if !v.image_size.is_multiple_of(v.patch_size) {
            let what = format!("is {}, which does not divide {}", v.patch_size, v.image_size);
            return Err(("vision.patch_size", what));
        }
        if v.patches() > PATCHES_MAX {
            let what = format!(
                "is {}, which gives {} patches; {PATCHES_MAX} are the most",
                v.patch_size,
                v.patches()
            );
            return Err(("vision.patch_size", what));
        }
        if !t.heads.is_multiple_of(t.kv_heads) {
            return Err(("text.kv_heads", format!("is {}, which does not divide {}", t.kv_heads, t.heads)));
        }
        if !t.head_dim.is_multiple_of(2) {
            return Err(("text.head_dim", format!("is {}, which is odd", t.head_dim)));
        }
        if t.windows.len() != t.layers {
            return Err(("text.windows", format!("has {} entries for {} layers", t.windows.len(), t.layers)));
        }
        if self.tokens.eos.is_empty() {
            return Err(("tokens.eos", "is empty".to_owned()));
        }
        if self.image.std.contains(&0.0) {
            return Err(("image.std", "has a zero".to_owned()));
        }
        self.retrieval.as_ref().map_or(Ok(()), Retrieval::check)
    }
}

/// Gate and up rows are interleaved by stripes of 16, so each is filled up to whole stripes.
///
/// Rows `32·i .. 32·i+16` of `mlp.gate_up.weight` are rows `16·i .. 16·i+16` of the gate projection, the 16
/// rows behind them the same rows of the up projection; rows past the end are zeros.
pub fn gate_up_padded(intermediate: usize) -> usize {
    intermediate.next_multiple_of(palmtop_kernels::layout::LANES)
}

/// Which rows have windows: those behind the prefix, which sees all of itself, as transformers'
/// `PaliGemmaModel.forward` has it, where a prefix is a block that sees itself.
const WINDOWS_OF: &str = "text.windows_of";
const GENERATED: &str = "generated";

const WIDTH_MAX: usize = 1 << 18;
const LAYERS_MAX: usize = 1024;
const HEADS_MAX: usize = 1024;
pub(crate) const HEAD_DIM_MAX: usize = 1024;
const VOCAB_MAX: usize = 1 << 22;
const IMAGE_SIZE_MAX: usize = 4096;
/// Sixteen times what the largest PaliGemma has; the work grows with the square.
const PATCHES_MAX: usize = 1 << 16;

fn filter(m: &Metadata) -> Result<Filter, FormatError> {
    let Some(value) = m.get("image.filter") else { return Ok(Filter::default()) };
    let wrong = |what: String| Metadata::wrong("image.filter", &what);
    match value {
        Value::Text(name) => name.parse().map_err(wrong),
        _ => Err(wrong("is not a text".to_owned())),
    }
}

fn three(m: &Metadata, key: &str) -> Result<[f64; 3], FormatError> {
    match m.get(key) {
        Some(Value::F64s(v)) if v.iter().all(|x| x.is_finite()) => <[f64; 3]>::try_from(v.as_slice())
            .map_err(|_| Metadata::wrong(key, "does not have three numbers")),
        _ => Err(Metadata::wrong(key, "is not a list of three numbers")),
    }
}
