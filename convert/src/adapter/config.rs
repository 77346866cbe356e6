//! `adapter_config.json`: what PEFT was told, as far as it changes what an adapter adds.
//!
//! An adapter that computes something else than LoRA and DoRA do is refused by the name of what asks for it.

use std::path::Path;

use serde_json::Value;

use super::patterns::{PatternTexts, Patterns};
use crate::ConvertError;
use crate::files::read_regular;
use crate::json::{self, Section};

/// The file.
pub(super) const CONFIG: &str = "adapter_config.json";

/// An adapter's configuration is a few KiB; with a pattern for each module some hundred.
const BYTES_MAX: u64 = 16 << 20;
const RANK_MAX: f64 = 1e6;

/// What a LoRA adapter was made with.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    ranks: Patterns,
    alphas: Patterns,
    /// Scale by alpha over the root of the rank instead of the rank.
    rank_stabilized: bool,
    /// Every adapted module has a magnitude.
    pub dora: bool,
    /// Modules that are adapted, if they are listed.
    pub targets: Vec<String>,
    /// Modules that were trained and saved as a whole, by the ends of their names.
    pub saved: Vec<String>,
    /// Rows of embeddings that were trained.
    pub tokens: Vec<TokenRows>,
    /// `base_model_name_or_path`.
    pub base: Option<String>,
    /// What is worth knowing, a sentence each.
    pub notes: Vec<String>,
}

/// Trained rows of an embedding.
#[derive(Debug)]
pub(super) struct TokenRows {
    /// How the embedding's name ends; none for that of the input.
    pub module: Option<String>,
    /// The rows, in the order of the tensor that has them.
    pub ids: Vec<usize>,
}

impl AdapterConfig {
    /// Reads the file of a folder.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        Self::parse(path, &read_regular(path, BYTES_MAX)?)
    }

    /// Reads the file's text; `path` is named in errors.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ConvertError> {
        let value = json::object(path, text)?;
        let s = Section::new(path, Some(&value));
        let mut notes = Vec::new();
        refuse(&s, &mut notes)?;
        // A second time, since the order of patterns counts.
        let patterns: PatternTexts =
            json::parse(text).map_err(|e| s.wrong("rank_pattern or alpha_pattern", e.to_string()))?;
        let PatternTexts { rank_pattern, alpha_pattern } = patterns;
        let alpha = match s.get("lora_alpha") {
            None => 8.0,
            Some(v) => v
                .as_f64()
                .filter(|a| a.is_finite())
                .ok_or_else(|| s.wrong("lora_alpha", format!("is {v}, not a number")))?,
        };
        Ok(Self {
            rank: rank(&s)?,
            alpha,
            ranks: Patterns::new(&s, "rank_pattern", rank_pattern, is_rank)?,
            alphas: Patterns::new(&s, "alpha_pattern", alpha_pattern, f64::is_finite)?,
            rank_stabilized: s.flag("use_rslora", false)?,
            dora: s.flag("use_dora", false)?,
            targets: match s.get("target_modules") {
                Some(Value::Array(_)) => names(&s, "target_modules")?,
                _ => Vec::new(),
            },
            saved: names(&s, "modules_to_save")?,
            tokens: tokens(&s)?,
            base: s
                .text("base_model_name_or_path")?
                .filter(|base| !base.is_empty() && !base.contains(char::is_control))
                .map(str::to_owned),
            notes,
        })
    }

    /// The rank that a module should have; by its name in the adapter's dialect.
    pub fn rank(&self, module: &str) -> usize {
        self.ranks.first(module).map_or(self.rank, |rank| rank as usize)
    }

    /// What a module's product of B and A is multiplied by.
    pub fn scale(&self, module: &str, rank: usize) -> f64 {
        let (alpha, rank) = (self.alphas.first(module).unwrap_or(self.alpha), rank as f64);
        alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

fn rank(s: &Section<'_>) -> Result<usize, ConvertError> {
    let Some(v) = s.get("r") else { return Ok(8) };
    let rank = v.as_f64().filter(|&rank| is_rank(rank));
    let rank = rank.ok_or_else(|| s.wrong("r", format!("is {v}, and a rank is a whole number from 1 on")))?;
    Ok(rank as usize)
}

/// True for a whole number from 1 on that is no more than any matrix can use.
fn is_rank(rank: f64) -> bool {
    rank.fract() == 0.0 && (1.0..=RANK_MAX).contains(&rank)
}

/// A list of texts; a single one stands for itself.
fn names(s: &Section<'_>, key: &str) -> Result<Vec<String>, ConvertError> {
    let wrong = |v: &Value| s.wrong(key, format!("is {v}, not a list of names"));
    match s.get(key) {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(v) => {
            let list = v.as_array().ok_or_else(|| wrong(v))?;
            list.iter().map(|n| n.as_str().map(str::to_owned).ok_or_else(|| wrong(v))).collect()
        }
    }
}

fn tokens(s: &Section<'_>) -> Result<Vec<TokenRows>, ConvertError> {
    const KEY: &str = "trainable_token_indices";
    let wrong = |v: &Value| s.wrong(KEY, format!("is {v}, not a list of token ids"));
    let ids = |v: &Value| -> Result<Vec<usize>, ConvertError> {
        let list = v.as_array().ok_or_else(|| wrong(v))?;
        let id = |v: &Value| v.as_u64().and_then(|id| usize::try_from(id).ok()).ok_or_else(|| wrong(v));
        list.iter().map(id).collect()
    };
    let rows = |module: Option<&String>, v| Ok(TokenRows { module: module.cloned(), ids: ids(v)? });
    match s.get(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Object(map)) => map.iter().map(|(name, v)| rows(Some(name), v)).collect(),
        Some(v) => Ok(vec![rows(None, v)?]),
    }
}

/// How to go on where palmtop does not merge something that PEFT does.
const MERGE: &str = "merge it with peft (merge_and_unload, save_pretrained) and convert the result";

/// Refuses what is not LoRA, and what is LoRA with more to it.
fn refuse(s: &Section<'_>, notes: &mut Vec<String>) -> Result<(), ConvertError> {
    match s.text("peft_type")? {
        Some("LORA") => {}
        Some(other) => {
            let in_prompt = ["PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"];
            let how = match in_prompt.contains(&other) || other == "ADAPTION_PROMPT" {
                true => {
                    "it feeds the model trained vectors beside the prompt, which no weights can hold".into()
                }
                false => MERGE.to_owned(),
            };
            return Err(s.wrong("peft_type", format!("is '{other}', and palmtop merges 'LORA': {how}")));
        }
        None if s.get("lora_parameters").is_some() || s.get("fine_tune_type").is_some() => {
            return Err(s.wrong(
                "peft_type",
                "is missing: this is an adapter of mlx; fuse it there (mlx_vlm.fuse) and convert the result",
            ));
        }
        None => return Err(s.wrong("peft_type", "is missing, so this is not PEFT's; palmtop merges 'LORA'")),
    }
    // Each of these computes something else than W + s·B·A, or on a base that it has changed first.
    for (key, what) in [
        ("target_parameters", "adapts parameters that are no modules"),
        ("layer_replication", "makes a model of more layers"),
        ("alora_invocation_tokens", "switches the adapter on behind certain tokens (aLoRA)"),
        ("arrow_config", "chooses between adapters token by token (Arrow)"),
        ("use_bdlora", "has matrices of blocks (BD-LoRA)"),
        ("use_qalora", "pools its inputs (QA-LoRA)"),
        ("kasa_config", "changes the base by a singular value decomposition first (KaSA)"),
        ("monteclora_config", "draws weights at random (MonteCLoRA)"),
    ] {
        if s.get(key).is_some_and(is_set) {
            return Err(s.wrong(key, format!("{what}, which palmtop does not merge: {MERGE}")));
        }
    }
    match s.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(init)) => match init.to_lowercase().as_str() {
            "gaussian" | "eva" | "orthogonal" | "mica" => {}
            other if ["pissa", "olora", "corda", "loftq", "lora_ga"].iter().any(|x| other.starts_with(x)) => {
                let what = format!(
                    "is '{init}': training began on a base that this changed; save the adapter with \
                     path_initial_model_for_weight_conversion, which makes plain LoRA of it, or {MERGE}"
                );
                return Err(s.wrong("init_lora_weights", what));
            }
            _ => {
                return Err(s.wrong("init_lora_weights", format!("is '{init}', which palmtop does not know")));
            }
        },
        Some(other) => return Err(s.wrong("init_lora_weights", format!("is {other}, not a text"))),
    }
    for key in s.keys().filter(|key| !KNOWN.contains(key)) {
        if s.get(key).is_some_and(is_set) {
            notes.push(format!("{CONFIG} sets '{key}', which palmtop does not know and does without"));
        }
    }
    Ok(())
}

/// Neither null nor false nor empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

/// What PEFT 0.21 and older versions write for LoRA, apart from what is refused.
const KNOWN: [&str; 43] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "enable_lora",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "target_parameters",
    "task_type",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "use_rslora",
    "velora_config",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<AdapterConfig, String> {
        AdapterConfig::parse(Path::new(CONFIG), json.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_first_pattern_of_the_file_that_matches_to_the_end_counts() {
        let config = parse(
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true,
                "rank_pattern": {"q_proj": 16, "^model.layers.1.q_proj": 2, "layers\\.[23]\\..*|k": 9},
                "alpha_pattern": {"z_proj": 1, "a.q_proj": 32, "q_proj": 64}}"#,
        )
        .unwrap();
        for (module, rank, alpha) in [
            ("model.layers.1.q_proj", 16, 64.0),
            ("x.a.q_proj", 16, 32.0),
            ("xa.q_proj", 16, 64.0),
            ("xq_proj", 4, 6.0),
            ("model.layers.2.v", 9, 6.0),
            ("model.layers.2", 4, 6.0),
            ("k", 9, 6.0),
            ("q_proj.x", 4, 6.0),
        ] {
            assert_eq!(config.rank(module), rank, "{module}");
            assert_eq!(config.scale(module, rank), alpha / f64::from(rank as u32).sqrt(), "{module}");
        }
    }

    #[test]
    fn what_is_left_out_has_pefts_defaults() {
        let config = parse(r#"{"peft_type": "LORA", "new_switch": true, "newer": {}}"#).unwrap();
        assert_eq!((config.rank("q_proj"), config.scale("q_proj", 8)), (8, 1.0));
        assert!(
            !config.dora && config.targets.is_empty() && config.saved.is_empty() && config.base.is_none()
        );
        assert_eq!(config.notes.len(), 1);
        assert!(config.notes[0].contains("'new_switch'"));
    }

    #[test]
    fn what_is_not_lora_is_refused_by_its_name() {
        for (json, says) in [
            ("[]", "not a JSON object"),
            ("{", "not valid JSON"),
            ("{}", "'peft_type' is missing"),
            (r#"{"fine_tune_type": "lora"}"#, "an adapter of mlx"),
            (r#"{"peft_type": "ADALORA"}"#, "'peft_type' is 'ADALORA'"),
            (r#"{"peft_type": "IA3"}"#, "merge_and_unload"),
            (r#"{"peft_type": "PROMPT_TUNING"}"#, "trained vectors"),
            (r#"{"peft_type": "LORA", "r": 0}"#, "'r' is 0"),
            (r#"{"peft_type": "LORA", "r": 1e300}"#, "'r' is 1e+300"),
            (r#"{"peft_type": "LORA", "lora_alpha": "8"}"#, "'lora_alpha' is \"8\""),
            (r#"{"peft_type": "LORA", "use_dora": 1}"#, "'use_dora' is 1"),
            (r#"{"peft_type": "LORA", "target_parameters": ["w"]}"#, "'target_parameters'"),
            (r#"{"peft_type": "LORA", "kasa_config": {"beta": 1}}"#, "KaSA"),
            (r#"{"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"}"#, "path_initial_model"),
            (r#"{"peft_type": "LORA", "init_lora_weights": "spell"}"#, "'spell'"),
            (r#"{"peft_type": "LORA", "modules_to_save": [1]}"#, "'modules_to_save'"),
            (r#"{"peft_type": "LORA", "trainable_token_indices": [-1]}"#, "'trainable_token_indices'"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"q": 0}}"#, "'rank_pattern' has 0"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"(": 1}}"#, "the pattern '('"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"(?=q)": 1}}"#, "cannot read"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"(a{99}){99}": 1}}"#, "cannot read"),
            (r#"{"peft_type": "LORA", "alpha_pattern": [1]}"#, "alpha_pattern"),
        ] {
            let got = parse(json).map(|_| ()).unwrap_err();
            assert!(got.contains(says), "{json}: {got:?} does not say {says:?}");
        }
    }
}
