//! The names of a checkpoint's tensors: what training and wrapping put before and between them is taken off.

use std::collections::BTreeMap;

use palmtop::model::tensors::{classic, is_of_retrieval};

/// What the names of PaliGemma's tensors begin with, behind anything that wraps them.
const ROOTS: [&str; 3] = ["vision_tower.", "multi_modal_projector.", "language_model."];

/// Parts of names that `torch.compile` and FSDP put between others.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// How a checkpoint names its tensors.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Before all names of the model, with a dot at its end.
    prefix: String,
}

impl Naming {
    /// Finds what stands before most of the names. What does not begin so is no part of the model.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            let name = unwrapped(name);
            if let Some(prefix) = before_root(&name) {
                *counts.entry(prefix.to_owned()).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(prefix, n)| (*n, std::cmp::Reverse(prefix.len())));
        let prefix = most.map_or(String::new(), |(prefix, _)| prefix);
        // The dialects have an outer `model.` of their own, and the head stands beside it.
        let outer = prefix.strip_suffix("model.").filter(|p| p.is_empty() || p.ends_with('.'));
        Self { prefix: outer.unwrap_or(&prefix).to_owned() }
    }

    /// What stands before all names, if anything.
    pub fn prefix(&self) -> Option<&str> {
        (!self.prefix.is_empty()).then_some(&self.prefix)
    }

    /// The classic name of a tensor; one that is no part of the model keeps its own.
    pub fn classic(&self, name: &str) -> String {
        let name = unwrapped(name);
        match name.strip_prefix(&self.prefix) {
            Some(rest) => classic(rest),
            // A retrieval head stands beside the model that it wraps.
            None => Some(classic(&name)).filter(|name| is_of_retrieval(name)).unwrap_or(name),
        }
    }
}

/// A name without what was put between its parts.
fn unwrapped(name: &str) -> String {
    WRAPPERS.iter().fold(name.to_owned(), |name, wrapper| match name.contains(wrapper) {
        false => name,
        true => {
            let parts = name.split_inclusive('.').filter(|part| part != wrapper);
            parts.collect()
        }
    })
}

/// What stands before the first root in a name, up to a dot.
fn before_root(name: &str) -> Option<&str> {
    let at = |root: &str| {
        let mut places = name.match_indices(root).map(|(at, _)| at);
        places.find(|&at| at == 0 || name.as_bytes()[at - 1] == b'.')
    };
    ROOTS.iter().filter_map(|root| at(root)).min().map(|at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISION: &str = "vision_tower.vision_model.post_layernorm.weight";
    const HEAD: &str = "lm_head.weight";

    #[test]
    fn what_wraps_a_model_is_taken_off() {
        for before in [
            "",
            "model.",
            "module.",
            "_orig_mod.",
            "model._orig_mod.",
            "vlm.",
            "base_model.model.",
            "base_model.model.model.",
            "model.paligemma_with_expert.paligemma.",
            "paligemma_with_expert.paligemma.model.",
            "transformer.",
        ] {
            let names = ["vision_tower.post_layernorm.weight", "language_model.norm.weight", VISION];
            let names = names.map(|name| format!("{before}{name}"));
            let naming = Naming::of(names.iter().map(String::as_str));
            assert_eq!(naming.classic(&names[0]), VISION, "{before}");
            assert_eq!(naming.classic(&names[1]), "language_model.model.norm.weight", "{before}");
            assert_eq!(naming.classic(&names[2]), VISION, "{before}");
            // The head stands beside the outer `model.` or within it.
            let outer = before.strip_suffix("model.").unwrap_or(before);
            for before in [before, outer] {
                assert_eq!(naming.classic(&format!("{before}{HEAD}")), HEAD, "{before}");
            }
            let old = format!("{before}language_model.lm_head.weight");
            assert_eq!(naming.classic(&old), HEAD, "{before}");
        }
    }

    #[test]
    fn the_retrieval_head_is_found_beside_the_model_it_wraps() {
        for (model, head) in [
            ("vlm.vision_tower.post_layernorm.weight", "embedding_proj_layer.bias"),
            ("vlm.model.vision_tower.vision_model.post_layernorm.weight", "embedding_proj_layer.bias"),
            ("model.vision_tower.vision_model.post_layernorm.weight", "custom_text_proj.bias"),
            ("model.model.vision_tower.post_layernorm.weight", "custom_text_proj.bias"),
        ] {
            let naming = Naming::of([model, head].into_iter());
            assert_eq!(naming.classic(model), VISION, "{model}");
            assert_eq!(naming.classic(head), "custom_text_proj.bias", "{model}");
        }
    }

    #[test]
    fn other_models_beside_keep_their_names() {
        let names = [
            "pi.paligemma.model.language_model.norm.weight",
            "pi.paligemma.model.vision_tower.post_layernorm.weight",
            "pi.expert.lm_head.weight",
            "pi.expert.model.norm.weight",
        ];
        let naming = Naming::of(names.into_iter());
        assert_eq!(naming.prefix(), Some("pi.paligemma."));
        assert_eq!(naming.classic(names[2]), names[2]);
        assert_eq!(naming.classic(names[3]), names[3]);
    }

    #[test]
    fn parts_between_are_taken_off_and_look_alikes_are_not() {
        let name = "language_model._orig_mod.model.layers.3._fsdp_wrapped_module.mlp.up_proj.weight";
        let naming = Naming::of([name].into_iter());
        assert_eq!(naming.classic(name), "language_model.model.layers.3.mlp.up_proj.weight");
        assert_eq!(naming.prefix(), None);
        let own = Naming::of(["my_vision_tower.a", "not_orig_mod.b"].into_iter());
        assert_eq!(own.prefix(), None);
        assert_eq!(own.classic("not_orig_mod.b"), "not_orig_mod.b");
    }
}
