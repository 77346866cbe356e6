//! The many names of one tensor.
//!
//! The hub's checkpoints have the *classic* names (`language_model.model.layers…`,
//! `vision_tower.vision_model.encoder…`). transformers 4.52 and later write, depending on where a model came
//! from, names with `model.` in front, without the inner `model.` and, from 5.0 on, without `vision_model.`.

/// The classic name of the head, which the hub's checkpoints do not have: it is the embedding.
pub const HEAD: &str = "lm_head.weight";

/// The classic name of a tensor; names that palmtop does not know come back without their prefix.
pub fn classic(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    if let Some(rest) = name.strip_prefix("language_model.") {
        return match rest.strip_prefix("model.").unwrap_or(rest) {
            HEAD => HEAD.to_owned(),
            rest => format!("language_model.model.{rest}"),
        };
    }
    if let Some(rest) = name.strip_prefix("vision_tower.") {
        return format!("vision_tower.vision_model.{}", rest.strip_prefix("vision_model.").unwrap_or(rest));
    }
    name.to_owned()
}

/// Buffers that older versions of transformers saved though they follow from the sizes.
pub fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".embeddings.position_ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as transformers 4.41, 4.52 and 5.23 save them.
    #[test]
    fn every_spelling_has_one_classic_name() {
        for (classic_name, spellings) in [
            (
                "language_model.model.embed_tokens.weight",
                &["language_model.embed_tokens.weight", "model.language_model.embed_tokens.weight"][..],
            ),
            (
                "language_model.model.layers.3.mlp.up_proj.weight",
                &[
                    "model.language_model.layers.3.mlp.up_proj.weight",
                    "model.language_model.model.layers.3.mlp.up_proj.weight",
                ],
            ),
            ("language_model.model.norm.weight", &["model.language_model.norm.weight"]),
            (
                "vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
                &[
                    "vision_tower.encoder.layers.0.layer_norm1.bias",
                    "model.vision_tower.encoder.layers.0.layer_norm1.bias",
                    "model.vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
                ],
            ),
            (
                "vision_tower.vision_model.post_layernorm.weight",
                &["model.vision_tower.post_layernorm.weight"],
            ),
            ("multi_modal_projector.linear.bias", &["model.multi_modal_projector.linear.bias"]),
            ("lm_head.weight", &["language_model.lm_head.weight", "model.lm_head.weight"]),
        ] {
            assert_eq!(classic(classic_name), classic_name);
            for spelling in spellings {
                assert_eq!(classic(spelling), classic_name, "{spelling}");
            }
        }
        assert_eq!(classic("something.else"), "something.else");
    }
}
