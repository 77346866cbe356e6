//! How much work a picture and a token are: what times are held against.

use crate::model::Model;
use crate::model::config::Config;
use crate::model::kv_format::KvFormat;
use crate::model::weights::{Matrix, TextLayer, Weights};

/// Multiply-adds and bytes that a model's answers take, counted from its architecture.
///
/// A multiply-add counts as one, whatever its arithmetic; norms, activations and softmax are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Multiply-adds of looking at a picture: image encoder and projector.
    pub encode_macs: u64,
    /// Multiply-adds of a prefix of `prefix_tokens`, the head's for its last row included. Of the last layer, what is
    /// behind the attention is for that row alone.
    pub prefill_macs: u64,
    /// Bytes read for a token behind the prefix: the decoder's matrices, the head, and the prefix's keys and values.
    pub token_bytes: u64,
    /// Image tokens and those of the prompt.
    pub prefix_tokens: usize,
}

impl Work {
    pub(crate) fn of(config: &Config, weights: &Weights, prefix_tokens: usize, kv: KvFormat) -> Self {
        let (v, t) = (&config.vision, &config.text);
        let macs = |m: &Matrix| m.rows() as u64 * m.cols() as u64;
        let patches = v.patches() as u64;
        // Every row with every row, once for the scores and once for the values.
        let attention = |rows: u64, width: usize| 2 * rows * rows * width as u64;

        let encode_macs = patches * weights.encoder_matrices().map(macs).sum::<u64>()
            + v.layers as u64 * attention(patches, v.hidden);

        let prefix = prefix_tokens as u64;
        let behind_attention =
            |layer: &TextLayer| macs(&layer.out) + macs(&layer.gate_up) + macs(&layer.down);
        let spared = prefix.saturating_sub(1) * weights.text.last().map_or(0, behind_attention);
        let prefill_macs = prefix * weights.decoder_matrices().map(macs).sum::<u64>() - spared
            + t.layers as u64 * attention(prefix, t.heads * t.head_dim)
            + macs(weights.head());

        let vectors = 2 * prefix * (t.layers * t.kv_heads) as u64;
        let kv_bytes = vectors * kv.element(weights).bytes(t.head_dim) as u64;
        let token = weights.decoder_matrices().chain([weights.head()]);
        let token_bytes = token.map(|m| m.bytes() as u64).sum::<u64>() + kv_bytes;
        Self { encode_macs, prefill_macs, token_bytes, prefix_tokens }
    }
}

impl Model {
    /// How much work a picture and a token are, for a prefix of so many tokens (those of the picture included, as in
    /// [`Answer::prompt_tokens`](crate::Answer::prompt_tokens)).
    pub fn work(&self, prefix_tokens: usize, kv: KvFormat) -> Work {
        Work::of(self.config(), self.weights(), prefix_tokens, kv)
    }
}

#[cfg(test)]
mod tests {
    use palmtop_kernels::layout::WeightFormat;

    use super::*;
    use crate::image::Filter;
    use crate::model::config::{Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};

    /// SigLIP So400m/14 for pictures of this size.
    fn so400m(image_size: usize) -> VisionConfig {
        VisionConfig {
            hidden: 1152,
            intermediate: 4304,
            layers: 27,
            heads: 16,
            image_size,
            patch_size: 14,
            norm_eps: 1e-6,
        }
    }

    fn config(vision: VisionConfig, text: TextConfig) -> Config {
        let image =
            ImageConfig { mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0, filter: Filter::Bicubic };
        let tokens = TokenIds { bos: 2, eos: vec![1], pad: 0, image: 257_152 };
        Config { vision, text, image, tokens, retrieval: None }
    }

    /// google/paligemma-3b: Gemma 2B, one key-value head.
    fn paligemma_3b(image_size: usize) -> Config {
        let text = TextConfig {
            generation: Generation::Gemma1,
            hidden: 2048,
            intermediate: 16384,
            layers: 18,
            heads: 8,
            kv_heads: 1,
            head_dim: 256,
            vocab: 257_216,
            own_head: false,
            norm_eps: 1e-6,
            rope_theta: 10_000.0,
            query_scalar: 256.0,
            attention_softcap: None,
            final_softcap: None,
            windows: vec![None; 18],
        };
        config(so400m(image_size), text)
    }

    /// google/paligemma2-3b: Gemma 2 2B, four key-value heads.
    fn paligemma2_3b() -> Config {
        let text = TextConfig {
            generation: Generation::Gemma2,
            hidden: 2304,
            intermediate: 9216,
            layers: 26,
            heads: 8,
            kv_heads: 4,
            head_dim: 256,
            vocab: 257_216,
            own_head: false,
            norm_eps: 1e-6,
            rope_theta: 10_000.0,
            query_scalar: 256.0,
            attention_softcap: Some(50.0),
            final_softcap: Some(30.0),
            windows: (0..26).map(|i| (i % 2 == 0).then_some(4096)).collect(),
        };
        config(so400m(224), text)
    }

    fn work(config: &Config, format: WeightFormat, prefix_tokens: usize, kv: KvFormat) -> Work {
        Work::of(config, &Weights::without_a_file(config, format), prefix_tokens, kv)
    }

    // A layer of the encoder: queries, keys and values 3 · 1152², output 1152², MLP 2 · 1152 · 4304.
    const ENCODER_LAYER: u64 = 15_224_832;
    const _: () = assert!(ENCODER_LAYER == 4 * 1152 * 1152 + 2 * 1152 * 4304);
    // Its 27 layers, behind the patch embedding 3 · 14² · 1152.
    const ENCODER: u64 = 27 * ENCODER_LAYER + 588 * 1152;

    // A layer of Gemma 2B: queries of eight heads, and keys and values of one, (8 + 2) · 256 · 2048; output 2048 · 2048; gate,
    // up and down 3 · 2048 · 16384.
    const GEMMA_LAYER: u64 = 110_100_480;
    const _: () = assert!(GEMMA_LAYER == 2560 * 2048 + 2048 * 2048 + 3 * 2048 * 16384);
    // What of it is behind the attention: output, gate, up and down.
    const GEMMA_BEHIND: u64 = 2048 * 2048 + 3 * 2048 * 16384;
    const GEMMA_HEAD: u64 = 257_216 * 2048;

    #[test]
    fn the_work_of_3b_at_224_pixels_is_as_counted_by_hand() {
        // 16 · 16 patches and a prompt of 8.
        let work = work(&paligemma_3b(224), WeightFormat::Int8, 264, KvFormat::Auto);
        assert_eq!(work.prefix_tokens, 264);
        // 256 rows through the matrices, 1.06e11, and in each layer 256² pairs twice over 1152 values, 0.04e11.
        let attention = 27 * 2 * 256 * 256 * 1152;
        assert_eq!(work.encode_macs, 256 * (ENCODER + 1152 * 2048) + attention);
        assert_eq!(work.encode_macs, 110_088_290_304);
        // The tower's layers alone are the 0.105e12 that is often named.
        assert_eq!(256 * 27 * ENCODER_LAYER, 105_234_038_784);

        // 264 rows through 18 layers, 5.23e11, without the output and the MLP of the last one for all but the last row,
        // 0.28e11; 264² pairs twice over 8 · 256 values, 0.05e11; the head once, 0.005e11.
        let attention = 18 * 2 * 264 * 264 * 2048;
        assert_eq!(work.prefill_macs, 264 * 18 * GEMMA_LAYER - 263 * GEMMA_BEHIND + attention + GEMMA_HEAD);
        assert_eq!(work.prefill_macs, 501_285_257_216);

        // Every weight of decoder and head is a byte, and every 256 of them have a scale of two: all matrices have more than
        // 512 inputs, in whole chunks. Then keys and values of 264 positions: 18 layers, 256 dimensions, f16.
        let weights = 18 * GEMMA_LAYER + GEMMA_HEAD;
        assert_eq!(work.token_bytes, weights + weights / 128 + 2 * 264 * 18 * 256 * 2);
        assert_eq!(work.token_bytes, 2_533_051_392);
    }

    #[test]
    fn the_work_of_3b_at_448_pixels_is_as_counted_by_hand() {
        // 32 · 32 patches and a prompt of 8.
        let work = work(&paligemma_3b(448), WeightFormat::Int8, 1032, KvFormat::Auto);
        let attention = 27 * 2 * 1024 * 1024 * 1152;
        assert_eq!(work.encode_macs, 1024 * (ENCODER + 1152 * 2048) + attention);
        assert_eq!(work.encode_macs, 489_275_523_072);
        let attention = 18 * 2 * 1032 * 1032 * 2048;
        assert_eq!(work.prefill_macs, 1032 * 18 * GEMMA_LAYER - 1031 * GEMMA_BEHIND + attention + GEMMA_HEAD);
        assert_eq!(work.prefill_macs, 2_016_167_198_720);
        let weights = 18 * GEMMA_LAYER + GEMMA_HEAD;
        assert_eq!(work.token_bytes, weights + weights / 128 + 2 * 1032 * 18 * 256 * 2);
    }

    #[test]
    fn formats_of_weights_and_keys_change_the_bytes_and_nothing_else() {
        let config = paligemma_3b(224);
        let weights = 18 * GEMMA_LAYER + GEMMA_HEAD;
        let keys_values = 2 * 264 * 18 * 256;
        for (format, kv, bytes) in [
            // Keys and values are as wide as the weights if they are f32, unless it is asked for.
            (WeightFormat::F32, KvFormat::Auto, 4 * weights + 4 * keys_values),
            (WeightFormat::F32, KvFormat::F16, 4 * weights + 2 * keys_values),
            (WeightFormat::F16, KvFormat::Auto, 2 * weights + 2 * keys_values),
            (WeightFormat::Int8, KvFormat::F32, weights + weights / 128 + 4 * keys_values),
            // Half a byte, half a byte of group scale every 16 weights, and two of scale every 256.
            (WeightFormat::Int4, KvFormat::F16, weights / 2 + weights / 32 + weights / 128 + 2 * keys_values),
        ] {
            let got = work(&config, format, 264, kv);
            assert_eq!(got.token_bytes, bytes, "{format} {kv:?}");
            assert_eq!((got.encode_macs, got.prefill_macs), (110_088_290_304, 501_285_257_216));
        }
    }

    /// Of several key-value heads each is read, and each query head has its own scores.
    #[test]
    fn the_work_of_the_second_generation_is_as_counted_by_hand() {
        let work = work(&paligemma2_3b(), WeightFormat::Int8, 264, KvFormat::Auto);
        // (8 + 2 · 4) · 256 · 2304 for queries, keys and values, 2048 · 2304 for the output, 3 · 2304 · 9216 for the MLP.
        let layer = 4096 * 2304 + 2048 * 2304 + 3 * 2304 * 9216;
        let head = 257_216 * 2304;
        assert_eq!(work.encode_macs, 256 * (ENCODER + 1152 * 2304) + 27 * 2 * 256 * 256 * 1152);
        let behind = 2048 * 2304 + 3 * 2304 * 9216;
        let attention = 26 * 2 * 264 * 264 * 2048;
        assert_eq!(work.prefill_macs, 264 * 26 * layer - 263 * behind + attention + head);
        // Nine chunks of 2304 inputs have an odd number of scales: before the tiles of a stripe of 16 outputs stand 32 bytes
        // of nothing, in all but the output's and the down projection's matrices, which have 2048 and 9216 inputs.
        let stripes = 26 * (4096 + 2 * 9216) / 16 + 257_216 / 16;
        let weights = 26 * layer + head;
        assert_eq!(work.token_bytes, weights + weights / 128 + 32 * stripes + 2 * 264 * 26 * 4 * 256 * 2);
        assert_eq!(work.token_bytes, 2_667_147_008);
    }

    /// The words of the cells of each row whose second cell says so many multiply-adds a second.
    fn rows_of_devices() -> Vec<Vec<&'static str>> {
        let text = include_str!("../../../docs/devices.md");
        let rows = text.lines().filter(|line| line.starts_with('|') && line.contains(" G/s |"));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn what_devices_are_predicted_to_do_follows_from_the_work() {
        // A prompt of four tokens; the head has one byte a weight, and all else half of one.
        let [small, large] = [(224, 260), (448, 1028)].map(|(side, prefix)| {
            let of = |format| work(&paligemma_3b(side), format, prefix, KvFormat::F16);
            let (int4, int8) = (of(WeightFormat::Int4), of(WeightFormat::Int8));
            let head = (int8.token_bytes - int4.token_bytes) as f64 * GEMMA_HEAD as f64
                / (18 * GEMMA_LAYER + GEMMA_HEAD) as f64;
            let macs = (int4.encode_macs + int4.prefill_macs) as f64;
            (macs, int4.token_bytes as f64 + head)
        });
        let rows = rows_of_devices();
        assert!(rows.len() >= 4, "{rows:?}");
        for row in rows {
            let [device, macs, read, first_small, first_large, tokens] = row[..] else { panic!("{row:?}") };
            let number = |text: &str, unit| text.strip_suffix(unit).unwrap().trim().parse::<f64>().unwrap();
            let (macs, read) = (1e9 * number(macs, "G/s"), 1e9 * number(read, "GB/s"));
            let first = |(of_model, _): (f64, f64)| format!("{:.1} s", of_model / (0.6 * macs));
            assert_eq!([first_small, first_large], [first(small), first(large)], "{device}");
            assert_eq!(tokens, format!("{:.1}", 0.8 * read / small.1), "{device}");
        }
    }
}
