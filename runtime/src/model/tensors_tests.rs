use super::*;
use crate::image::Filter;
use crate::model::config::{Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};
use crate::model::retrieval::Retrieval;

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
        ("vision_tower.vision_model.post_layernorm.weight", &["model.vision_tower.post_layernorm.weight"]),
        ("multi_modal_projector.linear.bias", &["model.multi_modal_projector.linear.bias"]),
        ("lm_head.weight", &["language_model.lm_head.weight", "model.lm_head.weight"]),
        ("custom_text_proj.bias", &["embedding_proj_layer.bias", "model.custom_text_proj.bias"]),
    ] {
        assert_eq!(classic(classic_name), classic_name);
        for spelling in spellings {
            assert_eq!(classic(spelling), classic_name, "{spelling}");
        }
    }
    assert_eq!(classic("something.else"), "something.else");
}

/// A model of two layers each, whose sizes and their products differ from each other.
fn distinct(generation: Generation) -> Config {
    let vision = VisionConfig {
        hidden: 110,
        intermediate: 130,
        layers: 2,
        heads: 5,
        image_size: 28,
        patch_size: 4,
        norm_eps: 1e-6,
    };
    let text = TextConfig {
        generation,
        hidden: 170,
        intermediate: 190,
        layers: 2,
        heads: 3,
        kv_heads: 1,
        head_dim: 2,
        vocab: 2000,
        own_head: true,
        norm_eps: 1e-6,
        rope_theta: 1e4,
        query_scalar: 2.0,
        attention_softcap: None,
        final_softcap: None,
        windows: vec![None; 2],
    };
    let image = ImageConfig { mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0, filter: Filter::Bicubic };
    let tokens = TokenIds { bos: 2, eos: vec![1], pad: 0, image: 3 };
    Config { vision, text, image, tokens, retrieval: Some(Retrieval::new(230)) }
}

/// A tensor as `docs/format.md` writes it: name and shape.
fn row(config: &Config, spec: &TensorSpec) -> (String, String) {
    let (v, t) = (&config.vision, &config.text);
    let (q, kv) = (t.heads * t.head_dim, t.kv_heads * t.head_dim);
    let size = |n: &usize| match *n {
        n if n == v.hidden => "V",
        n if n == 3 * v.hidden => "3·V",
        n if n == v.intermediate => "I",
        n if n == v.patches() => "P",
        n if n == v.patch_values() => "3·p·p",
        n if n == t.hidden => "D",
        n if n == t.intermediate => "F",
        n if n == 2 * t.intermediate.next_multiple_of(16) => "2·⌈F/16⌉·16",
        n if n == q => "Q",
        n if n == q + 2 * kv => "Q + 2·KV",
        n if n == t.vocab => "`text.vocab`",
        n if config.retrieval.as_ref().is_some_and(|r| n == r.dim) => "R",
        other => panic!("{}: {other} is no size of the page", spec.name),
    };
    let sizes: Vec<_> = spec.shape.iter().map(size).collect();
    let matrix = if spec.matrix().is_some() { " matrix" } else { "" };
    (spec.name.replace(".layer.0.", ".layer.{i}."), format!("[{}]{matrix}", sizes.join(", ")))
}

/// Prints the list as the page should have it, if it has another one.
#[test]
fn the_page_lists_the_table() {
    let page = include_str!("../../../docs/format.md");
    let table =
        page.split("## Tensors").nth(1).and_then(|rest| rest.split("\n\n**").next()).expect("a table");
    let mut documented = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let shape = cells[2].strip_suffix(" each").unwrap_or(cells[2]);
        let names: Vec<_> = cells[1].split(", ").map(|name| name.trim_matches('`')).collect();
        for name in &names {
            // `.bias` behind a whole name stands for that name with another end.
            let whole = match name.strip_prefix('.') {
                Some(end) => format!("{}.{end}", names[0].rsplit_once('.').expect("a whole name").0),
                None => (*name).to_owned(),
            };
            let only_second = cells[3].starts_with("generation 2 only");
            documented.push((whole, shape.to_owned(), only_second));
        }
    }
    // What is no weight has its own sections.
    documented.retain(|(name, ..)| name != "tokenizer" && name != "mask_codec.*");
    for generation in [Generation::Gemma1, Generation::Gemma2] {
        let config = distinct(generation);
        let specs = config.tensors();
        let once = specs.iter().filter(|spec| !spec.name.contains(".layer.1."));
        let table: Vec<_> = once.map(|spec| row(&config, spec)).collect();
        let wanted = documented.iter().filter(|(.., second)| generation == Generation::Gemma2 || !second);
        let wanted: Vec<_> = wanted.map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
        if table != wanted {
            table.iter().for_each(|(name, shape)| println!("| `{name}` | {shape} |"));
        }
        assert_eq!(table, wanted, "the list of docs/format.md should be as printed");
    }
}

#[test]
fn every_part_of_a_source_is_used_once_and_the_shapes_add_up() {
    for generation in [Generation::Gemma1, Generation::Gemma2] {
        let specs = distinct(generation).tensors();
        let mut names: Vec<_> = specs.iter().flat_map(|s| s.source.parts.iter().map(|p| &p.name)).collect();
        for name in &names {
            assert_eq!(&classic(name), *name, "sources have classic names");
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        for spec in &specs {
            let of_parts: usize = spec.source.parts.iter().map(|p| p.shape.iter().product::<usize>()).sum();
            let own: usize = spec.shape.iter().product();
            match spec.source.making {
                Making::Stripes => assert!(own >= of_parts, "{}", spec.name),
                Making::Stack | Making::OnePlus => assert_eq!(own, of_parts, "{}", spec.name),
            }
        }
    }
}
