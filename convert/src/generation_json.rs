//! What `generation_config.json` asks for besides the tokens that end an answer.
//!
//! palmtop answers greedily unless it is asked for samples. Keys that would make other answers of the same logits are
//! refused, since nobody would see that they were left out.

use serde_json::Value;

use crate::ConvertError;
use crate::json::Section;

/// Keys that change answers, with the values that do not.
const CHANGES: [(&str, &[f64]); 26] = [
    ("bad_words_ids", &[]),
    ("begin_suppress_tokens", &[]),
    ("constraints", &[]),
    ("diversity_penalty", &[0.0]),
    ("dola_layers", &[]),
    ("encoder_no_repeat_ngram_size", &[0.0]),
    ("encoder_repetition_penalty", &[1.0]),
    ("exponential_decay_length_penalty", &[]),
    ("force_words_ids", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_decoder_ids", &[]),
    ("forced_eos_token_id", &[]),
    ("guidance_scale", &[1.0]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("num_beam_groups", &[1.0]),
    ("num_beams", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("repetition_penalty", &[1.0]),
    ("sequence_bias", &[]),
    ("stop_strings", &[]),
    ("suppress_tokens", &[]),
    ("token_healing", &[]),
    ("use_mtp", &[]),
    ("watermarking_config", &[]),
];

/// Refuses what changes answers; notes a wish for samples.
pub fn check(s: &Section<'_>, notes: &mut Vec<String>) -> Result<(), ConvertError> {
    for (key, harmless) in CHANGES {
        let Some(value) = s.get(key) else { continue };
        let is_off = match value {
            Value::Bool(on) => !on,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            value => value.as_f64().is_some_and(|n| harmless.contains(&n)),
        };
        if !is_off {
            let what = format!(
                "is {value}: it changes answers, and palmtop does not apply it; if you can do without it, take it out \
                 of the file"
            );
            return Err(s.wrong(key, what));
        }
    }
    if s.flag("do_sample", false)? {
        notes.push(
            "generation_config.json asks for samples; palmtop takes the likeliest token unless told".into(),
        );
    }
    Ok(())
}
