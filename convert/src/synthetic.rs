//! Random weights of any architecture, for speed measurements and for trying things out without a checkpoint.
//!
//! The distributions keep the activations in the range of a trained model: layer 0 spreads the small token embedding
//! over the residual stream, and later layers add little to it. Every value depends only on seed, tensor and index, so
//! the model is the same in whatever order it is read.

use palmtop::image::Filter;
use palmtop::model::config::{Config, Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ConvertError;
use crate::source::WeightSource;
use palmtop::model::tensors::{EMBEDDING, HEAD};

/// A source of random weights.
pub struct Synthetic {
    config: Config,
    seed: u64,
}

impl Synthetic {
    /// Random weights for an architecture; the same for the same seed on every machine.
    pub fn new(config: Config, seed: u64) -> Self {
        Self { config, seed }
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Mean and standard deviation of a tensor.
    fn distribution(&self, name: &str) -> (f32, f32) {
        let (v, t) = (&self.config.vision, &self.config.text);
        let over_root = |gain: f32, n: usize| gain / (n as f32).sqrt();
        let first = name.contains(".layers.0.");
        let ends = |tail: &str| name.ends_with(tail);
        if name.starts_with("vision_tower.") {
            return match () {
                _ if ends("patch_embedding.weight") => (0.0, over_root(5.07, v.patch_values())),
                _ if ends("position_embedding.weight") => (0.0, 2.0),
                _ if ends(".bias") => (0.0, 0.1),
                _ if name.contains("norm") => (1.0, 0.15),
                _ if ends("fc2.weight") => (0.0, over_root(0.6, v.intermediate)),
                _ if ends("q_proj.weight") || ends("k_proj.weight") => (0.0, over_root(1.25, v.hidden)),
                _ => (0.0, over_root(1.0, v.hidden)),
            };
        }
        let gemma2 = t.generation == Generation::Gemma2;
        match () {
            _ if ends("linear.bias") || ends("proj.bias") => (0.0, 0.1),
            _ if ends("linear.weight") => (0.0, over_root(0.8, v.hidden)),
            _ if name == EMBEDDING || name == HEAD => (0.0, over_root(0.15, t.hidden)),
            _ if ends("q_proj.weight") || ends("k_proj.weight") => (0.0, over_root(1.25, t.hidden)),
            _ if ends("o_proj.weight") => {
                (0.0, over_root(if first { 0.3 } else { 2.0 }, t.heads * t.head_dim))
            }
            _ if ends("down_proj.weight") => (0.0, over_root(if first { 8.0 } else { 0.8 }, t.intermediate)),
            _ if ends("model.norm.weight") => (26.0, 1.5),
            _ if gemma2 && ends("post_attention_layernorm.weight") => (if first { -0.9 } else { -0.4 }, 0.05),
            _ if ends("post_feedforward_layernorm.weight") => (if first { 3.0 } else { -0.5 }, 0.1),
            _ if ends("layernorm.weight") => (0.0, 0.2),
            _ => (0.0, over_root(1.0, t.hidden)),
        }
    }
}

impl WeightSource for Synthetic {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let (mean, deviation) = self.distribution(name);
        let key = xxh3_64_with_seed(name.as_bytes(), self.seed);
        for (i, o) in (start as u64..).zip(out.iter_mut()) {
            *o = mean + deviation * normal(key, i);
        }
        if name == EMBEDDING || name == HEAD {
            // Rows without a token of their own, as in the hub's checkpoints: nearly nothing, so that they
            // never have the largest logit.
            let first_unused = self.config.tokens.image as usize * self.config.text.hidden;
            let unused = first_unused.saturating_sub(start).min(out.len());
            out[unused..].iter_mut().for_each(|o| *o *= 0.003);
        }
        Ok(())
    }
}

/// Value `index` of a sequence of nearly normal numbers of mean 0 and variance 1: the sum of four uniform
/// ones of 16 bits each, from one step of SplitMix64. No magnitude above 3.47.
pub fn normal(key: u64, index: u64) -> f32 {
    let mut z = key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    // Mean 2·65535; a uniform 16-bit number has the variance (2³² - 1) / 12.
    (sum as f32 - 131_070.0) * 2.642_899_8e-5
}

/// Names of the architectures that [`preset`] knows, with `SIZE` for 224, 448 or 896.
pub const PRESETS: [&str; 6] = [
    "tiny",
    "tiny2",
    "paligemma-3b-SIZE",
    "paligemma2-3b-SIZE",
    "paligemma2-10b-SIZE",
    "paligemma2-28b-SIZE",
];

/// A published architecture by its name, or a tiny one; `None` if the name is unknown.
pub fn preset(name: &str) -> Option<Config> {
    match name {
        "tiny" => return Some(tiny(Generation::Gemma1)),
        "tiny2" => return Some(tiny(Generation::Gemma2)),
        _ => {}
    }
    let (model, size) = name.rsplit_once('-')?;
    let image_size = ["224", "448", "896"].contains(&size).then(|| size.parse().ok())??;
    let text = match model {
        "paligemma-3b" => text(Generation::Gemma1, 2048, 16384, 18, (8, 1, 256), 256.0),
        "paligemma2-3b" => text(Generation::Gemma2, 2304, 9216, 26, (8, 4, 256), 256.0),
        "paligemma2-10b" => text(Generation::Gemma2, 3584, 14336, 42, (16, 8, 256), 256.0),
        "paligemma2-28b" => text(Generation::Gemma2, 4608, 36864, 46, (32, 16, 128), 144.0),
        _ => return None,
    };
    let vision = VisionConfig {
        hidden: 1152,
        intermediate: 4304,
        layers: 27,
        heads: 16,
        image_size,
        patch_size: 14,
        norm_eps: 1e-6,
    };
    Some(config(vision, text, 257_152))
}

fn tiny(generation: Generation) -> Config {
    let vision = VisionConfig {
        hidden: 72,
        intermediate: 137,
        layers: 2,
        heads: 3,
        image_size: 56,
        patch_size: 14,
        norm_eps: 1e-6,
    };
    let mut text = text(generation, 96, 200, 3, (4, 2, 32), 32.0);
    text.vocab = 2176;
    config(vision, text, 2161)
}

fn text(
    generation: Generation,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    query_scalar: f64,
) -> TextConfig {
    let gemma2 = generation == Generation::Gemma2;
    TextConfig {
        generation,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab: 257_216,
        own_head: false,
        norm_eps: 1e-6,
        rope_theta: 10_000.0,
        query_scalar,
        attention_softcap: gemma2.then_some(50.0),
        final_softcap: gemma2.then_some(30.0),
        windows: (0..layers).map(|i| (gemma2 && i % 2 == 0).then_some(4096)).collect(),
    }
}

fn config(vision: VisionConfig, text: TextConfig, image_token: u32) -> Config {
    Config {
        vision,
        text,
        image: ImageConfig { mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0, filter: Filter::Bicubic },
        tokens: TokenIds { bos: 2, eos: vec![1], pad: 0, image: image_token },
        retrieval: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_fit_together_and_have_the_published_sizes() {
        for (name, billions) in [
            ("paligemma-3b-224", 2.92),
            ("paligemma-3b-896", 2.93),
            ("paligemma2-3b-448", 3.03),
            ("paligemma2-10b-224", 9.66),
            ("paligemma2-28b-224", 27.65),
        ] {
            let config = preset(name).unwrap();
            config.check().unwrap();
            let weights: usize = config.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
            assert!((weights as f64 / 1e9 - billions).abs() < 0.02, "{name} has {weights} weights");
        }
        for name in ["tiny", "tiny2"] {
            preset(name).unwrap().check().unwrap();
        }
        for name in ["paligemma-3b-225", "paligemma", "paligemma-10b-224", ""] {
            assert!(preset(name).is_none(), "{name}");
        }
    }

    #[test]
    fn numbers_have_mean_zero_and_variance_one() {
        let n = 1 << 16;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            let x = f64::from(normal(7, i));
            sum += x;
            squares += x * x;
        }
        assert!((sum / n as f64).abs() < 0.01 && (squares / n as f64 - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_tensor_is_the_same_however_it_is_read() {
        let source = Synthetic::new(preset("tiny").unwrap(), 3);
        let (mut whole, mut part) = (vec![0.0; 2176 * 96], vec![0.0; 1000]);
        source.read(EMBEDDING, 0, &mut whole).unwrap();
        let start = 2161 * 96 - 500;
        source.read(EMBEDDING, start, &mut part).unwrap();
        assert_eq!(part, whole[start..start + 1000]);
        assert!(part[..500].iter().any(|w| w.abs() > 0.005) && part[500..].iter().all(|w| w.abs() < 0.005));
    }
}
