//! Fields of requests that clients write in more than one way.

use palmtop::Sampling;
use serde::{Deserialize, Deserializer};

use crate::problem::Problem;

/// A whole number, which some languages write as `256.0`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(i64),
        Fraction(f64),
    }
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(Number::Whole(number)) => Ok(Some(number)),
        // All of these are whole and exact as an i64.
        Some(Number::Fraction(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Ok(Some(number as i64))
        }
        Some(Number::Fraction(number)) => {
            Err(serde::de::Error::custom(format_args!("{number} is no whole number of a usual size")))
        }
    }
}

/// One text, several, or none.
pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Texts::One(text)) => vec![text],
        Some(Texts::More(texts)) => texts,
    })
}

/// A list, which some clients write as `null`.
pub(crate) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// How tokens are chosen. Without a temperature always the likeliest, whatever other servers take then.
pub(crate) fn sampling(
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    seed: Option<i64>,
) -> Result<Sampling, Problem> {
    let temperature = temperature.unwrap_or(0.0);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(Problem::bad(format!("the temperature is {temperature}: give 0 to 2")).at("temperature"));
    }
    let top_p = top_p.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&top_p) {
        return Err(Problem::bad(format!("top_p is {top_p}: give 0 to 1")).at("top_p"));
    }
    Ok(Sampling {
        temperature,
        top_k: usize::try_from(top_k.unwrap_or(0)).unwrap_or(0),
        top_p,
        seed: seed.unwrap_or(0).cast_unsigned(),
    })
}
