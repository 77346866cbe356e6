//! The architecture of a JAX checkpoint, which has no configuration: sizes are those of its arrays.

use palmtop::image::Filter;
use palmtop::model::config::{Config, Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};

use super::layout::{
    ATTENTION_OUT, DOWN, EMBEDDING, KEY_VALUE, PATCH_KERNEL, POSITION, POSITION_OLD, POST_ATTENTION_NORM,
    QUERY, VisionLayers,
};

/// Gives an array's shape, by its name without a prefix.
pub type Shapes<'a> = dyn Fn(&str) -> Option<&'a [usize]> + 'a;

/// Sizes and constants, as big_vision has them; says which array is missing or has another shape than it should.
pub fn config(shapes: &Shapes<'_>, tokens: TokenIds) -> Result<(Config, VisionLayers), String> {
    let [_, patch_size, _, hidden] = shape(shapes, PATCH_KERNEL)?;
    let layers = match shapes(&VisionLayers::Apart.key(0, "LayerNorm_0/scale").0) {
        Some(_) => VisionLayers::Apart,
        None => VisionLayers::Stacked,
    };
    let position = if layers == VisionLayers::Stacked { POSITION } else { POSITION_OLD };
    let [_, patches, _] = shape(shapes, position)?;
    let side = patches.isqrt();
    if side * side != patches || patches == 0 {
        return Err(format!("'{position}' has {patches} patches, which make no square"));
    }
    let [intermediate] = vision_shape(shapes, layers, "MlpBlock_0/Dense_0/bias")?;
    let [heads, _] = vision_shape(shapes, layers, "MultiHeadDotProductAttention_0/query/bias")?;
    let vision = VisionConfig {
        hidden,
        intermediate,
        layers: count(shapes, layers)?,
        heads,
        image_size: side.checked_mul(patch_size).ok_or("the image is larger than can be")?,
        patch_size,
        norm_eps: 1e-6,
    };
    let text = text(shapes)?;
    let (mean, std, rescale) = ([0.5; 3], [0.5; 3], 1.0 / 255.0);
    let image = ImageConfig { mean, std, rescale, filter: Filter::Bicubic };
    Ok((Config { vision, text, image, tokens, retrieval: None }, layers))
}

fn text(shapes: &Shapes<'_>) -> Result<TextConfig, String> {
    let [vocab, hidden] = shape(shapes, EMBEDDING)?;
    let [layers, heads, _, head_dim] = shape(shapes, QUERY)?;
    let [_, _, kv_heads, ..] = shape::<5>(shapes, KEY_VALUE)?;
    let [_, intermediate, _] = shape(shapes, DOWN)?;
    // Looked at here, so that the sentence names it.
    let [..] = shape::<4>(shapes, ATTENTION_OUT)?;
    let gemma2 = shapes(POST_ATTENTION_NORM).is_some();
    // Only the 27B decoder scales queries by another number than the width of a head.
    const HIDDEN_27B: usize = 4608;
    let query_scalar =
        if gemma2 && hidden == HIDDEN_27B { hidden as f64 / heads.max(1) as f64 } else { head_dim as f64 };
    let layers = layers.min(LAYERS_MAX);
    Ok(TextConfig {
        generation: if gemma2 { Generation::Gemma2 } else { Generation::Gemma1 },
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab,
        own_head: false,
        norm_eps: 1e-6,
        rope_theta: 10_000.0,
        query_scalar,
        attention_softcap: gemma2.then_some(50.0),
        final_softcap: gemma2.then_some(30.0),
        windows: (0..layers).map(|layer| (gemma2 && layer % 2 == 0).then_some(4096)).collect(),
    })
}

/// More than any file has, and than [`Config::check`] takes.
const LAYERS_MAX: usize = 1 << 16;

fn count(shapes: &Shapes<'_>, layers: VisionLayers) -> Result<usize, String> {
    match layers {
        VisionLayers::Stacked => Ok(shape::<2>(shapes, &layers.key(0, "LayerNorm_0/scale").0)?[0]),
        VisionLayers::Apart => {
            let is_there = |layer: &usize| shapes(&layers.key(*layer, "LayerNorm_0/scale").0).is_some();
            Ok((0..).take_while(is_there).count())
        }
    }
}

/// The shape of an array of the first layer, without the axis of layers.
fn vision_shape<const N: usize>(
    shapes: &Shapes<'_>,
    layers: VisionLayers,
    name: &str,
) -> Result<[usize; N], String> {
    let (key, _) = layers.key(0, name);
    let found = shapes(&key).ok_or_else(|| missing(&key))?;
    let of_layer = if layers == VisionLayers::Stacked { found.get(1..).unwrap_or_default() } else { found };
    of_layer.try_into().map_err(|_| misshapen(&key, found))
}

fn shape<const N: usize>(shapes: &Shapes<'_>, key: &str) -> Result<[usize; N], String> {
    let found = shapes(key).ok_or_else(|| missing(key))?;
    found.try_into().map_err(|_| misshapen(key, found))
}

fn missing(key: &str) -> String {
    format!("is no PaliGemma checkpoint of big_vision: it has no array '{key}'")
}

fn misshapen(key: &str, found: &[usize]) -> String {
    format!("the array '{key}' has the shape {found:?}, with another number of axes than PaliGemma's")
}
