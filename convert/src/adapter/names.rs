//! Names of an adapter's tensors: which module they belong to, and what they are to it.
//!
//! PEFT saves `base_model.model.MODULE.lora_A.weight`; a state dict of the wrapped model has the adapter's own name
//! behind (`lora_A.default.weight`), and the base's weights as `MODULE.base_layer.weight` or
//! `MODULE.original_module.weight`.

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// `lora_A.weight`: `[r, inputs]`, of a convolution `[r, channels, height, width]`.
    A,
    /// `lora_B.weight`: `[outputs, r]`, of a convolution `[outputs, r, 1, 1]`.
    B,
    /// `lora_B.bias`: `[outputs]`.
    BBias,
    /// `lora_embedding_A`: `[r, rows]`.
    EmbeddingA,
    /// `lora_embedding_B`: `[columns, r]`.
    EmbeddingB,
    /// `lora_magnitude_vector`: `[outputs]`, of an embedding `[columns]`.
    Magnitude,
    /// `token_adapter.trainable_tokens_delta`: `[tokens, columns]`, whole rows in spite of the name.
    Tokens,
    /// A weight or bias in the place of the base's.
    Whole,
    /// `base_layer`: the weight that the others are added to; also the bias of `bias="all"`.
    BaseLayer,
    /// `modules_to_save.NAME`: as `Whole`, in state dicts of wrapped models.
    Saved,
    /// `original_module`: the base's weight under one that was saved.
    Original,
    /// What merging has no use for, such as rows from before training.
    Unused,
    /// What no LoRA has.
    Unknown,
}

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The module, in the adapter's own dialect and without PEFT's prefix; patterns are matched with it.
    pub module: String,
    /// The parameter of the module that it changes: `weight` or `bias`.
    pub parameter: String,
    pub kind: Kind,
    /// The adapter's name, where a state dict of a wrapped model has it.
    pub adapter: Option<String>,
}

impl Name {
    /// The whole name of the parameter that it changes.
    pub fn target(&self) -> String {
        match self.module.as_str() {
            "" => self.parameter.clone(),
            module => format!("{module}.{}", self.parameter),
        }
    }

    /// What PEFT has put before a name.
    pub fn before(name: &str) -> &str {
        &name[..name.len() - without_prefix(name).len()]
    }

    /// True for what is a base's and not an adapter's, if it stands in a checkpoint.
    pub fn is_of_base(&self) -> bool {
        matches!(self.kind, Kind::Whole | Kind::BaseLayer | Kind::Original)
    }
}

/// What PEFT puts before the names of the model.
const PREFIX: &str = "base_model.model.";

/// Modules that only wrap another: compiled, sharded and recomputed ones.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

fn without_prefix(mut name: &str) -> &str {
    while let Some(behind) = name.strip_prefix(PREFIX) {
        name = behind;
    }
    name
}

/// Takes a name apart; every text is some name.
pub(super) fn parse(name: &str) -> Name {
    let parts: Vec<&str> = without_prefix(name).split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let mark = |part: &&str| {
        let of_peft = ["base_layer", "modules_to_save", "original_module", "token_adapter"];
        part.starts_with("lora_") || of_peft.contains(part)
    };
    let Some(at) = parts.iter().position(mark) else {
        let (parameter, module) = parts.split_last().expect("a split text has a part");
        return Name {
            module: module.join("."),
            parameter: (*parameter).to_owned(),
            kind: Kind::Whole,
            adapter: None,
        };
    };
    let (module, tail) = (&parts[..at], &parts[at + 1..]);
    let of = |kind, parameter: &str, adapter: Option<&str>| Name {
        module: module.join("."),
        parameter: parameter.to_owned(),
        kind,
        adapter: adapter.map(str::to_owned),
    };
    // The parameter of a module inside of the one that was saved as a whole.
    let inner = |kind, tail: &[&str], adapter: Option<&str>| match tail.split_last() {
        Some((parameter, inner)) if !tail.iter().any(mark) => {
            Name { module: [module, inner].concat().join("."), ..of(kind, parameter, adapter) }
        }
        _ => of(Kind::Unknown, "", None),
    };
    match (parts[at], tail) {
        ("lora_A", ["weight"]) => of(Kind::A, "weight", None),
        ("lora_A", [adapter, "weight"]) => of(Kind::A, "weight", Some(adapter)),
        ("lora_B", ["weight"]) => of(Kind::B, "weight", None),
        ("lora_B", [adapter, "weight"]) => of(Kind::B, "weight", Some(adapter)),
        ("lora_B", ["bias"]) => of(Kind::BBias, "bias", None),
        ("lora_B", [adapter, "bias"]) => of(Kind::BBias, "bias", Some(adapter)),
        ("lora_embedding_A", []) => of(Kind::EmbeddingA, "weight", None),
        ("lora_embedding_A", [adapter]) => of(Kind::EmbeddingA, "weight", Some(adapter)),
        ("lora_embedding_B", []) => of(Kind::EmbeddingB, "weight", None),
        ("lora_embedding_B", [adapter]) => of(Kind::EmbeddingB, "weight", Some(adapter)),
        ("lora_magnitude_vector", [] | ["weight"]) => of(Kind::Magnitude, "weight", None),
        ("lora_magnitude_vector", [adapter] | [adapter, "weight"]) => {
            of(Kind::Magnitude, "weight", Some(adapter))
        }
        ("token_adapter", ["trainable_tokens_delta"]) => of(Kind::Tokens, "weight", None),
        ("token_adapter", ["trainable_tokens_delta", adapter]) => of(Kind::Tokens, "weight", Some(adapter)),
        ("token_adapter", ["trainable_tokens_original", ..]) => of(Kind::Unused, "weight", None),
        ("token_adapter", ["base_layer", tail @ ..]) => inner(Kind::BaseLayer, tail, None),
        ("base_layer", ["token_adapter", "base_layer", tail @ ..]) => inner(Kind::BaseLayer, tail, None),
        ("base_layer", tail) => inner(Kind::BaseLayer, tail, None),
        ("modules_to_save", [adapter, tail @ ..]) => inner(Kind::Saved, tail, Some(adapter)),
        ("original_module", tail) => inner(Kind::Original, tail, None),
        _ => of(Kind::Unknown, "", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_of_wrapped_models_are_taken_apart() {
        let q = "model.language_model.layers.0.self_attn.q_proj";
        let embed = "language_model.model.embed_tokens";
        let linear = "multi_modal_projector.linear";
        for (name, module, parameter, kind, adapter) in [
            ("base_model.model.{q}.lora_A.weight", q, "weight", Kind::A, None),
            ("base_model.model.{q}.lora_B.default.weight", q, "weight", Kind::B, Some("default")),
            ("{q}.lora_B.bias", q, "bias", Kind::BBias, None),
            ("{q}.lora_B.mine.bias", q, "bias", Kind::BBias, Some("mine")),
            ("{q}.lora_magnitude_vector", q, "weight", Kind::Magnitude, None),
            ("{q}.lora_magnitude_vector.weight", q, "weight", Kind::Magnitude, None),
            ("{q}.lora_magnitude_vector.default", q, "weight", Kind::Magnitude, Some("default")),
            ("{q}.lora_magnitude_vector.default.weight", q, "weight", Kind::Magnitude, Some("default")),
            ("{embed}.lora_embedding_A", embed, "weight", Kind::EmbeddingA, None),
            ("{embed}.lora_embedding_B.default", embed, "weight", Kind::EmbeddingB, Some("default")),
            ("{embed}.token_adapter.trainable_tokens_delta", embed, "weight", Kind::Tokens, None),
            ("{embed}.token_adapter.trainable_tokens_original.default", embed, "weight", Kind::Unused, None),
            ("{embed}.token_adapter.base_layer.weight", embed, "weight", Kind::BaseLayer, None),
            ("{q}.base_layer.weight", q, "weight", Kind::BaseLayer, None),
            ("{q}.base_layer.bias", q, "bias", Kind::BaseLayer, None),
            (
                "multi_modal_projector.modules_to_save.default.linear.weight",
                linear,
                "weight",
                Kind::Saved,
                Some("default"),
            ),
            ("multi_modal_projector.original_module.linear.bias", linear, "bias", Kind::Original, None),
            ("lm_head.modules_to_save.default.weight", "lm_head", "weight", Kind::Saved, Some("default")),
            ("base_model.model.lm_head.weight", "lm_head", "weight", Kind::Whole, None),
            ("base_model.model._orig_mod.{q}._orig_mod.lora_A.weight", q, "weight", Kind::A, None),
            ("base_model.model.base_model.model.{q}.lora_A.weight", q, "weight", Kind::A, None),
            ("{q}.lora_E.default", q, "", Kind::Unknown, None),
            ("{q}.lora_A.bias", q, "", Kind::Unknown, None),
            ("{q}.lora_A", q, "", Kind::Unknown, None),
            ("{q}.base_layer.lora_A.weight", q, "", Kind::Unknown, None),
            ("{q}.modules_to_save", q, "", Kind::Unknown, None),
            ("", "", "", Kind::Whole, None),
            ("weight", "", "weight", Kind::Whole, None),
        ] {
            let name = name.replace("{q}", q).replace("{embed}", embed);
            let adapter = adapter.map(str::to_owned);
            let want = Name { module: module.into(), parameter: parameter.into(), kind, adapter };
            assert_eq!(parse(&name), want, "{name}");
        }
    }
}
